//! Answers that come while their request is still being sent: a task sends and reads, and what it reads passes to
//! whoever reads the answer. So the request goes on also while nobody does.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Weak,
    task::{Context, Poll},
};

use bytes::Bytes;
use gamut_http1::{Error, client::Answer};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::{
    body::{Body, BodyError, FramePoll},
    h1::give_back,
    io::Io,
    pool::Pool,
};

/// The answer's body, as far as the task has read it. Dropping it ends the task, and with it the connection.
pub struct Relayed {
    parts: mpsc::Receiver<Part>,
    remaining: Option<u64>,
    ended: bool,
}

/// `None` is the body's end: without it, the channel's end is none.
type Part = Result<Option<Frame<Bytes>>, Error>;

/// Lets a task carry the exchange on.
pub(super) fn relay(answer: Answer<Io, Body>, home: Weak<Pool>) -> Body {
    let remaining = http_body::Body::size_hint(&answer).exact();
    let ended = http_body::Body::is_end_stream(&answer);
    let (sender, parts) = mpsc::channel(1);
    tokio::spawn(carry_on(answer, sender, home));
    Body::Relayed(Box::new(Relayed { parts, remaining, ended }))
}

async fn carry_on(mut answer: Answer<Io, Body>, parts: mpsc::Sender<Part>, home: Weak<Pool>) {
    while !http_body::Body::is_end_stream(&answer) {
        let mut reserving = pin!(parts.reserve());
        let reserved = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = answer.poll_upload(cx) {
                return Poll::Ready(Err(Some(error)));
            }
            reserving.as_mut().poll(cx).map_err(|_| None)
        });
        let place = match reserved.await {
            Ok(place) => place,
            // The reader learns it by the missing end.
            Err(_) => return,
        };
        let frame = tokio::select! {
            frame = poll_fn(|cx| http_body::Body::poll_frame(pin!(&mut answer), cx)) => frame,
            () = parts.closed() => return,
        };
        let is_last = !matches!(frame, Some(Ok(_)));
        place.send(frame.transpose());
        if is_last {
            break;
        }
    }
    // Who has read to a body's end by its length doesn't wait for this.
    let _ = parts.send(Ok(None)).await;
    drop(parts);
    let sent = poll_fn(|cx| answer.poll_upload(cx)).await;
    if let (Ok(()), Some(home)) = (sent, home.upgrade()) {
        give_back(&mut answer, &home);
    }
}

impl Relayed {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if self.ended {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(self.parts.poll_recv(cx)).unwrap_or(Err(Error::Closed));
        if let (Ok(Some(frame)), Some(remaining)) = (&part, &mut self.remaining) {
            *remaining = remaining.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        self.ended = self.remaining == Some(0) || !matches!(&part, Ok(Some(frame)) if frame.is_data());
        Poll::Ready(part.transpose().map(|frame| frame.map_err(BodyError::from)))
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
