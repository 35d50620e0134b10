//! Many requests on one connection between two sidecars, in frames of our own.
//!
//! HTTP/2 does this too, for clients and servers that know nothing of each other. Between sidecars both ends are ours:
//! what it has for others (compressed heads, settings, a window of the connection, states for what either side may still
//! send) would be paid by each request and used by none, and cost more than everything else that a sidecar does
//! with one (docs/architecture.md, "What the data path costs").
//!
//! [`frame`] is what travels, [`head`] what heads are in it; [`state`] is a connection as the holders of its streams
//! have it, [`mover`] the task that reads and writes, [`out`] what it has to write. [`client`] and [`server`] are the two
//! ends, [`body`] is what both read.
//!
//! **A stream** is a request and its answer; the client opens it, with a number that counts up. What is said for one that is
//! over here is passed over. Everything that an honest end can't send ends the connection.
//!
//! **Windows.** A stream that nobody reads fills its window ([`STREAM_WINDOW_BYTES`](super::server::STREAM_WINDOW_BYTES)) and stops, and holds up nobody else. What a
//! connection can make a sidecar keep is [`MAX_SHARING`] of them.
//!
//! **The end.** A server that drains says so ([`frame::Kind::Leave`]); the client's word that it has heard it is behind its last
//! request, so that no request is lost or refused.

mod body;
pub(super) mod client;
mod frame;
mod head;
mod mover;
mod out;
pub mod server;
mod state;

use std::io;

use thiserror::Error;

pub use self::{body::Muxed, frame::Code};

/// How many requests share a connection to a sidecar or an app before another is opened.
pub const MAX_SHARING: usize = 128;
/// How many requests may be given up before anybody has looked at them, for each that is answered. Callers that give up
/// together (a time limit, a restart) don't come near it.
const MAX_GIVEN_UP: usize = 8 * MAX_SHARING;

/// How a connection between sidecars, or a message on it, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MuxError {
    /// The connection broke.
    #[error("the connection between the sidecars broke: {0}")]
    Io(io::ErrorKind),
    /// It ended.
    #[error("the connection between the sidecars ended")]
    Ended,
    /// The other sidecar said what none may say.
    #[error("the other sidecar doesn't keep to the protocol: {0}")]
    Violation(&'static str),
    /// The other sidecar has reset the stream.
    #[error("the other sidecar has reset the stream: {0:?}")]
    Reset(Code),
    /// The head is too long, or has what can't be carried.
    #[error("a head that can't be carried between sidecars")]
    Head,
    /// The body isn't as long as its `Content-Length` says.
    #[error("a body that isn't as long as its head says")]
    Length,
}

impl MuxError {
    /// Whether the connection ended without saying why.
    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::Io(_) | Self::Ended)
    }
}

impl From<io::Error> for MuxError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

#[cfg(test)]
mod tests;
