//! Serving HTTP/2 on a connection of another sidecar.
//!
//! One task reads for all of the connection's requests and writes their answers, as many as there are at its turn with
//! one system call; each request is a task of its own, which the peer's reset ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Poll, ready},
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{Builder, SendResponse},
};
use http::{Request, Response, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    MAX_GIVEN_UP, MESH_CONNECTION_WINDOW_BYTES, MESH_HEADER_BYTES,
    body::{Cut, Sending, Streamed},
    carry,
};
use crate::http::{Body, server};

/// Serves a sidecar's requests until the connection ends. When `drain` is ready, the peer is told to take its next
/// requests elsewhere (GOAWAY), and what is open is served to its end. Dropping the future cancels what is open.
///
/// `h1`: the requests are ones of HTTP/1.1.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, F>(
    io: IO,
    h1: bool,
    answer: impl Fn(Request<Body>) -> F,
    drain: impl Future<Output = ()>,
) -> Result<(), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // Against floods, the h2 crate's limits on errors and on CONTINUATION frames stay as they are.
    let mut connection = Builder::new()
        .initial_window_size(server::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(MESH_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(server::MAX_STREAMS)
        .max_header_list_size(MESH_HEADER_BYTES)
        .max_concurrent_reset_streams(MAX_GIVEN_UP)
        .max_pending_accept_reset_streams(MAX_GIVEN_UP)
        .max_send_buffer_size(server::STREAM_WINDOW_BYTES as usize)
        .handshake::<_, Bytes>(io)
        .await?;
    let mut drain = pin!(drain);
    let mut is_leaving = false;
    poll_fn(|cx| {
        if !is_leaving && drain.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            connection.graceful_shutdown();
        }
        while let Some(accepted) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            let (mut head, stream) = request.into_parts();
            if h1 {
                head.version = Version::HTTP_11;
            }
            let body = Streamed::body(stream, &head.headers, None);
            tokio::spawn(exchange(answer(Request::from_parts(head, body)), respond, h1));
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Sends a request's answer. Ends early, and cancels the answer's making, when the peer resets the stream or goes away.
async fn exchange(answer: impl Future<Output = Response<Body>>, mut respond: SendResponse<Bytes>, h1: bool) {
    let response = {
        let mut answer = pin!(answer);
        let answered = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        });
        answered.await
    };
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    if h1 {
        carry::pack_answer(&mut head);
    }
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
