//! What the h2 crate writes, gathered until its connection's turn is over.
//!
//! The crate flushes before every part of a body that isn't tiny, so that an answer of gRPC (head, message, trailers)
//! would be two system calls, and two TLS records, of its own. Here its flushes mean nothing: whoever polls the
//! connection flushes afterwards ([`Flush`]), once for all streams that had something to say.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So much is gathered: a TLS record. What would be beyond is written without being copied.
const GATHERED_BYTES: usize = 16 * 1024;

thread_local! {
    /// The buffer of whoever gathers next: a connection that has nothing to write holds none.
    static GATHERING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection's byte stream, as the h2 crate has it.
pub(super) struct Gather<IO>(Arc<Mutex<Wire<IO>>>);

/// The hold on it of whoever polls the connection.
pub(super) struct Flush<IO>(Arc<Mutex<Wire<IO>>>);

struct Wire<IO> {
    io: IO,
    gathered: Vec<u8>,
    /// How much of `gathered` is written.
    sent: usize,
    /// The stream below may have gathered something too (TLS).
    unflushed: bool,
    /// How writing failed, to be told to the h2 crate when it reads.
    broken: Option<io::Error>,
}

/// A byte stream whose writes are gathered, and what flushes it.
pub(super) fn gather<IO>(io: IO) -> (Gather<IO>, Flush<IO>) {
    let wire = Wire { io, gathered: Vec::new(), sent: 0, unflushed: false, broken: None };
    let wire = Arc::new(Mutex::new(wire));
    (Gather(Arc::clone(&wire)), Flush(wire))
}

impl<IO: AsyncWrite + Unpin> Flush<IO> {
    /// Polls the connection with `turn`, and flushes after each time.
    pub(super) async fn after<T>(&self, mut turn: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| {
            let polled = turn(cx);
            self.poll(cx);
            polled
        })
        .await
    }

    /// Writes what is gathered, as far as it can be; the rest, when the task in `cx` polls again, which it will be woken
    /// for. A failure ends the connection at its next poll, which is asked for.
    fn poll(&self, cx: &mut Context<'_>) {
        let mut wire = lock(&self.0);
        if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
            wire.broken = Some(error);
            cx.waker().wake_by_ref();
        }
    }
}

impl<IO: AsyncWrite + Unpin> Wire<IO> {
    fn unsent(&self) -> &[u8] {
        self.gathered.get(self.sent..).unwrap_or_default()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent().is_empty() {
            ready!(self.poll_through(&[], cx))?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is gathered and then `parts`, both as far as they are taken at once; how much of the parts was.
    fn poll_through(&mut self, parts: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let gathered = self.gathered.get(self.sent..).unwrap_or_default();
        let written = if gathered.is_empty() {
            ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?
        } else if parts.is_empty() {
            ready!(Pin::new(&mut self.io).poll_write(cx, gathered))?
        } else {
            let mut all: SmallVec<[IoSlice<'_>; 4]> = SmallVec::new();
            all.push(IoSlice::new(gathered));
            all.extend(parts.iter().map(|part| IoSlice::new(part)));
            ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        let of_gathered = written.min(gathered.len());
        self.sent += of_gathered;
        if of_gathered > 0 && self.sent == self.gathered.len() {
            let mut buffer = std::mem::take(&mut self.gathered);
            self.sent = 0;
            buffer.clear();
            GATHERING.set(buffer);
        }
        Poll::Ready(Ok(written - of_gathered))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        match wire.broken.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut wire.io).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0);
        let length = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        while wire.unsent().len() + length > GATHERED_BYTES {
            let written = ready!(wire.poll_through(bufs, cx))?;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
        if wire.gathered.capacity() == 0 {
            wire.gathered = GATHERING.take();
        }
        bufs.iter().for_each(|buf| wire.gathered.extend_from_slice(buf));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: see [`Flush`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = lock(&self.0);
        ready!(wire.poll_flush(cx))?;
        Pin::new(&mut wire.io).poll_shutdown(cx)
    }
}

/// Its two holders are one task's, so that nobody waits for it.
fn lock<IO>(wire: &Mutex<Wire<IO>>) -> MutexGuard<'_, Wire<IO>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    async fn turn(flush: &Flush<DuplexStream>) {
        flush.after(|_| Poll::Ready(())).await;
    }

    async fn read(far: &mut DuplexStream) -> Vec<u8> {
        let mut read = vec![0; 64 * 1024];
        let count = far.read(&mut read).await.unwrap();
        read.truncate(count);
        read
    }

    #[tokio::test]
    async fn what_is_written_and_flushed_leaves_in_one_piece_at_the_turns_end() {
        let (near, mut far) = duplex(64 * 1024);
        let (mut gather, flush) = gather(near);
        for part in [&b"head, "[..], b"message, ", b"trailers"] {
            gather.write_all(part).await.unwrap();
            gather.flush().await.unwrap();
        }
        turn(&flush).await;
        assert_eq!(read(&mut far).await, b"head, message, trailers");
    }

    #[tokio::test]
    async fn what_is_long_is_written_behind_what_was_gathered() {
        let (near, mut far) = duplex(256 * 1024);
        let (mut gather, flush) = gather(near);
        let long = vec![b'x'; 2 * GATHERED_BYTES];
        gather.write_all(b"head").await.unwrap();
        gather.write_all(&long).await.unwrap();
        gather.write_all(b"end").await.unwrap();
        turn(&flush).await;
        drop((gather, flush));
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert!(all == [b"head", &long[..], b"end"].concat());
    }

    #[tokio::test]
    async fn a_reader_that_stops_stops_the_writer() {
        let (near, mut far) = duplex(1024);
        let (mut gather, flush) = gather(near);
        let writing = tokio::spawn(async move {
            gather.write_all(&vec![b'x'; 8 * GATHERED_BYTES]).await.unwrap();
            gather.shutdown().await.unwrap();
        });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        writing.await.unwrap();
        assert_eq!(all.len(), 8 * GATHERED_BYTES);
        drop(flush);
    }

    #[tokio::test]
    async fn a_write_that_fails_is_told_to_whoever_reads() {
        let (near, far) = duplex(1024);
        let (mut gather, flush) = gather(near);
        gather.write_all(b"hello").await.unwrap();
        drop(far);
        turn(&flush).await;
        assert_eq!(gather.read_u8().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
