//! Writing heads into a buffer, with names in lower case as `http` has them.

use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRAILER, TRANSFER_ENCODING},
    request, response,
};
use http_body::SizeHint;

use super::framing::{content_length, has_body, lists};
use crate::{Error, body::Encoder};

/// The answer to a client that waits with its body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes a request's head; its target is in origin form, or whatever the caller means by it. Where the head says
/// nothing of the body's length, it is added.
///
/// # Errors
/// [`Error::Head`] if its `Content-Length` is none.
pub(crate) fn write_request(
    head: &request::Parts,
    body: &SizeHint,
    out: &mut Vec<u8>,
) -> Result<Encoder, Error> {
    let encoder = if head.headers.contains_key(TRANSFER_ENCODING) {
        Encoder::chunked(announced(&head.headers))
    } else if let Some(length) = content_length(&head.headers)? {
        Encoder::Length(length)
    } else {
        body.exact().map_or_else(|| Encoder::chunked(announced(&head.headers)), Encoder::Length)
    };
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    match head.uri.path_and_query() {
        Some(target) if head.uri.scheme().is_none() => out.extend_from_slice(target.as_str().as_bytes()),
        _ => out.extend_from_slice(head.uri.to_string().as_bytes()),
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        // Only where chunks follow, or there is no other way to tell where the body ends.
        if !(*name == CONTENT_LENGTH && matches!(encoder, Encoder::Chunked { .. })) {
            write_field(name, value.as_bytes(), out);
        }
    }
    match &encoder {
        Encoder::Length(length) if *length > 0 && !head.headers.contains_key(CONTENT_LENGTH) => {
            write_length(*length, out);
        }
        Encoder::Chunked { .. } if !head.headers.contains_key(TRANSFER_ENCODING) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(encoder)
}

/// What of a request its answer's head depends on.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// The client understands trailers.
    pub(crate) trailers: bool,
}

/// Writes an answer's head. `keeps_alive` is set to false where the answer itself says that it is the last, or ends
/// with its connection.
///
/// # Errors
/// [`Error::Head`] if its `Content-Length` is none.
pub(crate) fn write_response(
    head: &response::Parts,
    body: &SizeHint,
    asked: &Asked,
    keeps_alive: &mut bool,
    out: &mut Vec<u8>,
) -> Result<Encoder, Error> {
    let is_10 = asked.version == Version::HTTP_10;
    let may_have_body = has_body(&asked.method, head.status);
    let said = content_length(&head.headers)?;
    let encoder = if !may_have_body {
        Encoder::Length(0)
    } else if let Some(length) = said.or(body.exact()) {
        Encoder::Length(length)
    } else if is_10 {
        Encoder::UntilClose
    } else {
        Encoder::chunked(announced(&head.headers).filter(|_| asked.trailers))
    };
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let says_close = lists(&head.headers, &CONNECTION, "close");
    *keeps_alive &= !says_close && encoder != Encoder::UntilClose;

    if head.status == StatusCode::OK && !is_10 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(if is_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        out.extend_from_slice(head.status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(head.status.canonical_reason().unwrap_or("Unknown").as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let is_chunked = matches!(encoder, Encoder::Chunked { .. });
    for (name, value) in &head.headers {
        // Where there are no chunks there is no place for trailers; and the length of what isn't sent is said for
        // HEAD and 304 alone (RFC 9110 section 8.6).
        let is_left_out = *name == TRANSFER_ENCODING
            || (*name == TRAILER && !is_chunked)
            || (*name == CONTENT_LENGTH
                && (head.status.is_informational() || head.status == StatusCode::NO_CONTENT));
        if !is_left_out {
            write_field(name, value.as_bytes(), out);
        }
    }
    if is_chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if let (Encoder::Length(length), None, true) = (&encoder, said, may_have_body) {
        write_length(*length, out);
    }
    if !*keeps_alive && !says_close && !switches {
        out.extend_from_slice(b"connection: close\r\n");
    } else if is_10 && *keeps_alive && !lists(&head.headers, &CONNECTION, "keep-alive") {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(encoder)
}

/// Writes fields without an empty line behind them.
pub(crate) fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_field(name, value.as_bytes(), out);
    }
}

/// A field's bytes were checked when it was made: no CR, LF or NUL.
fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The trailers that `Trailer` announces.
fn announced(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    if !headers.contains_key(TRAILER) {
        return None;
    }
    let items =
        headers.get_all(TRAILER).into_iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    Some(items.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect())
}
