//! The routing language: what a request meets between "it was addressed to this Service" and "it goes to that
//! pod".
//!
//! [`RouteTable`] is the whole answer for one client namespace, Service and port. The controller makes it:
//! [`precedence`] puts the matches in order, [`grpc`] turns those of GRPCRoutes into matches of paths. For a
//! request, [`path`] gives the one canonical path; a [`matcher::Matcher`], built once from a table, says
//! which rule it meets; [`filter`] changes messages, [`split`] draws a backend, [`session`] seals and opens
//! the tokens that keep a client on its pod. [`decide`] goes the whole way for one request at once. The controller builds tables, the sidecar obeys them, and `gamut
//! explain` shows them: all three run this code, so that they can't disagree.
//!
//! Deliberately absent: Kubernetes, sockets, clocks (callers pass the time), and what kind of parent a table
//! hangs on.

pub mod authority;
pub mod decide;
pub mod filter;
pub mod grpc;
pub mod matcher;
pub mod name;
pub mod path;
pub mod precedence;
pub mod session;
pub mod split;
pub mod table;

pub use name::{BackendId, NamespacedName, RouteKind, RouteRef, ServicePort, Uid};
pub use table::RouteTable;
