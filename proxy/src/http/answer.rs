//! Answers that are the proxy's own, and the signal between sidecars that says so.
//!
//! To an app, such an answer carries `gamut-answer: <reason>` and a one-line body that names route, rule and
//! cause; gRPC callers get a trailers-only status. Between sidecars it carries `gamut-proxy-answer:
//! <reason>`, with what the app has seen of the request ([`Seen`]), by which it may be sent again. An app can't
//! forge either: [`strip_signals`] takes both out of what apps send, on both sides.

use std::fmt;

use gamut_route::table::RuleOrigin;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{body::Body, carry};

/// Tells an app that an answer is its sidecar's own, and why.
pub const ANSWER: HeaderName = HeaderName::from_static("gamut-answer");
/// Tells a sidecar the same about the other sidecar's.
pub const PROXY_ANSWER: HeaderName = HeaderName::from_static("gamut-proxy-answer");

/// What an answer that sheds load asks of the client: to come back in so many seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What the app behind a sidecar has seen of a request that the sidecar answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: anybody else may be asked.
    Nothing,
    /// A kept connection to it, or any while it was ending, ended without a byte of an answer: if doing it twice is the same as doing it once, it
    /// may be asked again (RFC 9112 section 9.3.1).
    NoAnswer,
    /// Nobody knows: its connection broke before the answer, as one of the caller's own might have. It may be asked again
    /// where the rule says so and doing it twice is the same as doing it once.
    Broken,
    /// Perhaps all of it, and asking again would be of no use.
    Perhaps,
}

/// Why the proxy answers instead of an app. Documented in `docs/reference/requests.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule matches.
    NoRoute,
    /// The rule can't be carried out as it is written.
    InvalidRule,
    /// The chosen backendRef leads nowhere.
    InvalidBackend,
    /// The rule has no backend with a weight.
    NoBackend,
    /// The chosen backend has no endpoint that takes traffic.
    NoEndpoint,
    /// This sidecar has no valid certificate.
    NoCertificate,
    /// No endpoint took a connection.
    UpstreamConnect,
    /// The connection to the endpoint broke before its answer, or what came was no answer.
    UpstreamReset,
    /// The endpoint refused the request and no other was left.
    UpstreamRefused,
    /// The request would have been tried again, but the backend's retry budget was spent.
    RetryBudget,
    /// A limit of this sidecar keeps the backend from getting more.
    Overload,
    /// The rule's time was over.
    Timeout,
    /// The request is none that a proxy may pass on.
    BadRequest,
    /// The request's body is encoded for the connection in a way that nobody here can undo.
    TransferCoding,
    /// CONNECT.
    Connect,
    /// The rule is an answer by itself: a redirect, or to a CORS preflight. Only metrics say this.
    Rule,
    /// Nothing is known about the address. The connection is closed; nobody reads this but metrics.
    NoTable,
    /// The app behind this sidecar took no connection.
    AppConnect,
    /// The app behind this sidecar broke the connection off before its answer.
    AppReset,
    /// The caller may not.
    Policy,
    /// The port takes mesh peers only, and the caller speaks plaintext.
    MtlsRequired,
    /// The controller hasn't said yet who may call.
    NoPolicy,
}

/// An answer of the proxy's own.
#[derive(Debug)]
pub struct Answer<'a> {
    reason: Reason,
    rule: Option<&'a RuleOrigin>,
    why: String,
}

/// What a believed [`PROXY_ANSWER`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// What the app has seen of the request.
    pub seen: Seen,
}

impl Seen {
    /// The signal's parameter.
    fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Nothing => Some("not-processed"),
            Self::NoAnswer => Some("stale"),
            Self::Broken => Some("broken"),
            Self::Perhaps => None,
        }
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 22] = [
        Self::NoRoute,
        Self::InvalidRule,
        Self::InvalidBackend,
        Self::NoBackend,
        Self::NoEndpoint,
        Self::NoCertificate,
        Self::UpstreamConnect,
        Self::UpstreamReset,
        Self::UpstreamRefused,
        Self::RetryBudget,
        Self::Overload,
        Self::Timeout,
        Self::BadRequest,
        Self::TransferCoding,
        Self::Connect,
        Self::Rule,
        Self::NoTable,
        Self::AppConnect,
        Self::AppReset,
        Self::Policy,
        Self::MtlsRequired,
        Self::NoPolicy,
    ];

    /// The reason as headers and metrics spell it.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        self.row().1
    }

    /// The gRPC status. What the Gateway API says of GRPCRoutes goes first: UNAVAILABLE where a rule leads nowhere,
    /// also where that is 500 in HTTP, and UNIMPLEMENTED where no rule matches. A limit of time has gRPC's own
    /// status. Everything else is what clients would make of the HTTP status (gRPC's "HTTP to gRPC Status Code
    /// Mapping").
    pub fn grpc_status(self) -> u16 {
        self.row().2
    }

    fn row(self) -> (&'static str, StatusCode, u16) {
        const UNKNOWN: u16 = 2;
        const DEADLINE_EXCEEDED: u16 = 4;
        const PERMISSION_DENIED: u16 = 7;
        const UNIMPLEMENTED: u16 = 12;
        const INTERNAL: u16 = 13;
        const UNAVAILABLE: u16 = 14;
        match self {
            Self::NoRoute => ("no-route", StatusCode::NOT_FOUND, UNIMPLEMENTED),
            Self::InvalidRule => ("invalid-rule", StatusCode::INTERNAL_SERVER_ERROR, UNAVAILABLE),
            Self::InvalidBackend => ("invalid-backend", StatusCode::INTERNAL_SERVER_ERROR, UNAVAILABLE),
            Self::NoBackend => ("no-backend", StatusCode::INTERNAL_SERVER_ERROR, UNAVAILABLE),
            Self::NoEndpoint => ("no-endpoint", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::NoCertificate => ("no-certificate", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::UpstreamConnect => ("upstream-connect", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::UpstreamReset => ("upstream-reset", StatusCode::BAD_GATEWAY, UNAVAILABLE),
            Self::UpstreamRefused => ("upstream-refused", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::RetryBudget => ("retry-budget", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Overload => ("overload", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, DEADLINE_EXCEEDED),
            Self::BadRequest => ("bad-request", StatusCode::BAD_REQUEST, INTERNAL),
            Self::TransferCoding => ("transfer-coding", StatusCode::NOT_IMPLEMENTED, UNKNOWN),
            Self::Connect => ("connect", StatusCode::METHOD_NOT_ALLOWED, UNIMPLEMENTED),
            Self::Rule => ("rule", StatusCode::OK, UNAVAILABLE),
            Self::NoTable => ("no-table", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::AppConnect => ("app-connect", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
            Self::AppReset => ("app-reset", StatusCode::BAD_GATEWAY, UNAVAILABLE),
            Self::Policy => ("policy", StatusCode::FORBIDDEN, PERMISSION_DENIED),
            Self::MtlsRequired => ("mtls-required", StatusCode::FORBIDDEN, PERMISSION_DENIED),
            Self::NoPolicy => ("no-policy", StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
        }
    }
}

impl<'a> Answer<'a> {
    /// An answer for a cause that a person who knows the manifests will understand.
    pub fn new(reason: Reason, why: impl fmt::Display) -> Self {
        Self { reason, rule: None, why: why.to_string() }
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Names the rule that it happened under.
    pub fn under(mut self, rule: Option<&'a RuleOrigin>) -> Self {
        self.rule = rule;
        self
    }

    /// The rule that it happened under.
    pub fn rule(&self) -> Option<&'a RuleOrigin> {
        self.rule
    }

    /// The answer to the app behind this sidecar, or to a caller outside the mesh.
    pub fn to_app(&self, grpc: bool) -> Response<Body> {
        self.response(grpc, ANSWER, HeaderValue::from_static(self.reason.as_str()))
    }

    /// The answer to another sidecar.
    pub fn to_sidecar(&self, grpc: bool, seen: Seen) -> Response<Body> {
        let reason = self.reason.as_str();
        // Both are tokens, and so the value is one too.
        let signal = seen
            .parameter()
            .and_then(|parameter| HeaderValue::try_from(format!("{reason}; {parameter}")).ok())
            .unwrap_or(HeaderValue::from_static(reason));
        self.response(grpc, PROXY_ANSWER, signal)
    }

    fn response(&self, grpc: bool, name: HeaderName, value: HeaderValue) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        response.headers_mut().insert(name, value);
        if self.reason == Reason::Overload {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if grpc {
            let message = percent_encoded(&self.to_string());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(self.reason.grpc_status()));
            if let Ok(message) = HeaderValue::try_from(message) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        *response.status_mut() = self.reason.status();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        *response.body_mut() = Body::from(format!("{self}\n"));
        response
    }
}

impl fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gamut: {}: ", self.reason.as_str())?;
        if let Some(rule) = self.rule {
            write!(f, "{}: ", Rule(rule))?;
        }
        f.write_str(&self.why)
    }
}

/// A rule as messages name it: `httproute/shop/web rule 2 (canary)`, counted from 0 as manifests' paths do.
pub struct Rule<'a>(pub &'a RuleOrigin);

impl fmt::Display for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.0.route, self.0.index)?;
        self.0.name.iter().try_for_each(|name| write!(f, " ({name})"))
    }
}

/// Whether a caller wants its answers in gRPC's form.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Takes out of an app's message what only sidecars may say.
pub fn strip_signals(headers: &mut HeaderMap) {
    // One look at the names, for most messages have none.
    if !headers.keys().any(|name| name.as_str().starts_with("gamut-")) {
        return;
    }
    headers.remove(PROXY_ANSWER);
    headers.remove(ANSWER);
    headers.remove(carry::UPGRADE);
}

/// Reads what a sidecar says about its answer. Only for answers over mesh TLS: anybody can write the header.
pub fn signal(headers: &HeaderMap) -> Option<Signal> {
    let value = headers.get(PROXY_ANSWER)?.to_str().ok()?;
    let has = |seen: &Seen| value.split(';').skip(1).any(|said| Some(said.trim()) == seen.parameter());
    let known = [Seen::Nothing, Seen::NoAnswer, Seen::Broken];
    Some(Signal { seen: known.into_iter().find(has).unwrap_or(Seen::Perhaps) })
}

/// Turns another sidecar's own answer into ours, for the app to read.
pub fn adopt(headers: &mut HeaderMap) {
    headers.remove(ANSWER);
    let Some(value) = headers.remove(PROXY_ANSWER) else { return };
    let reason = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    if let Ok(reason) = HeaderValue::from_bytes(reason) {
        headers.insert(ANSWER, reason);
    }
}

/// `grpc-message`'s encoding: printable ASCII but `%` as it is (gRPC over HTTP2, "Percent-Encoded").
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use gamut_route::RouteRef;

    use super::*;

    fn origin() -> RuleOrigin {
        let route: RouteRef = "httproute/shop/web".parse().unwrap();
        RuleOrigin { route, name: Some("canary".to_owned()), index: 2 }
    }

    #[test]
    fn an_app_reads_status_reason_route_rule_and_cause() {
        let rule = origin();
        let response = Answer::new(Reason::NoEndpoint, "service/shop/web-v2:80 has none")
            .under(Some(&rule))
            .to_app(false);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[ANSWER], "no-endpoint");
        assert!(!response.headers().contains_key(PROXY_ANSWER));
        let Body::Full(text) = response.body() else { panic!("{:?}", response.body()) };
        let expected =
            "gamut: no-endpoint: httproute/shop/web rule 2 (canary): service/shop/web-v2:80 has none\n";
        assert_eq!(text, expected);
    }

    /// `rule` and `no-table` are in no answer, and the reference says so in words.
    #[test]
    fn the_reference_has_every_reason_with_its_statuses() {
        let reference = include_str!("../../../docs/reference/requests.md");
        for reason in Reason::ALL {
            let row = format!(
                "| `{}` | {} | {} |",
                reason.as_str(),
                reason.status().as_u16(),
                reason.grpc_status()
            );
            let said = matches!(reason, Reason::Rule | Reason::NoTable) || reference.contains(&row);
            assert!(said, "docs/reference/requests.md should have a row {row}");
        }
    }

    #[test]
    fn a_grpc_status_is_what_clients_make_of_the_http_status_but_for_what_the_specifications_say() {
        // https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
        let mapped = |status: StatusCode| match status.as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        };
        for reason in Reason::ALL {
            let expected = match reason {
                // GRPCRouteRule.backendRefs: "MUST receive an UNAVAILABLE status", whether the reference is invalid or
                // there is none.
                Reason::InvalidRule | Reason::InvalidBackend | Reason::NoBackend => 14,
                // A deadline that somebody other than the client keeps.
                Reason::Timeout => 4,
                // No gRPC is made with CONNECT: a method that isn't implemented.
                Reason::Connect => 12,
                // In no answer.
                Reason::Rule => 14,
                _ => mapped(reason.status()),
            };
            assert_eq!(reason.grpc_status(), expected, "{reason:?}");
        }
    }

    #[test]
    fn a_grpc_caller_gets_a_status_without_a_body() {
        let response = Answer::new(Reason::NoRoute, "100 % of rules\nmissed").to_app(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "12");
        assert_eq!(response.headers()["grpc-message"], "gamut: no-route: 100 %25 of rules%0Amissed");
        assert!(http_body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn a_sidecar_learns_what_the_app_saw_of_the_request() {
        for (seen, value) in [
            (Seen::Nothing, "app-reset; not-processed"),
            (Seen::NoAnswer, "app-reset; stale"),
            (Seen::Broken, "app-reset; broken"),
            (Seen::Perhaps, "app-reset"),
        ] {
            let answer = Answer::new(Reason::AppReset, "broken pipe").to_sidecar(false, seen);
            assert_eq!(answer.headers()[PROXY_ANSWER], value);
            assert_eq!(signal(answer.headers()), Some(Signal { seen }));
        }
    }

    #[test]
    fn an_app_reads_the_other_sidecars_reason_as_ours() {
        let mut response =
            Answer::new(Reason::AppConnect, "connection refused").to_sidecar(false, Seen::Nothing);
        adopt(response.headers_mut());
        assert_eq!(response.headers()[ANSWER], "app-connect");
        assert!(!response.headers().contains_key(PROXY_ANSWER));
    }

    #[test]
    fn what_an_app_forges_is_taken_out() {
        let mut headers =
            Answer::new(Reason::AppConnect, "forged").to_sidecar(false, Seen::Nothing).headers().clone();
        headers.insert(ANSWER, HeaderValue::from_static("forged"));
        strip_signals(&mut headers);
        assert_eq!(signal(&headers), None);
        assert!(!headers.contains_key(ANSWER));
    }
}
