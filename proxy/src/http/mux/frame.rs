//! Frames: eight bytes, and what a message is made of behind them.
//!
//! ```text
//! kind (1 byte; its highest bit: nothing of this message follows)   number (3 bytes)   stream (4 bytes)
//! Head, Data, Trailers: as many bytes as `number` says
//! ```

/// How long what is in front of a frame's content is.
pub(super) const HEADER_BYTES: usize = 8;
/// How much of a body one frame carries at most.
pub(super) const MAX_DATA_BYTES: usize = 64 * 1024;
/// How long a head or trailers may be. What an app may say was limited to half of it where it said it.
pub(super) const MAX_HEAD_BYTES: usize = 2 * gamut_http1::MAX_HEAD_BYTES;

const LAST: u8 = 0x80;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Begins a message: the client's opens its stream.
    Head,
    /// A part of a body.
    Data,
    /// Fields behind a body, which are its end.
    Trailers,
    /// Nothing more comes of this stream, nor is wanted; `number` is a [`Code`].
    Reset,
    /// `number` more bytes of the stream's body may be sent.
    Window,
    /// Asks for a [`Kind::Pong`].
    Ping,
    /// Says that the peer is there.
    Pong,
    /// The server wants no more requests on this connection; those that are on the way it answers.
    Leave,
    /// The client says that it has sent its last.
    Left,
}

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It isn't wanted any more.
    Cancelled,
    /// A server has answered without the rest of the request's body; the answer stands.
    Enough,
    /// The message broke off where it came from.
    Broken,
    /// It is no HTTP, or none that can be carried.
    Malformed,
}

/// What is in front of a frame's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Nothing of this message follows.
    pub(super) is_last: bool,
    /// The content's length, or what the kind says. At most 24 bits.
    pub(super) number: usize,
    pub(super) stream: u32,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        let kinds = [
            Self::Head,
            Self::Data,
            Self::Trailers,
            Self::Reset,
            Self::Window,
            Self::Ping,
            Self::Pong,
            Self::Leave,
            Self::Left,
        ];
        kinds.get(usize::from(byte)).copied()
    }

    /// How long its content may be; `None` where it has none.
    fn most(self) -> Option<usize> {
        match self {
            Self::Head | Self::Trailers => Some(MAX_HEAD_BYTES),
            Self::Data => Some(MAX_DATA_BYTES),
            Self::Reset | Self::Window | Self::Ping | Self::Pong | Self::Leave | Self::Left => None,
        }
    }
}

impl Code {
    /// A code that is none is the one that says least.
    pub(super) fn of(number: usize) -> Self {
        match number {
            1 => Self::Enough,
            2 => Self::Broken,
            3 => Self::Malformed,
            _ => Self::Cancelled,
        }
    }

    pub(super) fn number(self) -> usize {
        match self {
            Self::Cancelled => 0,
            Self::Enough => 1,
            Self::Broken => 2,
            Self::Malformed => 3,
        }
    }
}

impl Header {
    /// A frame that isn't the last of its message, or belongs to none.
    pub(super) fn new(kind: Kind, stream: u32, number: usize) -> Self {
        Self { kind, is_last: false, number, stream }
    }

    /// Reads it off the front of `bytes`; `None` if that is none that is known.
    pub(super) fn read(bytes: [u8; HEADER_BYTES]) -> Option<Self> {
        let [kind, n0, n1, n2, stream @ ..] = bytes;
        let header = Self {
            kind: Kind::of(kind & !LAST)?,
            is_last: kind & LAST != 0,
            number: u32::from_be_bytes([0, n0, n1, n2]) as usize,
            stream: u32::from_be_bytes(stream),
        };
        (header.content() <= header.kind.most().unwrap_or(0)).then_some(header)
    }

    /// How long its content is.
    pub(super) fn content(self) -> usize {
        if self.kind.most().is_some() { self.number } else { 0 }
    }

    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, n0, n1, n2] = u32::try_from(self.number).unwrap_or(u32::MAX).to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let kind = self.kind as u8 | if self.is_last { LAST } else { 0 };
        [kind, n0, n1, n2, s0, s1, s2, s3]
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        for byte in 0..=8 {
            for is_last in [false, true] {
                let header =
                    Header { kind: Kind::of(byte).unwrap(), is_last, number: 1234, stream: 0x0102_0304 };
                let mut out = Vec::new();
                header.write(&mut out);
                assert_eq!(Header::read(out.try_into().unwrap()), Some(header));
            }
        }
    }

    #[test]
    fn unknown_kinds_and_contents_beyond_their_limits_are_none() {
        assert_eq!(Header::read([9, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(Header::read([0x7f, 0, 0, 0, 0, 0, 0, 1]), None);
        let long = |kind, length| {
            let mut out = Vec::new();
            Header::new(kind, 1, length).write(&mut out);
            Header::read(out.try_into().unwrap())
        };
        assert!(long(Kind::Data, MAX_DATA_BYTES).is_some() && long(Kind::Data, MAX_DATA_BYTES + 1).is_none());
        assert!(long(Kind::Head, MAX_HEAD_BYTES).is_some() && long(Kind::Head, MAX_HEAD_BYTES + 1).is_none());
        assert!(long(Kind::Window, 0xff_ffff).is_some(), "its number is no length");
    }
}
