//! Serving HTTP on one connection of an app or a peer, with the limits that all of the proxy's HTTP has.

use std::{future::Future, time::Duration};

use gamut_http1::server::Ended;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Body, error::HttpError, h2, headers::HttpVersion};
use crate::tcp::BreakOff;

/// How large a message's head may be: 64 KiB, far beyond what servers usually take (8 to 16 KiB), so that the
/// limit is theirs. Beyond: 431.
pub const MAX_HEADER_BYTES: usize = gamut_http1::MAX_HEAD_BYTES;
/// How long the head of a request may take from its first byte on. Beyond: 408 on HTTP/1.1, and on HTTP/2 the connection's end. What
/// comes in one piece, as nearly all do, isn't timed.
pub const HEAD_TIME: Duration = Duration::from_secs(30);
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
    S: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    match version {
        HttpVersion::H1 => {
            let answer = move |request: Request<_>| service(request.map(Body::from));
            match gamut_http1::server::serve(io, HEAD_TIME, answer, drain).await? {
                Ended::Upgraded { io, read, body: Body::Upgraded(upstream) } => upstream.join(io, read).await,
                Ended::Upgraded { .. } | Ended::Closed => {}
            }
            Ok(())
        }
        HttpVersion::H2 => Ok(h2::server::serve(io, service, drain).await?),
    }
}
