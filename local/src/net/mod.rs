//! The cluster's network on one machine: addresses, links, names, virtual addresses.
//!
//! Routed, without a bridge: each pod has one end of a veth pair and a default route through it, and the node has a route
//! to each pod. So every packet between pods passes the node's rules, as on a real cluster.

pub(crate) mod addresses;
pub(crate) mod dns;
pub(crate) mod dns_server;
pub(crate) mod http;
pub(crate) mod links;
pub(crate) mod services;
