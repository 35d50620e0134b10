//! Writing a body's parts.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::decode::FORBIDDEN;
use crate::{Error, head::write_fields, wire::Output};

/// Up to this length a part is copied behind what is to be written before it: cheaper than a vector of parts.
pub(crate) const SMALL_PART_BYTES: usize = 8 * 1024;

/// How a body is written, as its head has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// So many bytes are missing.
    Length(u64),
    /// In chunks, with those trailers at the end that the head has announced.
    Chunked {
        /// Which.
        announced: Option<Vec<HeaderName>>,
    },
    /// As it is, until the connection is closed.
    UntilClose,
}

impl Encoder {
    pub(crate) fn chunked(announced: Option<Vec<HeaderName>>) -> Self {
        Self::Chunked { announced }
    }

    /// Whether nothing more of the body is to be written, not even its end.
    pub(crate) fn is_over(&self) -> bool {
        *self == Self::Length(0)
    }

    /// Writes a part.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if it is longer than what is missing.
    pub(crate) fn data(&mut self, data: Bytes, out: &mut Output) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        match self {
            Self::UntilClose => out.data(data, b""),
            Self::Length(missing) => {
                *missing = missing.checked_sub(data.len() as u64).ok_or(Error::WrongLength)?;
                out.data(data, b"");
            }
            Self::Chunked { .. } => {
                write_size(data.len(), out.front());
                out.data(data, b"\r\n");
            }
        }
        Ok(())
    }

    /// Writes the body's end.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if something is missing.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Output) -> Result<(), Error> {
        match self {
            Self::Length(0) | Self::UntilClose => return Ok(()),
            Self::Length(_) => return Err(Error::WrongLength),
            Self::Chunked { announced } => {
                out.front().extend_from_slice(b"0\r\n");
                if let (Some(announced), Some(trailers)) = (announced, trailers) {
                    let mut sent = trailers.clone();
                    let others = trailers.keys().filter(|name| !announced.contains(name));
                    others.chain(&FORBIDDEN).for_each(|name| drop(sent.remove(name)));
                    write_fields(&sent, out.front());
                }
                out.front().extend_from_slice(b"\r\n");
            }
        }
        *self = Self::Length(0);
        Ok(())
    }
}

/// A chunk's size in hexadecimal digits, and the end of its line.
fn write_size(size: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 16];
    let mut rest = size;
    let mut first = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef".get(rest & 15).copied().unwrap_or_default();
        first -= 1;
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(first..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}
