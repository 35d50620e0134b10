//! WebSocket and other upgrades: after a 101 from upstream, and only then, both connections become one byte
//! stream.
//!
//! Whatever either side sent right behind its head is not lost: it was read with the head, and goes first.

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, io::Io};
use crate::{
    detect::Prefixed,
    tcp::{self, BreakOff},
};

/// The connection behind the 101 of an upstream, on its way to the client's.
pub struct Upgraded {
    upstream: Prefixed<Io>,
    /// What lasts as long as both have something to say to each other.
    held: Option<Box<dyn Send + Sync>>,
}

impl Upgraded {
    pub(super) fn new(io: Io, read: Bytes) -> Self {
        Self { upstream: Prefixed::new(read, io), held: None }
    }

    /// Joins it with the client's connection, of which `read` was read already. Each side's end is passed on by itself.
    pub(super) async fn join<IO>(self, client: IO, read: Bytes)
    where
        IO: AsyncRead + AsyncWrite + BreakOff + Unpin,
    {
        let copied = tcp::copy(Prefixed::new(read, client), self.upstream).await;
        if let Err(error) = copied.end {
            tracing::debug!(%error, "an upgraded connection broke");
        }
    }
}

/// Keeps `guard` for as long as the connections of a 101 are joined.
pub fn hold(answer: &mut Response<Body>, guard: impl Send + Sync + 'static) {
    if let Body::Upgraded(upgraded) = answer.body_mut() {
        upgraded.held = Some(Box::new(guard));
    }
}
