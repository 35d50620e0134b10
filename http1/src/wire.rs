//! A connection's bytes on their way in and out.
//!
//! Neither [`Input`] nor [`Output`] holds a buffer while nothing is under way. Reading goes through a scratch of the
//! thread into an allocation of what was read; writing gathers in a buffer that belongs to the thread between two
//! writes.

use std::{
    cell::Cell,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::body::SMALL_PART_BYTES;

/// How many bytes are read at once where a message begins, and of short bodies.
const SCRATCH_BYTES: usize = 16 * 1024;
/// How many bytes of a long body are read at once.
const BULK_BYTES: usize = 64 * 1024;
/// When so much has been gathered, it is written.
const GATHERED_BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static GATHERING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection.
pub(crate) struct Wire<IO> {
    pub(crate) io: IO,
    pub(crate) input: Input,
    pub(crate) output: Output,
}

/// What was read and not yet taken.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) rest: Bytes,
    /// What a long body is read into; its parts give their memory back when they have been written.
    bulk: BytesMut,
    /// The last read filled all that it could: there is more where that came from.
    is_filled: bool,
}

/// What is to be written: `front`, then `bulk`, then `back`.
#[derive(Default)]
pub(crate) struct Output {
    front: Vec<u8>,
    /// How much of `front` is written.
    sent: usize,
    bulk: Bytes,
    back: &'static [u8],
    /// The stream below may have gathered something too (TLS).
    unflushed: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Wire<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, input: Input::default(), output: Output::default() }
    }

    /// Reads behind what is there; zero bytes mean the end.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        let read = buffer.filled();
        self.input.is_filled = read.len() == SCRATCH_BYTES;
        let length = read.len();
        if length > 0 {
            self.input.append(read);
        }
        SCRATCH.set(Some(scratch));
        polled.map_ok(|()| length)
    }

    /// Reads more of a body of which `remaining` bytes are still to come, as far as that is known.
    pub(crate) fn poll_read_body(
        &mut self,
        remaining: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let is_long = remaining.map_or(self.input.is_filled, |remaining| remaining > SCRATCH_BYTES as u64);
        if !is_long || !self.input.rest.is_empty() {
            return self.poll_read(cx);
        }
        let remaining = remaining.and_then(|remaining| usize::try_from(remaining).ok()).unwrap_or(BULK_BYTES);
        let wanted = BULK_BYTES.min(remaining);
        let mut bulk = std::mem::take(&mut self.input.bulk);
        bulk.reserve(wanted);
        let ended = loop {
            match pin!(self.io.read_buf(&mut bulk)).poll(cx) {
                Poll::Ready(Ok(0)) => break Poll::Ready(Ok(0)),
                Poll::Ready(Ok(_)) if bulk.len() < wanted => {}
                Poll::Ready(Ok(_)) => break Poll::Pending,
                other => break other,
            }
        };
        if bulk.is_empty() {
            return ended;
        }
        let length = bulk.len();
        self.input.is_filled = length >= wanted;
        self.input.rest = bulk.split().freeze();
        self.input.bulk = bulk;
        Poll::Ready(Ok(length))
    }

    /// Writes everything that is to be written.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(&mut self.io, cx)
    }
}

impl Input {
    fn append(&mut self, read: &[u8]) {
        if self.rest.is_empty() {
            self.rest = Bytes::copy_from_slice(read);
            return;
        }
        let rest = std::mem::take(&mut self.rest);
        let mut rest = rest.try_into_mut().unwrap_or_else(BytesMut::from);
        rest.extend_from_slice(read);
        self.rest = rest.freeze();
    }

    /// Lets go of what was kept for a long body.
    pub(crate) fn settle(&mut self) {
        self.bulk = BytesMut::new();
        self.is_filled = false;
    }
}

impl Output {
    /// The end of what is to be written, to write behind. Only while it isn't full.
    pub(crate) fn front(&mut self) -> &mut Vec<u8> {
        if self.front.capacity() == 0 {
            self.front = GATHERING.take();
        }
        &mut self.front
    }

    /// A part of a body, and what closes it. Only while it isn't full.
    pub(crate) fn data(&mut self, data: Bytes, close: &'static [u8]) {
        if data.len() <= SMALL_PART_BYTES {
            let front = self.front();
            front.extend_from_slice(&data);
            front.extend_from_slice(close);
        } else {
            self.bulk = data;
            self.back = close;
        }
    }

    /// Whether it must be written before more is gathered.
    pub(crate) fn is_full(&self) -> bool {
        !self.bulk.is_empty() || !self.back.is_empty() || self.front.len() - self.sent >= GATHERED_BYTES
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.front.len() == self.sent && self.bulk.is_empty() && self.back.is_empty() && !self.unflushed
    }

    /// Whether nothing of it has been written.
    pub(crate) fn is_untouched(&self) -> bool {
        self.sent == 0 && !self.unflushed && self.unsent() > 0
    }

    /// How much is to be written.
    pub(crate) fn unsent(&self) -> usize {
        self.front.len() - self.sent + self.bulk.len() + self.back.len()
    }

    /// Forgets what isn't written.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn poll_flush<IO>(&mut self, io: &mut IO, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        IO: AsyncWrite + Unpin,
    {
        loop {
            let front = self.front.get(self.sent..).unwrap_or_default();
            let written = if self.bulk.is_empty() && self.back.is_empty() {
                if front.is_empty() {
                    break;
                }
                ready!(Pin::new(&mut *io).poll_write(cx, front))?
            } else {
                let parts = [IoSlice::new(front), IoSlice::new(&self.bulk), IoSlice::new(self.back)];
                // Writers that take one part only take the first that isn't empty.
                let parts = if front.is_empty() { &parts[1..] } else { &parts };
                let parts = if front.is_empty() && self.bulk.is_empty() { &parts[1..] } else { parts };
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, parts))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.written(written);
        }
        if self.front.capacity() > 0 {
            let mut front = std::mem::take(&mut self.front);
            self.sent = 0;
            if front.capacity() <= 2 * GATHERED_BYTES {
                front.clear();
                GATHERING.set(front);
            }
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn written(&mut self, count: usize) {
        let of_front = count.min(self.front.len() - self.sent);
        self.sent += of_front;
        let of_bulk = (count - of_front).min(self.bulk.len());
        if of_bulk == self.bulk.len() {
            self.bulk = Bytes::new();
        } else {
            self.bulk.advance(of_bulk);
        }
        let of_back = (count - of_front - of_bulk).min(self.back.len());
        self.back = self.back.get(of_back..).unwrap_or_default();
    }
}
