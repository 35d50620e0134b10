//! Messages of HTTP/1.1 where requests share a connection: what one says and the other has no place for.
//!
//! Between sidecars ([`super::mux`]) such requests keep their `Host`, so that apps get it byte for byte. `101` and what asks for
//! it, and `Expect`, don't come this way ([`goes_along`]). The one field that is left is `Upgrade` on a 426, which says
//! what the server would speak (RFC 9110 section 15.5.22), and which is about the connection.

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{self, CONTENT_LENGTH, Entry},
    response,
};
use http_body::Body as _;

use crate::http::{Body, headers::Wishes};

/// What carries the `Upgrade` of an answer. Apps can't say it.
pub const UPGRADE: HeaderName = HeaderName::from_static("gamut-proxy-upgrade");

/// Whether a shared connection can carry a request of HTTP/1.1 and its answer as they are: no upgrade is wished, after which the
/// connection would be no HTTP any more, and the client doesn't wait for `100 Continue`, which has to come from the app.
pub fn goes_along(head: &HeaderMap, wishes: &Wishes) -> bool {
    wishes.upgrade.is_none() && !head.contains_key(header::EXPECT)
}

/// Makes an answer in normal form fit for a shared connection.
pub(super) fn pack_answer(head: &mut response::Parts) {
    if head.status == StatusCode::UPGRADE_REQUIRED {
        head.headers.remove(header::CONNECTION);
        if let Some(upgrade) = head.headers.remove(header::UPGRADE) {
            head.headers.insert(UPGRADE, upgrade);
        }
    }
}

/// Undoes [`pack_answer`].
pub(super) fn unpack_answer(head: &mut response::Parts) {
    if head.status == StatusCode::UPGRADE_REQUIRED
        && let Some(upgrade) = head.headers.remove(UPGRADE)
    {
        head.headers.insert(header::UPGRADE, upgrade);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// One plain `Content-Length`, or none: HTTP/1.1 lets a recipient take `5, 5` and the like for 5 (RFC 9110 section 8.6),
/// and neither HTTP/2 nor a sidecar takes that. Where the message says none and its length is known, it is said: HTTP/1.1 behind
/// would otherwise send it in chunks.
pub(super) fn settle_length(headers: &mut HeaderMap, body: &Body) {
    let known = || if body.is_end_stream() { None } else { body.size_hint().exact() };
    match headers.entry(CONTENT_LENGTH) {
        Entry::Occupied(mut said) => {
            let is_plain = said.get().as_bytes().iter().all(u8::is_ascii_digit) && !said.get().is_empty();
            if is_plain && said.iter().nth(1).is_none() {
                return;
            }
            match known() {
                Some(length) => {
                    said.insert(length.into());
                }
                None => {
                    said.remove_entry_mult();
                }
            }
        }
        Entry::Vacant(unsaid) => {
            if let Some(length) = known() {
                unsaid.insert(length.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn settled(said: &[&str], body: Body) -> Vec<String> {
        let mut headers = HeaderMap::new();
        said.iter().for_each(|said| {
            headers.append(CONTENT_LENGTH, HeaderValue::from_str(said).unwrap());
        });
        settle_length(&mut headers, &body);
        headers.get_all(CONTENT_LENGTH).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_length_is_said_once_and_plainly() {
        let five = || Body::from("hello".to_owned());
        for said in [&["5"][..], &["5, 5"], &["5", "5"], &["+5"], &[]] {
            assert_eq!(settled(said, five()), ["5"], "{said:?}");
        }
        assert_eq!(settled(&["1000"], Body::Empty), ["1000"], "of an answer to HEAD");
        assert!(settled(&[], Body::Empty).is_empty());
        assert!(settled(&["0, 0"], Body::Empty).is_empty());
    }

    #[test]
    fn what_a_server_would_speak_survives_http_2() {
        let answer = |status| {
            let answer = Response::builder().status(status);
            let answer = answer.header("upgrade", "chat/2").header("connection", "upgrade");
            answer.body(()).unwrap().into_parts().0
        };
        let mut head = answer(426);
        pack_answer(&mut head);
        assert!(!head.headers.contains_key("upgrade") && !head.headers.contains_key("connection"));
        unpack_answer(&mut head);
        assert_eq!(head.headers, answer(426).headers);
    }

    #[test]
    fn upgrades_and_expectations_go_another_way() {
        let mut head = HeaderMap::new();
        assert!(goes_along(&head, &Wishes::default()));
        let upgrade = Some(HeaderValue::from_static("websocket"));
        assert!(!goes_along(&head, &Wishes { upgrade, trailers: false }));
        head.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        assert!(!goes_along(&head, &Wishes::default()));
    }
}
