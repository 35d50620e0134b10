//! Canonical paths: a request's path is brought into one form, and that one value is matched, authorized and
//! forwarded.
//!
//! Two spellings that RFC 3986 §6.2.2 calls equal become one; two that it calls different stay two; and what
//! an application might read differently from us is refused instead of guessed at. In short
//! (`docs/reference/paths.md` has the reasons):
//!
//! | in the path | becomes |
//! |---|---|
//! | percent-encoded unreserved characters (`%7E`, `%61`, `%2e`) | the character |
//! | lower-case hexadecimal (`%2f`) | upper case (`%2F`), still encoded |
//! | `.` and `..` elements, also where they were encoded | removed (RFC 3986 §5.2.4) |
//! | ``" < > [ ] ^ ` { \| }``, which URIs can't have but clients send | percent-encoded |
//! | `//`, `;param` | themselves |
//! | `.` or `..` beside `;`, `%2F` or `%5C` (`/..;/`, `/..%2F`) | refused |
//! | `\`, `%00`, an incomplete escape, a space, a control character, anything that isn't ASCII, `?`, `#` | refused |

use std::{borrow::Cow, fmt::Write as _};

use http::{Method, Uri};
use thiserror::Error;

/// Why a path is refused. The answer to such a request is 400; in a manifest it makes the match or filter
/// invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// The request target has no path: the authority-form of CONNECT, or `*` with another method than OPTIONS.
    #[error("the request target has no path")]
    NoPath,
    /// It doesn't begin with `/`.
    #[error("the path does not begin with '/'")]
    NotAbsolute,
    /// `%` without two hexadecimal digits behind it.
    #[error("the path has an incomplete percent-encoding at byte {at}")]
    BadEscape {
        /// Where, in bytes.
        at: usize,
    },
    /// A character that must not be in a path and whose encoded form can't be told from an attack.
    #[error("the path has the forbidden byte {byte:#04x} at byte {at}; percent-encode it if it is meant")]
    ForbiddenByte {
        /// Which byte.
        byte: u8,
        /// Where, in bytes.
        at: usize,
    },
    /// An encoded NUL, which ends the path for some applications and not for others.
    #[error("the path has an encoded NUL (%00) at byte {at}")]
    EncodedNul {
        /// Where, in bytes.
        at: usize,
    },
    /// An element that is `.` or `..` only for readers who cut at `;`, `%2F` or `%5C`.
    #[error("the path has a dot segment beside ';', an encoded slash or an encoded backslash")]
    DisguisedDots,
}

/// The canonical path of a request's target: origin-form, absolute-form, or the asterisk-form of OPTIONS (RFC
/// 9112 §3.2), which is its own canonical form and which only the match "prefix `/`" matches.
pub fn of_request<'a>(method: &Method, uri: &'a Uri) -> Result<Cow<'a, str>, PathError> {
    match uri.path() {
        "*" if method == Method::OPTIONS => Ok(Cow::Borrowed("*")),
        "" | "*" => Err(PathError::NoPath),
        path => canonical(path),
    }
}

/// The canonical form of a path without query. Borrowed where the path is canonical already, as nearly all are.
///
/// Idempotent: the canonical form of a canonical path is itself.
pub fn canonical(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    match escapes_normalized(path)? {
        Cow::Borrowed(path) => dots_removed(path),
        Cow::Owned(path) => dots_removed(&path).map(|path| Cow::Owned(path.into_owned())),
    }
}

/// What one byte of a path is.
enum Class {
    /// Stays: unreserved, sub-delims, `:`, `@`, `/` (RFC 3986 §3.3).
    Plain,
    /// The beginning of an escape.
    Percent,
    /// Not allowed in URIs, but harmless and sent by clients: encoded.
    Encode,
    /// Refused.
    Forbidden,
}

fn class(byte: u8) -> Class {
    match byte {
        _ if is_unreserved(byte) => Class::Plain,
        b'/' | b':' | b'@' => Class::Plain,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => Class::Plain,
        b'%' => Class::Percent,
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Encode,
        _ => Class::Forbidden,
    }
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §6.2.2.1 and §6.2.2.2. Decodes once and once only: `%252e` stays `%252e`.
fn escapes_normalized(path: &str) -> Result<Cow<'_, str>, PathError> {
    let mut output: Option<String> = None;
    let mut at = 0;
    while let Some(&byte) = path.as_bytes().get(at) {
        let width = match class(byte) {
            Class::Plain => {
                if let Some(output) = &mut output {
                    output.push(char::from(byte));
                }
                1
            }
            Class::Percent => {
                let escape = path.get(at..at + 3).ok_or(PathError::BadEscape { at })?;
                let value = escape_value(escape.as_bytes()).ok_or(PathError::BadEscape { at })?;
                if value == 0 {
                    return Err(PathError::EncodedNul { at });
                }
                if is_unreserved(value) {
                    output.get_or_insert_with(|| path[..at].to_owned()).push(char::from(value));
                } else if escape.bytes().any(|c| c.is_ascii_lowercase()) {
                    push_escape(output.get_or_insert_with(|| path[..at].to_owned()), value);
                } else if let Some(output) = &mut output {
                    output.push_str(escape);
                }
                3
            }
            Class::Encode => {
                push_escape(output.get_or_insert_with(|| path[..at].to_owned()), byte);
                1
            }
            Class::Forbidden => return Err(PathError::ForbiddenByte { byte, at }),
        };
        at += width;
    }
    Ok(output.map_or(Cow::Borrowed(path), Cow::Owned))
}

fn push_escape(output: &mut String, byte: u8) {
    // Writing to a String can't fail.
    let _ = write!(output, "%{byte:02X}");
}

/// The byte that `%XY` stands for.
pub(crate) fn escape_value(escape: &[u8]) -> Option<u8> {
    let &[b'%', high, low] = escape else { return None };
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

/// RFC 3986 §5.2.4, on a path whose escapes are normalized.
fn dots_removed(path: &str) -> Result<Cow<'_, str>, PathError> {
    let mut dots = false;
    for segment in segments(path) {
        match segment {
            "." | ".." => dots = true,
            _ if hides_dots(segment) => return Err(PathError::DisguisedDots),
            _ => {}
        }
    }
    if !dots {
        return Ok(Cow::Borrowed(path));
    }
    let mut output = String::with_capacity(path.len());
    for segment in segments(path) {
        match segment {
            "." => {}
            ".." => output.truncate(output.rfind('/').unwrap_or(0)),
            _ => {
                output.push('/');
                output.push_str(segment);
            }
        }
    }
    // A dot segment at the end stands for a directory: "/a/." is "/a/".
    if matches!(segments(path).next_back(), Some("." | "..")) || output.is_empty() {
        output.push('/');
    }
    Ok(Cow::Owned(output))
}

/// The elements behind each `/`.
fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Whether an element is or contains `.` or `..` for somebody who drops path parameters before resolving dots
/// (servlet containers: `/..;/admin`), or who decodes `%2F` or `%5C` before (`/..%2Fadmin`).
fn hides_dots(segment: &str) -> bool {
    if !segment.contains('.') || !segment.contains(['%', ';']) {
        return false;
    }
    let mut rest = segment;
    loop {
        let end = ["%2F", "%5C"].iter().filter_map(|cut| rest.find(cut)).min();
        let part = end.map_or(rest, |end| &rest[..end]);
        let name =
            part.find([';', '%']).filter(|&at| is_parameter(&part[at..])).map_or(part, |at| &part[..at]);
        if matches!(name, "." | "..") {
            return true;
        }
        match end {
            Some(end) => rest = &rest[end + 3..],
            None => return false,
        }
    }
}

fn is_parameter(tail: &str) -> bool {
    tail.starts_with(';') || tail.starts_with("%3B")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(path: &str) -> Result<String, PathError> {
        super::canonical(path).map(Cow::into_owned)
    }

    #[test]
    fn a_canonical_path_is_borrowed_as_it_is() {
        for path in [
            "/",
            "/a/b",
            "/a//b",
            "/a;v=1/b",
            "/.well-known/x",
            "/a..b/...",
            "/%2F/%C3%A9",
            "/~a-b_c.d",
            "/a%25",
        ] {
            assert!(matches!(super::canonical(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
        }
    }

    #[test]
    fn equal_spellings_become_one() {
        for (path, expected) in [
            ("/%7Euser", "/~user"),
            ("/%61%2D%5f%2e%31", "/a-_.1"),
            ("/%2fetc", "/%2Fetc"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a|b^c{d}[e]\"`<>", "/a%7Cb%5Ec%7Bd%7D%5Be%5D%22%60%3C%3E"),
            ("/%252e%252e/a", "/%252e%252e/a"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_removed_as_rfc_3986_does_it() {
        for (path, expected) in [
            // The RFC's own example, §5.2.4.
            ("/a/b/c/./../../g", "/a/g"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/.%2e/b", "/b"),
            // An empty element is an element.
            ("/a//../b", "/a/b"),
            ("/a/..//b", "//b"),
        ] {
            assert_eq!(canonical(path).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_applications_read_differently_is_refused() {
        for path in [
            "/..;/admin",
            "/.;/admin",
            "/a/..;x=1/b",
            "/..%3B/a",
            "/..%2fadmin",
            "/a%2F..%2Fb",
            "/..%5cadmin",
            "/%2e%2e;/a",
            "/a%5C.",
        ] {
            assert_eq!(canonical(path), Err(PathError::DisguisedDots), "{path}");
        }
        for path in ["/a;..", "/..a;b", "/v1.0%2Fx", "/a.;b", "/...;/x", "/..%20/x"] {
            assert!(canonical(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_none_is_refused_with_the_reason() {
        for (path, expected) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("http://a/b", PathError::NotAbsolute),
            ("/a%", PathError::BadEscape { at: 2 }),
            ("/a%2", PathError::BadEscape { at: 2 }),
            ("/%zz", PathError::BadEscape { at: 1 }),
            ("/%+1", PathError::BadEscape { at: 1 }),
            ("/%\u{e9}1", PathError::BadEscape { at: 1 }),
            ("/a%00b", PathError::EncodedNul { at: 2 }),
            ("/a\\b", PathError::ForbiddenByte { byte: b'\\', at: 2 }),
            ("/a b", PathError::ForbiddenByte { byte: b' ', at: 2 }),
            ("/a\0", PathError::ForbiddenByte { byte: 0, at: 2 }),
            ("/a\r\nb", PathError::ForbiddenByte { byte: b'\r', at: 2 }),
            ("/caf\u{e9}", PathError::ForbiddenByte { byte: 0xc3, at: 4 }),
            ("/a?b", PathError::ForbiddenByte { byte: b'?', at: 2 }),
            ("/a#b", PathError::ForbiddenByte { byte: b'#', at: 2 }),
            ("/\x7f", PathError::ForbiddenByte { byte: 0x7f, at: 1 }),
        ] {
            assert_eq!(canonical(path), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn each_form_of_a_request_target_has_its_path() {
        let of = |method: Method, target: &str| {
            let uri: Uri = target.parse().unwrap();
            of_request(&method, &uri).map(Cow::into_owned)
        };
        assert_eq!(of(Method::GET, "/a/./b?x=/../"), Ok("/a/b".to_owned()));
        assert_eq!(of(Method::GET, "http://web.shop/a/%2e%2e/b?x"), Ok("/b".to_owned()));
        assert_eq!(of(Method::GET, "http://web.shop"), Ok("/".to_owned()));
        assert_eq!(of(Method::GET, "/a#b"), Ok("/a".to_owned()));
        assert_eq!(of(Method::OPTIONS, "*"), Ok("*".to_owned()));
        assert_eq!(of(Method::GET, "*"), Err(PathError::NoPath));
        assert_eq!(of(Method::CONNECT, "web.shop:443"), Err(PathError::NoPath));
    }

    proptest! {
        #[test]
        fn canonicalization_is_idempotent_and_leaves_nothing_to_resolve(path in "/([a.]|\\.\\.|/|;|%2[eEfF]|%5[cC]|%25|%3B|%61|~|\\||\\[){0,24}") {
            if let Ok(once) = canonical(&path) {
                prop_assert_eq!(canonical(&once), Ok(once.clone()));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!once.to_ascii_lowercase().contains("%2e"));
            }
        }

        #[test]
        fn no_text_at_all_makes_it_panic_or_lets_a_foreign_byte_through(path in "\\PC{0,40}") {
            if let Ok(path) = canonical(&path) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(path.bytes().all(|byte| byte == b'%' || matches!(class(byte), Class::Plain)));
            }
        }
    }
}
