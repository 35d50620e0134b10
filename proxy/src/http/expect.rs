//! `Expect: 100-continue` end to end (RFC 9110 section 10.1.1): a client that asks first is answered by the
//! server it asks, not by the proxies between.
//!
//! hyper's server sends `100 Continue` when the body is first read. So the body is not read before the
//! upstream has said 100, or has stayed silent for [`PATIENCE`], as a server may that doesn't know the
//! header. A final answer that comes first (413, 401) passes without the body having left the client.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::{Request, StatusCode, header::EXPECT};
use tokio::time::{Sleep, sleep};

use super::body::{Body, FramePoll};

/// How long an upstream may say nothing before the body is sent all the same. curl waits as long.
pub const PATIENCE: Duration = Duration::from_secs(1);

const ASKED: u8 = 0;
const GRANTED: u8 = 1;
const REFUSED: u8 = 2;

/// What has become of a client's question.
#[derive(Clone)]
pub(super) struct Expectation(Arc<Shared>);

struct Shared {
    state: AtomicU8,
    body: AtomicWaker,
}

/// A request body that isn't read while its expectation is open, and never once it was refused.
pub struct Awaiting {
    body: Body,
    expectation: Expectation,
    patience: Pin<Box<Sleep>>,
}

impl Expectation {
    /// Puts a request's body behind its `Expect` header, if it has both.
    pub(super) fn of(request: &mut Request<Body>) -> Option<Self> {
        let asks =
            request.headers().get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if !asks || http_body::Body::is_end_stream(request.body()) {
            return None;
        }
        let expectation = Self(Arc::new(Shared { state: AtomicU8::new(ASKED), body: AtomicWaker::new() }));
        let granted = expectation.clone();
        hyper::ext::on_informational(request, move |answer| {
            if answer.status() == StatusCode::CONTINUE {
                granted.settle(GRANTED);
            }
        });
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::Awaiting(Box::new(Awaiting {
            body,
            expectation: expectation.clone(),
            patience: Box::pin(sleep(PATIENCE)),
        }));
        Some(expectation)
    }

    /// The final answer is here. True if the body was never asked for, and so won't be sent at all.
    pub(super) fn is_refused(&self) -> bool {
        self.settle(REFUSED) == REFUSED
    }

    /// The first to settle wins; says what it is settled to.
    fn settle(&self, state: u8) -> u8 {
        let settled = self.0.state.compare_exchange(ASKED, state, Ordering::Relaxed, Ordering::Relaxed);
        self.0.body.wake();
        settled.map_or_else(|earlier| earlier, |_| state)
    }
}

impl Awaiting {
    pub(super) fn into_body(self) -> Body {
        self.body
    }

    pub(super) fn body(&self) -> &impl http_body::Body {
        &self.body
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> FramePoll {
        self.expectation.0.body.register(cx.waker());
        match self.expectation.0.state.load(Ordering::Relaxed) {
            GRANTED => {}
            REFUSED => return Poll::Pending,
            _ => match self.patience.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    self.expectation.settle(GRANTED);
                }
                Poll::Pending => return Poll::Pending,
            },
        }
        http_body::Body::poll_frame(Pin::new(&mut self.body), cx)
    }
}
