//! Service addresses: what kube-proxy would do, for the handful of Services of one machine.
//!
//! A connection to a virtual address goes to one of its backends, drawn at random; without backends it is
//! refused at once. Both for packets that arrive (pods) and for packets made here (the node). A pod that
//! reaches itself through a Service would answer itself directly, past the translation, so such connections
//! leave with the node's address.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{Chain, Hook, Kind, Match, Protocol, Rule, Ruleset, Verdict};

/// A virtual address and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Cluster IP and port.
    pub address: SocketAddr,
    /// The port's protocol.
    pub protocol: Protocol,
    /// Where connections go; those of another family than `address` are left out. Empty: refused.
    pub backends: Vec<SocketAddr>,
}

/// The rules for these virtual addresses, as the whole content of `table`.
///
/// They belong into the namespace that routes between pods: forwarding must be on, and the virtual addresses
/// must be routed to it (a pod's default route does). Connections that exist keep their backend when rules
/// change.
pub fn ruleset(table: &str, vips: &[Vip]) -> Ruleset {
    let mut translate = Vec::new();
    let mut refuse = Vec::new();
    let mut hairpins = BTreeSet::new();
    let mut spreads = Vec::new();
    for vip in vips {
        let backends: Vec<SocketAddr> =
            vip.backends.iter().copied().filter(|b| b.is_ipv4() == vip.address.is_ipv4()).collect();
        if backends.is_empty() {
            refuse.push(Rule::new(to(vip), Verdict::Reject));
            continue;
        }
        hairpins.extend(backends.iter().map(SocketAddr::ip));
        let chain = format!("{}-{}", vip.protocol, vip.address);
        translate.push(Rule::new(to(vip), Verdict::Jump(chain.clone())));
        spreads.push(Chain::named(chain, spread(&backends)));
    }
    let hairpins = hairpins
        .into_iter()
        .map(|ip| Rule::new([Match::source(ip), Match::destination(ip)], Verdict::Masquerade))
        .collect();

    let mut chains = vec![
        // Refused before anything is translated: afterwards the virtual address is no longer seen.
        Chain::base("refuse-arriving", Kind::Filter, Hook::Prerouting, Hook::BEFORE_DSTNAT, refuse.clone()),
        Chain::base("refuse-local", Kind::Filter, Hook::Output, Hook::BEFORE_DSTNAT, refuse),
        Chain::base("arriving", Kind::Nat, Hook::Prerouting, Hook::DSTNAT, translate.clone()),
        Chain::base("local", Kind::Nat, Hook::Output, Hook::DSTNAT, translate),
        Chain::base("hairpin", Kind::Nat, Hook::Postrouting, Hook::SRCNAT, hairpins),
    ];
    chains.extend(spreads);
    Ruleset { table: table.to_owned(), chains }
}

fn to(vip: &Vip) -> Vec<Match> {
    vec![Match::destination(vip.address.ip()), Match::Protocol(vip.protocol), Match::port(vip.address.port())]
}

/// Evenly over the backends: the first takes one in n, the second one in n-1 of the rest, the last all that
/// is left.
fn spread(backends: &[SocketAddr]) -> Vec<Rule> {
    let rules = backends.iter().zip((1..=backends.len()).rev());
    rules
        .map(|(&backend, left)| match u32::try_from(left) {
            Ok(left @ 2..) => Rule::new([Match::OneIn(left)], Verdict::Dnat(backend)),
            _ => Rule::new([], Verdict::Dnat(backend)),
        })
        .collect()
}
