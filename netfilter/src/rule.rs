//! Rules as data, printed as `nft` would print them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;

/// One table of family `inet` with all its chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The table's name: whatever else has this name in the network namespace is replaced.
    pub table: String,
    /// The chains. One that others jump to may stand after them.
    pub chains: Vec<Chain>,
}

/// A chain and its rules, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name, at most 255 bytes.
    pub name: String,
    /// Where packets enter it; `None`: only by a jump from another chain.
    pub base: Option<Base>,
    /// What happens to a packet: the first rule that decides ends it. A packet that none decides is accepted.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What the chain may do.
    pub kind: Kind,
    /// Where on a packet's way.
    pub hook: Hook,
    /// Its turn at that hook; lower comes first.
    pub priority: i32,
}

/// What a chain may do. A `nat` chain sees only the first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Accept, drop, reject.
    Filter,
    /// Translate addresses: redirect, dnat, masquerade.
    Nat,
}

/// Where on a packet's way a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Arrived from another machine or namespace, not yet routed.
    Prerouting,
    /// Routed to a local socket.
    Input,
    /// Routed onwards.
    Forward,
    /// Made by a local socket.
    Output,
    /// About to leave.
    Postrouting,
}

/// When all matches hold, the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All of these must hold; none at all: every packet.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
}

/// A test of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The transport protocol.
    Protocol(Protocol),
    /// The destination port. Only behind a [`Match::Protocol`] in the same rule: other protocols have other
    /// bytes there.
    DestinationPort(RangeInclusive<u16>),
    /// The destination lies in this network; only packets of its family.
    Destination(IpNet),
    /// The source lies in this network; only packets of its family.
    Source(IpNet),
    /// The destination is one of this namespace's own addresses, loopback included.
    DestinationIsLocal,
    /// The user that owns the sending socket (output only).
    SocketUser(u32),
    /// The name of the interface that the packet came in by, at most 15 bytes.
    InputInterface(String),
    /// The name of the interface that the packet leaves by, at most 15 bytes.
    OutputInterface(String),
    /// One connection of so many, drawn at random. 0 and 1 match always.
    OneIn(u32),
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on its way; later chains at other priorities still see it.
    Accept,
    /// Vanishes.
    Drop,
    /// Back to the chain that jumped here; in a base chain: accept.
    Return,
    /// To this chain, and on with the next rule if that decides nothing.
    Jump(String),
    /// Refused (filter chains): with a reset where the rule matches TCP, else with ICMP "port unreachable". A
    /// connecting socket sees "connection refused" either way; but what ICMP says it may take for passing and dial
    /// again a second later (RFC 5461), a reset it believes at once.
    Reject,
    /// To this port of this machine: of the loopback address in output, of the incoming interface in
    /// prerouting.
    Redirect(u16),
    /// To another destination; only packets of its family.
    Dnat(SocketAddr),
    /// Leaves with the address of the outgoing interface as its source (postrouting).
    Masquerade,
}

impl Hook {
    /// The priority at which destinations are customarily translated (nft's `dstnat`).
    pub const DSTNAT: i32 = -100;
    /// The priority at which sources are customarily translated (nft's `srcnat`).
    pub const SRCNAT: i32 = 100;
    /// A filter's turn before destinations are translated, behind connection tracking (nft's `mangle`).
    pub const BEFORE_DSTNAT: i32 = -150;

    fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

impl Chain {
    /// A chain that packets enter at a hook; `priority` is its turn there.
    pub fn base(name: impl Into<String>, kind: Kind, hook: Hook, priority: i32, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: Some(Base { kind, hook, priority }), rules }
    }

    /// A chain that packets enter by a jump.
    pub fn named(name: impl Into<String>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, rules }
    }
}

impl Rule {
    /// A rule of these matches and this verdict.
    pub fn new(matches: impl IntoIterator<Item = Match>, verdict: Verdict) -> Self {
        Self { matches: matches.into_iter().collect(), verdict }
    }
}

impl Match {
    /// The destination is this one address.
    pub fn destination(address: IpAddr) -> Self {
        Self::Destination(address.into())
    }

    /// The source is this one address.
    pub fn source(address: IpAddr) -> Self {
        Self::Source(address.into())
    }

    /// The destination port is this one.
    pub fn port(port: u16) -> Self {
        Self::DestinationPort(port..=port)
    }
}

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            if let Some(base) = chain.base {
                writeln!(f, "\t\t{base}")?;
            }
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
        };
        write!(f, "type {kind} hook {} priority {}; policy accept;", self.hook.as_str(), self.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for each in &self.matches {
            write!(f, "{each} ")?;
        }
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |network: &IpNet| if network.addr().is_ipv4() { "ip" } else { "ip6" };
        match self {
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::DestinationPort(ports) if ports.start() == ports.end() => {
                write!(f, "th dport {}", ports.start())
            }
            Self::DestinationPort(ports) => write!(f, "th dport {}-{}", ports.start(), ports.end()),
            Self::Destination(network) => write!(f, "{} daddr {network}", family(network)),
            Self::Source(network) => write!(f, "{} saddr {network}", family(network)),
            Self::DestinationIsLocal => f.write_str("fib daddr type local"),
            Self::SocketUser(user) => write!(f, "meta skuid {user}"),
            Self::InputInterface(name) => write!(f, "iifname {name:?}"),
            Self::OutputInterface(name) => write!(f, "oifname {name:?}"),
            Self::OneIn(n) => write!(f, "numgen random mod {n} == 0"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Reject => f.write_str("reject"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Dnat(SocketAddr::V4(to)) => write!(f, "dnat ip to {to}"),
            Self::Dnat(SocketAddr::V6(to)) => write!(f, "dnat ip6 to {to}"),
            Self::Masquerade => f.write_str("masquerade"),
        }
    }
}
