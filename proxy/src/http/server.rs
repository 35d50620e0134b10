//! Serving HTTP on one connection of an app or a peer, with the limits that all of the proxy's HTTP has.

use std::{future::Future, pin::pin};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, headers::HttpVersion};

/// How large a message's head may be: 64 KiB, far beyond what servers usually take (8 to 16 KiB), so that the
/// limit is theirs. Beyond: 431.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;
/// How many bytes of one HTTP/2 stream may be on the way unread: 256 KiB.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// How many bytes of all streams of an HTTP/2 connection may be on the way unread: 1 MiB.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How many requests one HTTP/2 connection may have open.
pub const MAX_STREAMS: u32 = 1000;

/// Serves requests until the connection ends. When `drain` is ready, the client is told to take its next
/// requests elsewhere (GOAWAY, `connection: close`), and what is open is served to its end. Dropping the
/// future cancels what is open.
///
/// Errors are the client's doing (it went away, or it doesn't speak HTTP), and hyper has answered them where
/// they can be answered.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, S>(
    io: IO,
    version: HttpVersion,
    service: S,
    drain: impl Future<Output = ()>,
) -> hyper::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    let io = TokioIo::new(io);
    let drain = pin!(drain);
    match version {
        HttpVersion::H1 => {
            let mut connection = pin!(h1().serve_connection(io, service).with_upgrades());
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = drain => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
        HttpVersion::H2 => {
            let mut connection = pin!(h2().serve_connection(io, service));
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = drain => connection.as_mut().graceful_shutdown(),
            }
            connection.await
        }
    }
}

/// Header names are sent in lower case, as HTTP/2 has them: RFC 9110 section 5.1 makes case meaningless, and
/// keeping it costs an allocation per header.
fn h1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Dates are the app's. No time-out for the next request's head: it would close connections that clients
    // lawfully keep.
    builder.max_header_size(MAX_HEADER_BYTES).auto_date_header(false);
    builder
}

/// Against floods, the h2 crate's limits on resets, on pending accepts and on CONTINUATION frames stay as
/// they are.
fn h2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .auto_date_header(false);
    builder
}
