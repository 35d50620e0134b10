//! The end that answers. One task reads for all of a connection's requests and writes their answers; each request has a task to
//! itself ([`Workers`]) until it is answered or the peer resets it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use http::{Request, Response, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    MuxError,
    body::Muxed,
    frame::{Code, Header, Kind},
    head,
    mover::Mover,
    state::{End, Opened, Reader, Shared, Writer},
};
use crate::http::{
    Body, carry,
    headers::strip_connection_fields,
    sending::{Cut, Outlet as _, Sending},
    workers::Workers,
};

/// Serves requests of another sidecar until the connection ends; `h1`: they are of HTTP/1.1. When `drain` is ready, the
/// peer is told to take its next requests elsewhere, and what is open or on its way is served to its end. Dropping the
/// future cancels what is open.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, A, F>(
    io: IO,
    h1: bool,
    answer: A,
    drain: impl Future<Output = ()>,
) -> Result<(), MuxError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let shared = Shared::new(End::Server);
    let mut mover = Mover::new(io, Arc::clone(&shared));
    let answer = Arc::new(answer);
    let workers = Workers::new(move |opened| exchange(Arc::clone(&answer), opened, h1));
    let mut drain = pin!(drain);
    let mut is_leaving = false;
    let ended = poll_fn(|cx| {
        if !is_leaving && drain.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            let mut state = shared.lock();
            state.is_leaving = true;
            state.out.frame(Header::new(Kind::Leave, 0, 0));
        }
        if let Poll::Ready(error) = mover.poll(cx, &mut |opened| workers.give(opened)) {
            return Poll::Ready(Err(error));
        }
        let state = shared.lock();
        let is_over = is_leaving && state.peer_leaves && state.streams() == 0;
        if is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
    });
    match ended.await {
        Ok(()) => mover.close().await,
        Err(MuxError::Ended) if shared.lock().streams() == 0 => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Answers a request. Ends early, and cancels the answer's making, when the peer resets the stream or goes away.
async fn exchange<A, F>(answer: Arc<A>, opened: Opened, h1: bool)
where
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>>,
{
    let Opened { head, reader, mut writer } = opened;
    let Ok(request) = read(head, reader, h1) else { return writer.reset(Code::Malformed) };
    let response = {
        let mut answering = pin!(answer(request));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => writer.poll_unwanted(cx).map(|()| None),
        });
        answered.await
    };
    let Some(response) = response else { return };
    send(response, writer, h1).await;
}

fn read(head: bytes::Bytes, reader: Option<Reader>, h1: bool) -> Result<Request<Body>, MuxError> {
    let mut head = head::read_request(head).map_err(|_| MuxError::Head)?;
    head.version = if h1 { Version::HTTP_11 } else { Version::HTTP_2 };
    let body = match reader {
        Some(reader) => Muxed::body(reader, &head.headers, None)?,
        None if head::length(&head.headers).map_err(|_| MuxError::Head)?.unwrap_or(0) > 0 => {
            return Err(MuxError::Length);
        }
        None => Body::Empty,
    };
    Ok(Request::from_parts(head, body))
}

async fn send(response: Response<Body>, mut writer: Writer, h1: bool) {
    let (mut head, body) = response.into_parts();
    if h1 {
        carry::pack_answer(&mut head);
    } else {
        // What a server of HTTP/1.1 would rather speak is nothing to a client of HTTP/2 (RFC 9113 section 8.2.2).
        strip_connection_fields(&mut head.headers);
    }
    carry::settle_length(&mut head.headers, &body);
    let is_whole = body.is_end_stream();
    if writer.head(is_whole, |out| head::write_answer(&head, out)).is_err() {
        tracing::debug!("an answer whose head is too long to be carried");
        return writer.reset(Code::Broken);
    }
    gamut_http1::recycle(head.headers);
    if is_whole {
        return;
    }
    match Sending::new(body, writer).await {
        Ok(()) | Err(Cut::Peer) => {}
        Err(Cut::Source(error)) => tracing::debug!(%error, "an answer broke off"),
    }
}
