//! A message's body on its way into a connection that many messages share, as fast as its reader lets it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use tokio::task::AbortHandle;

use super::{
    HttpError,
    body::{Body, BodyError},
};

/// One stream of such a connection: HTTP/2's, or one between sidecars.
pub(super) trait Outlet {
    /// How much it takes now, at least a byte; at most `wanted` is made use of.
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Cut>>;
    /// Takes a part, as long as there was room for.
    fn send(&mut self, part: Bytes, is_last: bool) -> Result<(), Cut>;
    /// Takes what is behind the last part.
    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Cut>;
    /// Ready when the peer wants no more.
    fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Tells the peer that the rest won't come.
    fn break_off(&mut self);
}

/// A body on its way to the peer. Resolves when all of it is handed to the connection; dropped before, with nothing else
/// held of its stream, it resets the stream.
pub(super) struct Sending<S> {
    body: Body,
    stream: S,
    /// Read, and not allowed to be sent yet.
    left: Bytes,
    /// `left` is the last of it.
    is_last: bool,
}

/// Why a body wasn't sent to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// It broke off where it came from; the peer was told by a reset.
    Source(BodyError),
    /// The peer wants no more of it, or the connection is gone.
    Peer,
}

/// The sending of a request's body whose answer came before its end. Dropping it resets the stream.
pub(super) struct Upload(Option<AbortHandle>);

impl<S> Sending<S> {
    pub(super) fn new(body: Body, stream: S) -> Self {
        Self { body, stream, left: Bytes::new(), is_last: false }
    }
}

impl<S: Outlet> Sending<S> {
    /// Waits for room in the peer's window, and gives it as much as fits of what is left.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        while !self.left.is_empty() {
            let room = ready!(self.stream.poll_room(self.left.len(), cx))?;
            let part = self.left.split_to(room.min(self.left.len()));
            self.stream.send(part, self.is_last && self.left.is_empty())?;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> Result<(), Cut> {
        self.is_last = true;
        self.stream.send(Bytes::new(), true)
    }
}

impl<S: Outlet + Unpin> Future for Sending<S> {
    type Output = Result<(), Cut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_left(cx))?;
            if this.is_last {
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                // Nobody waits for the window now, so that a peer which wants no more has to be asked for.
                return this.stream.poll_unwanted(cx).map(|()| Err(Cut::Peer));
            };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    this.is_last = this.body.is_end_stream();
                    if data.is_empty() && this.is_last {
                        this.end()?;
                    }
                    this.left = data;
                }
                Some(Ok(Err(frame))) => {
                    let Ok(trailers) = frame.into_trailers() else { continue };
                    this.is_last = true;
                    this.stream.send_trailers(trailers)?;
                }
                Some(Err(error)) => {
                    this.stream.break_off();
                    return Poll::Ready(Err(Cut::Source(error)));
                }
                None => this.end()?,
            }
        }
    }
}

/// Moves a request's body on while its answer is awaited, and lets go of it when it is sent.
///
/// # Errors
/// It broke off where it came from. A peer that wants no more of it has answered, or says by its reset why not.
pub(super) fn send_on<S: Outlet + Unpin>(
    sending: &mut Option<Sending<S>>,
    cx: &mut Context<'_>,
) -> Result<(), Unanswered> {
    let Some(body) = sending else { return Ok(()) };
    let Poll::Ready(sent) = Pin::new(body).poll(cx) else { return Ok(()) };
    *sending = None;
    match sent {
        Err(Cut::Source(error)) => Err(Unanswered::Client(error)),
        Ok(()) | Err(Cut::Peer) => Ok(()),
    }
}

impl Upload {
    /// Sends on in a task of its own.
    pub(super) fn begin<S: Outlet + Send + Unpin + 'static>(sending: Sending<S>) -> Self {
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

/// Why a request that was handed to such a connection has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The request's own body broke off.
    Client(BodyError),
    /// The peer says that it did nothing about the request.
    Refused(HttpError),
    /// The connection ended without a byte of an answer to this request.
    Ended {
        /// How.
        error: HttpError,
        /// Whether it had answered others.
        was_tried: bool,
    },
    /// The stream was reset, or what came was no HTTP.
    Broken(HttpError),
}
