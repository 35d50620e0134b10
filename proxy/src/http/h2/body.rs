//! Bodies on HTTP/2 streams: sending one as the peer's window allows, and reading one.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use super::client::Stream;
use crate::http::{
    HttpError,
    body::{Body, BodyError, FramePoll},
    sending::{Cut, Outlet, Upload},
};

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

impl Outlet for SendStream<Bytes> {
    fn poll_room(&mut self, wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Cut>> {
        self.reserve_capacity(wanted);
        let mut room = self.capacity();
        while room == 0 {
            match ready!(self.poll_capacity(cx)) {
                Some(Ok(more)) => room = more,
                Some(Err(_)) | None => return Poll::Ready(Err(Cut::Peer)),
            }
        }
        Poll::Ready(Ok(room))
    }

    fn send(&mut self, part: Bytes, is_last: bool) -> Result<(), Cut> {
        self.send_data(part, is_last).map_err(|_| Cut::Peer)
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Cut> {
        Self::send_trailers(self, trailers).map_err(|_| Cut::Peer)
    }

    fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_reset(cx).map(drop)
    }

    fn break_off(&mut self) {
        self.send_reset(Reason::CANCEL);
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
