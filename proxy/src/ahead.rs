//! What TLS reads from and writes to: rustls asks for 4 KiB at a time, which for long bodies would be four system calls a
//! record. And who dialled says the end by TLS alone, so that the port it dialled from is free again at once.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tcp::BreakOff;

/// How many bytes are read at once: two TLS records.
const SCRATCH_BYTES: usize = 32 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A stream that is read in larger pieces than its reader asks for. It holds memory only while its reader has yet to ask
/// for the rest of a piece.
#[derive(Debug)]
pub struct ReadAhead<IO> {
    io: IO,
    held: Option<Piece>,
    ends_last: bool,
}

/// What was read: the thread's scratch, kept until all of it is taken.
#[derive(Debug)]
struct Piece {
    scratch: Box<[u8]>,
    taken: usize,
    length: usize,
}

impl<IO> ReadAhead<IO> {
    /// A stream of which nothing was read.
    pub fn new(io: IO) -> Self {
        Self { io, held: None, ends_last: false }
    }

    /// A stream that we dialled, of which nothing was read, below a TLS session. Its end is the session's `close_notify`, and the
    /// kernel hears of it when the stream is dropped. Otherwise who dials, and has said its last first, as apps that call do,
    /// could not use the port again for a minute (TIME_WAIT, RFC 9293 section 3.6.1), and has some 28,000 of them for each pod.
    pub fn dialled(io: IO) -> Self {
        Self { io, held: None, ends_last: true }
    }

    /// The stream below, for its socket's sake: reading from it loses what was read ahead.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: BreakOff> BreakOff for ReadAhead<IO> {
    fn break_off(&self) {
        self.io.break_off();
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut piece = match this.held.take() {
            Some(piece) => piece,
            None if buf.remaining() >= SCRATCH_BYTES => return Pin::new(&mut this.io).poll_read(cx, buf),
            None => {
                let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
                let mut whole = ReadBuf::new(&mut scratch);
                let polled = Pin::new(&mut this.io).poll_read(cx, &mut whole);
                let length = whole.filled().len();
                if length == 0 {
                    SCRATCH.set(Some(scratch));
                    return polled;
                }
                Piece { scratch, taken: 0, length }
            }
        };
        let rest = piece.scratch.get(piece.taken..piece.length).unwrap_or_default();
        let now = rest.len().min(buf.remaining());
        buf.put_slice(rest.get(..now).unwrap_or_default());
        piece.taken += now;
        if piece.taken < piece.length {
            this.held = Some(piece);
        } else {
            SCRATCH.set(Some(piece.scratch));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ends_last {
            return Pin::new(&mut this.io).poll_flush(cx);
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_however_it_is_asked_for() {
        let (mut far, near) = duplex(1024 * 1024);
        let sent: Vec<u8> = (0..3 * SCRATCH_BYTES + 5).map(|at| (at % 251) as u8).collect();
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut near = ReadAhead::new(near);
        let mut read = Vec::new();
        for wanted in [1, 4096, SCRATCH_BYTES, 7].into_iter().cycle() {
            let mut part = vec![0; wanted];
            let count = near.read(&mut part).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&part[..count]);
        }
        assert!(read == sent);
    }

    #[tokio::test]
    async fn a_stream_that_was_dialled_ends_for_its_peer_when_it_is_dropped() {
        let (near, mut far) = duplex(1024);
        let mut near = ReadAhead::dialled(near);
        near.shutdown().await.unwrap();
        // A stream that had ended would not take it.
        near.write_all(b"more").await.unwrap();
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"more");
    }

    #[tokio::test]
    async fn what_one_connection_has_yet_to_take_is_no_other_connections() {
        let (mut first_far, first) = duplex(1024);
        let (mut second_far, second) = duplex(1024);
        first_far.write_all(b"first").await.unwrap();
        second_far.write_all(b"second").await.unwrap();
        let (mut first, mut second) = (ReadAhead::new(first), ReadAhead::new(second));
        assert_eq!(first.read_u8().await.unwrap(), b'f');
        assert_eq!(second.read_u8().await.unwrap(), b's');
        let mut rest = [0; 4];
        first.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"irst");
        let mut rest = [0; 5];
        second.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"econd");
    }
}
