//! Redirects: the `Location` of an answer, put together from the request and what the filter changes in it.

use http::{HeaderValue, StatusCode};

use super::{FilterError, Redirect, rewrite::PathChange, rewrite::parse_hostname};
use crate::authority;

/// A `RequestRedirect`, ready for requests.
#[derive(Clone, Debug)]
pub struct Redirector {
    scheme: Option<Scheme>,
    hostname: Option<Box<str>>,
    path: Option<PathChange>,
    port: Option<u16>,
    status: StatusCode,
}

/// The scheme of a request or Location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `http`, port 80.
    Http,
    /// `https`, port 443.
    Https,
}

/// What a Location takes over from a request.
#[derive(Clone, Copy, Debug)]
pub struct RedirectedRequest<'a> {
    /// What the client spoke. A sidecar can only read `http`.
    pub scheme: Scheme,
    /// `Host` or `:authority`, as it came.
    pub authority: &'a str,
    /// The port that the request came to: the Service's, not the one in the authority.
    pub port: u16,
    /// The canonical path.
    pub path: &'a str,
    /// As [`crate::matcher::Matched::prefix`].
    pub prefix: Option<usize>,
    /// The query without `?`.
    pub query: Option<&'a str>,
}

impl Redirector {
    /// Prepares a redirect.
    pub fn new(redirect: &Redirect) -> Result<Self, FilterError> {
        let status = match redirect.status {
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            308 => StatusCode::PERMANENT_REDIRECT,
            status => return Err(FilterError::Status { status }),
        };
        Ok(Self {
            scheme: redirect.scheme.as_deref().map(Scheme::new).transpose()?,
            hostname: redirect.hostname.as_deref().map(parse_hostname).transpose()?.map(Into::into),
            path: redirect.path.as_ref().map(PathChange::new).transpose()?,
            port: redirect.port,
            status,
        })
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer's `Location`, always absolute. `None` where neither filter nor request names a host: the
    /// answer is 400 then, because a relative Location for the path `//evil.example` would lead there.
    pub fn location(&self, request: &RedirectedRequest<'_>) -> Option<HeaderValue> {
        let scheme = self.scheme.unwrap_or(request.scheme);
        let host = self.hostname.as_deref().unwrap_or_else(|| authority::split(request.authority).0);
        if host.is_empty() {
            return None;
        }
        // HTTPRequestRedirectFilter.port: the filter's; else that of the filter's scheme; else the one that
        // the request came to.
        let port = self.port.or(self.scheme.map(Scheme::port)).unwrap_or(request.port);
        let path = match &self.path {
            Some(change) => change.apply(request.path, request.prefix),
            None => request.path.into(),
        };

        let mut location = format!("{}://{host}", scheme.as_str());
        if port != scheme.port() {
            location.push_str(&format!(":{port}"));
        }
        // "OPTIONS *" has no path.
        if path.starts_with('/') {
            location.push_str(&path);
        }
        if let Some(query) = request.query {
            location.push('?');
            location.push_str(query);
        }
        HeaderValue::try_from(location).ok()
    }
}

impl Scheme {
    fn new(scheme: &str) -> Result<Self, FilterError> {
        match scheme {
            "http" => Ok(Self::Http),
            "https" => Ok(Self::Https),
            _ => Err(FilterError::Scheme { scheme: scheme.to_owned() }),
        }
    }

    /// As URLs write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::PathRewrite;

    const UNCHANGED: Redirect =
        Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 };

    const REQUEST: RedirectedRequest<'static> = RedirectedRequest {
        scheme: Scheme::Http,
        authority: "web.shop",
        port: 80,
        path: "/foo/bar",
        prefix: Some(4),
        query: None,
    };

    fn location(redirect: &Redirect, request: &RedirectedRequest<'_>) -> String {
        Redirector::new(redirect).unwrap().location(request).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_port_follows_the_specification() {
        let case = |scheme: Option<&str>, port: Option<u16>, came_to: u16| {
            let redirect = Redirect { scheme: scheme.map(str::to_owned), port, ..UNCHANGED };
            location(&redirect, &RedirectedRequest { port: came_to, ..REQUEST })
        };
        // Neither scheme nor port: the port that the request came to, and 80 isn't written for http.
        assert_eq!(case(None, None, 80), "http://web.shop/foo/bar");
        assert_eq!(case(None, None, 8080), "http://web.shop:8080/foo/bar");
        assert_eq!(case(None, None, 443), "http://web.shop:443/foo/bar");
        // A scheme: its well-known port, wherever the request came to.
        assert_eq!(case(Some("https"), None, 80), "https://web.shop/foo/bar");
        assert_eq!(case(Some("https"), None, 8080), "https://web.shop/foo/bar");
        assert_eq!(case(Some("http"), None, 8080), "http://web.shop/foo/bar");
        // A port: that one, but not where it is the scheme's.
        assert_eq!(case(None, Some(8443), 80), "http://web.shop:8443/foo/bar");
        assert_eq!(case(None, Some(80), 8080), "http://web.shop/foo/bar");
        assert_eq!(case(None, Some(443), 80), "http://web.shop:443/foo/bar");
        assert_eq!(case(Some("https"), Some(443), 80), "https://web.shop/foo/bar");
        assert_eq!(case(Some("https"), Some(80), 80), "https://web.shop:80/foo/bar");
        assert_eq!(case(Some("https"), Some(8443), 80), "https://web.shop:8443/foo/bar");
        assert_eq!(case(Some("http"), Some(80), 8080), "http://web.shop/foo/bar");
        assert_eq!(case(Some("http"), Some(8080), 80), "http://web.shop:8080/foo/bar");
    }

    #[test]
    fn behind_tls_the_requests_scheme_is_https() {
        let tls = RedirectedRequest { scheme: Scheme::Https, port: 443, ..REQUEST };
        assert_eq!(location(&UNCHANGED, &tls), "https://web.shop/foo/bar");
        assert_eq!(
            location(&UNCHANGED, &RedirectedRequest { port: 80, ..tls }),
            "https://web.shop:80/foo/bar"
        );
    }

    #[test]
    fn the_host_is_the_filters_or_the_requests_without_its_port() {
        let to_other = Redirect { hostname: Some("example.org".to_owned()), ..UNCHANGED };
        assert_eq!(location(&to_other, &REQUEST), "http://example.org/foo/bar");
        for (authority, host) in [
            ("web.shop:8080", "web.shop"),
            ("[::1]:8080", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            let request = RedirectedRequest { authority, ..REQUEST };
            assert_eq!(location(&UNCHANGED, &request), format!("http://{host}/foo/bar"), "{authority}");
        }
    }

    #[test]
    fn path_and_query_are_kept_or_changed() {
        let with_query = RedirectedRequest { query: Some("a=1&b=%20"), ..REQUEST };
        assert_eq!(location(&UNCHANGED, &with_query), "http://web.shop/foo/bar?a=1&b=%20");
        assert_eq!(
            location(&UNCHANGED, &RedirectedRequest { query: Some(""), ..REQUEST }),
            "http://web.shop/foo/bar?"
        );
        let full = Redirect { path: Some(PathRewrite::Full("/new".to_owned())), ..UNCHANGED };
        assert_eq!(location(&full, &with_query), "http://web.shop/new?a=1&b=%20");
        let prefix = Redirect { path: Some(PathRewrite::Prefix("/xyz/".to_owned())), ..UNCHANGED };
        assert_eq!(location(&prefix, &with_query), "http://web.shop/xyz/bar?a=1&b=%20");
        let removed = Redirect { path: Some(PathRewrite::Prefix(String::new())), ..UNCHANGED };
        assert_eq!(location(&removed, &RedirectedRequest { path: "/foo", ..REQUEST }), "http://web.shop/");
        let asterisk = RedirectedRequest { path: "*", prefix: Some(0), ..REQUEST };
        assert_eq!(location(&UNCHANGED, &asterisk), "http://web.shop");
    }

    #[test]
    fn all_at_once() {
        let redirect = Redirect {
            scheme: Some("https".to_owned()),
            hostname: Some("example.org".to_owned()),
            path: Some(PathRewrite::Prefix("/v2".to_owned())),
            port: Some(8443),
            status: 308,
        };
        let request = RedirectedRequest { authority: "web:9000", port: 9000, query: Some("q"), ..REQUEST };
        assert_eq!(location(&redirect, &request), "https://example.org:8443/v2/bar?q");
        assert_eq!(Redirector::new(&redirect).unwrap().status(), StatusCode::PERMANENT_REDIRECT);
    }

    #[test]
    fn without_a_host_there_is_no_location() {
        let redirector = Redirector::new(&UNCHANGED).unwrap();
        assert_eq!(
            redirector.location(&RedirectedRequest { authority: "", path: "//evil.example", ..REQUEST }),
            None
        );
    }

    #[test]
    fn other_schemes_and_statuses_are_refused() {
        let gopher = Redirect { scheme: Some("gopher".to_owned()), ..UNCHANGED };
        assert!(matches!(Redirector::new(&gopher), Err(FilterError::Scheme { .. })));
        for status in [200, 300, 304, 309] {
            let redirect = Redirect { status, ..UNCHANGED };
            assert!(matches!(Redirector::new(&redirect), Err(FilterError::Status { .. })), "{status}");
        }
        for (status, code) in [
            (301, StatusCode::MOVED_PERMANENTLY),
            (302, StatusCode::FOUND),
            (303, StatusCode::SEE_OTHER),
            (307, StatusCode::TEMPORARY_REDIRECT),
        ] {
            assert_eq!(Redirector::new(&Redirect { status, ..UNCHANGED }).unwrap().status(), code);
        }
    }
}
