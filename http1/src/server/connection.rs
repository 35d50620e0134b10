//! A server's connection: its bytes, and the state of the request that is being served.
//!
//! The request's body may be read by another task than the connection's, so both share the connection behind a lock.
//! Usually it is the same task; then nobody waits for it. Neither holds it while something else is polled.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, response};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep, timeout},
};

use super::{
    Drain,
    incoming::{FramePoll, Incoming, Source},
};
use crate::{
    BadHead, Error,
    body::{Decoded, Decoder, Encoder},
    head::{Asked, CONTINUE, RequestHead, parse_request, trim_start_lines, write_response},
    wire::{Output, Wire},
};

/// How long a connection is read on that is to be closed, so that the client reads its last answer rather than a
/// reset (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much is read then, and of a body that nobody wants, to save the connection.
const MOST_DISCARDED_BYTES: usize = 256 * 1024;

/// The connection's own hold on it. Dropping it closes the connection, also under a body that is still being read.
pub(super) struct Connection<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(Arc<Shared<IO>>);

pub(super) struct Shared<IO>(Mutex<State<IO>>);

struct State<IO> {
    /// `None` once it is closed or handed on.
    wire: Option<Wire<IO>>,
    reading: Reading,
    /// The client waits for `100 Continue`.
    asks: bool,
    /// It was written, and is for the body's reader to send until there is an answer.
    is_continuing: bool,
    /// The connection's task, where it waits for the body's end.
    connection: Option<Waker>,
    /// The task that waits for a part of the body.
    reader: Option<Waker>,
}

/// What has become of the request's body.
enum Reading {
    /// All of it has been read.
    Over,
    /// Somebody has yet to read it.
    Wanted(Decoder),
    /// Nobody reads it any more.
    Unwanted(Decoder),
    /// It isn't what its head said.
    Broken,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self(Arc::new(Shared(Mutex::new(State {
            wire: Some(Wire::new(io)),
            reading: Reading::Over,
            asks: false,
            is_continuing: false,
            connection: None,
            reader: None,
        }))))
    }

    /// The next request's head, which may take so long from its first byte on; `None` if there is none.
    pub(super) async fn read_head(
        &self,
        time: Duration,
        drain: &mut Drain<'_, impl Future<Output = ()>>,
    ) -> Result<Option<RequestHead>, Error> {
        // There is one only for a head that doesn't come in one piece.
        let mut late: Option<Pin<Box<Sleep>>> = None;
        let head = poll_fn(|cx| {
            let mut state = self.0.lock();
            let wire = state.wire()?;
            loop {
                trim_start_lines(&mut wire.input.rest);
                if !wire.input.rest.is_empty()
                    && let Some(head) = parse_request(&mut wire.input.rest)?
                {
                    return Poll::Ready(Ok(Some(head)));
                }
                if wire.input.rest.is_empty() && drain.poll(cx) {
                    return Poll::Ready(Ok(None));
                }
                let is_idle = wire.input.rest.is_empty();
                match wire.poll_read(cx)? {
                    Poll::Ready(0) => {
                        return Poll::Ready(if is_idle { Ok(None) } else { Err(Error::Incomplete) });
                    }
                    Poll::Ready(_) => {}
                    Poll::Pending if is_idle => return Poll::Pending,
                    Poll::Pending => {
                        let late = late.get_or_insert_with(|| Box::pin(sleep(time)));
                        return late.as_mut().poll(cx).map(|()| Err(BadHead::Late(time).into()));
                    }
                }
            }
        });
        let head = head.await;
        if head.is_err() {
            self.0.lock().reading = Reading::Broken;
        }
        head
    }

    /// A request whose body is read from here.
    pub(super) fn begin(&self, head: RequestHead) -> Request<Incoming> {
        let decoder = Decoder::new(head.framing);
        let mut state = self.0.lock();
        if decoder.is_over() {
            state.reading = Reading::Over;
            return head.into_request(Incoming::none());
        }
        let length = decoder.remaining();
        state.asks = head.expects;
        state.reading = Reading::Wanted(decoder);
        head.into_request(Incoming::new(Arc::clone(&self.0) as Arc<dyn Source>, length))
    }

    /// Ready if the client has gone away.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.0.lock();
        state.await_reader(cx);
        let State { wire: Some(wire), reading: Reading::Over, .. } = &mut *state else {
            return Poll::Pending;
        };
        // One read of a next request is enough: more of it comes when it is due.
        if !wire.input.rest.is_empty() {
            return Poll::Pending;
        }
        match ready!(wire.poll_read(cx)) {
            Ok(0) => Poll::Ready(Error::Incomplete),
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(error.into()),
        }
    }

    /// Whether the client waits for a word that won't come any more, now that it is answered: nobody knows whether it
    /// sends the body then.
    pub(super) fn leaves_waiting(&self) -> bool {
        self.0.lock().asks
    }

    /// Writes an answer's head into what is to be sent.
    pub(super) fn write_head(
        &self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Encoder, Error>,
    ) -> Result<Encoder, Error> {
        let mut state = self.0.lock();
        state.asks = false;
        state.is_continuing = false;
        write(state.wire()?.output.front())
    }

    /// Writes into what is to be sent.
    pub(super) fn write(&self, write: impl FnOnce(&mut Output) -> Result<(), Error>) -> Result<(), Error> {
        write(&mut self.0.lock().wire()?.output)
    }

    /// Whether something must be sent before more is written.
    pub(super) fn is_full(&self) -> bool {
        self.0.lock().wire.as_ref().is_some_and(|wire| wire.output.is_full())
    }

    /// Sends what was written.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.lock().wire()?.poll_flush(cx).map_err(Error::from)
    }

    /// Sees to the end of the request's body, once it is answered. True if another request can follow.
    pub(super) async fn settle(&self) -> Result<bool, Error> {
        let mut discarded = 0;
        poll_fn(|cx| {
            let mut state = self.0.lock();
            loop {
                match &state.reading {
                    Reading::Over => {
                        state.wire()?.input.settle();
                        return Poll::Ready(Ok(true));
                    }
                    Reading::Broken => return Poll::Ready(Ok(false)),
                    Reading::Wanted(_) => {
                        state.await_reader(cx);
                        return Poll::Pending;
                    }
                    Reading::Unwanted(_) => {}
                }
                // Worth it only if it is here already.
                match state.poll_body(cx) {
                    Poll::Ready(Ok(Some(frame))) => discarded += frame.data_ref().map_or(0, Bytes::len),
                    Poll::Ready(Ok(None)) => {}
                    Poll::Ready(Err(_)) | Poll::Pending => return Poll::Ready(Ok(false)),
                }
                if discarded > MOST_DISCARDED_BYTES {
                    return Poll::Ready(Ok(false));
                }
            }
        })
        .await
    }

    /// Sends a 101 and hands the connection on.
    pub(super) async fn switch(&self, head: &response::Parts, asked: &Asked) -> Result<(IO, Bytes), Error> {
        let none = SizeHint::with_exact(0);
        self.write_head(|out| write_response(head, &none, asked, &mut true, out))?;
        poll_fn(|cx| self.poll_flush(cx)).await?;
        let wire = self.0.lock().wire.take().ok_or(Error::Closed)?;
        Ok((wire.io, wire.input.rest))
    }

    /// Sends what is written and closes the connection, once the request's body isn't read any more. Where the client
    /// may still be sending, what comes is read for a moment.
    pub(super) async fn close(&self) {
        let ended = poll_fn(|cx| {
            let mut state = self.0.lock();
            let wire = state.wire()?;
            ready!(wire.poll_flush(cx))?;
            Pin::new(&mut wire.io).poll_shutdown(cx).map_err(Error::from)
        });
        if ended.await.is_err() {
            return;
        }
        let is_read = matches!(self.settle().await, Ok(true));
        let Some(mut wire) = self.0.lock().wire.take() else { return };
        if is_read && wire.input.rest.is_empty() {
            return;
        }
        let discarding = async {
            let mut discarded = 0;
            while discarded < MOST_DISCARDED_BYTES {
                wire.input.rest.clear();
                match poll_fn(|cx| wire.poll_read(cx)).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => discarded += read,
                }
            }
        };
        // Whichever is first: the client has ended, or has had its time.
        let _ = timeout(LINGER, discarding).await;
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Connection<IO> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.wire = None;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl<IO> Shared<IO> {
    /// Nothing under the lock panics.
    fn lock(&self) -> MutexGuard<'_, State<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO> State<IO> {
    fn wire(&mut self) -> Result<&mut Wire<IO>, Error> {
        self.wire.as_mut().ok_or(Error::Closed)
    }

    /// The connection's task wants to know when the body has been read, or nobody reads it any more.
    fn await_reader(&mut self, cx: &Context<'_>) {
        if matches!(self.reading, Reading::Wanted(_)) {
            remember(&mut self.connection, cx);
        }
    }

    /// The body's reader has come to an end, or has given up.
    fn reader_ends(&mut self, reading: Reading, reader: Option<&Context<'_>>) {
        self.reading = reading;
        let connection = self.connection.take();
        if let Some(connection) = connection
            // In the same task the connection is looked at next anyway.
            && reader.is_none_or(|cx| !connection.will_wake(cx.waker()))
        {
            connection.wake();
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> State<IO> {
    /// The next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        let Self { wire: Some(wire), reading: Reading::Wanted(decoder) | Reading::Unwanted(decoder), .. } =
            self
        else {
            let is_over = matches!(self.reading, Reading::Over);
            return Poll::Ready(if is_over { Ok(None) } else { Err(Error::Closed) });
        };
        let frame = loop {
            match decoder.decode(&mut wire.input.rest) {
                Ok(Decoded::Data(data)) => break Ok(Some(Frame::data(data))),
                Ok(Decoded::Trailers(trailers)) => break Ok(Some(Frame::trailers(trailers))),
                Ok(Decoded::End) => break Ok(None),
                Ok(Decoded::More) => {}
                Err(bad) => break Err(Error::Body(bad)),
            }
            match ready!(wire.poll_read_body(decoder.remaining(), cx)) {
                Ok(0) => break Err(Error::Incomplete),
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
        };
        if decoder.is_over() {
            self.reader_ends(Reading::Over, Some(cx));
        } else if frame.is_err() {
            self.reader_ends(Reading::Broken, Some(cx));
        }
        Poll::Ready(frame)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Source for Shared<IO> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> FramePoll {
        let mut state = self.lock();
        if std::mem::take(&mut state.asks) {
            // The body is wanted. (Nothing else has been written while an answer is awaited.)
            state.wire()?.output.front().extend_from_slice(CONTINUE);
            state.is_continuing = true;
        }
        // An answer is its connection's to send: a stream wakes only who has asked last, and a reader may ask for no part for long.
        if state.is_continuing
            && let Poll::Ready(flushed) = state.wire()?.poll_flush(cx)
        {
            state.is_continuing = false;
            if let Err(error) = flushed {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        match state.poll_body(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.transpose()),
            Poll::Pending => {
                remember(&mut state.reader, cx);
                Poll::Pending
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.lock().reading, Reading::Over)
    }

    fn give_up(&self) {
        let mut state = self.lock();
        state.reader = None;
        match std::mem::replace(&mut state.reading, Reading::Over) {
            Reading::Wanted(decoder) => state.reader_ends(Reading::Unwanted(decoder), None),
            reading => state.reading = reading,
        }
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
