//! Cross-origin resource sharing (GEP-1767): answers preflights, and marks the responses to the requests that
//! follow.
//!
//! The proxy has the last word: a preflight never reaches the application, and what the application says
//! about origins is replaced. An origin that isn't allowed gets an answer without any of these headers, and
//! the browser does the rest.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::{Cors, FilterError, headers::parse_name};
use crate::authority;

/// A `CORS` filter, ready for requests.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    origins: Vec<OriginTest>,
    credentials: bool,
    methods: Listed,
    headers: Listed,
    expose: Listed,
    max_age: HeaderValue,
}

/// The `Origin` of a request, found to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin(HeaderValue);

/// Names for one header of the answer.
#[derive(Clone, Debug)]
enum Listed {
    /// The header is left out.
    Nothing,
    /// `*`.
    Everything,
    /// These, joined.
    These(HeaderValue),
}

#[derive(Clone, Debug)]
enum OriginTest {
    Any,
    Pattern { scheme: &'static str, host: HostTest, port: u16 },
}

#[derive(Clone, Debug)]
enum HostTest {
    Any,
    Exact(Box<str>),
    /// From the dot on: `.example` for `*.example`. Any number of labels stands before it.
    Suffix(Box<str>),
}

/// What a response says about origins, all of which is ours to say.
const OURS: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// Whether a request is a preflight: it is never forwarded where a CORS filter applies.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

impl CorsPolicy {
    /// Prepares a filter.
    pub fn new(cors: &Cors) -> Result<Self, FilterError> {
        let header_names = |names: &[String]| {
            names.iter().filter(|name| *name != "*").try_for_each(|name| parse_name(name).map(drop))
        };
        header_names(&cors.allow_headers)?;
        header_names(&cors.expose_headers)?;
        Ok(Self {
            origins: cors
                .allow_origins
                .iter()
                .map(|origin| OriginTest::new(origin))
                .collect::<Result<_, _>>()?,
            credentials: cors.allow_credentials,
            methods: Listed::new("access-control-allow-methods", &cors.allow_methods)?,
            headers: Listed::new("access-control-allow-headers", &cors.allow_headers)?,
            expose: Listed::new("access-control-expose-headers", &cors.expose_headers)?,
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        })
    }

    /// The origin of an actual request, if it is allowed. To be kept for [`CorsPolicy::finish`], which has only the
    /// response. Where credentials aren't allowed, a request that has some is from nowhere: "the Gateway MUST NOT
    /// set any CORS headers in the response to a credentialed request" (GEP-1767).
    pub fn allowed_origin(&self, request: &HeaderMap) -> Option<AllowedOrigin> {
        let credentialed =
            [header::COOKIE, header::AUTHORIZATION].iter().any(|name| request.contains_key(name));
        self.origin_of(request).filter(|_| self.credentials || !credentialed)
    }

    fn origin_of(&self, request: &HeaderMap) -> Option<AllowedOrigin> {
        let mut origins = request.get_all(header::ORIGIN).iter();
        let (origin, None) = (origins.next()?, origins.next()) else { return None };
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|test| test.holds(text)).then(|| AllowedOrigin(origin.clone()))
    }

    /// The headers of the answer to a preflight: 200 without body, whether the origin is allowed or not.
    pub fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        answer.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        answer.insert(
            header::VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
        );
        // A preflight is never credentialed (GEP-1767), whatever it carries.
        let Some(origin) = self.origin_of(request) else { return answer };
        // For "*" the names that were asked for are given back: "*" itself would be wrong with credentials.
        let mut allow = |name: HeaderName, listed: &Listed, asked: HeaderName| {
            let value = match listed {
                Listed::Nothing => None,
                Listed::Everything => request.get(asked),
                Listed::These(names) => Some(names),
            };
            value.map(|value| answer.insert(name, value.clone()));
        };
        allow(header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods, header::ACCESS_CONTROL_REQUEST_METHOD);
        allow(header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers, header::ACCESS_CONTROL_REQUEST_HEADERS);
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        self.mark(origin, &mut answer);
        answer
    }

    /// Marks the response to a request that isn't a preflight. `origin` is what
    /// [`CorsPolicy::allowed_origin`] said of the request.
    pub fn finish(&self, origin: Option<AllowedOrigin>, response: &mut HeaderMap) {
        for name in OURS {
            response.remove(name);
        }
        // A cache must not give one origin's answer to another (Fetch, "CORS protocol and HTTP caches").
        response.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            self.mark(origin, response);
        }
    }

    fn mark(&self, origin: AllowedOrigin, response: &mut HeaderMap) {
        let expose = match &self.expose {
            Listed::Nothing => None,
            // With credentials "*" would be the name of a header (Fetch), so every header is named.
            Listed::Everything if self.credentials => names_of(response),
            Listed::Everything => Some(HeaderValue::from_static("*")),
            Listed::These(names) => Some(names.clone()),
        };
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.0);
        if let Some(expose) = expose {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
        if self.credentials {
            response.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

fn names_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    HeaderValue::try_from(names.join(", ")).ok()
}

impl Listed {
    fn new(header: &str, names: &[String]) -> Result<Self, FilterError> {
        if names.is_empty() {
            return Ok(Self::Nothing);
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::Everything);
        }
        let joined = HeaderValue::try_from(names.join(", "));
        joined.map(Self::These).map_err(|_| FilterError::HeaderValue { name: header.to_owned() })
    }
}

impl OriginTest {
    fn new(origin: &str) -> Result<Self, FilterError> {
        if origin == "*" {
            return Ok(Self::Any);
        }
        let error = || FilterError::Origin { origin: origin.to_owned() };
        let (scheme, host, port) = parts(origin).ok_or_else(error)?;
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix('*') {
            Some("") => HostTest::Any,
            Some(suffix) if suffix.len() > 1 && suffix.starts_with('.') && !suffix.contains('*') => {
                HostTest::Suffix(suffix.into())
            }
            None if !host.contains('*') => HostTest::Exact(host.into()),
            _ => return Err(error()),
        };
        Ok(Self::Pattern { scheme, host, port })
    }

    fn holds(&self, origin: &str) -> bool {
        let Self::Pattern { scheme, host, port } = self else { return true };
        let Some((of_scheme, of_host, of_port)) = parts(origin) else { return false };
        let host_holds = match host {
            HostTest::Any => true,
            HostTest::Exact(exact) => of_host.eq_ignore_ascii_case(exact),
            HostTest::Suffix(suffix) => {
                let at = of_host.len().saturating_sub(suffix.len());
                at > 0 && of_host.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        };
        host_holds && *scheme == of_scheme && *port == of_port
    }
}

/// Scheme, host and port of an origin, the port being the scheme's where none is written.
fn parts(origin: &str) -> Option<(&'static str, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let (scheme, default) = match scheme {
        "http" => ("http", 80),
        "https" => ("https", 443),
        _ => return None,
    };
    let (host, port) = authority::split(rest);
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '*' | '_' | '[' | ']' | ':');
    if host.is_empty() || rest.contains('@') || !host.chars().all(is_host) {
        return None;
    }
    let port = match port {
        None => default,
        Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port > 0)?
        }
        Some(_) => return None,
    };
    Some((scheme, host, port))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn cors() -> Cors {
        Cors {
            allow_origins: strings(&["https://www.foo.com", "https://*.bar.com"]),
            allow_credentials: true,
            allow_methods: strings(&["GET", "OPTIONS"]),
            allow_headers: strings(&["x-header-1", "x-header-2"]),
            expose_headers: strings(&["x-header-3", "x-header-4"]),
            max_age: Duration::from_secs(3600),
        }
    }

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        entries
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn preflight_from(origin: &str) -> HeaderMap {
        headers(&[
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a, x-b"),
        ])
    }

    fn text(headers: &HeaderMap, name: &str) -> Option<String> {
        headers.get(name).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_preflight_from_an_allowed_origin_says_what_is_configured() {
        let answer = CorsPolicy::new(&cors()).unwrap().preflight(&preflight_from("https://www.foo.com"));
        for (name, value) in [
            ("access-control-allow-origin", "https://www.foo.com"),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
            ("content-length", "0"),
        ] {
            assert_eq!(text(&answer, name).as_deref(), Some(value), "{name}");
        }
        assert!(text(&answer, "vary").unwrap().contains("Origin"));
    }

    #[test]
    fn a_preflight_from_elsewhere_says_nothing() {
        let answer = CorsPolicy::new(&cors()).unwrap().preflight(&preflight_from("https://foobar.com"));
        assert!(answer.keys().all(|name| !OURS.contains(name)), "{answer:?}");
    }

    #[test]
    fn wildcards_give_back_what_was_asked_for_and_never_a_star() {
        for allow_credentials in [false, true] {
            let any = Cors {
                allow_origins: strings(&["*"]),
                allow_credentials,
                allow_methods: strings(&["*"]),
                allow_headers: strings(&["*"]),
                ..cors()
            };
            let policy = CorsPolicy::new(&any).unwrap();
            let answer = policy.preflight(&preflight_from("https://other.foo.com:12345"));
            assert_eq!(
                text(&answer, "access-control-allow-origin").as_deref(),
                Some("https://other.foo.com:12345")
            );
            assert_eq!(text(&answer, "access-control-allow-methods").as_deref(), Some("PUT"));
            assert_eq!(text(&answer, "access-control-allow-headers").as_deref(), Some("x-a, x-b"));
            assert_eq!(answer.contains_key("access-control-allow-credentials"), allow_credentials);
            let bare = headers(&[("origin", "https://a.b"), ("access-control-request-method", "PUT")]);
            assert_eq!(text(&policy.preflight(&bare), "access-control-allow-headers"), None);
        }
    }

    #[test]
    fn a_response_carries_our_word_and_not_the_applications() {
        let policy = CorsPolicy::new(&cors()).unwrap();
        let of_the_app = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "DELETE"),
            ("vary", "Accept"),
        ];

        let request = headers(&[("origin", "https://a.www.bar.com")]);
        let mut response = headers(&of_the_app);
        policy.finish(policy.allowed_origin(&request), &mut response);
        assert_eq!(text(&response, "access-control-allow-origin").as_deref(), Some("https://a.www.bar.com"));
        assert_eq!(
            text(&response, "access-control-expose-headers").as_deref(),
            Some("x-header-3, x-header-4")
        );
        assert_eq!(text(&response, "access-control-allow-methods"), None);
        assert_eq!(response.get_all("vary").iter().count(), 2);

        let request = headers(&[("origin", "https://foobar.com")]);
        let mut response = headers(&of_the_app);
        policy.finish(policy.allowed_origin(&request), &mut response);
        assert!(response.keys().all(|name| !OURS.contains(name)), "{response:?}");
    }

    #[test]
    fn credentials_that_are_not_allowed_make_a_request_one_from_nowhere() {
        for (allow_credentials, allowed) in [(true, true), (false, false)] {
            let policy = CorsPolicy::new(&Cors { allow_credentials, ..cors() }).unwrap();
            for credentials in ["cookie", "authorization"] {
                let request = headers(&[("origin", "https://www.foo.com"), (credentials, "a=b")]);
                assert_eq!(policy.allowed_origin(&request).is_some(), allowed, "{credentials}");
            }
            let preflight = policy.preflight(&preflight_from("https://www.foo.com"));
            assert!(preflight.contains_key("access-control-allow-origin"));
        }
    }

    #[test]
    fn exposing_everything_names_every_header_where_a_star_would_not_do() {
        let expose = |allow_credentials| {
            let policy =
                CorsPolicy::new(&Cors { expose_headers: strings(&["*"]), allow_credentials, ..cors() })
                    .unwrap();
            let request = headers(&[("origin", "https://www.foo.com")]);
            let mut response = headers(&[("x-app", "1")]);
            policy.finish(policy.allowed_origin(&request), &mut response);
            text(&response, "access-control-expose-headers").unwrap()
        };
        assert_eq!(expose(false), "*");
        assert!(expose(true).contains("x-app") && !expose(true).contains('*'));
    }

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let allows = |allowed: &str, origin: &str| {
            let policy = CorsPolicy::new(&Cors { allow_origins: strings(&[allowed]), ..cors() }).unwrap();
            policy.allowed_origin(&headers(&[("origin", origin)])).is_some()
        };
        for (allowed, origin) in [
            ("https://foo.com", "https://foo.com"),
            ("https://foo.com", "https://FOO.com"),
            ("https://foo.com", "https://foo.com:443"),
            ("http://foo.com:80", "http://foo.com"),
            ("https://*.bar.com", "https://xpto.www.bar.com"),
            ("https://*", "https://anything.at.all"),
            ("http://*:8080", "http://x:8080"),
            ("*", "null"),
        ] {
            assert!(allows(allowed, origin), "{allowed} {origin}");
        }
        for (allowed, origin) in [
            ("https://foo.com", "http://foo.com"),
            ("https://foo.com", "https://foo.com:8443"),
            ("https://foo.com", "https://foo.com.evil.example"),
            ("https://foo.com", "https://evil@foo.com"),
            ("https://*.bar.com", "https://bar.com"),
            ("https://*.bar.com", "https://.bar.com"),
            ("https://*.bar.com", "https://evilbar.com"),
            ("https://*", "https://x:8443"),
            ("https://*", "null"),
            ("https://foo.com", "https://foo.com/"),
        ] {
            assert!(!allows(allowed, origin), "{allowed} {origin}");
        }
    }

    #[test]
    fn two_origins_are_no_origin() {
        let mut request = headers(&[("origin", "https://www.foo.com")]);
        request.append("origin", HeaderValue::from_static("https://www.foo.com"));
        assert_eq!(CorsPolicy::new(&cors()).unwrap().allowed_origin(&request), None);
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for origin in [
            "",
            "foo.com",
            "ftp://foo.com",
            "https://",
            "https://a*b.com",
            "https://*foo.com",
            "https://foo.com:0",
            "https://foo.com/",
        ] {
            let refused = CorsPolicy::new(&Cors { allow_origins: strings(&[origin]), ..cors() });
            assert!(matches!(refused, Err(FilterError::Origin { .. })), "{origin}");
        }
        let refused = CorsPolicy::new(&Cors { allow_headers: strings(&["a b"]), ..cors() });
        assert!(matches!(refused, Err(FilterError::HeaderName { .. })));
    }

    #[test]
    fn only_a_preflight_is_one() {
        let complete = preflight_from("https://www.foo.com");
        assert!(is_preflight(&Method::OPTIONS, &complete));
        assert!(!is_preflight(&Method::GET, &complete));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&[("origin", "https://www.foo.com")])));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&[("access-control-request-method", "PUT")])));
    }
}
