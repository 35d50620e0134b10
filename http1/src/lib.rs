//! HTTP/1.1 on the wire (RFC 9112), for a proxy: what a sidecar reads, it sends on, so whatever could be read in two
//! ways is refused and never repaired.
//!
//! ```text
//! bytes -> head::parse -> http::request::Parts, Framing -> body::Decoder -> frames     (what comes in)
//! bytes <- head::write <- http::response::Parts         <- body::Encoder <- frames     (what goes out)
//! ```
//!
//! [`server::serve`] reads requests off a connection, one at a time, and has a function answer them.
//! [`client::Connection`] carries one request at a time and is polled by whoever waits for the answer. Both run over
//! any `AsyncRead + AsyncWrite`, in the task of their caller: no task, channel or box for a request, but for a request
//! whose body is still being sent when its answer comes.
//!
//! An idle connection holds no buffer. What is read goes through a scratch of the thread ([`wire`]) into one
//! allocation of its size, of which a message's header values and a short body are slices; a long body is read into
//! buffers of its own and passes without being copied. What is written is gathered, so that a short message is one
//! write, and a long one writes its parts vectored.
//!
//! Deliberately absent: obsolete line folding, HTTP/0.9, header names in their original case, trailers that
//! `Trailer` doesn't announce, `Date`, and time limits, which are their callers', but for the one on a request's head, which
//! nobody else can see.
#![forbid(unsafe_code)]

mod body;
pub mod client;
mod error;
mod head;
pub mod server;
mod wire;

#[doc(hidden)]
pub mod fuzz;

pub use error::{BadBody, BadHead, Error};
pub use head::{MAX_FIELDS, MAX_HEAD_BYTES, recycle, recycled};
