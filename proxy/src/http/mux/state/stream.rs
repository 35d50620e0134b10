//! A stream, as both of its holders and the connection's task have it.

use std::{collections::VecDeque, hash::Hasher, mem, task::Waker};

use bytes::{Bytes, BytesMut};

use super::super::frame::Code;
use crate::http::server::STREAM_WINDOW_BYTES;

/// How much of a message may be on its way.
pub(super) const WINDOW: usize = STREAM_WINDOW_BYTES as usize;
/// How many parts of a body wait as they came. Further ones are joined, so that a window of single bytes doesn't cost
/// many times its size.
const SINGLE_PARTS: usize = 64;
/// How large parts become by that.
const JOINED_BYTES: usize = 16 * 1024;

/// What is known of a request and its answer, at one end.
pub(super) struct Stream {
    /// The answer's head, until it is taken.
    pub(super) head: Option<Bytes>,
    /// The peer's message has begun.
    pub(super) has_begun: bool,
    pub(super) parts: VecDeque<Part>,
    /// All of the peer's message is here.
    pub(super) is_received: bool,
    /// Nobody reads it any more.
    pub(super) is_unread: bool,
    /// How much the peer may send.
    pub(super) allowed: usize,
    /// What was read of it since the peer was last allowed more.
    pub(super) taken: usize,
    /// All of our message is sent.
    pub(super) is_sent: bool,
    /// How much we may send.
    pub(super) window: usize,
    /// It is among those who wait for room.
    pub(super) is_waiting: bool,
    /// The turn in which it last had room.
    pub(super) turn: u64,
    /// One of both has reset it.
    pub(super) reset: Option<Code>,
    /// How many hold on to it: a [`Reader`], a [`Writer`].
    pub(super) holders: u8,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// What is behind a head.
pub(in crate::http::mux) enum Part {
    Data(Bytes),
    Trailers(Bytes),
}

/// A stream's number is its hash: one end counts them, and the other sees to it that they are counted.
#[derive(Default)]
pub(super) struct ByItself(u64);

impl Hasher for ByItself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0 << 8 | u64::from(byte));
    }

    fn write_u32(&mut self, number: u32) {
        // The table takes its buckets from the low bits and its tags from the high ones.
        self.0 = u64::from(number) | u64::from(number) << 57;
    }
}

impl Default for Stream {
    /// One of which nothing was said yet.
    fn default() -> Self {
        Self {
            head: None,
            has_begun: false,
            parts: VecDeque::new(),
            is_received: false,
            is_unread: false,
            allowed: WINDOW,
            taken: 0,
            is_sent: false,
            window: WINDOW,
            is_waiting: false,
            turn: 0,
            reset: None,
            holders: 1,
            reader: None,
            writer: None,
        }
    }
}

impl Stream {
    /// For both ends.
    pub(super) fn is_over(&self) -> bool {
        self.reset.is_some() || (self.is_sent && self.is_received)
    }

    /// Keeps a part until it is read.
    pub(super) fn keep(&mut self, part: Part) {
        if self.parts.len() >= SINGLE_PARTS
            && let (Part::Data(data), Some(Part::Data(last))) = (&part, self.parts.back_mut())
            && last.len() + data.len() <= JOINED_BYTES
        {
            let mut joined = BytesMut::from(mem::take(last));
            joined.extend_from_slice(data);
            *last = joined.freeze();
            return;
        }
        self.parts.push_back(part);
    }

    pub(super) fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}
