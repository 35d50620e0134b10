//! Serving HTTP on one connection of an app or a peer, with the limits that all of the proxy's HTTP has.

use std::{convert::Infallible, future::Future, pin::pin};

use gamut_http1::server::Ended;
use http::{Request, Response};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, error::HttpError, headers::HttpVersion};
use crate::tcp::BreakOff;

/// How large a message's head may be: 64 KiB, far beyond what servers usually take (8 to 16 KiB), so that the
/// limit is theirs. Beyond: 431.
pub const MAX_HEADER_BYTES: usize = gamut_http1::MAX_HEAD_BYTES;
/// How many bytes of one HTTP/2 stream may be on the way unread: 256 KiB.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// How many bytes of all streams of an HTTP/2 connection may be on the way unread: 1 MiB.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How many requests one HTTP/2 connection may have open.
pub const MAX_STREAMS: u32 = 1000;

/// Serves requests until the connection ends, or what an upgrade has made of it. When `drain` is ready, the client is
/// told to take its next requests elsewhere (GOAWAY, `connection: close`), and what is open is served to its end.
/// Dropping the future cancels what is open.
///
/// Errors are the client's doing (it went away, or it doesn't speak HTTP), and have been answered where they can be.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, S, F>(
    io: IO,
    version: HttpVersion,
    service: S,
    drain: impl Future<Output = ()>,
) -> Result<(), HttpError>
where
    IO: AsyncRead + AsyncWrite + BreakOff + Unpin + Send + 'static,
    S: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    match version {
        HttpVersion::H1 => {
            let answer = move |request: Request<_>| service(request.map(Body::from));
            match gamut_http1::server::serve(io, answer, drain).await? {
                Ended::Upgraded { io, read, body: Body::Upgraded(upstream) } => upstream.join(io, read).await,
                Ended::Upgraded { .. } | Ended::Closed => {}
            }
            Ok(())
        }
        HttpVersion::H2 => {
            let answer = move |request: Request<_>| {
                let answering = service(request.map(Body::from));
                async move { Ok::<_, Infallible>(answering.await) }
            };
            let drain = pin!(drain);
            let mut connection = pin!(h2().serve_connection(TokioIo::new(io), service_fn(answer)));
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                () = drain => connection.as_mut().graceful_shutdown(),
            }
            Ok(connection.await?)
        }
    }
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
