//! One HTTP/2 connection to an upstream, shared by many requests.
//!
//! A task polls the connection: it reads for all of them and writes what they have handed to it since its last turn, so
//! that requests which come together share a system call and a TLS record. Everything else happens in the requests' own
//! tasks: their bodies are sent, and their answers read, by whoever waits for them.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Reason, SendStream,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{Request, Response, Version};
use http_body::Body as _;

use super::{
    UPSTREAM_WINDOW_BYTES,
    body::{Answering, Streamed},
    gather::{Flush, Gather, gather},
};
use crate::http::{
    Body, Io, carry,
    mux::MAX_SHARING,
    sending::{Sending, Unanswered, Upload, send_on},
    server,
};

/// A connection to send requests over. The connection ends when this is dropped and its last answer has ended.
pub(in crate::http) struct H2 {
    sender: SendRequest<Bytes>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    streams: AtomicUsize,
    /// It has carried an answer.
    is_tried: AtomicBool,
}

/// A request's place on a connection. Dropping it frees the place.
pub(super) struct Stream(Arc<Shared>);

/// A request that was handed to its connection. Dropping it resets the stream.
pub(in crate::http) struct Exchange {
    response: ResponseFuture,
    upload: Option<Sending<SendStream<Bytes>>>,
    place: Stream,
    /// The connection has carried an answer before.
    was_tried: bool,
}

impl H2 {
    pub(in crate::http) async fn handshake(io: Io) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(server::STREAM_WINDOW_BYTES)
            // With less, a few clients who don't read would stop the answers of all who share the connection.
            .initial_connection_window_size(UPSTREAM_WINDOW_BYTES)
            .max_send_buffer_size(server::STREAM_WINDOW_BYTES as usize)
            .max_header_list_size(server::MAX_HEADER_BYTES as u32);
        let (io, flush) = gather(io);
        let mut handshake = pin!(builder.handshake(io));
        let (sender, connection) = flush.after(|cx| handshake.as_mut().poll(cx)).await?;
        tokio::spawn(drive(connection, flush));
        Ok(Self { sender, shared: Arc::default() })
    }

    /// Whether it takes another request now.
    pub(in crate::http) fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(MAX_SHARING);
        self.shared.streams.load(Ordering::Relaxed) < most
    }

    /// Whether it takes requests at all: it hasn't ended, and its server hasn't said that it goes away.
    pub(in crate::http) fn is_open(&mut self) -> bool {
        let polled = self.sender.poll_ready(&mut Context::from_waker(std::task::Waker::noop()));
        !matches!(polled, Poll::Ready(Err(_)))
    }

    pub(in crate::http) fn is_idle(&self) -> bool {
        self.shared.streams.load(Ordering::Relaxed) == 0
    }

    /// Hands a request to the connection, which has to be open.
    pub(in crate::http) fn send(&mut self, request: Request<Body>) -> Result<Exchange, Unanswered> {
        let (mut head, body) = request.into_parts();
        head.version = Version::HTTP_2;
        carry::settle_length(&mut head.headers, &body);
        let is_end = body.is_end_stream();
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let place = Stream(Arc::clone(&self.shared));
        let request = Request::from_parts(head, ());
        // Of a clone: a sender holds on to the stream that it sent last, which could then not be reset by dropping it.
        let sent = self.sender.clone().send_request(request, is_end);
        let (response, stream) = sent.map_err(|error| Unanswered::Broken(error.into()))?;
        let upload = (!is_end).then(|| Sending::new(body, stream));
        let was_tried = self.shared.is_tried.load(Ordering::Relaxed);
        Ok(Exchange { response, upload, place, was_tried })
    }
}

impl Exchange {
    /// Sends the body and waits for the answer's head.
    pub(in crate::http) async fn answer(mut self) -> Result<Response<Body>, Unanswered> {
        let was_tried = self.was_tried;
        let answered = poll_fn(|cx| {
            if let Err(unanswered) = send_on(&mut self.upload, cx) {
                return Poll::Ready(Err(unanswered));
            }
            Pin::new(&mut self.response).poll(cx).map_err(|error| unanswered(error, was_tried))
        });
        let response = answered.await?;
        self.place.0.is_tried.store(true, Ordering::Relaxed);
        let upload = self.upload.take().map(Upload::begin);
        let (head, stream) = response.into_parts();
        let answering = Answering { place: self.place, upload };
        let body = Streamed::body(stream, &head.headers, Some(answering));
        Ok(Response::from_parts(head, body))
    }
}

fn unanswered(error: h2::Error, was_tried: bool) -> Unanswered {
    // The h2 crate fails a stream with a remote GOAWAY only if it is beyond, or was never opened; streams before
    // that go on, and break with an I/O error if the connection ends under them. RFC 9113 sections 6.8 and 8.7.
    let is_beyond = error.is_go_away() && error.is_remote();
    let is_refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    if is_beyond || is_refused {
        Unanswered::Refused(error.into())
    } else if error.is_io() {
        Unanswered::Ended { error: error.into(), was_tried }
    } else {
        Unanswered::Broken(error.into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Moves the connection on until it ends.
async fn drive(connection: Connection<Gather<Io>, Bytes>, flush: Flush<Io>) {
    let mut connection = pin!(connection);
    if let Err(error) = flush.after(|cx| connection.as_mut().poll(cx)).await {
        tracing::debug!(%error, "an HTTP/2 connection to an upstream broke");
    }
}
