//! The task that moves a connection's bytes: it reads for all streams, and writes what they have handed over since its
//! last turn, so that requests which come together share system calls and TLS records.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{
    MuxError,
    frame::{HEADER_BYTES, Header},
    out::Out,
    state::{End, Opened, Shared},
};

/// How many bytes are read at once.
const SCRATCH_BYTES: usize = 32 * 1024;
/// How often is read before others have their turn.
const READS: usize = 8;
/// With so much that a client doesn't take, nothing more of what it says is read: it could make us say ever more. Beyond what
/// bodies come to ([`Out::is_full`], and the share of each), so that those alone stop nobody's requests.
const MOST_UNREAD_BYTES: usize = 2 * 1024 * 1024;
/// How long a peer may take for the last that is said to it.
const CLOSING_TIME: Duration = Duration::from_secs(30);

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A connection's byte stream. Dropping it ends the connection for all who hold streams.
pub(super) struct Mover<IO> {
    io: IO,
    shared: Arc<Shared>,
    /// What has been read of what is in front of a frame's content.
    front: Vec<u8>,
    /// The frame whose content is being read, and what there is of it. A frame isn't given on in parts: its sender had all
    /// of it.
    frame: Option<(Header, BytesMut)>,
    writing: Out,
    unflushed: bool,
    /// See [`Mover::is_held_up`].
    is_held_up: bool,
    /// The peer has given a sign of life.
    has_heard: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Mover<IO> {
    pub(super) fn new(io: IO, shared: Arc<Shared>) -> Self {
        Self {
            io,
            shared,
            front: Vec::new(),
            frame: None,
            writing: Out::default(),
            unflushed: false,
            is_held_up: false,
            has_heard: false,
        }
    }

    /// Moves what can be moved, and gives the requests that come to `opened`. Ready when the connection has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, opened: &mut impl FnMut(Opened)) -> Poll<MuxError> {
        self.shared.lock().moved_by(cx);
        let polled = match self.poll_read(cx, opened) {
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => {
                let was_clogged = self.is_clogged();
                match self.poll_write(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(error),
                    Poll::Ready(Ok(())) => {
                        // Then reading wasn't waited for.
                        if was_clogged {
                            cx.waker().wake_by_ref();
                        }
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
        };
        if let Poll::Ready(error) = polled {
            self.shared.end(error);
        }
        polled
    }

    /// Whether the peer has said anything since this was asked last, or taken what it was sent.
    pub(super) fn has_heard(&mut self) -> bool {
        mem::take(&mut self.has_heard)
    }

    /// Whether the peer has not taken enough for more to be written.
    pub(super) fn is_held_up(&self) -> bool {
        self.is_held_up
    }

    /// Writes what is left, and says that nothing follows.
    pub(super) async fn close(mut self) {
        let closed = poll_fn(|cx| {
            ready!(self.poll_write(cx))?;
            Pin::new(&mut self.io).poll_shutdown(cx).map_err(MuxError::from)
        });
        match timeout(CLOSING_TIME, closed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "a connection that is over anyway"),
            Err(_) => tracing::debug!("a sidecar didn't take the last that was said to it"),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, opened: &mut impl FnMut(Opened)) -> Poll<MuxError> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
        let mut reads = 0;
        let ended = loop {
            if self.is_clogged() {
                break Poll::Pending;
            }
            if reads == READS {
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
            reads += 1;
            let polled = match self.frame.take() {
                Some((header, content)) => self.poll_rest(header, content, cx, opened),
                None => self.poll_frames(&mut scratch, cx, opened),
            };
            match polled {
                Poll::Ready(Ok(())) => self.has_heard = true,
                Poll::Ready(Err(error)) => break Poll::Ready(error),
                Poll::Pending => break Poll::Pending,
            }
        };
        SCRATCH.set(Some(scratch));
        ended
    }

    /// Whether so much waits for the peer to take it that nothing more of its is read. Never so for a client: if neither
    /// end read, neither could write.
    fn is_clogged(&self) -> bool {
        let state = self.shared.lock();
        state.end == End::Server && self.writing.len() + state.out.len() > MOST_UNREAD_BYTES
    }

    /// Reads whatever comes next.
    fn poll_frames(
        &mut self,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
        opened: &mut impl FnMut(Opened),
    ) -> Poll<Result<(), MuxError>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(MuxError::Ended));
        }
        Poll::Ready(self.take_in(buffer.filled(), opened))
    }

    /// Reads what is missing of a frame, straight to where it stays.
    fn poll_rest(
        &mut self,
        header: Header,
        mut content: BytesMut,
        cx: &mut Context<'_>,
        opened: &mut impl FnMut(Opened),
    ) -> Poll<Result<(), MuxError>> {
        let missing = header.content() - content.len();
        let polled = pin!(self.io.read_buf(&mut (&mut content).limit(missing))).poll(cx);
        if content.len() < header.content() {
            self.frame = Some((header, content));
            return match ready!(polled)? {
                0 => Poll::Ready(Err(MuxError::Ended)),
                _ => Poll::Ready(Ok(())),
            };
        }
        Poll::Ready(self.give(header, content.freeze(), opened))
    }

    /// Cuts what was read into frames.
    fn take_in(&mut self, mut read: &[u8], opened: &mut impl FnMut(Opened)) -> Result<(), MuxError> {
        loop {
            let missing = HEADER_BYTES - self.front.len();
            let (front, behind) = read.split_at(missing.min(read.len()));
            self.front.extend_from_slice(front);
            let Ok(bytes) = <[u8; HEADER_BYTES]>::try_from(self.front.as_slice()) else { return Ok(()) };
            self.front.clear();
            let header = Header::read(bytes).ok_or(MuxError::Violation("no frame that is known"))?;
            if behind.len() < header.content() {
                let mut content = BytesMut::with_capacity(header.content());
                content.extend_from_slice(behind);
                self.frame = Some((header, content));
                return Ok(());
            }
            let (content, next) = behind.split_at(header.content());
            self.give(header, Bytes::copy_from_slice(content), opened)?;
            read = next;
        }
    }

    fn give(
        &mut self,
        header: Header,
        content: Bytes,
        opened: &mut impl FnMut(Opened),
    ) -> Result<(), MuxError> {
        self.shared.take_in(header, content)?.into_iter().for_each(opened);
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), MuxError>> {
        loop {
            if self.writing.is_empty() {
                let mut state = self.shared.lock();
                if state.out.is_empty() {
                    break;
                }
                let empty = mem::take(&mut self.writing);
                self.writing = state.take_out(empty);
            }
            self.unflushed = true;
            let before = self.writing.len();
            let written = self.writing.poll_write(&mut self.io, cx);
            // What was in the way has been taken, and so the peer is there.
            self.has_heard |= self.is_held_up && self.writing.len() < before;
            self.is_held_up = written.is_pending();
            ready!(written)?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO> Drop for Mover<IO> {
    fn drop(&mut self) {
        self.shared.end(MuxError::Ended);
    }
}
