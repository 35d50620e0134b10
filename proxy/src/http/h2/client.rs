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
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{Request, Response, Version};
use http_body::Body as _;
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep, sleep},
};

use super::{
    MAX_GIVEN_UP, MAX_SHARING, MESH_CONNECTION_WINDOW_BYTES, MESH_FRAME_BYTES, MESH_HEADER_BYTES,
    body::{Answering, Cut, Sending, Streamed},
    carry,
    gather::{Flush, Gather, gather},
};
use crate::http::{Body, Io, body::BodyError, server};

/// How often a sidecar is asked whether it is still there while answers of its are awaited. Apps' servers
/// aren't asked: several take pings for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a sidecar may take to say so.
const PING_PATIENCE: Duration = Duration::from_secs(10);

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
    upload: Option<Sending>,
    place: Stream,
    /// The connection has carried an answer before.
    was_tried: bool,
    /// The request is one of HTTP/1.1.
    h1: bool,
}

/// The sending of a request's body whose answer came before its end. Dropping it resets the stream.
pub(super) struct Upload(Option<AbortHandle>);

/// Why there is no answer.
#[derive(Debug)]
pub(in crate::http) enum Unanswered {
    /// The request's own body broke off.
    Client(BodyError),
    /// The peer says that it did nothing about the request.
    Refused(h2::Error),
    /// The connection ended without a byte of an answer to this request; `was_tried` if it had answered others.
    Ended {
        /// How.
        error: h2::Error,
        /// Whether it had answered others.
        was_tried: bool,
    },
    /// The stream was reset, or what came was no HTTP.
    Broken(h2::Error),
}

impl H2 {
    pub(in crate::http) async fn handshake(io: Io) -> Result<Self, h2::Error> {
        let (is_mesh, is_asked) = (!matches!(io, Io::Tcp(_)), matches!(io, Io::Tls(_)));
        Self::start(io, is_mesh, is_asked).await
    }

    /// `is_mesh`: with a sidecar. `is_asked`: from time to time, whether it is still there.
    async fn start(io: Io, is_mesh: bool, is_asked: bool) -> Result<Self, h2::Error> {
        let mut builder = Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(server::STREAM_WINDOW_BYTES)
            // With less, a few clients who don't read would stop the answers of all who share the connection.
            .initial_connection_window_size(MESH_CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(server::STREAM_WINDOW_BYTES as usize);
        if is_mesh {
            builder
                .initial_max_send_streams(MAX_SHARING)
                .max_frame_size(MESH_FRAME_BYTES)
                .max_header_list_size(MESH_HEADER_BYTES)
                .max_concurrent_reset_streams(MAX_GIVEN_UP);
        } else {
            builder.max_header_list_size(server::MAX_HEADER_BYTES as u32);
        }
        let (io, flush) = gather(io);
        let mut handshake = pin!(builder.handshake(io));
        let (sender, mut connection) = flush.after(|cx| handshake.as_mut().poll(cx)).await?;
        let shared = Arc::new(Shared::default());
        let pulse = if is_asked { connection.ping_pong().map(Pulse::new) } else { None };
        tokio::spawn(drive(connection, flush, pulse, Arc::clone(&shared)));
        Ok(Self { sender, shared })
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

    /// Hands a request to the connection, which has to be open. `h1`: the request is one of HTTP/1.1.
    pub(in crate::http) fn send(&mut self, request: Request<Body>, h1: bool) -> Result<Exchange, Unanswered> {
        let (mut head, body) = request.into_parts();
        head.version = if h1 { Version::HTTP_11 } else { Version::HTTP_2 };
        carry::settle_length(&mut head.headers, &body);
        let is_end = body.is_end_stream();
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let place = Stream(Arc::clone(&self.shared));
        let request = Request::from_parts(head, ());
        // Of a clone: a sender holds on to the stream that it sent last, which could then not be reset by dropping it.
        let sent = self.sender.clone().send_request(request, is_end);
        let (response, stream) = sent.map_err(Unanswered::Broken)?;
        let upload = (!is_end).then(|| Sending::new(body, stream));
        let was_tried = self.shared.is_tried.load(Ordering::Relaxed);
        Ok(Exchange { response, upload, place, was_tried, h1 })
    }
}

impl Exchange {
    /// Sends the body and waits for the answer's head.
    pub(in crate::http) async fn answer(mut self) -> Result<Response<Body>, Unanswered> {
        let was_tried = self.was_tried;
        let answered = poll_fn(|cx| {
            if let Some(upload) = &mut self.upload
                && let Poll::Ready(sent) = Pin::new(upload).poll(cx)
            {
                self.upload = None;
                if let Err(Cut::Source(error)) = sent {
                    return Poll::Ready(Err(Unanswered::Client(error)));
                }
                // A peer that wants no more of the body has answered, or says by its reset why not.
            }
            Pin::new(&mut self.response).poll(cx).map_err(|error| Unanswered::of(error, was_tried))
        });
        let response = answered.await?;
        self.place.0.is_tried.store(true, Ordering::Relaxed);
        let upload = self.upload.take().map(Upload::begin);
        let (mut head, stream) = response.into_parts();
        if self.h1 {
            head.version = Version::HTTP_11;
            carry::unpack_answer(&mut head);
        }
        let answering = Answering { place: self.place, upload };
        let body = Streamed::body(stream, &head.headers, Some(answering));
        Ok(Response::from_parts(head, body))
    }
}

impl Unanswered {
    fn of(error: h2::Error, was_tried: bool) -> Self {
        // The h2 crate fails a stream with a remote GOAWAY only if it is beyond, or was never opened; streams before
        // that go on, and break with an I/O error if the connection ends under them. RFC 9113 sections 6.8 and 8.7.
        let is_beyond = error.is_go_away() && error.is_remote();
        let is_refused =
            error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        if is_beyond || is_refused {
            Self::Refused(error)
        } else if error.is_io() {
            Self::Ended { error, was_tried }
        } else {
            Self::Broken(error)
        }
    }
}

impl Upload {
    fn begin(sending: Sending) -> Self {
        let task = tokio::spawn(async move {
            if let Err(cut) = sending.await {
                tracing::trace!(?cut, "a request's body wasn't sent to its end");
            }
        });
        Self(Some(task.abort_handle()))
    }

    /// Lets it go on by itself.
    pub(super) fn go_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Moves the connection on until it ends.
async fn drive(
    connection: Connection<Gather<Io>, Bytes>,
    flush: Flush<Io>,
    mut pulse: Option<Pulse>,
    shared: Arc<Shared>,
) {
    let mut connection = pin!(connection);
    let ended = flush.after(|cx| {
        if let Some(pulse) = &mut pulse
            && pulse.poll_lost(cx, &shared).is_ready()
        {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(cx).map(Some)
    });
    match ended.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection to an upstream broke"),
        // Dropping it breaks off what is open.
        None => tracing::debug!("a sidecar didn't say within {PING_PATIENCE:?} that it is still there"),
    }
}

/// Asks the peer from time to time whether it is still there.
struct Pulse {
    pings: PingPong,
    next: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Pulse {
    fn new(pings: PingPong) -> Self {
        Self { pings, next: Box::pin(sleep(PING_INTERVAL)), is_asked: false }
    }

    /// Ready if the peer was asked and says nothing.
    fn poll_lost(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        if self.is_asked && self.pings.poll_pong(cx).is_ready() {
            self.wait(PING_INTERVAL, false);
        }
        while self.next.as_mut().poll(cx).is_ready() {
            if self.is_asked {
                return Poll::Ready(());
            }
            let ask =
                shared.streams.load(Ordering::Relaxed) > 0 && self.pings.send_ping(Ping::opaque()).is_ok();
            self.wait(if ask { PING_PATIENCE } else { PING_INTERVAL }, ask);
            if ask {
                // Registers for the answer. An error is the connection's, which says so itself.
                let _ = self.pings.poll_pong(cx);
            }
        }
        Poll::Pending
    }

    fn wait(&mut self, pause: Duration, is_asked: bool) {
        self.is_asked = is_asked;
        self.next.as_mut().reset(Instant::now() + pause);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::duplex;

    use super::*;

    async fn connection() -> (H2, tokio::io::DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (H2::start(Io::Local(near), true, true).await.unwrap(), far)
    }

    fn get() -> Request<Body> {
        Request::get("/").header("host", "web").body(Body::Empty).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_says_nothing_is_given_up_while_something_is_awaited_of_it() {
        let (mut h2, _silent) = connection().await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(h2.is_open(), "nothing was awaited");

        let asked = Instant::now();
        let answer = h2.send(get(), true).unwrap().answer().await;
        assert!(matches!(answer, Err(Unanswered::Ended { was_tried: false, .. })), "{answer:?}");
        assert!(asked.elapsed() <= PING_INTERVAL + PING_PATIENCE + Duration::from_secs(1));
        assert!(!h2.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_whose_app_takes_its_time_is_waited_for() {
        let (mut h2, far) = connection().await;
        tokio::spawn(async move {
            let mut server = h2::server::handshake(far).await.unwrap();
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            tokio::spawn(async move {
                sleep(Duration::from_secs(3600)).await;
                respond.send_response(Response::new(()), true).unwrap();
            });
            while server.accept().await.is_some() {}
        });
        let answer = h2.send(get(), true).unwrap().answer().await.unwrap();
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert!(h2.is_open() && h2.is_idle());
    }
}
