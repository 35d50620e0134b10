//! HTTP/2 requests on their way to an HTTP/1.1 app.

use bytes::Bytes;
use gamut_http1::fuzz::{request_head, written_request};
use gamut_proxy::http::{
    Body, HttpVersion,
    headers::{normalize_request, prepare_request},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Scheme};

/// Lines: method, authority, path, then fields. What leaves as HTTP/1.1 is one head, and its reader understands what was
/// matched: the same method, target and fields, one host, one length.
pub(crate) fn request(input: &[u8]) {
    if let Some(request) = read(input) {
        leaves_as_one(request);
    }
}

/// Holds that against a request as a server reads it.
pub(crate) fn leaves_as_one(request: Request<Body>) {
    // As the server's side of a connection: the body is still to come.
    let (mut head, body) = request.into_parts();
    let Ok(wishes) = normalize_request(&mut head) else { return };
    let mut request = Request::from_parts(head, body);
    if prepare_request(&mut request, HttpVersion::H1, &wishes, "web.shop:80").is_err() {
        return;
    }
    let head = request.into_parts().0;
    // Which is no other message, but none for this reader.
    if head.headers.len() > gamut_http1::MAX_FIELDS {
        return;
    }
    let Some(written) = written_request(&head, None) else { return };

    let end = written.windows(4).position(|four| four == b"\r\n\r\n").expect("the head's end");
    assert_eq!(end + 4, written.len(), "two messages: {}", written.escape_ascii());
    let Some((method, target, fields, length)) = request_head(&Bytes::from(written.clone())) else {
        panic!("it can't be read: {}", written.escape_ascii());
    };
    assert_eq!((&method, target.as_str()), (&head.method, head.uri.to_string().as_str()));
    assert_eq!(fields.get_all(header::HOST).iter().count(), 1);
    if let Some(said) = fields.get(header::CONTENT_LENGTH) {
        assert_eq!(Some(said.to_str().expect("digits").parse().expect("a number")), length);
        assert!(!fields.contains_key(header::TRANSFER_ENCODING));
    }
    let others = |fields: &HeaderMap| {
        let mut fields = fields.clone();
        for framing in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            fields.remove(framing);
        }
        fields
    };
    assert_eq!(others(&fields), others(&head.headers));
}

/// As the `h2` crate gives it: pseudo-fields as the parts of a URI, fields whose bytes the `http` crate allows.
fn read(input: &[u8]) -> Option<Request<Body>> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut request = Request::new(Body::Empty);
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::from_bytes(lines.next()?).ok()?;
    let authority = lines.next()?;
    let mut uri = http::uri::Parts::default();
    if !authority.is_empty() {
        uri.authority = Some(authority.try_into().ok()?);
        uri.scheme = Some(Scheme::HTTP);
    }
    uri.path_and_query = Some(lines.next()?.try_into().ok()?);
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    for line in lines.take(64) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        // Names are lower case, or the `h2` crate refuses the request.
        let name = HeaderName::from_lowercase(name).ok()?;
        request.headers_mut().append(name, HeaderValue::from_bytes(&value[1..]).ok()?);
    }
    Some(request)
}
