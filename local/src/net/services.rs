//! Service addresses for callers without a sidecar, as nftables rules of the node.
//!
//! Connections to a Service's address are spread over its ready endpoints; what is addressed to the Services' ranges and is
//! nobody's is refused at once, as kube-proxy does, and not sent around in circles.

use std::net::IpAddr;

use gamut_netfilter::{
    Chain, Hook, Kind, Match, Rule, Ruleset, Verdict,
    vip::{self, Vip},
};

use super::addresses::{DNS_V4, SERVICES_V4, SERVICES_V6};

/// The table's name, in the node's own network namespace.
const TABLE: &str = "gamut-services";

/// A filter's turn after destinations have been translated (nft's `filter`).
const AFTER_DSTNAT: i32 = 0;

/// Replaces the rules by those for these addresses, in one transaction.
///
/// # Errors
/// The kernel refuses; what was in force stays.
pub(crate) fn apply(vips: &[Vip]) -> Result<(), gamut_netfilter::Error> {
    gamut_netfilter::apply(&ruleset(vips))
}

fn ruleset(vips: &[Vip]) -> Ruleset {
    let mut ruleset = vip::ruleset(TABLE, vips);
    let nobodys = vec![
        Rule::new([Match::destination(IpAddr::V4(DNS_V4))], Verdict::Accept),
        Rule::new([Match::Destination(SERVICES_V4.into())], Verdict::Reject),
        Rule::new([Match::Destination(SERVICES_V6.into())], Verdict::Reject),
    ];
    ruleset.chains.extend([
        Chain::base("nobodys-arriving", Kind::Filter, Hook::Forward, AFTER_DSTNAT, nobodys.clone()),
        Chain::base("nobodys-local", Kind::Filter, Hook::Output, AFTER_DSTNAT, nobodys),
    ]);
    ruleset
}

#[cfg(test)]
mod tests {
    use gamut_netfilter::Protocol;

    use super::*;

    #[test]
    fn translation_comes_before_the_refusal_of_what_is_nobodys() {
        let vip = Vip {
            address: "10.96.0.20:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            backends: vec!["10.244.0.20:8080".parse().unwrap()],
        };
        let chains = ruleset(&[vip]).chains;
        let priority = |hook| {
            let at = chains.iter().filter_map(|chain| chain.base).filter(move |base| base.hook == hook);
            at.map(|base| (base.kind, base.priority)).max_by_key(|(_, priority)| *priority)
        };
        assert_eq!(priority(Hook::Output), Some((Kind::Filter, AFTER_DSTNAT)));
        let refused = chains.iter().find(|chain| chain.name == "nobodys-arriving").unwrap();
        assert_eq!(refused.rules.first().unwrap().to_string(), "ip daddr 10.96.0.10/32 accept");
        assert_eq!(refused.rules.get(1).unwrap().to_string(), "ip daddr 10.96.0.0/16 reject");
    }
}
