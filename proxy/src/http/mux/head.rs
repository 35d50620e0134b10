//! Heads and trailers as bytes.
//!
//! ```text
//! request:  method, target, fields      answer:  status (2 bytes), fields      trailers: fields
//! method, target, a field's name, its value: length (2 bytes) and bytes
//! ```
//!
//! What is read here is as strict as what an app's server reads off an HTTP/1.1 connection of its own ([`gamut_http1`]):
//! another sidecar may have been taken over.

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{self, CONTENT_LENGTH},
    request, response,
    uri::PathAndQuery,
};

use super::frame::MAX_HEAD_BYTES;
use crate::http::headers::has_blank_at_an_end;

/// How many fields a head may have: as many as an app may say in HTTP/2, which reckons 32 bytes for each (RFC 9113 section
/// 10.5.1), and what sidecars add.
const MAX_FIELDS: usize = gamut_http1::MAX_HEAD_BYTES / 32 + 64;

/// A head that can't be carried, or isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadHead;

/// Writes a request's head: an origin-form target, and fields that end with no connection.
pub(super) fn write_request(head: &request::Parts, out: &mut Vec<u8>) -> Result<(), BadHead> {
    let begin = out.len();
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    write_text(head.method.as_str().as_bytes(), out)
        .and_then(|()| write_text(target.as_bytes(), out))
        .and_then(|()| write_fields(&head.headers, begin, out))
        .inspect_err(|_| out.truncate(begin))
}

/// Writes an answer's head.
pub(super) fn write_answer(head: &response::Parts, out: &mut Vec<u8>) -> Result<(), BadHead> {
    let begin = out.len();
    out.extend_from_slice(&head.status.as_u16().to_be_bytes());
    write_fields(&head.headers, begin, out).inspect_err(|_| out.truncate(begin))
}

/// Writes trailers.
pub(super) fn write_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), BadHead> {
    let begin = out.len();
    write_fields(trailers, begin, out).inspect_err(|_| out.truncate(begin))
}

fn write_fields(fields: &HeaderMap, begin: usize, out: &mut Vec<u8>) -> Result<(), BadHead> {
    if fields.len() > MAX_FIELDS {
        return Err(BadHead);
    }
    for (name, value) in fields {
        write_text(name.as_str().as_bytes(), out)?;
        write_text(value.as_bytes(), out)?;
    }
    if out.len() - begin > MAX_HEAD_BYTES { Err(BadHead) } else { Ok(()) }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), BadHead> {
    let length = u16::try_from(text.len()).map_err(|_| BadHead)?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
    Ok(())
}

/// Reads a request's head.
pub(super) fn read_request(mut bytes: Bytes) -> Result<request::Parts, BadHead> {
    let mut head = Request::new(()).into_parts().0;
    head.method = Method::from_bytes(&read_text(&mut bytes)?).map_err(|_| BadHead)?;
    let target = PathAndQuery::from_maybe_shared(read_text(&mut bytes)?).map_err(|_| BadHead)?;
    head.uri = Uri::from(target);
    head.headers = read_fields(bytes)?;
    // Routes and policy would look at another value than the app's server reads.
    if head.headers.values().any(has_blank_at_an_end) {
        return Err(BadHead);
    }
    Ok(head)
}

/// Reads an answer's head.
pub(super) fn read_answer(mut bytes: Bytes) -> Result<response::Parts, BadHead> {
    let mut head = Response::new(()).into_parts().0;
    head.status = StatusCode::from_u16(bytes.try_get_u16().map_err(|_| BadHead)?).map_err(|_| BadHead)?;
    // Interim answers aren't carried; who waits for one comes another way (`carry`).
    if head.status.is_informational() {
        return Err(BadHead);
    }
    head.headers = read_fields(bytes)?;
    Ok(head)
}

/// Reads trailers, or the fields of a head. A value may have blanks at its ends, as `grpc-message` has, of which gRPC encodes
/// none; where they matter is for [`read_request`] to say.
pub(super) fn read_fields(mut bytes: Bytes) -> Result<HeaderMap, BadHead> {
    let mut fields = gamut_http1::recycled(MANY_FIELDS);
    while !bytes.is_empty() {
        let name = HeaderName::from_bytes(&read_text(&mut bytes)?).map_err(|_| BadHead)?;
        let value = read_text(&mut bytes)?;
        // A quotation mark is part of no name (RFC 9110 section 5.6.2), though the `http` crate takes it for one.
        if is_of_connection(&name) || name.as_str().contains('"') || fields.len() == MAX_FIELDS {
            return Err(BadHead);
        }
        fields.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| BadHead)?);
    }
    Ok(fields)
}

/// As many as most heads have.
const MANY_FIELDS: usize = 12;

fn read_text(bytes: &mut Bytes) -> Result<Bytes, BadHead> {
    let length = usize::from(bytes.try_get_u16().map_err(|_| BadHead)?);
    if length > bytes.len() { Err(BadHead) } else { Ok(bytes.split_to(length)) }
}

/// These say where a body ends on HTTP/1.1, or what comes behind it. `TE` is left: `trailers` is a wish of the client's.
fn is_of_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION || *name == header::TRANSFER_ENCODING || *name == header::UPGRADE
}

/// How long the body is by its `Content-Length`, which is plain and there is one of, if any.
pub(super) fn length(fields: &HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut said = fields.get_all(CONTENT_LENGTH).into_iter();
    let Some(first) = said.next() else { return Ok(None) };
    let text = first.to_str().map_err(|_| BadHead)?;
    if said.next().is_some() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadHead);
    }
    text.parse().map(Some).map_err(|_| BadHead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> request::Parts {
        let request =
            Request::post("/a/b?c=d").header("host", "web").header("x-many", "1").header("x-many", "2");
        request.header("te", "trailers").body(()).unwrap().into_parts().0
    }

    fn written(head: &request::Parts) -> Bytes {
        let mut out = Vec::new();
        write_request(head, &mut out).unwrap();
        out.into()
    }

    #[test]
    fn heads_are_read_as_they_were_written() {
        let said = request();
        let read = read_request(written(&said)).unwrap();
        assert_eq!((read.method, read.uri, read.headers), (said.method, said.uri, said.headers));

        let said = Response::builder().status(418).header("x", "").body(()).unwrap().into_parts().0;
        let mut out = Vec::new();
        write_answer(&said, &mut out).unwrap();
        let read = read_answer(out.into()).unwrap();
        assert_eq!((read.status, read.headers), (said.status, said.headers));
    }

    #[test]
    fn a_head_that_is_cut_anywhere_is_none_or_a_shorter_one() {
        let whole = written(&request());
        for length in 0..whole.len() {
            if let Ok(read) = read_request(whole.slice(..length)) {
                assert!(read.headers.len() < request().headers.len());
            }
        }
    }

    #[test]
    fn fields_that_http_1_would_understand_otherwise_are_refused() {
        for (name, value) in [
            ("connection", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x\"y", "z"),
            ("x", " z"),
            ("x", "z\t"),
            ("x", "a\r\nb: c"),
            ("x", "a\0b"),
            ("x y", "z"),
            ("x:", "z"),
            ("", "z"),
        ] {
            let mut out = Vec::new();
            write_text(b"GET", &mut out).unwrap();
            write_text(b"/", &mut out).unwrap();
            assert!(read_request(out.clone().into()).is_ok());
            write_text(name.as_bytes(), &mut out).unwrap();
            write_text(value.as_bytes(), &mut out).unwrap();
            assert!(read_request(out.into()).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn methods_and_targets_that_are_none_are_refused() {
        for (method, target) in [("G T", "/"), ("", "/"), ("GET", "/a b"), ("GET", "/a\r\nb")] {
            let mut out = Vec::new();
            write_text(method.as_bytes(), &mut out).unwrap();
            write_text(target.as_bytes(), &mut out).unwrap();
            let read = read_request(out.into());
            assert!(read.is_err(), "{method} {target:?}: {read:?}");
        }
    }

    #[test]
    fn one_plain_length_is_a_length() {
        let of = |said: &[&str]| {
            let mut fields = HeaderMap::new();
            for said in said {
                fields.append(CONTENT_LENGTH, said.parse().unwrap());
            }
            length(&fields)
        };
        assert_eq!((of(&[]), of(&["5"])), (Ok(None), Ok(Some(5))));
        for said in [&["5", "5"][..], &["5, 5"], &["+5"], &[""], &["18446744073709551616"]] {
            assert_eq!(of(said), Err(BadHead), "{said:?}");
        }
    }

    #[test]
    fn a_head_beyond_its_limits_is_not_written() {
        let mut long = request();
        for _ in 0..3 {
            long.headers.append("x-long", "y".repeat(60_000).parse().unwrap());
        }
        let mut out = b"before".to_vec();
        assert_eq!(write_request(&long, &mut out), Err(BadHead));
        assert_eq!(out, b"before");
        let mut many = request();
        for _ in 0..=MAX_FIELDS {
            many.headers.append("x", HeaderValue::from_static("y"));
        }
        assert_eq!(write_request(&many, &mut out), Err(BadHead));
    }
}
