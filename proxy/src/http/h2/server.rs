//! Serving HTTP/2 on a connection of another sidecar, or of an app.
//!
//! One task reads for all of the connection's requests and writes their answers, as many as there are at its turn with
//! one system call; each request has a task to itself ([`super::workers`]) until it is answered or the peer resets it.

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
use http::{Request, Response, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    MAX_GIVEN_UP, MESH_CONNECTION_WINDOW_BYTES, MESH_FRAME_BYTES, MESH_HEADER_BYTES,
    body::{Cut, Sending, Streamed},
    carry,
    gather::gather,
    workers::Workers,
};
use crate::http::{Body, headers::strip_connection_fields, server};

/// Whose requests are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// An app's.
    App,
    /// Another sidecar's, with HTTP/2's own requests.
    Sidecar,
    /// Another sidecar's, with requests of HTTP/1.1.
    SidecarH1,
}

impl Client {
    /// Against floods, the h2 crate's limits on errors and on CONTINUATION frames stay as they are, and for apps those on
    /// resets too.
    fn builder(self) -> Builder {
        let mut builder = Builder::new();
        builder
            .initial_window_size(server::STREAM_WINDOW_BYTES)
            .max_concurrent_streams(server::MAX_STREAMS)
            .max_send_buffer_size(server::STREAM_WINDOW_BYTES as usize);
        match self {
            Self::App => builder
                .initial_connection_window_size(server::CONNECTION_WINDOW_BYTES)
                .max_header_list_size(server::MAX_HEADER_BYTES as u32),
            Self::Sidecar | Self::SidecarH1 => builder
                .initial_connection_window_size(MESH_CONNECTION_WINDOW_BYTES)
                .max_frame_size(MESH_FRAME_BYTES)
                .max_header_list_size(MESH_HEADER_BYTES)
                .max_concurrent_reset_streams(MAX_GIVEN_UP)
                .max_pending_accept_reset_streams(MAX_GIVEN_UP),
        };
        builder
    }
}

/// Serves requests until the connection ends. When `drain` is ready, the peer is told to take its next
/// requests elsewhere (GOAWAY), and what is open is served to its end. Dropping the future cancels what is open.
///
/// # Errors
/// How the connection ended, if not well.
pub async fn serve<IO, A, F>(
    io: IO,
    client: Client,
    answer: A,
    drain: impl Future<Output = ()>,
) -> Result<(), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (io, flush) = gather(io);
    let mut handshake = pin!(client.builder().handshake::<_, Bytes>(io));
    let mut connection = flush.after(|cx| handshake.as_mut().poll(cx)).await?;
    let answer = Arc::new(answer);
    let workers =
        Workers::new(move |(request, respond)| exchange(Arc::clone(&answer), request, respond, client));
    let mut drain = pin!(drain);
    let mut is_leaving = false;
    let ended = flush.after(|cx| {
        if !is_leaving && drain.as_mut().poll(cx).is_ready() {
            is_leaving = true;
            connection.graceful_shutdown();
        }
        while let Some(accepted) = ready!(connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            let (mut head, stream) = request.into_parts();
            if client == Client::SidecarH1 {
                head.version = Version::HTTP_11;
            }
            let body = Streamed::body(stream, &head.headers, None);
            workers.give((Request::from_parts(head, body), respond));
        }
        Poll::Ready(Ok(()))
    });
    ended.await
}

/// Answers a request. Ends early, and cancels the answer's making, when the peer resets the stream or goes away.
async fn exchange<A, F>(
    answer: Arc<A>,
    request: Request<Body>,
    mut respond: SendResponse<Bytes>,
    client: Client,
) where
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
    match client {
        Client::SidecarH1 => carry::pack_answer(&mut head),
        // What a server of HTTP/1.1 would rather speak is nothing to a client of HTTP/2 (RFC 9113 section 8.2.2).
        Client::App | Client::Sidecar => strip_connection_fields(&mut head.headers),
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
