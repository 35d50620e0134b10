//! One HTTP/2 connection to an upstream, shared by many requests and polled by a task of its own.

use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::{
    TrySendError,
    http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{
    body::{Body, Guard},
    io::Io,
    server,
};

/// How often a sidecar is asked whether it is still there while answers of its are awaited. Apps' servers
/// aren't asked: several take pings for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a sidecar may take to say so.
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// A connection to send requests over. The connection ends when the last clone is dropped and its last answer
/// has ended.
#[derive(Clone)]
pub(super) struct H2 {
    sender: SendRequest<Body>,
    streams: Arc<AtomicUsize>,
    /// How many streams the server allows at a time, as far as is known.
    allowed: Arc<AtomicUsize>,
}

/// A request's place on a connection. Dropping it frees the place.
pub(super) struct Place {
    connection: H2,
    stream: Stream,
}

struct Stream(Arc<AtomicUsize>);

/// A request that got no answer.
pub(super) type NotSent = TrySendError<Request<Body>>;

impl H2 {
    pub(super) async fn handshake(io: Io) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(server::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(server::CONNECTION_WINDOW_BYTES)
            .max_header_list_size(server::MAX_HEADER_BYTES as u32);
        if matches!(io, Io::Tls(_)) {
            builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_PATIENCE);
        }
        let (sender, mut driver) = builder.handshake(TokioIo::new(io)).await?;
        let allowed = Arc::new(AtomicUsize::new(driver.current_max_send_streams()));
        let connection = Self { sender, streams: Arc::default(), allowed: Arc::clone(&allowed) };
        tokio::spawn(async move {
            let ended = poll_fn(|cx| {
                let polled = Pin::new(&mut driver).poll(cx);
                allowed.store(driver.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an HTTP/2 connection to an upstream broke");
            }
        });
        Ok(connection)
    }

    /// A place for one more request, unless the connection is going away or the server allows no more at a
    /// time. (hyper would let requests beyond that wait, behind streams that may never end.)
    pub(super) fn reserve(&self) -> Option<Place> {
        let free =
            self.is_open() && self.streams.load(Ordering::Relaxed) < self.allowed.load(Ordering::Relaxed);
        free.then(|| {
            self.streams.fetch_add(1, Ordering::Relaxed);
            Place { connection: self.clone(), stream: Stream(Arc::clone(&self.streams)) }
        })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.load(Ordering::Relaxed) == 0
    }
}

impl Place {
    /// Sends a request (absolute-form URI, no `Host`) and waits for the answer's head. Dropping this future
    /// resets the stream.
    pub(super) async fn send(mut self, request: Request<Body>) -> Result<Response<Body>, NotSent> {
        let response = self.connection.sender.try_send_request(request).await?;
        let stream = self.stream;
        Ok(response.map(|incoming| Body::from(incoming).guarded(stream)))
    }
}

impl Guard for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the stream was reset on this side because the request's body broke off: hyper does so, and keeps the
/// body's error to itself. Nothing else resets a stream whose answer is awaited, but for the h2 crate itself, which
/// tells its own resets apart.
pub(super) fn is_body_broken(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

/// Whether the peer says that it did nothing about the request (RFC 9113 sections 6.8 and 8.7): it refused
/// the stream, or is going away and the stream is beyond the last that it looked at.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error| {
        // The h2 crate fails a stream with a remote GOAWAY only if it is beyond, or was never opened;
        // streams before that go on, and break with an I/O error if the connection ends under them.
        let beyond = error.is_go_away() && error.is_remote();
        let refused =
            error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_reset() && error.is_remote();
        beyond || refused
    })
}

/// What the h2 crate says.
fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.into_iter().find_map(|error| error.downcast_ref())
}
