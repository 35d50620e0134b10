//! The end that asks. Requests and answers are moved by their own tasks; one task for the connection reads and writes for
//! all of them ([`super::mover`]).

use std::{
    future::poll_fn,
    mem,
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
    state::{End, Reader, Shared, State, Writer},
};
use crate::http::{
    Body, Io, carry,
    sending::{Sending, Unanswered, Upload, send_on},
};

/// For so long a sidecar of which answers are awaited may be silent, before it is asked whether it is still there.
const PING_AFTER: Duration = Duration::from_millis(2500);
/// How long it may take to say anything then. All in all, one that vanishes is found out within ten seconds: while there is still time
/// for another endpoint ([`crate::outbound`]'s patience), and after more of them than a lost packet is sent again in.
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// How much longer, while what it was sent before waits to be taken: the question waits behind it, and the kernel tells of progress only
/// now and then.
const HELD_UP: Duration = Duration::from_secs(10);
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
        let shared = Shared::new(End::Client);
        let mover = Mover::new(io, Arc::clone(&shared));
        tokio::spawn(drive(mover, Arc::clone(&shared)));
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

    /// Asks the sidecar now whether it is still there, if answers of it are awaited.
    pub(in crate::http) fn doubt(&self) {
        let mut state = self.0.lock();
        state.is_doubted = true;
        state.wake_mover();
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
async fn drive(mut mover: Mover<Io>, shared: Arc<Shared>) {
    let mut pulse = Pulse::new();
    let mut has_left = false;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(error) = mover.poll(cx, &mut |_| {}) {
            return Poll::Ready(Some(error));
        }
        let mut state = shared.lock();
        if pulse.poll_lost(cx, mover.has_heard(), mover.is_held_up(), &mut state).is_ready() {
            tracing::debug!("a sidecar didn't say in time that it is still there");
            return Poll::Ready(Some(MuxError::Ended));
        }
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

/// Asks the peer, if it gives no sign of life while answers of it are awaited, whether it is still there. Whatever it says will do, and that
/// it takes what it is sent: an answer may take as long as it likes, and so may a long body on its way.
struct Pulse {
    phase: Phase,
    /// The end of the phase.
    next: Pin<Box<Sleep>>,
    has_heard: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing was awaited when it was looked last: there is no end.
    Idle,
    /// It will be looked whether the peer has said anything.
    Listening,
    /// It was asked.
    Asked,
    /// It was asked, and gets more time for what waits to be taken before the question.
    HeldUp,
}

impl Pulse {
    fn new() -> Self {
        Self { phase: Phase::Idle, next: Box::pin(sleep(PING_AFTER)), has_heard: false }
    }

    /// Ready if the peer was asked and says nothing. `heard`: it has given a sign of life since this was called last; `is_held_up`: it has
    /// not taken yet what it is sent.
    fn poll_lost(
        &mut self,
        cx: &mut Context<'_>,
        heard: bool,
        is_held_up: bool,
        state: &mut State,
    ) -> Poll<()> {
        self.has_heard |= heard;
        let is_doubted = mem::take(&mut state.is_doubted);
        match self.phase {
            Phase::Idle if state.streams() == 0 => return Poll::Pending,
            Phase::Idle => self.listen(),
            Phase::Asked | Phase::HeldUp if self.has_heard => self.listen(),
            Phase::Listening | Phase::Asked | Phase::HeldUp => {}
        }
        if is_doubted && self.phase == Phase::Listening {
            self.ask(cx, state);
        }
        while self.phase != Phase::Idle && self.next.as_mut().poll(cx).is_ready() {
            match self.phase {
                Phase::Asked if is_held_up => self.enter(Phase::HeldUp, HELD_UP),
                Phase::Asked | Phase::HeldUp => return Poll::Ready(()),
                Phase::Listening if self.has_heard => self.listen(),
                Phase::Idle | Phase::Listening => self.ask(cx, state),
            }
        }
        Poll::Pending
    }

    fn listen(&mut self) {
        self.has_heard = false;
        self.enter(Phase::Listening, PING_AFTER);
    }

    /// Asks, if anything is awaited.
    fn ask(&mut self, cx: &Context<'_>, state: &mut State) {
        if state.streams() == 0 {
            self.phase = Phase::Idle;
            return;
        }
        self.has_heard = false;
        state.out.frame(Header::new(Kind::Ping, 0, 0));
        cx.waker().wake_by_ref();
        self.enter(Phase::Asked, PONG_WITHIN);
    }

    fn enter(&mut self, phase: Phase, length: Duration) {
        self.phase = phase;
        self.next.as_mut().reset(Instant::now() + length);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
    };

    use super::*;

    fn connection() -> (Mux, DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (Mux::new(Io::Local(near)), far)
    }

    fn get() -> Request<Body> {
        Request::get("/").header("host", "web").body(Body::Empty).unwrap()
    }

    fn ask(mux: &Mux) -> JoinHandle<Result<Response<Body>, Unanswered>> {
        tokio::spawn(mux.send(get(), true).unwrap().answer())
    }

    /// Serves with an app that takes its time.
    fn serve(far: DuplexStream, time: Duration) {
        let answer = move |_| async move {
            sleep(time).await;
            Response::new(Body::Empty)
        };
        tokio::spawn(super::super::server::serve(far, true, answer, std::future::pending()));
    }

    /// How long it is from now until a request is given up.
    async fn given_up_after(asked: JoinHandle<Result<Response<Body>, Unanswered>>) -> Duration {
        let begin = Instant::now();
        let answer = asked.await.unwrap();
        assert!(matches!(answer, Err(Unanswered::Ended { .. })), "{answer:?}");
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_says_nothing_is_given_up_while_something_is_awaited_of_it() {
        let (mux, _silent) = connection();
        sleep(Duration::from_secs(3601)).await;
        assert!(mux.is_open(), "nothing was awaited");

        assert!(given_up_after(ask(&mux)).await <= Duration::from_secs(10));
        assert!(!mux.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_vanishes_in_the_middle_of_its_answers_is_given_up_as_soon() {
        let (mux, mut far) = connection();
        let asked = ask(&mux);
        // Somebody else's answer, at any time between two looks.
        for _ in 0..7 {
            sleep(Duration::from_millis(1900)).await;
            let mut pong = Vec::new();
            Header::new(Kind::Pong, 0, 0).write(&mut pong);
            far.write_all(&pong).await.unwrap();
        }
        let lost = given_up_after(asked).await;
        assert!((PING_AFTER..=Duration::from_secs(10)).contains(&lost), "{lost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_whose_app_takes_its_time_is_waited_for() {
        let (mux, far) = connection();
        serve(far, Duration::from_secs(3600));
        let asked = ask(&mux);
        sleep(Duration::from_secs(1800)).await;
        mux.doubt();
        let answer = asked.await.unwrap().unwrap();
        assert!(answer.into_body().is_end_stream());
        assert!(mux.is_open() && mux.is_idle());
    }

    /// A byte at a time, with less than a second to spare, as over a bad line. Nobody answers the question.
    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_still_sends_is_waited_for_whatever_it_is_asked() {
        let (mux, mut far) = connection();
        let asked = ask(&mux);
        let parts = Response::builder().header("x", "a".repeat(100)).body(()).unwrap().into_parts().0;
        let (mut answer, mut said) = (Vec::new(), Vec::new());
        head::write_answer(&parts, &mut answer).unwrap();
        Header { kind: Kind::Head, is_last: true, number: answer.len(), stream: 1 }.write(&mut said);
        said.extend_from_slice(&answer);
        for byte in said {
            sleep(PONG_WITHIN - Duration::from_millis(200)).await;
            far.write_all(&[byte]).await.unwrap();
        }
        assert!(asked.await.unwrap().is_ok());
    }

    /// As over a line that is too narrow for what is sent: the question itself waits.
    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_still_takes_what_it_is_sent_is_waited_for() {
        let (near, mut far) = duplex(1024);
        let mux = Mux::new(Io::Local(near));
        let long = Request::get("/").header("x", "a".repeat(30_000)).body(Body::Empty).unwrap();
        let asked = tokio::spawn(mux.send(long, true).unwrap().answer());
        for _ in 0..20 {
            sleep(PONG_WITHIN - Duration::from_millis(200)).await;
            far.read_exact(&mut [0; 1024]).await.unwrap();
        }
        assert!(!asked.is_finished());
        let lost = given_up_after(asked).await;
        assert!((PONG_WITHIN + HELD_UP..=Duration::from_secs(20)).contains(&lost), "{lost:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_that_is_doubted_is_asked_at_once() {
        let (mux, mut silent) = connection();
        let asked = ask(&mux);
        silent.read_exact(&mut [0]).await.unwrap();
        mux.doubt();
        sleep(PONG_WITHIN - Duration::from_secs(1)).await;
        // Which gains it no time.
        mux.doubt();
        assert!(given_up_after(asked).await <= Duration::from_millis(1010));
    }

    #[tokio::test(start_paused = true)]
    async fn to_doubt_a_sidecar_of_which_nothing_is_awaited_changes_nothing() {
        let (mux, _silent) = connection();
        mux.doubt();
        sleep(Duration::from_secs(60)).await;
        assert!(mux.is_open());
    }
}
