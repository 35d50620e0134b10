//! What is to be written to a connection: frames, one behind the other, of which long parts of bodies aren't copied.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

use super::frame::{HEADER_BYTES, Header, Kind};

/// Parts of bodies up to this size are copied: cheaper than a write of several pieces.
const SMALL_BYTES: usize = 4 * 1024;
/// With so much to be written, bodies wait: as much as a window, so that one body alone doesn't.
const FULL_BYTES: usize = 256 * 1024;
/// How many pieces are written at once.
const PIECES: usize = 16;
/// A larger buffer isn't kept for the next frames.
const KEPT_BYTES: usize = 32 * 1024;

/// Frames to be written.
#[derive(Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    /// What comes in between, in front of that many of `bytes`.
    bulk: VecDeque<(usize, Bytes)>,
    bulk_bytes: usize,
    /// How much of `bytes` is written.
    sent: usize,
    has_pong: bool,
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len() && self.bulk.is_empty()
    }

    /// How much is to be written.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.bulk_bytes
    }

    /// Whether bodies have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= FULL_BYTES
    }

    /// A frame without content.
    pub(super) fn frame(&mut self, header: Header) {
        header.write(&mut self.bytes);
    }

    /// One answer is enough for all that was asked since something was last written.
    pub(super) fn answer_ping(&mut self) {
        if !mem::replace(&mut self.has_pong, true) {
            self.frame(Header::new(Kind::Pong, 0, 0));
        }
    }

    /// A frame whose content is what `write` writes. Nothing if that fails.
    pub(super) fn message<E>(
        &mut self,
        kind: Kind,
        stream: u32,
        is_last: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_BYTES]);
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(begin);
            return Err(error);
        }
        let number = self.bytes.len() - begin - HEADER_BYTES;
        let header = Header { kind, is_last, number, stream }.bytes();
        if let Some(place) = self.bytes.get_mut(begin..begin + HEADER_BYTES) {
            place.copy_from_slice(&header);
        }
        Ok(())
    }

    /// A part of a body.
    pub(super) fn data(&mut self, stream: u32, part: Bytes, is_last: bool) {
        self.frame(Header { kind: Kind::Data, is_last, number: part.len(), stream });
        if part.len() <= SMALL_BYTES {
            self.bytes.extend_from_slice(&part);
        } else {
            self.bulk_bytes += part.len();
            self.bulk.push_back((self.bytes.len(), part));
        }
    }

    /// Writes all of it. Afterwards it is empty, with its buffer.
    pub(super) fn poll_write<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.bulk.is_empty() {
                let bytes = self.bytes.get(self.sent..).unwrap_or_default();
                ready!(Pin::new(&mut *io).poll_write(cx, bytes))?
            } else {
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &self.pieces()))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written(written);
        }
        self.sent = 0;
        self.has_pong = false;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        Poll::Ready(Ok(()))
    }

    fn pieces(&self) -> SmallVec<[IoSlice<'_>; PIECES]> {
        let mut pieces = SmallVec::new();
        let mut from = self.sent;
        for (at, part) in &self.bulk {
            if pieces.len() + 2 > PIECES {
                return pieces;
            }
            if *at > from {
                pieces.push(IoSlice::new(self.bytes.get(from..*at).unwrap_or_default()));
                from = *at;
            }
            pieces.push(IoSlice::new(part));
        }
        if from < self.bytes.len() && pieces.len() < PIECES {
            pieces.push(IoSlice::new(self.bytes.get(from..).unwrap_or_default()));
        }
        pieces
    }

    fn written(&mut self, mut count: usize) {
        while count > 0 {
            let until = self.bulk.front().map_or(self.bytes.len(), |(at, _)| *at);
            let of_bytes = count.min(until - self.sent);
            self.sent += of_bytes;
            count -= of_bytes;
            let Some((_, part)) = self.bulk.front_mut() else { return };
            let of_part = count.min(part.len());
            part.advance(of_part);
            self.bulk_bytes -= of_part;
            count -= of_part;
            if part.is_empty() && self.sent == until {
                self.bulk.pop_front();
            } else {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn frames_leave_in_order_whatever_their_sizes_and_however_little_is_taken_at_a_time() {
        for taken in [1, 7, 64, 1 << 20] {
            let (mut near, mut far) = duplex(taken);
            let (mut out, mut expected) = (Out::default(), Vec::new());
            for (stream, length) in [(1, 10), (2, SMALL_BYTES + 1), (3, 0), (4, 3 * SMALL_BYTES), (5, 5)] {
                let part = Bytes::from(vec![stream as u8; length]);
                Header { kind: Kind::Data, is_last: true, number: length, stream }.write(&mut expected);
                expected.extend_from_slice(&part);
                out.data(stream, part, true);
            }
            assert_eq!(out.len(), expected.len());
            let writing = async {
                poll_fn(|cx| out.poll_write(&mut near, cx)).await.unwrap();
                drop(near);
            };
            let mut all = Vec::new();
            let (_, read) = tokio::join!(writing, far.read_to_end(&mut all));
            read.unwrap();
            assert!(all == expected && out.is_empty(), "{taken}");
        }
    }

    #[test]
    fn many_pings_are_answered_once() {
        let mut out = Out::default();
        (0..1000).for_each(|_| out.answer_ping());
        assert_eq!(out.len(), HEADER_BYTES);
    }

    #[test]
    fn a_message_that_cannot_be_written_leaves_nothing() {
        let mut out = Out::default();
        let failed = out.message(Kind::Head, 1, true, |bytes| {
            bytes.push(1);
            Err(())
        });
        assert!(failed.is_err() && out.is_empty());
    }
}
