//! HTTP/1.1 from the wire: heads that must mean one thing to everybody, and chunked bodies.

use bytes::Bytes;
use gamut_http1::fuzz::{self, request_head, response_head};
use http::{HeaderMap, header};

/// The head of a request. What is taken has lines that end in CR LF, and says once where its body ends.
pub(crate) fn request(input: &[u8]) {
    let Some((_, target, headers, length)) = request_head(&Bytes::copy_from_slice(input)) else { return };
    assert!(!target.bytes().any(|byte| byte.is_ascii_control() || byte == b' '), "{target:?}");
    check(input, &headers);
    match length {
        Some(length) => {
            let said = headers.get(header::CONTENT_LENGTH);
            assert_eq!(said.map_or("0", |said| said.to_str().expect("digits")).parse(), Ok(length));
            assert!(!headers.contains_key(header::TRANSFER_ENCODING));
        }
        None => assert!(headers.contains_key(header::TRANSFER_ENCODING)),
    }
}

/// The head of an answer.
pub(crate) fn response(input: &[u8]) {
    let Some((status, headers)) = response_head(&Bytes::copy_from_slice(input)) else { return };
    assert!((100..1000).contains(&status));
    check(input, &headers);
}

fn check(input: &[u8], headers: &HeaderMap) {
    let head = input.windows(4).position(|four| four == b"\r\n\r\n").expect("the head's end");
    for (at, byte) in input[..head].iter().enumerate() {
        assert!(*byte != b'\n' || (at > 0 && input[at - 1] == b'\r'), "a bare line feed at {at}");
        assert!(*byte != b'\r' || input[at + 1] == b'\n', "a bare carriage return at {at}");
        assert!(*byte != 0, "a NUL at {at}");
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter().count();
    assert!(lengths <= 1);
    assert!(lengths == 0 || !headers.contains_key(header::TRANSFER_ENCODING), "two lengths");
}

/// A chunked body: the same in pieces of any size as at once, and nothing that wasn't in it.
pub(crate) fn chunked(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    let whole = fuzz::chunked(&input, input.len());
    for step in [1, 2, 3, 7] {
        let pieces = fuzz::chunked(&input, step);
        assert_eq!(
            whole.as_ref().map(|(data, trailers, _)| (data, trailers)),
            pieces.as_ref().map(|(data, trailers, _)| (data, trailers)),
            "in pieces of {step}"
        );
        // What comes behind is the next message's.
        assert_eq!(whole.as_ref().map(|(.., end)| end), pieces.as_ref().map(|(.., end)| end));
    }
    if let Some((data, _, end)) = whole {
        assert!(data.len() + 5 <= end, "each chunk has a line of its own");
    }
}
