//! The one body type of requests and responses, in both directions.
//!
//! It streams: a frame is read from where it comes from when it can be written to where it goes, and not before.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::time::Sleep;

use super::{
    answer, error::HttpError, h1::Driven, h2::body::Streamed, mux::Muxed, relay::Relayed, replay::Replay,
    tap::Copy, upgrade::Upgraded,
};

/// A message's body. Dropping it before its end cancels the message: the connection it is read from is closed
/// (HTTP/1.1) or the stream is reset (HTTP/2).
#[derive(Default)]
pub enum Body {
    /// Nothing, not even trailers.
    #[default]
    Empty,
    /// These bytes, all at once.
    Full(Bytes),
    /// An HTTP/1.1 request's, read from its client's connection.
    Received(gamut_http1::server::Incoming),
    /// Read from an HTTP/2 stream.
    Streamed(Box<Streamed>),
    /// Read from a stream of another sidecar's.
    Muxed(Box<Muxed>),
    /// An HTTP/1.1 answer, read from a connection that this body polls and afterwards gives back to its pool.
    Driven(Driven),
    /// An HTTP/1.1 answer that came before its request was sent (see [`super::relay`]).
    Relayed(Box<Relayed>),
    /// The connection behind a 101, for [`super::upgrade`]. As a message's body it is empty.
    Upgraded(Box<Upgraded>),
    /// A request body that can be sent again (see [`super::replay`]).
    Replay(Box<Replay>),
    /// A copy of a request body, for a mirror (see [`super::tap`]).
    Copy(Box<Copy>),
    /// Another body with something that must last as long as it, and perhaps a deadline.
    Guarded(Box<dyn Layer>),
}

/// A body around a body: [`Guarded`], whatever its guard is. One allocation holds both.
pub trait Layer: Send + Sync {
    /// As [`http_body::Body::poll_frame`].
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll;
    /// As [`http_body::Body::is_end_stream`].
    fn is_end_stream(&self) -> bool;
    /// As [`http_body::Body::size_hint`].
    fn size_hint(&self) -> SizeHint;
}

/// A body with what lasts as long as it.
struct Guarded<G> {
    body: Body,
    deadline: Option<Pin<Box<Sleep>>>,
    guard: Option<G>,
    /// How the body broke off, to be told at the next poll.
    broken: Option<BodyError>,
}

/// What lasts as long as a body: it is dropped when the body has ended or is dropped itself, whichever is
/// first.
pub trait Guard: Send + Sync + 'static {
    /// A part of the body passes by.
    fn data(&mut self, _data: &Bytes) {}

    /// The body's trailers pass by, gRPC's status among them.
    fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// The body has come to its end, before it is dropped. Not called for one that broke off or was given up.
    fn end(&mut self) {}
}

/// Why a body broke off.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The connection it came from failed, or what came was no HTTP.
    #[error("the message's body broke off: {0}")]
    Connection(HttpError),
    /// The rule's time for the whole answer was over.
    #[error("the answer took longer than the route's timeouts allow")]
    TimedOut,
    /// A mirror was slower than the backend.
    #[error("the copy of the request's body was lost")]
    Lost,
    /// An earlier reader of a replayable body saw it break off.
    #[error("the request's body broke off in an earlier attempt")]
    Broken,
}

impl BodyError {
    /// Whether a request's body ended at its client: it went away, or what it sent was no body. Then the endpoint that
    /// was to get it isn't to blame for the answer that never came.
    pub(super) fn is_clients(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Broken => true,
            Self::TimedOut | Self::Lost => false,
        }
    }
}

impl<E: Into<HttpError>> From<E> for BodyError {
    fn from(error: E) -> Self {
        Self::Connection(error.into())
    }
}

/// What polling a body gives.
pub type FramePoll = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Body {
    /// Keeps `guard` for as long as this body lasts.
    pub fn guarded(self, guard: impl Guard) -> Self {
        self.guard(None, guard)
    }

    /// As [`Self::guarded`], and breaks off with [`BodyError::TimedOut`] when `deadline` comes before the
    /// end.
    pub fn guarded_until(self, deadline: Pin<Box<Sleep>>, guard: impl Guard) -> Self {
        self.guard(Some(deadline), guard)
    }

    fn guard(self, deadline: Option<Pin<Box<Sleep>>>, guard: impl Guard) -> Self {
        // Nobody polls a body that is over from the start, so there would be no later end to wait for.
        if http_body::Body::is_end_stream(&self) {
            return self;
        }
        Self::Guarded(Box::new(Guarded { body: self, deadline, guard: Some(guard), broken: None }))
    }
}

impl<G: Guard> Layer for Guarded<G> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return self.break_off(BodyError::TimedOut, cx);
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = http_body::Body::poll_frame(Pin::new(&mut self.body), cx);
        if let (Poll::Ready(Some(Ok(frame))), Some(guard)) = (&polled, &mut self.guard) {
            frame.data_ref().into_iter().for_each(|data| guard.data(data));
            frame.trailers_ref().into_iter().for_each(|trailers| guard.trailers(trailers));
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) if !http_body::Body::is_end_stream(&self.body) => {}
            Poll::Ready(Some(Ok(_)) | None) => {
                self.guard.iter_mut().for_each(|guard| guard.end());
                self.let_go();
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        match polled {
            Poll::Ready(Some(Err(error))) => self.break_off(error, cx),
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && http_body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.body)
    }
}

impl<G> Guarded<G> {
    /// Tells of the end only when polled again: a server sends what it has been given before that, and may
    /// forget it with an error.
    fn break_off(&mut self, error: BodyError, cx: &Context<'_>) -> FramePoll {
        self.let_go();
        self.broken = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn let_go(&mut self) {
        self.body = Body::Empty;
        self.deadline = None;
        self.guard = None;
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let this = self.get_mut();
        match this {
            Self::Empty | Self::Upgraded(_) => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Received(received) => Pin::new(received)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(BodyError::from))),
            Self::Streamed(streamed) => streamed.poll_frame(cx),
            Self::Muxed(muxed) => muxed.poll_frame(cx),
            Self::Driven(driven) => driven.poll_frame(cx),
            Self::Relayed(relayed) => relayed.poll_frame(cx),
            Self::Replay(replay) => replay.poll_frame(cx),
            Self::Copy(copy) => copy.poll_frame(cx),
            Self::Guarded(guarded) => guarded.poll_frame(cx),
        }
        .map_ok(without_signals)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Upgraded(_) => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Received(received) => received.is_end_stream(),
            Self::Streamed(streamed) => streamed.is_end_stream(),
            Self::Muxed(muxed) => muxed.is_end_stream(),
            Self::Driven(driven) => driven.is_end_stream(),
            Self::Relayed(relayed) => relayed.is_end_stream(),
            Self::Replay(replay) => replay.is_end_stream(),
            Self::Copy(copy) => copy.is_end_stream(),
            Self::Guarded(guarded) => guarded.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Upgraded(_) => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Received(received) => received.size_hint(),
            Self::Streamed(streamed) => streamed.size_hint(),
            Self::Muxed(muxed) => muxed.size_hint(),
            Self::Driven(driven) => driven.size_hint(),
            Self::Relayed(relayed) => relayed.size_hint(),
            Self::Replay(replay) => replay.size_hint(),
            Self::Copy(copy) => copy.size_hint(),
            Self::Guarded(guarded) => guarded.size_hint(),
        }
    }
}

/// What only sidecars may say isn't said in trailers either: they say it in heads.
fn without_signals(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.trailers_mut().into_iter().for_each(answer::strip_signals);
    frame
}

impl From<gamut_http1::server::Incoming> for Body {
    fn from(received: gamut_http1::server::Incoming) -> Self {
        if http_body::Body::is_end_stream(&received) { Self::Empty } else { Self::Received(received) }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(text.into())
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Body::Empty",
            Self::Full(_) => "Body::Full",
            Self::Received(_) => "Body::Received",
            Self::Streamed(_) => "Body::Streamed",
            Self::Muxed(_) => "Body::Muxed",
            Self::Driven(_) => "Body::Driven",
            Self::Relayed(_) => "Body::Relayed",
            Self::Upgraded(_) => "Body::Upgraded",
            Self::Replay(_) => "Body::Replay",
            Self::Copy(_) => "Body::Copy",
            Self::Guarded(_) => "Body::Guarded",
        })
    }
}
