//! The task that moves a connection's bytes: it reads for all streams, and writes what they have handed over since its
//! last turn, so that requests which come together share system calls and TLS records.

use std::{
    cell::Cell,
    future::poll_fn,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    MuxError,
    frame::{HEADER_BYTES, Header, Kind},
    out::Out,
    state::{Opened, Shared},
};

/// How many bytes are read at once.
const SCRATCH_BYTES: usize = 32 * 1024;
/// How often is read before others have their turn.
const READS: usize = 8;
/// With so much that the peer doesn't take, nothing more of what it says is read: it could make us say ever more. Far
/// beyond what bodies come to ([`Out::is_full`]), so that two ends which both write don't wait for each other.
const MOST_UNREAD_BYTES: usize = 1024 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A connection's byte stream. Dropping it ends the connection for all who hold streams.
pub(super) struct Mover<IO> {
    io: IO,
    shared: Arc<Shared>,
    /// The frame whose content is being read. Of data, `number` is what is still to come.
    frame: Option<Header>,
    /// What of it, or of what is in front of a frame, has been read.
    rest: Vec<u8>,
    writing: Out,
    unflushed: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Mover<IO> {
    pub(super) fn new(io: IO, shared: Arc<Shared>) -> Self {
        Self { io, shared, frame: None, rest: Vec::new(), writing: Out::default(), unflushed: false }
    }

    /// Moves what can be moved, and gives the requests that come to `opened`. Ready when the connection has ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, opened: &mut impl FnMut(Opened)) -> Poll<MuxError> {
        self.shared.lock().moved_by(cx);
        let polled = match self.poll_read(cx, opened) {
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => match self.poll_write(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(error),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
        };
        if let Poll::Ready(error) = &polled {
            self.shared.end(error.clone());
        }
        polled
    }

    /// Writes what is left, and says that nothing follows.
    pub(super) async fn close(mut self) {
        let closed = poll_fn(|cx| {
            std::task::ready!(self.poll_write(cx))?;
            Pin::new(&mut self.io).poll_shutdown(cx).map_err(MuxError::from)
        });
        if let Err(error) = closed.await {
            tracing::trace!(%error, "a connection that is over anyway");
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, opened: &mut impl FnMut(Opened)) -> Poll<MuxError> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
        let mut reads = 0;
        let ended = loop {
            if self.writing.len() + self.shared.lock().out.len() > MOST_UNREAD_BYTES {
                break Poll::Pending;
            }
            if reads == READS {
                cx.waker().wake_by_ref();
                break Poll::Pending;
            }
            reads += 1;
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => break Poll::Ready(MuxError::Ended),
                Poll::Ready(Ok(())) => {
                    if let Err(error) = self.take_in(buffer.filled(), opened) {
                        break Poll::Ready(error);
                    }
                }
                Poll::Ready(Err(error)) => break Poll::Ready(error.into()),
                Poll::Pending => break Poll::Pending,
            }
        };
        SCRATCH.set(Some(scratch));
        ended
    }

    /// Cuts what was read into frames.
    fn take_in(&mut self, mut read: &[u8], opened: &mut impl FnMut(Opened)) -> Result<(), MuxError> {
        loop {
            let header = match self.frame {
                Some(header) => header,
                None => {
                    let Some(bytes) = self.collect(HEADER_BYTES, &mut read) else { return Ok(()) };
                    let bytes = <[u8; HEADER_BYTES]>::try_from(&*bytes).ok();
                    let header = bytes.and_then(Header::read);
                    *self.frame.insert(header.ok_or(MuxError::Violation("no frame that is known"))?)
                }
            };
            let content = if header.kind == Kind::Data {
                // Data isn't waited for.
                let length = header.number.min(read.len());
                if length == 0 && header.number > 0 {
                    return Ok(());
                }
                take(&mut read, length)
            } else {
                match self.collect(header.content(), &mut read) {
                    Some(content) => content,
                    None => return Ok(()),
                }
            };
            let mut header = header;
            if header.kind == Kind::Data && content.len() < header.number {
                self.frame = Some(Header { number: header.number - content.len(), ..header });
                header.is_last = false;
            } else {
                self.frame = None;
            }
            if let Some(request) = self.shared.take_in(header, content)? {
                opened(request);
            }
        }
    }

    /// The next `length` bytes, once all of them are here.
    fn collect(&mut self, length: usize, read: &mut &[u8]) -> Option<Bytes> {
        if self.rest.is_empty() && read.len() >= length {
            return Some(take(read, length));
        }
        let missing = length - self.rest.len();
        self.rest.extend_from_slice(&take(read, missing.min(read.len())));
        (self.rest.len() == length).then(|| mem::take(&mut self.rest).into())
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
            std::task::ready!(self.writing.poll_write(&mut self.io, cx))?;
        }
        if self.unflushed {
            std::task::ready!(Pin::new(&mut self.io).poll_flush(cx))?;
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

fn take(read: &mut &[u8], length: usize) -> Bytes {
    let (taken, left) = read.split_at(length.min(read.len()));
    *read = left;
    Bytes::copy_from_slice(taken)
}
