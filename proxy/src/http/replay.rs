//! Request bodies that can be sent again: to another endpoint, where one did nothing about the request, or as a
//! rule's `retry` stanza has it.
//!
//! What one attempt reads is kept for the next, up to [`MAX_REPLAY_BYTES`] and until an answer is settled on. A
//! longer body streams on, unkept: the attempt that is under way is then the last. Nothing is read ahead of the
//! attempt that sends it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError, FramePoll};

/// How much of a request's body is kept for another attempt. What retries are meant for, short messages
/// between services, fits; and a hundred such requests in flight cost a sidecar 6 MiB.
pub const MAX_REPLAY_BYTES: usize = 64 * 1024;

/// A request's body, and what of it has been read so far. Dropping it says that there will be no other attempt:
/// what was kept for one is let go, and the attempt under way streams on by itself.
pub struct Replayable(Arc<Mutex<Kept>>);

/// One attempt's reading of a [`Replayable`].
pub struct Replay {
    kept: Arc<Mutex<Kept>>,
    /// Which attempt this is. Only the newest may read: an older one may live on for a moment in a
    /// connection's task, and would take the wake-ups that the newest waits for.
    attempt: u32,
    remaining: Option<u64>,
    ended: bool,
}

struct Kept {
    source: Body,
    chunks: VecDeque<Bytes>,
    /// The chunk that the newest attempt reads next.
    next: usize,
    bytes: usize,
    trailers: Option<HeaderMap>,
    state: State,
    length: Option<u64>,
    attempt: u32,
    /// Nobody can make another attempt.
    is_last: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// More may come from the source.
    Reading,
    /// All of it is in `chunks` and `trailers`.
    Complete,
    /// It was too long to be kept, or there is nobody to keep it for.
    Passing,
    /// The client broke off.
    Broken,
}

impl Replayable {
    /// Keeps `source` while attempts read it.
    pub fn new(source: Body) -> Self {
        let length = source.size_hint().exact();
        Self(Arc::new(Mutex::new(Kept {
            source,
            chunks: VecDeque::new(),
            next: 0,
            bytes: 0,
            trailers: None,
            state: State::Reading,
            length,
            attempt: 0,
            is_last: false,
        })))
    }

    /// Whether another attempt could have the body from its start.
    pub fn is_whole(&self) -> bool {
        matches!(lock(&self.0).state, State::Reading | State::Complete)
    }

    /// The body from its start, for the next attempt; earlier attempts can't read on. `None` once it can't be
    /// had again.
    pub fn attempt(&self) -> Option<Body> {
        let mut kept = lock(&self.0);
        if matches!(kept.state, State::Passing | State::Broken) {
            return None;
        }
        kept.attempt += 1;
        kept.next = 0;
        Some(Body::Replay(Box::new(Replay {
            kept: Arc::clone(&self.0),
            attempt: kept.attempt,
            remaining: kept.length,
            ended: kept.length == Some(0),
        })))
    }
}

impl Drop for Replayable {
    fn drop(&mut self) {
        let mut kept = lock(&self.0);
        let read = kept.next;
        kept.chunks.drain(..read);
        kept.next = 0;
        if kept.state == State::Reading {
            kept.state = State::Passing;
        }
        kept.is_last = true;
    }
}

impl Replay {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut kept = lock(&self.kept);
        if kept.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Broken)));
        }
        let polled = match kept.next_chunk() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => kept.read_on(cx),
        };
        drop(kept);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(remaining), Some(data)) = (&mut self.remaining, frame.data_ref()) {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                }
                self.ended = frame.is_trailers() || self.remaining == Some(0);
            }
            Poll::Ready(_) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Kept {
    /// What is kept and the newest attempt hasn't read.
    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.is_last {
            return self.chunks.pop_front();
        }
        let chunk = self.chunks.get(self.next)?.clone();
        self.next += 1;
        Some(chunk)
    }

    /// What comes after the kept chunks: from the source, or its remembered end.
    fn read_on(&mut self, cx: &mut Context<'_>) -> FramePoll {
        match self.state {
            State::Complete => return Poll::Ready(self.trailers.clone().map(|t| Ok(Frame::trailers(t)))),
            State::Broken => return Poll::Ready(Some(Err(BodyError::Broken))),
            State::Reading | State::Passing => {}
        }
        let polled = Pin::new(&mut self.source).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.complete(None),
            Poll::Ready(Some(Err(_))) => self.state = State::Broken,
            Poll::Ready(Some(Ok(frame))) => match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => {
                    self.keep(data);
                    if self.source.is_end_stream() {
                        self.complete(None);
                    }
                }
                (None, Some(trailers)) => self.complete(Some(trailers.clone())),
                (None, None) => {}
            },
        }
        polled
    }

    fn keep(&mut self, data: &Bytes) {
        if self.state != State::Reading {
            return;
        }
        self.bytes += data.len();
        if self.bytes > MAX_REPLAY_BYTES {
            self.state = State::Passing;
            self.chunks = VecDeque::new();
            self.next = 0;
        } else {
            self.chunks.push_back(data.clone());
            self.next += 1;
        }
    }

    fn complete(&mut self, trailers: Option<HeaderMap>) {
        if self.state == State::Reading {
            self.state = State::Complete;
            self.trailers = trailers;
            self.source = Body::Empty;
        }
    }
}

/// Nothing under the lock panics, and a body half read is no worse for it.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::testing::Uploading;

    async fn read(attempt: Body) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let all = attempt.collect().await?;
        let trailers = all.trailers().cloned();
        Ok((all.to_bytes(), trailers))
    }

    #[tokio::test]
    async fn a_second_attempt_reads_the_same_as_the_first() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        client.say(b"hello ").await;
        client.say(b"world").await;
        client.end().await;
        for _ in 0..3 {
            let (data, trailers) = read(replayable.attempt().unwrap()).await.unwrap();
            assert_eq!(data, "hello world");
            assert_eq!(trailers.unwrap()["x-sum"], "7");
        }
    }

    #[tokio::test]
    async fn an_attempt_that_stops_half_way_leaves_the_rest_to_the_next() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        client.say(b"hello ").await;
        let mut first = replayable.attempt().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "hello ");

        let second = replayable.attempt().unwrap();
        assert!(matches!(first.frame().await, Some(Err(BodyError::Broken))), "only the newest attempt reads");
        client.say(b"world").await;
        client.end().await;
        assert_eq!(read(second).await.unwrap().0, "hello world");
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_passes_once_and_is_not_kept() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        let part = vec![7; 16 * 1024];
        for _ in 0..6 {
            client.say(&part).await;
        }
        client.end().await;
        let (data, _) = read(replayable.attempt().unwrap()).await.unwrap();
        assert_eq!(data.len(), 6 * part.len());
        assert!(!replayable.is_whole());
        assert!(replayable.attempt().is_none());
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_limit_is_kept() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        client.say(&vec![7; MAX_REPLAY_BYTES]).await;
        client.end().await;
        read(replayable.attempt().unwrap()).await.unwrap();
        assert_eq!(read(replayable.attempt().unwrap()).await.unwrap().0.len(), MAX_REPLAY_BYTES);
    }

    #[tokio::test]
    async fn what_is_kept_is_let_go_when_there_will_be_no_other_attempt() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        client.say(b"hello ").await;
        client.say(b"wide ").await;
        let mut first = replayable.attempt().unwrap();
        for _ in 0..2 {
            first.frame().await.unwrap().unwrap();
        }
        let mut second = replayable.attempt().unwrap();
        assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "hello ");

        let kept = replayable.0.clone();
        drop(replayable);
        assert_eq!(lock(&kept).chunks, ["wide "], "only what the attempt has yet to read");
        client.say(b"world").await;
        client.end().await;
        assert_eq!(read(second).await.unwrap().0, "wide world");
        assert!(lock(&kept).chunks.is_empty());
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_ends_all_attempts() {
        let (mut client, body) = Uploading::begin().await;
        let replayable = Replayable::new(body);
        client.say(b"hello ").await;
        let attempt = replayable.attempt().unwrap();
        client.break_off();
        assert!(read(attempt).await.is_err());
        assert!(replayable.attempt().is_none());
    }
}
