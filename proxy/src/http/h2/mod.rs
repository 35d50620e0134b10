//! HTTP/2 on the h2 crate, as both ends of connections between sidecars speak it, and as apps' servers are spoken to.
//!
//! [`client`] and [`server`] are the two ends, [`body`] is what both do with bodies, [`gather`] how both write, [`workers`]
//! who answers, and [`carry`] what HTTP/1.1 needs to travel on it.
//!
//! **Windows.** A stream that nobody reads fills its own window and stops; the connection's window is what all streams
//! that a sidecar opens at a time can fill together. So a slow reader holds up nobody but himself, and what one
//! connection can make a sidecar keep in memory is that window.

pub mod body;
pub mod carry;
pub mod client;
mod gather;
pub mod server;
mod workers;

use super::server::{MAX_HEADER_BYTES, STREAM_WINDOW_BYTES};

/// How many requests share a connection to a sidecar or an app before another is opened.
pub const MAX_SHARING: usize = 128;
/// How many requests that were given up may be remembered, or wait to be looked at. The h2 crate's own limits (50 and 20)
/// are for one client: callers of many apps share a connection here, and when they give up together (a time limit, a
/// restart), that must not end it under the others.
pub const MAX_GIVEN_UP: usize = 8 * MAX_SHARING;
/// How many bytes of all streams of a connection between sidecars, or to an app, may be on the way unread: 32 MiB, as many
/// as [`MAX_SHARING`] windows of one stream hold.
pub const MESH_CONNECTION_WINDOW_BYTES: u32 = MAX_SHARING as u32 * STREAM_WINDOW_BYTES;
/// How large a frame may be between sidecars. By its default of 16 KiB each piece of a body is a write of its own, and with
/// its header one byte longer than a TLS record.
pub const MESH_FRAME_BYTES: u32 = 64 * 1024;
/// How large a head may be between sidecars, as HTTP/2 reckons (RFC 9113 section 10.5.1: 32 bytes for each field in
/// addition). What an app may say was limited where it said it; there is room for that reckoning.
pub const MESH_HEADER_BYTES: u32 = 2 * MAX_HEADER_BYTES as u32;
