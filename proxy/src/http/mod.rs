//! HTTP plumbing that inbound and outbound share; it decides nothing about routes, policy or endpoints.
//!
//! A request's way through it: [`server`] reads it off the app's connection, or a peer's that carries one at a time,
//! [`mux`] off one that a peer's requests share; [`headers`] brings it into one normal form (origin-form path, one `Host`, nothing hop-by-hop) and into what the next hop's
//! version wants; a [`Pool`] sends it over an idle, a multiplexed or a new connection; its answer comes back
//! as a [`Body`] that polls that connection, so that nothing is read faster than the client takes it.
//! [`upgrade`] joins both connections after a 101, and [`answer`] makes the answers that are the proxy's own.
//!
//! Deliberately absent: a trait for bodies or connectors. There is one [`Body`] and one [`Io`], and both are
//! enums.

pub mod answer;
pub mod body;
pub mod carry;
mod error;
pub mod h1;
pub mod h2;
pub mod headers;
pub mod io;
pub mod mux;
pub mod pool;
pub mod relay;
pub mod replay;
mod sending;
pub mod server;
pub mod tap;
#[cfg(test)]
pub(crate) mod testing;
pub mod upgrade;
mod workers;

pub use answer::{Answer, Reason};
pub use body::{Body, BodyError, Guard};
pub use error::HttpError;
pub use headers::HttpVersion;
pub use io::{DialError, Io};
pub use pool::{Carrier, Pool, PoolLimits, SendError};
