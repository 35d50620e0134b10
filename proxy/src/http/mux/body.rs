//! Reading a message's body off its stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{
    MuxError, head,
    state::{Part, Reader},
};
use crate::http::{
    body::{Body, BodyError, FramePoll},
    sending::Upload,
};

/// A body that comes over a connection between sidecars. What is read is what the peer may send anew, so that nothing is
/// read ahead. Dropping it before its end gives the message up.
pub struct Muxed {
    reader: Reader,
    /// By the message's `Content-Length`.
    remaining: Option<u64>,
    /// There is to be none whatever the `Content-Length`, as to `HEAD` and with 204 and 304 (RFC 9112 section 6.3).
    has_none: bool,
    is_over: bool,
    /// The rest of the request's body, where the answer came first. It is given up with the answer, but not at the
    /// answer's end.
    upload: Option<Upload>,
}

impl Muxed {
    /// The body of a message with these headers.
    ///
    /// # Errors
    /// If its `Content-Length` is none.
    pub(super) fn body(
        reader: Reader,
        headers: &HeaderMap,
        upload: Option<Upload>,
    ) -> Result<Body, MuxError> {
        let remaining = head::length(headers).map_err(|_| MuxError::Head)?;
        Ok(Body::Muxed(Box::new(Self { reader, remaining, has_none: false, is_over: false, upload })))
    }

    /// That of an answer which has none, but whose end comes behind its head.
    pub(super) fn none(reader: Reader, upload: Option<Upload>) -> Body {
        Body::Muxed(Box::new(Self { reader, remaining: Some(0), has_none: true, is_over: false, upload }))
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.reader.poll_part(cx)) {
            Some(Ok(Part::Data(data))) => self.count(data),
            Some(Ok(Part::Trailers(bytes))) => self.trailers(bytes),
            Some(Err(error)) => Err(error),
            None => return Poll::Ready(self.end().err().map(|error| Err(failed(error)))),
        };
        if frame.is_err() {
            self.is_over = true;
        }
        Poll::Ready(Some(frame.map_err(failed)))
    }

    fn count(&mut self, data: Bytes) -> Result<Frame<Bytes>, MuxError> {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining
                .checked_sub(data.len() as u64)
                .ok_or_else(|| self.reader.wrong(MuxError::Length))?;
        }
        if self.reader.is_at_end() {
            self.end()?;
        }
        Ok(Frame::data(data))
    }

    fn trailers(&mut self, bytes: Bytes) -> Result<Frame<Bytes>, MuxError> {
        let trailers = head::read_fields(bytes).map_err(|_| self.reader.wrong(MuxError::Head))?;
        self.end()?;
        Ok(Frame::trailers(trailers))
    }

    fn end(&mut self) -> Result<(), MuxError> {
        self.is_over = true;
        if self.remaining.is_some_and(|remaining| remaining > 0) {
            return Err(self.reader.wrong(MuxError::Length));
        }
        self.upload.take().into_iter().for_each(Upload::go_on);
        Ok(())
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.is_over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let remaining = self.remaining.filter(|_| !self.has_none);
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn failed(error: MuxError) -> BodyError {
    BodyError::Connection(error.into())
}
