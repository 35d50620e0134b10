//! A request on its way out: what of its head and body isn't written yet.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, header::EXPECT};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep},
};

use super::PATIENCE;
use crate::{Error, body::Encoder, wire::Wire};

pub(super) struct Upload<B> {
    body: B,
    encoder: Encoder,
    state: State,
    /// Nothing of the body has been read.
    untouched: bool,
}

enum State {
    /// The server is to say whether it wants the body.
    Asking(Pin<Box<Sleep>>),
    Sending,
    /// Everything was read from the body, and perhaps not yet written.
    Read,
    /// Everything is written.
    Written,
}

/// Why it goes no further.
pub(super) enum UploadError<E> {
    /// The body broke off.
    Body(E),
    /// The body isn't as long as its head says.
    Length,
    Io(io::Error),
}

impl<B: Body<Data = Bytes> + Unpin> Upload<B> {
    /// A body behind a head that has been gathered already.
    pub(super) fn new(body: B, mut encoder: Encoder, headers: &HeaderMap) -> Self {
        let asks = headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let state = if encoder.is_over() {
            State::Read
        } else if asks && !body.is_end_stream() {
            State::Asking(Box::pin(sleep(PATIENCE)))
        } else {
            State::Sending
        };
        if encoder.is_over() {
            encoder = Encoder::Length(0);
        }
        Self { body, encoder, state, untouched: true }
    }

    /// Writes what can be written; ready when everything is.
    pub(super) fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<IO>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError<B::Error>>> {
        if matches!(self.state, State::Written) {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut waits = false;
            if let State::Asking(patience) = &mut self.state {
                match patience.as_mut().poll(cx) {
                    Poll::Ready(()) => self.state = State::Sending,
                    Poll::Pending => waits = true,
                }
            }
            while matches!(self.state, State::Sending) && !wire.output.is_full() {
                if self.poll_part(wire, cx)?.is_pending() {
                    waits = true;
                    break;
                }
            }
            ready!(wire.poll_flush(cx)).map_err(UploadError::Io)?;
            if matches!(self.state, State::Read) {
                self.state = State::Written;
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Reads one part of the body and gathers it.
    fn poll_part<IO>(
        &mut self,
        wire: &mut Wire<IO>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError<B::Error>>> {
        let polled = if self.body.is_end_stream() {
            Poll::Ready(None)
        } else {
            Pin::new(&mut self.body).poll_frame(cx)
        };
        let frame = ready!(polled);
        self.untouched = false;
        let out = &mut wire.output;
        let written = match frame.transpose().map_err(UploadError::Body)?.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.encoder.data(data, out),
            Some(Err(trailers)) => {
                self.state = State::Read;
                self.encoder.end(trailers.trailers_ref(), out)
            }
            None => {
                self.state = State::Read;
                self.encoder.end(None, out)
            }
        };
        written.map_err(|_: Error| UploadError::Length)?;
        if self.encoder.is_over() {
            self.state = State::Read;
        }
        Poll::Ready(Ok(()))
    }

    /// The server wants the body.
    pub(super) fn go_on(&mut self) {
        if matches!(self.state, State::Asking(_)) {
            self.state = State::Sending;
        }
    }

    /// Whether the server, now that it has answered, doesn't want the body that it was asked about.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.state, State::Asking(_))
    }

    /// Whether something is still to be sent.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Sending | State::Read)
    }

    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    pub(super) fn into_body(self) -> B {
        self.body
    }
}
