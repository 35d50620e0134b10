//! nftables rules over netlink: the few expressions that redirect and translate connections.
//!
//! A [`Ruleset`] is plain data: one table of family `inet` (IPv4 and IPv6), its chains, their rules.
//! [`apply`] hands it to the kernel in one transaction, in the network namespace of the calling thread:
//!
//! ```text
//! Ruleset --encode--> netlink messages --apply--> one batch: add table, delete table, add everything
//! ```
//!
//! So a table is replaced whole or not at all, and applying the same rules twice leaves them as they were.
//! Neither `nft` nor `iptables` is needed; rules print in nft's syntax for messages and for people.
//!
//! [`vip`] builds the rules that stand in for kube-proxy on one machine. The sidecar's redirect rules are
//! `gamut_proxy::init`'s.
//!
//! Deliberately absent: sets and maps, counters, reading rules back. Rules are few, and nobody else's tables
//! are touched.

mod apply;
mod encode;
mod rule;
pub mod vip;

pub use apply::{Error, Lack, apply, delete};
pub use rule::{Base, Chain, Hook, Kind, Match, Protocol, Rule, Ruleset, Verdict};
