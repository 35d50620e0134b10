//! Bodies: what is taken out of a connection's bytes, and how a body's parts are written.

mod decode;
mod encode;

pub(crate) use decode::{Decoded, Decoder};
pub(crate) use encode::{Encoder, SMALL_PART_BYTES};
