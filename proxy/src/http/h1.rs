//! One HTTP/1.1 connection to an upstream, polled by whoever uses it.
//!
//! hyper's `Connection` usually gets a task of its own. Here it lies in the pool unpolled, and the task of
//! the request that took it out polls it: first while it waits for the answer's head, then through the
//! [`Driven`] body. That saves waking a second task twice per request, which measured as a quarter of the
//! processor time at low load. What it asks for in return:
//! - a connection that lay in the pool is polled once before its use, to learn whether the server closed it
//!   meanwhile;
//! - where the answer's head comes before the request's body was sent to its end, nobody would send the rest
//!   while the client doesn't read; such a connection does get a task ([`H1::send`]).

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::SizeHint;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;

use super::{
    body::{Body, FramePoll, Guard},
    expect::Expectation,
    heard::{Anything, Heard},
    io::Io,
    pool::Pool,
};

/// An upstream connection with nothing in flight.
pub struct H1 {
    sender: SendRequest<Body>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    heard: Anything,
    /// It has carried a request before.
    used: bool,
}

type Driver = http1::Connection<TokioIo<Heard>, Body>;

/// The body of an answer, and the connection that it comes over.
pub struct Driven {
    incoming: Incoming,
    /// Gone when the connection has closed; what it had read before is still in `incoming`.
    connection: Option<Box<H1>>,
    /// Where the connection goes at the body's end.
    home: Weak<Pool>,
}

/// A connection behind the head of a 101: it isn't HTTP any more.
pub struct Upgraded {
    driver: Driver,
    closed: bool,
}

/// A request that got no answer.
pub type NotSent = TrySendError<Request<Body>>;

/// A request that got no answer.
pub(super) struct Unanswered {
    pub(super) failed: NotSent,
    /// The connection ended, and not a byte came back.
    pub(super) silent: bool,
    /// It had carried other requests before.
    pub(super) reused: bool,
}

impl H1 {
    /// Makes an HTTP/1.1 connection of a byte stream. Nothing is sent yet.
    pub async fn handshake(io: Io) -> hyper::Result<Box<Self>> {
        let heard = Anything::default();
        let (sender, driver) = http1::Builder::new()
            .max_header_size(super::server::MAX_HEADER_BYTES)
            .handshake(TokioIo::new(Heard::new(io, heard.clone())))
            .await?;
        let mut connection = Box::new(Self { sender, driver: Some(driver), heard, used: false });
        // The first poll tells the sender that the connection wants a request.
        connection.is_usable();
        Ok(connection)
    }

    /// Whether another request can be sent, after looking at what the server has done meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        !self.has_ended(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }

    /// Moves the connection on; true once it has ended.
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        self.driver.as_mut().is_none_or(|driver| Pin::new(driver).poll(cx).is_ready())
    }

    /// Sends a request (origin-form URI, `Host` header) and waits for the answer's head. The connection goes
    /// back to `home` at the end of the answer's body, if it can be used again. Dropping this future closes
    /// the connection.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<Body>,
        upload: &Upload,
        home: &Arc<Pool>,
    ) -> Result<Response<Body>, Unanswered> {
        let reused = std::mem::replace(&mut self.used, true);
        self.heard.forget();
        let mut sent = pin!(self.sender.try_send_request(request));
        let mut closed = false;
        let answered = poll_fn(|cx| {
            closed = closed || self.has_ended(cx);
            let polled = sent.as_mut().poll(cx);
            if !closed || polled.is_ready() {
                return polled;
            }
            // The server closed the connection just before it took the request out of its queue, where it would
            // lie for ever: with the driver goes the queue, and the request comes back.
            self.driver = None;
            sent.as_mut().poll(cx)
        });
        let response = answered.await.map_err(|failed| {
            let is_end = failed.error().is_incomplete_message()
                || failed.error().source().is_some_and(|cause| cause.is::<io::Error>());
            Unanswered { failed, silent: is_end && !self.heard.was_heard(), reused }
        })?;

        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = self.driver.take().map(|driver| Box::new(Upgraded { driver, closed }));
            return Ok(response.map(|_| upgraded.map_or(Body::Empty, Body::Upgraded)));
        }
        if !closed
            && !upload.is_over()
            && let Some(driver) = self.driver.take()
        {
            // hyper finishes the exchange in a task of its own.
            tokio::spawn(driver);
            return Ok(response.map(Body::from));
        }
        Ok(response.map(|incoming| {
            let mut driven =
                Driven { incoming, connection: (!closed).then_some(self), home: Arc::downgrade(home) };
            if driven.is_end_stream() {
                driven.give_back();
                return Body::Empty;
            }
            Body::Driven(Box::new(driven))
        }))
    }
}

impl Upgraded {
    /// The byte stream, and what of it was read together with the head.
    pub(super) async fn into_stream(mut self) -> hyper::Result<(Bytes, Io)> {
        if !self.closed {
            poll_fn(|cx| self.driver.poll_without_shutdown(cx)).await?;
        }
        let parts = self.driver.into_parts();
        Ok((parts.read_buf, parts.io.into_inner().into_inner()))
    }
}

impl Driven {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        let mut polled = http_body::Body::poll_frame(Pin::new(&mut self.incoming), cx);
        if polled.is_pending()
            && let Some(connection) = &mut self.connection
        {
            // Whatever the connection reads goes into `incoming`, so that is asked again.
            if connection.has_ended(cx) {
                self.connection = None;
            }
            polled = http_body::Body::poll_frame(Pin::new(&mut self.incoming), cx);
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) if !self.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => self.give_back(),
            Poll::Ready(Some(Err(_))) => self.connection = None,
            Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.incoming)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.incoming)
    }

    fn give_back(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && let Some(home) = self.home.upgrade()
            && connection.is_usable()
        {
            home.put(connection);
        }
    }
}

/// What is known about the sending of a request's body.
pub(super) struct Upload {
    /// hyper holds the other one as long as it has the body, which is until all of it is written.
    unsent: Option<Arc<Unsent>>,
    expectation: Option<Expectation>,
}

struct Unsent;

impl Guard for Arc<Unsent> {}

impl Upload {
    /// Prepares a request for [`H1::send`], once, however many connections it is then tried on.
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let expectation = Expectation::of(request);
        let unsent = (!http_body::Body::is_end_stream(request.body())).then(|| {
            let token = Arc::new(Unsent);
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.guarded(Arc::clone(&token));
            token
        });
        Self { unsent, expectation }
    }

    /// Undoes the preparation of a request that wasn't sent.
    pub(super) fn release(self, request: &mut Request<Body>) {
        let layers = usize::from(self.unsent.is_some()) + usize::from(self.expectation.is_some());
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = (0..layers).fold(body, |body, _| body.unwrapped());
    }

    /// Whether nothing of the body remains to be sent, now that the answer's head is here.
    fn is_over(&self) -> bool {
        self.expectation.as_ref().is_some_and(Expectation::is_refused)
            || self.unsent.as_ref().is_none_or(|token| Arc::strong_count(token) == 1)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::http::{PoolLimits, testing::read_head};

    async fn connection() -> (Box<H1>, tokio::io::DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        (H1::handshake(Io::Local(near)).await.unwrap(), far)
    }

    fn request() -> Request<Body> {
        Request::get("/").header("host", "web").body(Body::Empty).unwrap()
    }

    async fn send(connection: Box<H1>, home: &Arc<Pool>) -> Result<Response<Body>, Unanswered> {
        let mut request = request();
        let upload = Upload::of(&mut request);
        connection.send(request, &upload, home).await
    }

    /// What `kill -9` of a server under load does now and then.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_closes_between_the_last_look_at_it_and_the_request_gives_the_request_back() {
        let pool = Pool::new(PoolLimits::APP);
        let (connection, mut server) = connection().await;
        let answering = async {
            read_head(&mut server).await;
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(send(connection, &pool), answering);
        assert_eq!(answer.ok().unwrap().status(), 200);

        let kept = pool.take().unwrap();
        drop(server);
        let sent = tokio::time::timeout(std::time::Duration::from_secs(60), send(kept, &pool)).await;
        let mut unanswered = sent.expect("an answer or an error, not silence").err().unwrap();
        assert_eq!(unanswered.failed.take_message().unwrap().uri(), "/");
    }

    #[tokio::test]
    async fn an_end_without_a_byte_is_told_from_one_that_cut_an_answer_off() {
        for (said, silent) in [("", true), ("HTTP/1.1 2", false), ("no HTTP\r\n\r\n", false)] {
            let (connection, mut server) = connection().await;
            let pool = Pool::new(PoolLimits::APP);
            let sending = tokio::spawn(async move { send(connection, &pool).await });
            read_head(&mut server).await;
            server.write_all(said.as_bytes()).await.unwrap();
            drop(server);
            let unanswered = sending.await.unwrap().err().unwrap();
            assert_eq!(unanswered.silent, silent, "said: {said:?}");
            assert!(!unanswered.reused);
        }
    }
}
