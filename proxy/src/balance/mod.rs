//! Which endpoint of a backend gets the next request.
//!
//! A [`Cluster`] holds what the controller last said about a backend's endpoints, as one immutable snapshot;
//! a request loads it and picks. What a sidecar has learnt about an endpoint, its [`load`](load::Load) and
//! its connections, stays with the [`Endpoint`] through every update that keeps it. A pick is a [`Picked`]:
//! it counts as one request in flight until dropped. Endpoints that fail again and again are left aside for a while
//! ([`health`]); what would be too much for a backend, or for this sidecar, is turned away at once ([`Settings`]).

pub mod affinity;
mod budget;
pub mod cluster;
pub mod endpoint;
pub mod health;
pub mod load;
mod resolve;
mod selection;
pub mod settings;

pub use budget::Spent;
pub use cluster::{Cluster, Overload};
pub use endpoint::{Endpoint, Picked, PodTarget};
pub use health::Failed;
pub use settings::Settings;
