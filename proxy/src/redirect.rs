//! `gamut init`: the redirect rules of a pod, written once, before any container of the pod runs.
//!
//! ```text
//! app -> anywhere        output      -> outbound, 127.0.0.1:15001 or [::1]:15001
//! anyone -> the pod      prerouting  -> inbound, port 15006 of the interface
//! ```
//!
//! Not redirected: what the sidecar itself sends (by its uid), loopback, the pod's own addresses, link-local
//! addresses (the cloud's metadata service, router discovery), UDP and everything else that isn't TCP, ports
//! that the pod's annotations skip, and the two ports of sidecars that outsiders call: metrics and probes.
//! The other ports of the sidecar's range need no exception: on loopback they aren't redirected, and inbound
//! refuses to forward to them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use gamut_netfilter::{Chain, Error, Hook, Kind, Lack, Match, Protocol, Rule, Ruleset, Verdict};
use ipnet::IpNet;
use thiserror::Error;

use crate::config::{Ports, ports};

/// The table that holds the rules; nobody else's table has this name.
pub const TABLE: &str = "gamut-redirect";

/// `gamut init`: what isn't redirected beyond what never is.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// Destination ports that the app reaches without the sidecar, such as "3306,9000-9010"
    #[arg(long, env = "GAMUT_SKIP_OUTBOUND_PORTS", default_value = "", hide_default_value = true)]
    pub skip_outbound_ports: Ports,
    /// Ports of the pod that are reached without the sidecar
    #[arg(long, env = "GAMUT_SKIP_INBOUND_PORTS", default_value = "", hide_default_value = true)]
    pub skip_inbound_ports: Ports,
    /// The user that the sidecar runs as. The injector always says it: without it nothing is redirected
    #[arg(long, env = "GAMUT_PROXY_UID")]
    pub proxy_uid: Option<u32>,
}

/// Why there are no redirect rules, so that the pod doesn't start. In Kubernetes this is the container's termination message.
#[derive(Debug, Error)]
pub enum InitError {
    /// Nobody says whose traffic is to be left alone: this is no init container, and may be somebody's own machine.
    #[error(
        "`gamut init` redirects all TCP of the network namespace it runs in, and is for the init container that the injector adds \
         to pods: it sets GAMUT_PROXY_UID, which is missing here; nothing was changed. `gamut up -f DIR` runs a mesh on this machine"
    )]
    NotInPod,
    /// As [`gamut_netfilter::apply`]: without `NET_ADMIN`, or if the kernel lacks something.
    #[error("the pod's traffic can't be led through its sidecar: {cause}{}", remedy(cause))]
    Rules {
        /// What was wrong.
        #[from]
        cause: Error,
    },
}

/// Writes the rules into the network namespace of the calling thread. Doing it again replaces them.
///
/// # Errors
/// See [`InitError`].
pub fn run(args: InitArgs) -> Result<(), InitError> {
    let proxy_uid = args.proxy_uid.ok_or(InitError::NotInPod)?;
    let ruleset = ruleset(&args, proxy_uid);
    gamut_netfilter::apply(&ruleset)?;
    tracing::info!(
        skip_outbound_ports = %args.skip_outbound_ports,
        skip_inbound_ports = %args.skip_inbound_ports,
        proxy_uid,
        "redirect rules are in force"
    );
    tracing::debug!("\n{ruleset}");
    Ok(())
}

/// What the owner of a pod can do, who has written neither this container nor the node.
fn remedy(cause: &Error) -> &'static str {
    match cause.lack() {
        Some(Lack::Privilege) => {
            "; container gamut-init asks for NET_ADMIN, and something has taken it away: see its securityContext (kubectl get pod -o yaml). \
             If NET_ADMIN isn't there, a policy or webhook that changes pods must leave gamut-init alone; if it is, the container runtime \
             withholds it (a sandbox, a user namespace): choose another runtimeClassName. Or label the pod gamut.mesh/inject: disabled, \
             which leaves it out of the mesh"
        }
        Some(Lack::Module) => {
            "; on the pod's node: modprobe -a nf_tables nft_chain_nat nft_redir nft_fib_inet, and the same names in /etc/modules-load.d \
             for its next start; or keep meshed pods off nodes with such a kernel"
        }
        None => "",
    }
}

/// The rules that [`run`] writes. `proxy_uid`: the user whose traffic is the sidecar's own.
pub fn ruleset(args: &InitArgs, proxy_uid: u32) -> Ruleset {
    let mut output = vec![
        pass(Match::SocketUser(proxy_uid)),
        pass(Match::Destination(LOOPBACK_V4)),
        pass(Match::Destination(LOOPBACK_V6)),
        // The app's calls to its own pod by IP: no other side that could be met over mTLS.
        pass(Match::DestinationIsLocal),
        pass(Match::Destination(LINK_LOCAL_V4)),
        pass(Match::Destination(LINK_LOCAL_V6)),
        pass_port(ports::METRICS..=ports::PROBES),
    ];
    output.extend(args.skip_outbound_ports.ranges().iter().cloned().map(pass_port));
    output.push(redirect(ports::OUTBOUND));

    let mut prerouting = vec![
        // The second leg of what stays inside the pod, inbound's call to the app among it.
        pass(Match::InputInterface("lo".to_owned())),
        pass_port(ports::METRICS..=ports::PROBES),
    ];
    prerouting.extend(args.skip_inbound_ports.ranges().iter().cloned().map(pass_port));
    prerouting.push(redirect(ports::INBOUND));

    Ruleset {
        table: TABLE.to_owned(),
        chains: vec![
            Chain::base("output", Kind::Nat, Hook::Output, Hook::DSTNAT, output),
            Chain::base("prerouting", Kind::Nat, Hook::Prerouting, Hook::DSTNAT, prerouting),
        ],
    }
}

const LOOPBACK_V4: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
const LOOPBACK_V6: IpNet = IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
const LINK_LOCAL_V4: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16);
const LINK_LOCAL_V6: IpNet = IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10);

fn pass(what: Match) -> Rule {
    Rule::new([what], Verdict::Return)
}

fn pass_port(ports: RangeInclusive<u16>) -> Rule {
    Rule::new([Match::Protocol(Protocol::Tcp), Match::DestinationPort(ports)], Verdict::Return)
}

fn redirect(to: u16) -> Rule {
    Rule::new([Match::Protocol(Protocol::Tcp)], Verdict::Redirect(to))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_pod_that_cannot_start_says_what_its_owner_can_do() {
        let said = |errno: nix::errno::Errno| {
            let cause = io::Error::from_raw_os_error(errno as i32);
            InitError::from(Error::Netlink { doing: "sending the rules", cause }).to_string()
        };
        let forbidden = said(nix::errno::Errno::EPERM);
        for word in ["sending the rules", "NET_ADMIN", "policy or webhook", "gamut.mesh/inject: disabled"] {
            assert!(forbidden.contains(word), "{word}: {forbidden}");
        }
        let old = said(nix::errno::Errno::EOPNOTSUPP);
        assert!(old.contains("modprobe -a nf_tables") && !old.contains("policy"), "{old}");
        // Kubernetes keeps so much of what a container printed last.
        assert!(forbidden.len().max(old.len()) < 2048);
    }
}
