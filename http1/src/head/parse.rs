//! Reading heads. httparse finds the parts; what it lets pass and others may read differently is refused here.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{EXPECT, UPGRADE},
    request, response,
};
use httparse::{Header, ParserConfig, Status};

use super::{Framing, MAX_FIELDS, MAX_HEAD_BYTES, framing::keeps_alive};
use crate::BadHead;

/// A request's head, and what it says about its connection.
pub(crate) struct RequestHead {
    pub(crate) parts: request::Parts,
    pub(crate) framing: Framing,
    pub(crate) keeps_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects: bool,
    /// The client would speak something else afterwards.
    pub(crate) upgrades: bool,
}

/// An answer's head, and what it says about its connection.
pub(crate) struct ResponseHead {
    pub(crate) parts: response::Parts,
    pub(crate) framing: Framing,
    pub(crate) keeps_alive: bool,
}

type Fields<'a> = [MaybeUninit<Header<'a>>; MAX_FIELDS];

/// Takes a request's head off the front of `input`; `None` if not all of it is there.
pub(crate) fn parse_request(input: &mut Bytes) -> Result<Option<RequestHead>, BadHead> {
    let bytes = worth_parsing(input);
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut found = httparse::Request::new(&mut []);
    let parsed = ParserConfig::default().parse_request_with_uninit_headers(&mut found, &bytes, &mut fields);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return limited(input).map(|()| None),
        Err(error) => return Err(refused(error, &bytes)),
    };
    check(&bytes, length)?;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(found.method.unwrap_or_default().as_bytes())
        .map_err(|_| BadHead::Invalid("method"))?;
    let target = bytes.slice_ref(found.path.unwrap_or_default().as_bytes());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_| BadHead::Invalid("target"))?;
    parts.version = version(found.version);
    parts.headers = header_map(&bytes, found.headers)?;
    input.advance(length);

    let is_11 = parts.version == Version::HTTP_11;
    let expects = parts.headers.get(EXPECT);
    let expects = expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Some(RequestHead {
        framing: Framing::of_request(parts.version, &parts.headers)?,
        keeps_alive: keeps_alive(parts.version, &parts.headers),
        expects: expects && is_11,
        upgrades: is_11 && parts.headers.contains_key(UPGRADE),
        parts,
    }))
}

/// Takes the head of an answer to `method` off the front of `input`; `None` if not all of it is there.
pub(crate) fn parse_response(input: &mut Bytes, method: &Method) -> Result<Option<ResponseHead>, BadHead> {
    let bytes = worth_parsing(input);
    let mut fields: Fields<'_> = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut found = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut found, &bytes, &mut fields);
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return limited(input).map(|()| None),
        Err(error) => return Err(refused(error, &bytes)),
    };
    check(&bytes, length)?;
    let mut parts = Response::new(()).into_parts().0;
    parts.status =
        StatusCode::from_u16(found.code.unwrap_or_default()).map_err(|_| BadHead::Invalid("status"))?;
    parts.version = version(found.version);
    parts.headers = header_map(&bytes, found.headers)?;
    input.advance(length);
    Ok(Some(ResponseHead {
        framing: Framing::of_response(parts.version, &parts.headers, parts.status, method)?,
        keeps_alive: keeps_alive(parts.version, &parts.headers),
        parts,
    }))
}

/// Fields with the empty line behind them: a body's trailers. All of `bytes`.
pub(crate) fn parse_fields(bytes: &Bytes, most: usize) -> Option<HeaderMap> {
    let mut fields = vec![httparse::EMPTY_HEADER; most];
    let Ok(Status::Complete((length, found))) = httparse::parse_headers(bytes, &mut fields) else {
        return None;
    };
    (length == bytes.len() && !has_bare_line_feed(bytes)).then(|| header_map(bytes, found).ok())?
}

/// Empty lines in front of a request are skipped (RFC 9112 section 2.2): some clients send one behind a body.
pub(crate) fn trim_start_lines(input: &mut Bytes) {
    while input.starts_with(b"\r\n") {
        input.advance(2);
    }
}

/// How much of a head is looked at before its end is there, to refuse at once what will never be one.
const FIRST_LOOK_BYTES: usize = 1024;

/// All of `input` where the empty line that ends a head may be there, else its beginning: a head that comes byte by byte
/// isn't parsed from its start with each of them.
fn worth_parsing(input: &Bytes) -> Bytes {
    let may_be_whole = input.ends_with(b"\r\n\r\n")
        || memchr::memmem::find(input, b"\n\r\n").is_some()
        || memchr::memmem::find(input, b"\n\n").is_some();
    if may_be_whole { input.clone() } else { input.slice(..input.len().min(FIRST_LOOK_BYTES)) }
}

fn limited(input: &[u8]) -> Result<(), BadHead> {
    if input.len() > MAX_HEAD_BYTES { Err(BadHead::TooLong) } else { Ok(()) }
}

fn check(bytes: &[u8], length: usize) -> Result<(), BadHead> {
    if length > MAX_HEAD_BYTES {
        return Err(BadHead::TooLong);
    }
    if has_bare_line_feed(bytes.get(..length).unwrap_or_default()) {
        return Err(BadHead::BareLineFeed);
    }
    Ok(())
}

fn has_bare_line_feed(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head)
        .any(|at| at.checked_sub(1).and_then(|before| head.get(before)) != Some(&b'\r'))
}

fn version(minor: Option<u8>) -> Version {
    if minor == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 }
}

fn header_map(bytes: &Bytes, found: &[Header<'_>]) -> Result<HeaderMap, BadHead> {
    let mut headers = super::recycled(found.len());
    for field in found {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadHead::Invalid("field name"))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
            .map_err(|_| BadHead::Invalid("field value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn refused(error: httparse::Error, bytes: &[u8]) -> BadHead {
    match error {
        httparse::Error::TooManyHeaders => BadHead::TooManyFields,
        httparse::Error::Version if names_another_version(bytes) => BadHead::Version,
        error => BadHead::Malformed(error),
    }
}

/// Whether the first line has a version of HTTP that isn't ours, as its first or last word.
fn names_another_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty());
    let mut words = line.unwrap_or_default().split(|&byte| byte == b' ');
    let is_another = |word: &[u8]| match word {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            let is_ours = *major == b'1' && matches!(minor, b'0' | b'1');
            major.is_ascii_digit() && minor.is_ascii_digit() && !is_ours
        }
        _ => false,
    };
    words.next().is_some_and(is_another) || words.next_back().is_some_and(is_another)
}
