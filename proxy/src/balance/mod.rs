//! Which endpoint of a backend gets the next request.
//!
//! A [`Cluster`] holds what the controller last said about a backend's endpoints, as one immutable snapshot;
//! a request loads it and picks. What a sidecar has learnt about an endpoint, its [`load`](load::Load) and
//! its connections, stays with the [`Endpoint`] through every update that keeps it. A pick is a [`Picked`]:
//! it counts as one request in flight until dropped.

pub mod affinity;
mod budget;
pub mod cluster;
pub mod endpoint;
pub mod load;
mod resolve;

pub use budget::Spent;
pub use cluster::Cluster;
pub use endpoint::{Endpoint, Picked, PodTarget};
