//! What fuzzing needs of the private parts: bytes in, and whether they were understood.

use bytes::Bytes;
use http::{HeaderMap, Method, request};
use http_body::SizeHint;

use crate::{
    body::{Decoded, Decoder},
    head::{Framing, parse_request, parse_response, write_request},
};

/// A request's head: its method, target, fields and how long its body is (`None`: chunked), if it is one.
#[must_use]
pub fn request_head(input: &Bytes) -> Option<(Method, String, HeaderMap, Option<u64>)> {
    let head = parse_request(&mut input.clone()).ok()??;
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        Framing::Chunked | Framing::UntilClose => None,
    };
    Some((head.parts.method, head.parts.uri.to_string(), head.parts.headers, length))
}

/// A request's head as it is written, with a body of this length (`None`: unknown), if it may be.
#[must_use]
pub fn written_request(head: &request::Parts, length: Option<u64>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let length = length.map_or_else(SizeHint::default, SizeHint::with_exact);
    write_request(head, &length, &mut out).ok()?;
    Some(out)
}

/// The head of an answer to a GET: its status and fields, if it is one.
#[must_use]
pub fn response_head(input: &Bytes) -> Option<(u16, HeaderMap)> {
    let head = parse_response(&mut input.clone(), &Method::GET).ok()??;
    Some((head.parts.status.as_u16(), head.parts.headers))
}

/// A chunked body that comes in pieces of `step` bytes: its data and trailers, and what came behind it, if it is one and
/// whole.
#[must_use]
pub fn chunked(input: &Bytes, step: usize) -> Option<(Vec<u8>, Option<HeaderMap>, usize)> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut data = Vec::new();
    let mut read = 0;
    while read < input.len() {
        let piece = step.clamp(1, input.len() - read);
        let mut piece = input.slice(read..read + piece);
        read += piece.len();
        loop {
            match decoder.decode(&mut piece).ok()? {
                Decoded::Data(part) => data.extend_from_slice(&part),
                Decoded::Trailers(trailers) => return Some((data, Some(trailers), read - piece.len())),
                Decoded::End => return Some((data, None, read - piece.len())),
                Decoded::More => break,
            }
        }
    }
    None
}
