//! Where a message's body ends, and whether its connection goes on after it (RFC 9112 sections 6.3 and 9.3).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::BadHead;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With its connection; answers only.
    UntilClose,
}

/// The largest body: a little below what 64 bits hold, as hyper has it.
const MAX_LENGTH: u64 = u64::MAX - 2;

impl Framing {
    /// A request's: without either field it has no body.
    pub(super) fn of_request(version: Version, headers: &HeaderMap) -> Result<Self, BadHead> {
        match said(version, headers)? {
            Said::Nothing => Ok(Self::Length(0)),
            Said::Length(length) => Ok(Self::Length(length)),
            Said::Chunked => Ok(Self::Chunked),
            Said::Coded => Err(BadHead::TransferEncoding),
        }
    }

    /// That of an answer to `method`. Without either field it ends with the connection.
    pub(super) fn of_response(
        version: Version,
        headers: &HeaderMap,
        status: StatusCode,
        method: &Method,
    ) -> Result<Self, BadHead> {
        let said = said(version, headers)?;
        if !has_body(method, status) {
            return Ok(Self::Length(0));
        }
        Ok(match said {
            Said::Length(length) => Self::Length(length),
            Said::Chunked => Self::Chunked,
            Said::Nothing | Said::Coded => Self::UntilClose,
        })
    }
}

/// Whether an answer to `method` may have a body (RFC 9110 section 6.4.1).
pub(crate) fn has_body(method: &Method, status: StatusCode) -> bool {
    let never = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || *method == Method::HEAD
        || (*method == Method::CONNECT && status.is_success());
    !never
}

enum Said {
    Nothing,
    Length(u64),
    Chunked,
    /// Another coding comes last.
    Coded,
}

fn said(version: Version, headers: &HeaderMap) -> Result<Said, BadHead> {
    let length = content_length(headers)?;
    let Some(last) = headers.get_all(TRANSFER_ENCODING).into_iter().next_back() else {
        return Ok(length.map_or(Said::Nothing, Said::Length));
    };
    if length.is_some() {
        return Err(BadHead::TwoLengths);
    }
    // Codings are tokens (RFC 9112 section 7): a name with other bytes in it is skipped by some readers and not by others.
    let is_text = |coding: &HeaderValue| coding.to_str().is_ok();
    if version == Version::HTTP_10 || !headers.get_all(TRANSFER_ENCODING).into_iter().all(is_text) {
        return Err(BadHead::TransferEncoding);
    }
    // "MUST NOT apply the chunked transfer coding more than once" (RFC 9112 section 6.1): one reader takes off one, another both.
    let codings = headers
        .get_all(TRANSFER_ENCODING)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    if codings.filter(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked")).nth(1).is_some() {
        return Err(BadHead::TransferEncoding);
    }
    let last = last.as_bytes().rsplit(|&byte| byte == b',').next().unwrap_or_default();
    Ok(if last.trim_ascii().eq_ignore_ascii_case(b"chunked") { Said::Chunked } else { Said::Coded })
}

/// The one `Content-Length`. Several are refused also where they agree: RFC 9110 section 8.6 leaves the choice.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let is_only = lengths.next().is_none();
    decimal(length).filter(|&length| is_only && length <= MAX_LENGTH).map(Some).ok_or(BadHead::ContentLength)
}

/// Digits and nothing else: `str::parse` would take a sign.
fn decimal(value: &HeaderValue) -> Option<u64> {
    let digits = value.as_bytes();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the connection goes on after the message. `close` on any line wins.
pub(super) fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    if lists(headers, &CONNECTION, "close") {
        return false;
    }
    version == Version::HTTP_11 || lists(headers, &CONNECTION, "keep-alive")
}

/// Whether a comma-separated field has this item.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, item: &str) -> bool {
    let items =
        headers.get_all(name).into_iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    items.into_iter().any(|found| found.trim_ascii().eq_ignore_ascii_case(item.as_bytes()))
}
