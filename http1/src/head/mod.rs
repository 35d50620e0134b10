//! Heads of messages: parsed strictly, written plainly.

mod framing;
mod parse;
mod recycle;
mod write;

pub(crate) use framing::{Framing, lists};
pub(crate) use parse::{
    RequestHead, ResponseHead, parse_fields, parse_request, parse_response, trim_start_lines,
};
pub use recycle::{recycle, recycled};
pub(crate) use write::{Asked, CONTINUE, write_fields, write_request, write_response};

/// How long a head may be: 64 KiB.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How many fields a head may have.
pub const MAX_FIELDS: usize = 100;
