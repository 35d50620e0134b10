//! Reading a body (RFC 9112 sections 6 and 7) out of bytes as they come, without copying them.
//!
//! ```text
//! chunked: size [;extension] CRLF  data CRLF  ...  0 CRLF  trailers  CRLF
//!          Size -> Extension -> SizeEnd -> Data -> DataEnd -> DataEndLf -> Size    Trailers -> End
//! ```

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap,
    header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING},
};

use crate::{
    BadBody,
    head::{Framing, parse_fields},
};

/// How many bytes of chunk extensions a whole body may have. They are dropped, so each is work for nothing.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;
/// How long trailers may be.
const MAX_TRAILER_BYTES: usize = 16 * 1024;
/// How many trailers there may be.
const MAX_TRAILERS: usize = 64;

/// A body as far as it has been read.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes are missing.
    Length(u64),
    /// Boxed, for it is the rarer and larger one.
    Chunked(Box<Chunked>),
    /// Until the connection ends.
    UntilClose,
    /// All of it has been read.
    End,
}

/// A part of a body.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded {
    /// Data, never empty.
    Data(Bytes),
    /// The trailers; the body is at its end.
    Trailers(HeaderMap),
    /// The body is at its end.
    End,
    /// Everything was taken, and there is more to come.
    More,
}

#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// Of the chunk: its size as far as it has been read, then how much of its data is missing.
    size: u64,
    extensions: usize,
    trailers: BytesMut,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// The first digit of a size.
    #[default]
    Start,
    Size,
    Padding,
    Extension,
    SizeEnd,
    Data,
    DataEnd,
    DataEndLf,
    Trailers,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::End,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Whether all of the body has been read.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::End)
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::End => Some(0),
            Self::Length(length) => Some(*length),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next part off the front of `input`.
    pub(crate) fn decode(&mut self, input: &mut Bytes) -> Result<Decoded, BadBody> {
        match self {
            Self::End => Ok(Decoded::End),
            _ if input.is_empty() => Ok(Decoded::More),
            Self::UntilClose => Ok(Decoded::Data(std::mem::take(input))),
            Self::Length(missing) => {
                let data = take(input, missing);
                if *missing == 0 {
                    *self = Self::End;
                }
                Ok(Decoded::Data(data))
            }
            Self::Chunked(chunked) => {
                let decoded = chunked.decode(input)?;
                if matches!(decoded, Decoded::End | Decoded::Trailers(_)) {
                    *self = Self::End;
                }
                Ok(decoded)
            }
        }
    }

    /// The connection has ended: whether that is the body's end too.
    pub(crate) fn ends_here(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::End;
        }
        self.is_over()
    }
}

/// As much of `input` as is missing.
fn take(input: &mut Bytes, missing: &mut u64) -> Bytes {
    let length = usize::try_from(*missing).unwrap_or(usize::MAX).min(input.len());
    *missing -= length as u64;
    if length == input.len() { std::mem::take(input) } else { input.split_to(length) }
}

impl Chunked {
    fn decode(&mut self, input: &mut Bytes) -> Result<Decoded, BadBody> {
        loop {
            if matches!(self.state, State::Trailers) {
                return self.trailers(input);
            }
            if matches!(self.state, State::Data) {
                if input.is_empty() {
                    return Ok(Decoded::More);
                }
                let data = take(input, &mut self.size);
                if self.size == 0 {
                    self.state = State::DataEnd;
                    // Its line end usually came along; taken now, the next poll has nothing to do.
                    self.line_end(input)?;
                }
                return Ok(Decoded::Data(data));
            }
            let Some(&byte) = input.first() else { return Ok(Decoded::More) };
            input.advance(1);
            self.step(byte)?;
        }
    }

    fn line_end(&mut self, input: &mut Bytes) -> Result<(), BadBody> {
        while let (State::DataEnd | State::DataEndLf, Some(&byte)) = (self.state, input.first()) {
            input.advance(1);
            self.step(byte)?;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), BadBody> {
        self.state = match (self.state, byte) {
            (State::Start | State::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).ok_or(BadBody::ChunkSize)?;
                let shifted = self.size.checked_mul(16).ok_or(BadBody::ChunkSize)?;
                self.size = shifted | u64::from(digit);
                State::Size
            }
            (State::Size | State::Padding | State::Extension, b'\r') => State::SizeEnd,
            // Some servers pad sizes with spaces.
            (State::Size | State::Padding, b' ' | b'\t') => {
                self.extend(byte)?;
                State::Padding
            }
            (State::Size | State::Padding, b';') => State::Extension,
            (State::Start | State::Size | State::Padding, _) => return Err(BadBody::ChunkSize),
            (State::Extension, _) => {
                self.extend(byte)?;
                State::Extension
            }
            (State::SizeEnd, b'\n') if self.size == 0 => State::Trailers,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::Start,
            (State::SizeEnd | State::DataEnd | State::DataEndLf, _) => return Err(BadBody::ChunkEnd),
            (State::Data | State::Trailers, _) => self.state,
        };
        Ok(())
    }

    /// A byte of an extension is counted and dropped.
    fn extend(&mut self, byte: u8) -> Result<(), BadBody> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSION_BYTES || (byte.is_ascii_control() && byte != b'\t') {
            return Err(BadBody::ChunkExtension);
        }
        Ok(())
    }

    /// Gathers the trailers up to their empty line.
    fn trailers(&mut self, input: &mut Bytes) -> Result<Decoded, BadBody> {
        loop {
            if self.trailers.is_empty() && input.starts_with(b"\r\n") {
                input.advance(2);
                return Ok(Decoded::End);
            }
            let Some(line) = memchr::memchr(b'\n', input) else {
                self.gather(input.split_to(input.len()))?;
                return Ok(Decoded::More);
            };
            self.gather(input.split_to(line + 1))?;
            if *self.trailers == b"\r\n"[..] {
                return Ok(Decoded::End);
            }
            if self.trailers.ends_with(b"\n\r\n") || self.trailers.ends_with(b"\n\n") {
                let fields = parse_fields(&self.trailers.split().freeze(), MAX_TRAILERS);
                let fields = fields.filter(|fields| !FORBIDDEN.iter().any(|name| fields.contains_key(name)));
                return fields.map(Decoded::Trailers).ok_or(BadBody::Trailers);
            }
        }
    }

    fn gather(&mut self, part: Bytes) -> Result<(), BadBody> {
        if self.trailers.len() + part.len() > MAX_TRAILER_BYTES {
            return Err(BadBody::TrailersTooLong);
        }
        self.trailers.extend_from_slice(&part);
        Ok(())
    }
}

/// What no trailer may say (RFC 9110 section 6.5.1): where the message ends, whom it is for, who sends it.
pub(super) const FORBIDDEN: [HeaderName; 6] =
    [TRANSFER_ENCODING, CONTENT_LENGTH, HOST, TRAILER, TE, AUTHORIZATION];
