//! Bodies on HTTP/2 streams: sending one as the peer's window allows, and reading one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};

use super::client::{Stream, Upload};
use crate::http::{
    HttpError,
    body::{Body, BodyError, FramePoll},
};

/// A body on its way to the peer. Resolves when all of it is handed to the connection; dropped before, with nothing else
/// held of its stream, it resets the stream.
pub(super) struct Sending {
    body: Body,
    stream: SendStream<Bytes>,
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

/// A body that comes over a stream. What is read is what the peer may send anew, so that nothing is read ahead.
/// Dropping it before its end resets the stream.
pub struct Streamed {
    stream: RecvStream,
    /// By the message's `Content-Length`; the h2 crate sees to it that it is true.
    remaining: Option<u64>,
    trailers: bool,
    /// What lasts as long as an answer, and not of requests.
    answer: Option<Answering>,
}

/// What an answer's body holds on to.
pub(super) struct Answering {
    /// The request's place on its connection.
    #[expect(dead_code, reason = "dropping it frees the place")]
    pub(super) place: Stream,
    /// The rest of the request's body, where the answer came first. It is given up with the answer, but not at the
    /// answer's end.
    pub(super) upload: Option<Upload>,
}

impl Sending {
    pub(super) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, left: Bytes::new(), is_last: false }
    }

    /// Waits for room in the peer's window, and gives it as much as fits of what is left.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len());
            let mut room = self.stream.capacity();
            while room == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(more)) => room = more,
                    Some(Err(_)) | None => return Poll::Ready(Err(Cut::Peer)),
                }
            }
            let part = self.left.split_to(room.min(self.left.len()));
            let is_end = self.is_last && self.left.is_empty();
            self.stream.send_data(part, is_end).map_err(|_| Cut::Peer)?;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self) -> Result<(), Cut> {
        self.is_last = true;
        self.stream.send_data(Bytes::new(), true).map_err(|_| Cut::Peer)
    }
}

impl Future for Sending {
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
                return this.stream.poll_reset(cx).map(|_| Err(Cut::Peer));
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
                    this.stream.send_trailers(trailers).map_err(|_| Cut::Peer)?;
                }
                Some(Err(error)) => {
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(Cut::Source(error)));
                }
                None => this.end()?,
            }
        }
    }
}

impl Streamed {
    /// The body of a message with these headers; `answer` if it is one.
    pub(super) fn body(stream: RecvStream, headers: &HeaderMap, answer: Option<Answering>) -> Body {
        if stream.is_end_stream() {
            answer.and_then(|answer| answer.upload).into_iter().for_each(Upload::go_on);
            return Body::Empty;
        }
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        Body::Streamed(Box::new(Self { stream, remaining: length, trailers: false, answer }))
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if !self.trailers {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.remaining = self.remaining.map(|length| length.saturating_sub(data.len() as u64));
                    // Fails only where the stream has no window any more.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return self.broke(error),
                None => self.trailers = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.ended();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => self.broke(error),
        }
    }

    fn broke(&mut self, error: h2::Error) -> FramePoll {
        Poll::Ready(Some(Err(BodyError::Connection(HttpError::H2(error)))))
    }

    fn ended(&mut self) {
        if let Some(upload) = self.answer.as_mut().and_then(|answer| answer.upload.take()) {
            upload.go_on();
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if self.stream.is_end_stream() {
            self.ended();
        }
    }
}
