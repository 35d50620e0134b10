//! Copies of request bodies, for mirrors: what the backend reads, the mirror may read too, and never slows it
//! down.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

use super::body::{Body, BodyError, FramePoll, Guard};

/// How many parts of a body may wait for the mirror. One that is slower loses its copy.
const MAX_WAITING: usize = 16;

/// The copy, as far as it was read and not lost.
pub struct Copy {
    parts: mpsc::Receiver<Part>,
    remaining: Option<u64>,
    ended: bool,
}

/// What passes from the original to its copy.
enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The original was read to its end: without this, the channel's end is a loss.
    End,
}

struct Tap(Option<mpsc::Sender<Part>>);

/// A body and a copy of it.
pub fn tap(body: Body) -> (Body, Body) {
    let length = http_body::Body::size_hint(&body).exact();
    if http_body::Body::is_end_stream(&body) {
        return (body, Body::Empty);
    }
    // One place beyond, so that the end always has one.
    let (sender, parts) = mpsc::channel(MAX_WAITING + 1);
    let original = body.guarded(Tap(Some(sender)));
    (original, Body::Copy(Box::new(Copy { parts, remaining: length, ended: false })))
}

impl Tap {
    fn pass(&mut self, part: Part) {
        let Some(parts) = &self.0 else { return };
        if parts.capacity() <= 1 || parts.try_send(part).is_err() {
            self.0 = None;
        }
    }
}

impl Guard for Tap {
    fn data(&mut self, data: &Bytes) {
        self.pass(Part::Data(data.clone()));
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.pass(Part::Trailers(trailers.clone()));
    }

    fn end(&mut self) {
        if let Some(parts) = self.0.take() {
            // Fails only where the mirror is gone.
            let _ = parts.try_send(Part::End);
        }
    }
}

impl Copy {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        if self.ended {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(self.parts.poll_recv(cx));
        Poll::Ready(match part {
            Some(Part::Data(data)) => {
                self.remaining = self.remaining.map(|length| length.saturating_sub(data.len() as u64));
                self.ended = self.remaining == Some(0);
                Some(Ok(Frame::data(data)))
            }
            Some(Part::Trailers(trailers)) => {
                self.ended = true;
                Some(Ok(Frame::trailers(trailers)))
            }
            Some(Part::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(BodyError::Lost))
            }
        })
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::testing::Uploading;

    #[tokio::test]
    async fn original_and_copy_read_the_same() {
        let (mut client, body) = Uploading::begin().await;
        let (original, copy) = tap(body);
        client.say(b"hello ").await;
        client.say(b"world").await;
        client.end().await;
        let (original, copy) = tokio::join!(original.collect(), copy.collect());
        for read in [original.unwrap(), copy.unwrap()] {
            assert_eq!(read.trailers().unwrap()["x-sum"], "7");
            assert_eq!(read.to_bytes(), "hello world");
        }
    }

    #[tokio::test]
    async fn a_copy_that_nobody_reads_is_lost_and_the_original_is_not() {
        let (mut client, body) = Uploading::begin().await;
        let (mut original, copy) = tap(body);
        for _ in 0..2 * MAX_WAITING {
            client.say(b"part").await;
            original.frame().await.unwrap().unwrap();
        }
        assert!(matches!(copy.collect().await, Err(BodyError::Lost)));
        client.end().await;
        assert!(original.collect().await.is_ok());
    }

    #[tokio::test]
    async fn a_copy_of_what_breaks_off_does_not_end_well() {
        let (mut client, body) = Uploading::begin().await;
        let (original, copy) = tap(body);
        client.say(b"hello ").await;
        client.break_off();
        assert!(original.collect().await.is_err());
        assert!(copy.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_copy_of_known_length_says_its_length() {
        let (original, copy) = tap(Body::from("hello".to_owned()));
        assert_eq!(http_body::Body::size_hint(&copy).exact(), Some(5));
        assert_eq!(original.collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(copy.collect().await.unwrap().to_bytes(), "hello");
    }
}
