//! HTTP/2 on the h2 crate, as apps speak it: their clients to outbound, their servers to inbound, or to outbound where they
//! have no sidecar.
//!
//! [`client`] and [`server`] are the two ends, [`body`] is what both do with bodies, [`gather`] how both write, [`head_time`]
//! how long an app may take over a request's head.
//!
//! **Windows.** A stream that nobody reads fills its own window and stops; the window of a connection to a server is what
//! all streams that a sidecar opens at a time can fill together. So a slow reader holds up nobody but himself, and what
//! one connection can make a sidecar keep in memory is that window.

pub mod body;
pub mod client;
mod gather;
mod head_time;
pub mod server;

use super::{mux::MAX_SHARING, server::STREAM_WINDOW_BYTES};

/// How many bytes of all streams of a connection to an app may be on the way unread: 32 MiB, as many as [`MAX_SHARING`]
/// windows of one stream hold.
pub const UPSTREAM_WINDOW_BYTES: u32 = MAX_SHARING as u32 * STREAM_WINDOW_BYTES;
