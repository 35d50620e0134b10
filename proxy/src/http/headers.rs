//! Heads of messages: one normal form inside the proxy, and what each version of HTTP wants on the wire.
//!
//! Inside, a request has an origin-form URI (path and query; `*` for OPTIONS), at most one `Host` header, and
//! no field that is about a connection (RFC 9110 section 7.6.1). [`normalize_request`] brings it there,
//! [`prepare_request`] from there to the next hop; [`normalize_response`] does the former for answers.
//!
//! Not added: `X-Forwarded-*`, `Forwarded`, `Via`. A sidecar is no hop that an app should see.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{self, Entry},
    request, response,
    uri::{Authority, PathAndQuery, Scheme},
};
use thiserror::Error;

use super::{
    answer::{self, Reason},
    body::Body,
};

/// A version of HTTP to speak to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// A request that no proxy may pass on (RFC 9110, 9112, 9113): its [`BadRequest::reason`] says how
/// it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRequest {
    /// CONNECT asks for a tunnel past routes and policy.
    #[error("CONNECT is not served")]
    Connect,
    /// HTTP/1.1 without `Host`.
    #[error("an HTTP/1.1 request needs a Host header")]
    NoHost,
    /// Two of them, or one that isn't what `:authority` says.
    #[error("the request names more than one host")]
    SeveralHosts,
    /// Not a host and port.
    #[error("the request's Host is no host")]
    InvalidHost,
    /// No path to match, and not `OPTIONS *`.
    #[error("the request's target has no path")]
    InvalidTarget,
    /// The body is encoded for the connection in a way that only the client's side of it understands.
    #[error("the body has a transfer coding other than chunked")]
    TransferCoding,
    /// RFC 9113 section 8.2.1: malformed. HTTP/1.1's reader takes the blank off, and sees another value than was matched.
    #[error("a field's value begins or ends with a blank")]
    Blank,
    /// RFC 9110 section 5.6.2: no token. The `http` crate takes it for part of a name of HTTP/2's, HTTP/1.1's readers don't.
    #[error("a field's name has a quotation mark")]
    Quoted,
}

/// An answer that no proxy may pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the answer's body has a transfer coding other than chunked")]
pub struct BadAnswer;

/// What a client wants besides an answer.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// To speak this protocol on the connection after a 101. Never `h2c`, which would carry requests past
    /// routes and policy.
    pub upgrade: Option<HeaderValue>,
    /// To get trailers.
    pub trailers: bool,
}

/// Fields about one connection, besides `Connection` and those that it lists.
static CONNECTION_FIELDS: [HeaderName; 5] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl BadRequest {
    /// How it is answered: 501 what isn't known here (RFC 9112 section 6.1), 405 a CONNECT, and 400 everything else.
    pub fn reason(self) -> Reason {
        match self {
            Self::Connect => Reason::Connect,
            Self::TransferCoding => Reason::TransferCoding,
            Self::NoHost
            | Self::SeveralHosts
            | Self::InvalidHost
            | Self::InvalidTarget
            | Self::Blank
            | Self::Quoted => Reason::BadRequest,
        }
    }
}

impl HttpVersion {
    /// The version that a message came in.
    pub fn of(version: Version) -> Self {
        if version == Version::HTTP_2 { Self::H2 } else { Self::H1 }
    }
}

/// Brings a request as a server reads it into the normal form. `gamut-*` signals that an app sends are
/// dropped.
///
/// # Errors
/// [`BadRequest`]: the request must not be passed on.
pub fn normalize_request(head: &mut request::Parts) -> Result<Wishes, BadRequest> {
    if head.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let mut wishes = Wishes::default();
    if is_about_connection(&head.headers) {
        if is_coded(&head.headers) {
            return Err(BadRequest::TransferCoding);
        }
        wishes = Wishes { upgrade: wanted_upgrade(head), trailers: wants_trailers(&head.headers) };
        strip_connection_fields(&mut head.headers);
    }
    answer::strip_signals(&mut head.headers);
    settle_host(head)?;
    settle_target(head)?;
    if head.version == Version::HTTP_2 {
        if head.headers.values().any(has_blank_at_an_end) {
            return Err(BadRequest::Blank);
        }
        if head.headers.keys().any(|name| name.as_str().contains('"')) {
            return Err(BadRequest::Quoted);
        }
        join_cookies(&mut head.headers);
    }
    Ok(wishes)
}

/// Brings an answer as a client reads it into the normal form.
///
/// # Errors
/// [`BadAnswer`]: the answer must not be passed on.
pub fn normalize_response(head: &mut response::Parts) -> Result<(), BadAnswer> {
    if !is_about_connection(&head.headers) {
        return Ok(());
    }
    if is_coded(&head.headers) {
        return Err(BadAnswer);
    }
    let keeps_upgrade = matches!(head.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let upgrade = if keeps_upgrade { head.headers.remove(header::UPGRADE) } else { None };
    strip_connection_fields(&mut head.headers);
    if let Some(upgrade) = upgrade {
        head.headers.insert(header::UPGRADE, upgrade);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Ok(())
}

/// Makes a request in normal form fit for the way between sidecars ([`super::mux`]).
pub fn prepare_carried(
    request: &mut Request<Body>,
    wishes: &Wishes,
    authority: &str,
) -> Result<(), BadRequest> {
    // Prepared before, for an endpoint without a sidecar: HTTP/1.1's field, HTTP/2's authority.
    request.headers_mut().remove(header::TRANSFER_ENCODING);
    if let Some(said) = request.uri().authority() {
        let host = HeaderValue::from_str(said.as_str()).map_err(|_| BadRequest::InvalidHost)?;
        let target = request.uri().path_and_query().cloned().ok_or(BadRequest::InvalidTarget)?;
        *request.uri_mut() = origin_form(target);
        request.headers_mut().insert(header::HOST, host);
    }
    let headers = request.headers_mut();
    if wishes.trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    settle_absent_host(headers, authority)
}

/// Makes a request in normal form fit for the wire. `authority` stands in where an HTTP/1.0 client named no
/// host.
pub fn prepare_request(
    request: &mut Request<Body>,
    version: HttpVersion,
    wishes: &Wishes,
    authority: &str,
) -> Result<(), BadRequest> {
    if wishes.trailers {
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    match version {
        HttpVersion::H1 => prepare_h1(request, wishes, authority),
        HttpVersion::H2 => prepare_h2(request, authority),
    }
}

fn prepare_h1(request: &mut Request<Body>, wishes: &Wishes, authority: &str) -> Result<(), BadRequest> {
    *request.version_mut() = Version::HTTP_11;
    let length_unknown = http_body::Body::size_hint(request.body()).exact().is_none();
    let headers = request.headers_mut();
    settle_absent_host(headers, authority)?;
    if length_unknown && !headers.contains_key(header::CONTENT_LENGTH) {
        // A GET's body of unknown length is taken for none, unless it is said.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(upgrade) = &wishes.upgrade {
        headers.insert(header::UPGRADE, upgrade.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Ok(())
}

fn settle_absent_host(headers: &mut HeaderMap, authority: &str) -> Result<(), BadRequest> {
    if let Entry::Vacant(host) = headers.entry(header::HOST) {
        host.insert(HeaderValue::from_str(authority).map_err(|_| BadRequest::InvalidHost)?);
    }
    Ok(())
}

fn prepare_h2(request: &mut Request<Body>, authority: &str) -> Result<(), BadRequest> {
    *request.version_mut() = Version::HTTP_2;
    if request.uri().authority().is_some() {
        // Prepared before, for a connection that didn't come about.
        return Ok(());
    }
    let host = request.headers_mut().remove(header::HOST).filter(|host| !host.is_empty());
    let authority = match host {
        Some(host) => Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes())),
        None => authority.parse(),
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.map_err(|_| BadRequest::InvalidHost)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| BadRequest::InvalidTarget)?;
    Ok(())
}

/// Whether a field is about this connection only. One look at the names, for most messages have none.
fn is_about_connection(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| *name == header::CONNECTION || CONNECTION_FIELDS.contains(name))
}

/// Whether anything is left to undo of a body when `chunked` has been taken off its end. Its codings end at the connection, as the
/// field does: a body that keeps one and loses the other reaches nobody as it was meant. That `chunked` stands there once is
/// checked where the head is read.
fn is_coded(headers: &HeaderMap) -> bool {
    // An empty item is none (RFC 9110 section 5.6.1).
    let mut codings = list(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty());
    codings.any(|coding| !coding.eq_ignore_ascii_case(b"chunked"))
}

/// Takes out what is about this connection only.
pub fn strip_connection_fields(headers: &mut HeaderMap) {
    if !is_about_connection(headers) {
        return;
    }
    if let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let values: smallvec::SmallVec<[HeaderValue; 1]> = connection.remove_entry_mult().1.collect();
        for name in values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b',')) {
            let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
            // A message doesn't lose what says where it goes or where it ends.
            if name != header::HOST && name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
    }
    for name in &CONNECTION_FIELDS {
        headers.remove(name);
    }
}

/// The `Upgrade` of a request that may be upgraded: HTTP/1.1, listed in `Connection` (RFC 9110 section 7.8).
fn wanted_upgrade(head: &request::Parts) -> Option<HeaderValue> {
    let listed =
        || list(&head.headers, &header::CONNECTION).any(|item| item.eq_ignore_ascii_case(b"upgrade"));
    if head.version != Version::HTTP_11 || !head.headers.contains_key(header::UPGRADE) || !listed() {
        return None;
    }
    let mut kept = list(&head.headers, &header::UPGRADE).filter(|item| !item.eq_ignore_ascii_case(b"h2c"));
    let first = kept.next()?;
    let joined = kept.fold(first.to_vec(), |mut all, item| {
        all.extend_from_slice(b", ");
        all.extend_from_slice(item);
        all
    });
    HeaderValue::from_bytes(&joined).ok()
}

/// Whether a reader of HTTP/1.1 would take something off it.
pub(super) fn has_blank_at_an_end(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    list(headers, &header::TE).any(|item| item.eq_ignore_ascii_case(b"trailers"))
}

/// The items of a comma-separated field.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
}

/// One `Host`, that of the target where it has one: RFC 9112 section 3.2.2 for absolute-form, RFC 9113
/// section 8.3.1 for `:authority`.
fn settle_host(head: &mut request::Parts) -> Result<(), BadRequest> {
    let mut hosts = head.headers.get_all(header::HOST).into_iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::SeveralHosts);
    }
    if let Some(authority) = head.uri.authority() {
        if authority.as_str().contains('@') {
            return Err(BadRequest::InvalidHost);
        }
        let differs =
            host.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()));
        if differs && head.version == Version::HTTP_2 {
            return Err(BadRequest::SeveralHosts);
        }
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| BadRequest::InvalidHost)?;
        head.headers.insert(header::HOST, value);
        return Ok(());
    }
    match host {
        Some(host) if is_host(host.as_bytes()) => Ok(()),
        Some(_) => Err(BadRequest::InvalidHost),
        None if head.version == Version::HTTP_11 => Err(BadRequest::NoHost),
        None => Ok(()),
    }
}

/// The characters of `uri-host [":" port]` (RFC 3986 section 3.2.2), or nothing. Not a full parse: what a
/// name means is for the app to say, but it must mean the same to everybody on the way.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

/// Origin-form: the path and query alone.
fn settle_target(head: &mut request::Parts) -> Result<(), BadRequest> {
    let target = head.uri.path_and_query().ok_or(BadRequest::InvalidTarget)?;
    let whole_server = target.as_str() == "*" && head.method == Method::OPTIONS;
    if !target.as_str().starts_with('/') && !whole_server {
        // An absolute-form target may have a query alone: "http://host?query". A `:path` may not (RFC 9113 section 8.3.1).
        let absolute = head.uri.authority().is_some() && head.version != Version::HTTP_2;
        if !absolute || !target.as_str().starts_with('?') {
            return Err(BadRequest::InvalidTarget);
        }
    }
    if head.uri.authority().is_some() {
        let target = match target.as_str().strip_prefix('?') {
            Some(query) => format!("/?{query}").parse().map_err(|_| BadRequest::InvalidTarget)?,
            None => target.clone(),
        };
        head.uri = origin_form(target);
    }
    // A fragment alone is no target (RFC 9110 section 7.1). The library cuts it off, and calls what is left "" here and "/" there.
    if head.uri.path().is_empty() { Err(BadRequest::InvalidTarget) } else { Ok(()) }
}

/// A URI of a path and query alone.
pub fn origin_form(target: PathAndQuery) -> Uri {
    Uri::from(target)
}

/// One `Cookie` field again (RFC 9113 section 8.2.3): HTTP/1.1 allows no more, and matches look at the first.
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(cookies) = headers.entry(header::COOKIE) else { return };
    if cookies.iter().nth(1).is_none() {
        return;
    }
    // An empty one would leave a blank at the end, which the app doesn't read.
    let crumbs = cookies.iter().map(HeaderValue::as_bytes).filter(|crumb| !crumb.is_empty());
    let joined = crumbs.collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests;
