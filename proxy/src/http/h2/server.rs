//! Serving HTTP/2 on an app's connection.
//!
//! One task reads for all of the connection's requests and writes their answers, as many as there are at its turn with
//! one system call; each request has a task to itself ([`crate::http::workers`]) until it is answered or the peer resets it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Builder, SendResponse},
};
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{body::Streamed, gather::gather, head_time::HeadTimed};
use crate::http::{
    Body, carry,
    headers::strip_connection_fields,
    sending::{Cut, Sending},
    server,
    workers::Workers,
};

/// Against floods, the h2 crate's own limits on resets, errors and CONTINUATION frames stay as they are.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(server::STREAM_WINDOW_BYTES)
        .max_concurrent_streams(server::MAX_STREAMS)
        .max_send_buffer_size(server::STREAM_WINDOW_BYTES as usize)
        .initial_connection_window_size(server::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(server::MAX_HEADER_BYTES as u32);
    builder
}

/// Serves requests until the connection ends. When `drain` is ready, the peer is told to take its next
/// requests elsewhere (GOAWAY), and what is open is served to its end. Dropping the future cancels what is open.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, A, F>(io: IO, answer: A, drain: impl Future<Output = ()>) -> Result<(), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (io, flush) = gather(HeadTimed::new(io));
    let mut handshake = pin!(builder().handshake::<_, Bytes>(io));
    let mut connection = flush.after(|cx| handshake.as_mut().poll(cx)).await?;
    let answer = Arc::new(answer);
    let workers = Workers::new(move |(request, respond)| exchange(Arc::clone(&answer), request, respond));
    let mut drain = pin!(drain);
    let mut is_leaving = false;
    let ended = flush.after(|cx| {
        if !is_leaving && drain.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            connection.graceful_shutdown();
        }
        while let Some(accepted) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            let (head, stream) = request.into_parts();
            let body = Streamed::body(stream, &head.headers, None);
            workers.give((Request::from_parts(head, body), respond));
        }
        Poll::Ready(Ok(()))
    });
    ended.await
}

/// Answers a request. Ends early, and cancels the answer's making, when the peer resets the stream or goes away.
async fn exchange<A, F>(answer: Arc<A>, request: Request<Body>, mut respond: SendResponse<Bytes>)
where
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>>,
{
    let response = {
        let mut answering = pin!(answer(request));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        });
        answered.await
    };
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    // What a server of HTTP/1.1 would rather speak is nothing to a client of HTTP/2 (RFC 9113 section 8.2.2).
    strip_connection_fields(&mut head.headers);
    carry::settle_length(&mut head.headers, &body);
    let is_end = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), is_end) {
        Ok(_) if is_end => {}
        Ok(stream) => match Sending::new(body, stream).await {
            Ok(()) | Err(Cut::Peer) => {}
            Err(Cut::Source(error)) => tracing::debug!(%error, "an answer broke off"),
        },
        Err(error) => {
            tracing::debug!(%error, "an answer that can't be sent: its request was given up, or HTTP/2 can't carry it");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
