//! What can be wrong with a message or its connection, and how a server answers it.

use std::{io, time::Duration};

use http::StatusCode;
use thiserror::Error;

use crate::head::{MAX_FIELDS, MAX_HEAD_BYTES};

/// Why a connection ended, or a body broke off.
#[derive(Debug, Error)]
pub enum Error {
    /// What came is no head of a message, or one that could be read in two ways.
    #[error("{0}")]
    Head(#[from] BadHead),
    /// What came is no body as the head said.
    #[error("{0}")]
    Body(#[from] BadBody),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It ended before the message did.
    #[error("the connection ended in the middle of a message")]
    Incomplete,
    /// It ended, or what it was part of was given up, while a part of it was still wanted.
    #[error("the connection was closed")]
    Closed,
    /// A message was to be sent whose body isn't as long as its head says.
    #[error("the message's body is not as long as its content-length says")]
    WrongLength,
    /// The body of the message that was to be sent broke off.
    #[error("the message's body broke off where it came from")]
    Source,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadHead {
    /// Larger than [`MAX_HEAD_BYTES`].
    #[error("the head is longer than {MAX_HEAD_BYTES} bytes")]
    TooLong,
    /// More fields than [`MAX_FIELDS`].
    #[error("the head has more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// It isn't complete after this time.
    #[error("the head is not complete after {0:?}")]
    Late(Duration),
    /// Not what RFC 9112 calls a head: what is wrong, in httparse's words.
    #[error("the head is not HTTP/1.1: {0}")]
    Malformed(httparse::Error),
    /// A line that ends in LF alone: others may not take it for an end (RFC 9112 section 2.2 lets a server refuse it).
    #[error("a line of the head ends without a carriage return")]
    BareLineFeed,
    /// No method, target, status, name or value as RFC 9110 has them.
    #[error("the head's {0} is invalid")]
    Invalid(&'static str),
    /// HTTP, but neither 1.0 nor 1.1.
    #[error("the head's version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// Not one number of bytes that fits into 64 bits.
    #[error("content-length is not one decimal number")]
    ContentLength,
    /// Both ways to say where the body ends (RFC 9112 section 6.3).
    #[error("the head has both content-length and transfer-encoding")]
    TwoLengths,
    /// `chunked` isn't the last coding of a request, a coding is no token, or HTTP/1.0 has any (RFC 9112 sections 6.1, 6.3 and 7).
    #[error("the head's transfer-encoding doesn't say where the body ends")]
    TransferEncoding,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadBody {
    /// A chunk's size isn't hexadecimal digits, or too many.
    #[error("a chunk's size is not a hexadecimal number of 64 bits")]
    ChunkSize,
    /// A chunk's line or data doesn't end in CR LF.
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    /// Chunk extensions, which nobody uses, in excess.
    #[error("the chunk extensions are too long, or hold control characters")]
    ChunkExtension,
    /// Trailers in excess.
    #[error("the trailers are too long or too many")]
    TrailersTooLong,
    /// Not fields, or fields that say where a body ends.
    #[error("the trailers are not HTTP/1.1")]
    Trailers,
}

impl BadHead {
    /// How a server answers it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Malformed(_)
            | Self::BareLineFeed
            | Self::Invalid(_)
            | Self::ContentLength
            | Self::TwoLengths
            | Self::TransferEncoding => StatusCode::BAD_REQUEST,
        }
    }
}
