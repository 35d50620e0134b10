//! A ruleset as netlink messages.
//!
//! A rule is a list of expressions over registers: each match loads something into register 1 and compares it
//! there, each verdict loads its parameters and acts. Numbers below are those of the kernel's
//! `include/uapi/linux/netfilter/nf_tables.h`; packet bytes are in network order, what the kernel made itself
//! (user ids, address types, random numbers) in the machine's.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions,
    Hook as WireHook, Immediate, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator,
    Payload, Register, RuleAttribute, RuleMessage, TableAttribute, TableMessage, Verdict as WireVerdict,
    VerdictAttribute,
};

use crate::{Base, Chain, Hook, Kind, Match, Protocol, Rule, Verdict};

/// The register that matches use, and verdicts for their first parameter.
const FIRST: Register = Register::Reg1;
/// The register for a verdict's second parameter.
const SECOND: Register = Register::Reg2;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Where payload expressions count from.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

pub(crate) fn new_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] })
}

pub(crate) fn delete_table(name: &str) -> NfTablesMessage {
    NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] })
}

pub(crate) fn new_chain(table: &str, chain: &Chain) -> NfTablesMessage {
    let mut attributes =
        vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(chain.name.clone())];
    if let Some(Base { kind, hook, priority }) = chain.base {
        let hook = match hook {
            Hook::Prerouting => InetHookNumber::PreRouting,
            Hook::Input => InetHookNumber::LocalIn,
            Hook::Forward => InetHookNumber::Forward,
            Hook::Output => InetHookNumber::LocalOut,
            Hook::Postrouting => InetHookNumber::PostRouting,
        };
        let kind = match kind {
            Kind::Filter => "filter",
            Kind::Nat => "nat",
        };
        attributes.extend([
            // The attribute holds the two's complement; the crate types it unsigned.
            ChainAttribute::Hook(vec![
                WireHook::Number(hook.into()),
                WireHook::Priority(priority.cast_unsigned()),
            ]),
            ChainAttribute::Type(kind.to_owned()),
            ChainAttribute::Policy(NF_ACCEPT),
        ]);
    }
    NfTablesMessage::NewChain(ChainMessage { attributes })
}

pub(crate) fn new_rule(table: &str, chain: &str, rule: &Rule) -> NfTablesMessage {
    let matches = rule.matches.iter().flat_map(expressions_of_match);
    let is_tcp = rule.matches.contains(&Match::Protocol(Protocol::Tcp));
    let expressions = matches.chain(expressions_of_verdict(&rule.verdict, is_tcp));
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(expressions.map(ListAttribute::<ExpressionAttribute>::from).collect()),
        ],
    })
}

fn expressions_of_match(each: &Match) -> Vec<Expressions> {
    match each {
        Match::Protocol(protocol) => vec![meta(MetaKey::L4Proto), equal(vec![number(*protocol)])],
        Match::DestinationPort(ports) => destination_port(ports),
        Match::Destination(network) => address(network, 16, 24),
        Match::Source(network) => address(network, 12, 8),
        Match::DestinationIsLocal => {
            vec![address_type_of_destination(), equal(RTN_LOCAL.to_ne_bytes().to_vec())]
        }
        Match::SocketUser(user) => vec![meta(MetaKey::SocketUserId), equal(user.to_ne_bytes().to_vec())],
        Match::InputInterface(name) => vec![meta(MetaKey::Iifname), equal(interface(name))],
        Match::OutputInterface(name) => vec![meta(MetaKey::Oifname), equal(interface(name))],
        Match::OneIn(0 | 1) => vec![],
        Match::OneIn(n) => vec![random_below(*n), equal(0_u32.to_ne_bytes().to_vec())],
    }
}

fn expressions_of_verdict(verdict: &Verdict, is_tcp: bool) -> Vec<Expressions> {
    match verdict {
        Verdict::Accept => vec![decide(vec![VerdictAttribute::Code(WireVerdict::Other(NF_ACCEPT))])],
        Verdict::Drop => vec![decide(vec![VerdictAttribute::Code(WireVerdict::Other(NF_DROP))])],
        Verdict::Return => vec![decide(vec![VerdictAttribute::Code(WireVerdict::Return)])],
        Verdict::Jump(chain) => vec![decide(vec![
            VerdictAttribute::Code(WireVerdict::Jump),
            VerdictAttribute::Chain(chain.clone()),
        ])],
        Verdict::Reject if is_tcp => {
            vec![other("reject", [(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST.to_be_bytes().to_vec())])]
        }
        Verdict::Reject => vec![other(
            "reject",
            [
                (NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH.to_be_bytes().to_vec()),
                (NFTA_REJECT_ICMP_CODE, vec![NFT_REJECT_ICMPX_PORT_UNREACH]),
            ],
        )],
        Verdict::Redirect(port) => vec![
            load(FIRST, port.to_be_bytes().to_vec()),
            other("redir", [(NFTA_REDIR_REG_PROTO_MIN, register(FIRST))]),
        ],
        Verdict::Dnat(to) => vec![
            load(FIRST, bytes(to.ip())),
            load(SECOND, to.port().to_be_bytes().to_vec()),
            other(
                "nat",
                [
                    (NFTA_NAT_TYPE, NFT_NAT_DNAT.to_be_bytes().to_vec()),
                    (
                        NFTA_NAT_FAMILY,
                        u32::from(family(matches!(to, SocketAddr::V4(_)))).to_be_bytes().to_vec(),
                    ),
                    (NFTA_NAT_REG_ADDR_MIN, register(FIRST)),
                    (NFTA_NAT_REG_PROTO_MIN, register(SECOND)),
                ],
            ),
        ],
        Verdict::Masquerade => vec![other("masq", [])],
    }
}

const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;

const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;

const NFTA_NAT_TYPE: u16 = 1;
const NFTA_NAT_FAMILY: u16 = 2;
const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
const NFT_NAT_DNAT: u32 = 1;

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(FIRST)])
}

fn compare(operator: Operator, value: Vec<u8>) -> Expressions {
    let value = Cmp::Data(DataAttribute::Value(value));
    Expressions::Cmp(vec![Cmp::SourceRegister(FIRST), Cmp::Op(operator), value])
}

fn equal(value: Vec<u8>) -> Expressions {
    compare(Operator::Equal, value)
}

fn payload(base: u32, offset: u32, length: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(FIRST),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(length),
    ])
}

fn destination_port(ports: &RangeInclusive<u16>) -> Vec<Expressions> {
    let load = payload(TRANSPORT_HEADER, 2, 2);
    let (first, last) = (ports.start().to_be_bytes().to_vec(), ports.end().to_be_bytes().to_vec());
    if first == last {
        return vec![load, equal(first)];
    }
    vec![load, compare(Operator::GreatherThanEqual, first), compare(Operator::LessThanEqual, last)]
}

/// The address at its place in the header, masked where the network is more than one address.
fn address(network: &IpNet, offset_v4: u32, offset_v6: u32) -> Vec<Expressions> {
    let (offset, length) = if network.addr().is_ipv4() { (offset_v4, 4) } else { (offset_v6, 16) };
    let mut expressions = vec![
        meta(MetaKey::Nfproto),
        equal(vec![family(network.addr().is_ipv4())]),
        payload(NETWORK_HEADER, offset, length),
    ];
    if network.prefix_len() < network.max_prefix_len() {
        expressions.push(Expressions::Bitwise(vec![
            Bitwise::SourceRegister(FIRST),
            Bitwise::DestinationRegister(FIRST),
            Bitwise::Length(length),
            Bitwise::Mask(DataAttribute::Value(bytes(network.netmask()))),
            Bitwise::Xor(DataAttribute::Value(vec![0; bytes(network.addr()).len()])),
        ]));
    }
    expressions.push(equal(bytes(network.network())));
    expressions
}

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 1 << 1;
const RTN_LOCAL: u32 = 2;

fn address_type_of_destination() -> Expressions {
    other(
        "fib",
        [
            (NFTA_FIB_DREG, register(FIRST)),
            (NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE.to_be_bytes().to_vec()),
            (NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR.to_be_bytes().to_vec()),
        ],
    )
}

const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFT_NG_RANDOM: u32 = 1;

fn random_below(n: u32) -> Expressions {
    other(
        "numgen",
        [
            (NFTA_NG_DREG, register(FIRST)),
            (NFTA_NG_MODULUS, n.to_be_bytes().to_vec()),
            (NFTA_NG_TYPE, NFT_NG_RANDOM.to_be_bytes().to_vec()),
        ],
    )
}

fn load(into: Register, value: Vec<u8>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(into),
        Immediate::Data(DataAttribute::Value(value)),
    ])
}

fn decide(verdict: Vec<VerdictAttribute>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(verdict)),
    ])
}

/// An expression that the netlink crate has no type for.
fn other(name: &str, attributes: impl IntoIterator<Item = (u16, Vec<u8>)>) -> Expressions {
    Expressions::Other {
        expression_type: name.to_owned(),
        attributes: attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value)).collect(),
    }
}

fn register(register: Register) -> Vec<u8> {
    u32::from(register).to_be_bytes().to_vec()
}

/// An interface's name as the kernel compares it: 16 bytes, filled up with zeros.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(libc::IFNAMSIZ, 0);
    bytes
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn family(is_v4: bool) -> u8 {
    const NFPROTO_IPV4: u8 = 2;
    const NFPROTO_IPV6: u8 = 10;
    if is_v4 { NFPROTO_IPV4 } else { NFPROTO_IPV6 }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
