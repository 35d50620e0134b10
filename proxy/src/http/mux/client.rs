//! The end that asks. Requests and answers are moved by their own tasks; one task for the connection reads and writes for
//! all of them ([`super::mover`]).

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    MAX_SHARING, MuxError,
    body::Muxed,
    frame::{Header, Kind},
    head,
    mover::Mover,
    state::{End, Reader, Shared, Writer},
};
use crate::http::{
    Body, Io, carry,
    sending::{Sending, Unanswered, Upload, send_on},
};

/// How often a sidecar is asked whether it is still there while answers of its are awaited.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// With so much to be written, a connection takes no further requests: its server doesn't keep up. This end always reads, for
/// one of both has to, and so it is here that what it says must have a limit.
const MOST_UNSENT_BYTES: usize = 1024 * 1024;

/// A connection to send requests over. It ends when this is dropped and its last answer has ended.
pub(in crate::http) struct Mux(Arc<Shared>);

/// A request that was handed to its connection. Dropping it resets the stream.
pub(in crate::http) struct Exchange {
    reader: Reader,
    upload: Option<Sending<Writer>>,
    /// The connection has carried an answer before.
    was_tried: bool,
    method: Method,
    /// The request is one of HTTP/1.1.
    h1: bool,
}

impl Mux {
    pub(in crate::http) fn new(io: Io) -> Self {
        let is_asked = matches!(io, Io::Tls(_));
        Self::start(io, is_asked)
    }

    /// `is_asked`: from time to time, whether it is still there.
    fn start(io: Io, is_asked: bool) -> Self {
        let shared = Shared::new(End::Client);
        let mover = Mover::new(io, Arc::clone(&shared));
        tokio::spawn(drive(mover, Arc::clone(&shared), is_asked.then(Pulse::new)));
        Self(shared)
    }

    /// Whether it takes another request now.
    pub(in crate::http) fn has_room(&self) -> bool {
        let state = self.0.lock();
        state.streams() < MAX_SHARING && state.out.len() < MOST_UNSENT_BYTES
    }

    /// Whether it takes requests at all: it hasn't ended, and its server hasn't said that it goes away.
    pub(in crate::http) fn is_open(&self) -> bool {
        self.0.lock().is_open()
    }

    pub(in crate::http) fn is_idle(&self) -> bool {
        self.0.lock().streams() == 0
    }

    /// Hands a request in normal form to the connection, which has to be open. `h1`: it is one of HTTP/1.1.
    pub(in crate::http) fn send(&self, request: Request<Body>, h1: bool) -> Result<Exchange, Unanswered> {
        let (mut head, body) = request.into_parts();
        carry::settle_length(&mut head.headers, &body);
        let was_tried = self.0.lock().has_answered;
        let opened = self.0.open(body.is_end_stream(), |out| head::write_request(&head, out));
        let (reader, writer) = opened.map_err(|_| Unanswered::Broken(MuxError::Head.into()))?;
        gamut_http1::recycle(head.headers);
        let upload = writer.map(|writer| Sending::new(body, writer));
        Ok(Exchange { reader, upload, was_tried, method: head.method, h1 })
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_leaving = true;
        state.wake_mover();
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
            self.reader.poll_head(cx).map_err(|error| unanswered(error, was_tried))
        });
        let bytes = answered.await?;
        let broken = |error: MuxError| Unanswered::Broken(error.into());
        let mut head = head::read_answer(bytes).map_err(|_| broken(self.reader.wrong(MuxError::Head)))?;
        if self.h1 {
            head.version = Version::HTTP_11;
            carry::unpack_answer(&mut head);
        }
        let upload = self.upload.take().map(Upload::begin);
        let has_none = self.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = if self.reader.is_at_end() {
            let said = head::length(&head.headers).map_err(|_| broken(MuxError::Head))?;
            if !has_none && said.is_some_and(|length| length > 0) {
                return Err(broken(MuxError::Length));
            }
            upload.into_iter().for_each(Upload::go_on);
            Body::Empty
        } else if has_none {
            Muxed::none(self.reader, upload)
        } else {
            Muxed::body(self.reader, &head.headers, upload).map_err(broken)?
        };
        Ok(Response::from_parts(head, body))
    }
}

fn unanswered(error: MuxError, was_tried: bool) -> Unanswered {
    if error.is_end() {
        Unanswered::Ended { error: error.into(), was_tried }
    } else {
        Unanswered::Broken(error.into())
    }
}

/// Moves the connection on until it ends.
async fn drive(mut mover: Mover<Io>, shared: Arc<Shared>, mut pulse: Option<Pulse>) {
    let mut has_left = false;
    let ended = poll_fn(|cx| {
        if let Some(pulse) = &mut pulse
            && pulse.poll_lost(cx, &shared).is_ready()
        {
            tracing::debug!("a sidecar didn't say within {PING_PATIENCE:?} that it is still there");
            return Poll::Ready(Some(MuxError::Ended));
        }
        if let Poll::Ready(error) = mover.poll(cx, &mut |_| {}) {
            return Poll::Ready(Some(error));
        }
        let mut state = shared.lock();
        if state.peer_leaves && !has_left {
            has_left = true;
            state.out.frame(Header::new(Kind::Left, 0, 0));
            cx.waker().wake_by_ref();
        }
        let is_over = (state.is_leaving || state.peer_leaves) && state.streams() == 0;
        if is_over { Poll::Ready(None) } else { Poll::Pending }
    });
    match ended.await {
        None => mover.close().await,
        // Dropping it breaks off what is open.
        Some(error) => tracing::debug!(%error, "a connection to another sidecar is over"),
    }
}

/// Asks the peer from time to time whether it is still there.
struct Pulse {
    next: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Pulse {
    fn new() -> Self {
        Self { next: Box::pin(sleep(PING_INTERVAL)), is_asked: false }
    }

    /// Ready if the peer was asked and says nothing.
    fn poll_lost(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<()> {
        if self.is_asked && shared.lock().ponged {
            self.wait(PING_INTERVAL, false);
        }
        while self.next.as_mut().poll(cx).is_ready() {
            if self.is_asked {
                return Poll::Ready(());
            }
            let mut state = shared.lock();
            let ask = state.streams() > 0;
            if ask {
                state.ponged = false;
                state.out.frame(Header::new(Kind::Ping, 0, 0));
            }
            drop(state);
            self.wait(if ask { PING_PATIENCE } else { PING_INTERVAL }, ask);
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
    use tokio::io::duplex;

    use super::*;

    fn connection() -> (Mux, tokio::io::DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (Mux::start(Io::Local(near), true), far)
    }

    fn get() -> Request<Body> {
        Request::get("/").header("host", "web").body(Body::Empty).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_says_nothing_is_given_up_while_something_is_awaited_of_it() {
        let (mux, _silent) = connection();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(mux.is_open(), "nothing was awaited");

        let asked = Instant::now();
        let answer = mux.send(get(), true).unwrap().answer().await;
        assert!(matches!(answer, Err(Unanswered::Ended { was_tried: false, .. })), "{answer:?}");
        assert!(asked.elapsed() <= PING_INTERVAL + PING_PATIENCE + Duration::from_secs(1));
        assert!(!mux.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_whose_app_takes_its_time_is_waited_for() {
        let (mux, far) = connection();
        let answer = |_| async {
            sleep(Duration::from_secs(3600)).await;
            Response::new(Body::Empty)
        };
        tokio::spawn(super::super::server::serve(far, true, answer, std::future::pending()));
        let answer = mux.send(get(), true).unwrap().answer().await.unwrap();
        assert!(answer.into_body().is_end_stream());
        assert!(mux.is_open() && mux.is_idle());
    }
}
