//! A request's body, as whoever answers the request reads it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::Error;

/// A request's body, read from its connection when it is polled. Its first poll tells a client that waits for it to send
/// it (`100 Continue`). Dropping it before its end leaves the rest unread, and usually ends the connection behind the
/// answer.
pub struct Incoming {
    source: Option<Arc<dyn Source>>,
    /// How much is still to come, where that was said.
    remaining: Option<u64>,
}

pub(super) type FramePoll = Poll<Option<Result<Frame<Bytes>, Error>>>;

/// A connection as a body's reader sees it.
pub(super) trait Source: Send + Sync {
    fn poll_frame(&self, cx: &mut Context<'_>) -> FramePoll;
    /// Whether all of the body has been read.
    fn is_over(&self) -> bool;
    /// Nobody reads the body any more.
    fn give_up(&self);
}

impl Incoming {
    /// The body of a request without one.
    pub(super) fn none() -> Self {
        Self { source: None, remaining: Some(0) }
    }

    pub(super) fn new(source: Arc<dyn Source>, length: Option<u64>) -> Self {
        Self { source: Some(source), remaining: length }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll {
        let this = self.get_mut();
        let Some(source) = &this.source else { return Poll::Ready(None) };
        let polled = source.poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let (Some(remaining), Some(data)) = (&mut this.remaining, frame.data_ref())
        {
            *remaining = remaining.saturating_sub(data.len() as u64);
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) if !source.is_over() => {}
            // A next request may be read from the connection now.
            Poll::Ready(_) => this.source = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            source.give_up();
        }
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}
