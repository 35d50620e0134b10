//! URL rewrites: a new host, and a new path in place of the whole or of the matched prefix.

use std::{borrow::Cow, net::Ipv4Addr};

use http::HeaderValue;

use super::{FilterError, PathRewrite, Rewrite};
use crate::path;

/// A `URLRewrite`, ready for requests. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Rewriter {
    hostname: Option<HeaderValue>,
    path: Option<PathChange>,
}

/// A new path, for rewrites and redirects.
#[derive(Clone, Debug)]
pub(super) enum PathChange {
    Full(Box<str>),
    /// Without trailing slash; so `/` is empty.
    Prefix(Box<str>),
}

impl Rewriter {
    /// Prepares a rewrite.
    pub fn new(rewrite: &Rewrite) -> Result<Self, FilterError> {
        let hostname = rewrite.hostname.as_deref().map(parse_hostname).transpose()?;
        let path = rewrite.path.as_ref().map(PathChange::new).transpose()?;
        Ok(Self { hostname: hostname.and_then(|name| HeaderValue::from_str(name).ok()), path })
    }

    /// The host that the request gets, in place of host and port.
    pub fn hostname(&self) -> Option<&HeaderValue> {
        self.hostname.as_ref()
    }

    /// The path that the request gets. `prefix` is what the match that won says
    /// ([`crate::matcher::Matched::prefix`]); without one, a replacement of the prefix changes nothing. The
    /// query stays as it is.
    pub fn path<'a>(&'a self, path: &'a str, prefix: Option<usize>) -> Cow<'a, str> {
        self.path.as_ref().map_or(Cow::Borrowed(path), |change| change.apply(path, prefix))
    }
}

impl PathChange {
    /// A replacement is brought into canonical form, as everything that is forwarded. Empty stands for `/`.
    pub(super) fn new(rewrite: &PathRewrite) -> Result<Self, FilterError> {
        let canonical = |value: &str| {
            let value = if value.is_empty() { "/" } else { value };
            path::canonical(value)
                .map(Cow::into_owned)
                .map_err(|reason| FilterError::Path { value: value.to_owned(), reason })
        };
        Ok(match rewrite {
            PathRewrite::Full(path) => Self::Full(canonical(path)?.into()),
            PathRewrite::Prefix(prefix) => Self::Prefix(canonical(prefix)?.trim_end_matches('/').into()),
        })
    }

    pub(super) fn apply<'a>(&'a self, path: &'a str, prefix: Option<usize>) -> Cow<'a, str> {
        match self {
            Self::Full(full) => Cow::Borrowed(full),
            Self::Prefix(replacement) => {
                let rest = prefix.and_then(|prefix| path.get(prefix..));
                match rest {
                    Some("") if replacement.is_empty() => Cow::Borrowed("/"),
                    Some("") => Cow::Borrowed(replacement),
                    Some(rest) if replacement.is_empty() && rest.starts_with('/') => Cow::Borrowed(rest),
                    Some(rest) if rest.starts_with('/') => Cow::Owned([replacement, rest].concat()),
                    // The match had no prefix, or the request is "OPTIONS *", which has no path to replace
                    // anything in.
                    _ => Cow::Borrowed(path),
                }
            }
        }
    }
}

/// A `PreciseHostname`: a DNS name (RFC 1123), without port; "numeric IP addresses are not allowed".
pub(super) fn parse_hostname(hostname: &str) -> Result<&str, FilterError> {
    let is_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_address = hostname.parse::<Ipv4Addr>().is_ok();
    if hostname.len() <= 253 && hostname.split('.').all(is_label) && !is_address {
        return Ok(hostname);
    }
    Err(FilterError::Hostname { hostname: hostname.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        matcher::{Matcher, RequestView},
        table::{HttpRules, Match, PathMatch, RankedMatch, Rule, Split},
    };

    /// The length that the matcher itself gives for this path and prefix.
    fn matched(path: &str, prefix: &str) -> Option<usize> {
        let rule = Rule::forward(Split::default());
        let when = Match { path: PathMatch::Prefix(prefix.to_owned()), ..Match::default() };
        let matcher =
            Matcher::new(&HttpRules { rules: vec![rule], matches: vec![RankedMatch { when, rule: 0 }] })
                .unwrap();
        let headers = http::HeaderMap::new();
        let request = RequestView {
            method: "GET",
            path,
            query: None,
            authority: None,
            headers: &headers,
            received: None,
        };
        matcher.find(&request).unwrap().prefix
    }

    fn rewriter(path: PathRewrite) -> Rewriter {
        Rewriter::new(&Rewrite { hostname: None, path: Some(path) }).unwrap()
    }

    #[test]
    fn a_prefix_is_replaced_as_the_specifications_table_has_it() {
        for (path, prefix, replacement, expected) in [
            // HTTPPathModifier.replacePrefixMatch, line by line.
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // And what follows from it.
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/", "/", "/", "/"),
            ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
            ("*", "/", "/xyz", "*"),
        ] {
            let rewriter = rewriter(PathRewrite::Prefix(replacement.to_owned()));
            assert_eq!(
                rewriter.path(path, matched(path, prefix)),
                expected,
                "{path} {prefix} {replacement:?}"
            );
        }
    }

    #[test]
    fn a_prefix_that_was_not_matched_is_not_replaced() {
        assert_eq!(rewriter(PathRewrite::Prefix("/xyz".to_owned())).path("/foo", None), "/foo");
    }

    #[test]
    fn a_full_path_replaces_whatever_was_there() {
        assert_eq!(rewriter(PathRewrite::Full("/new".to_owned())).path("/foo/bar", Some(4)), "/new");
        assert_eq!(rewriter(PathRewrite::Full(String::new())).path("/foo/bar", None), "/");
    }

    #[test]
    fn replacements_are_canonical_or_refused() {
        assert_eq!(rewriter(PathRewrite::Full("/a/../%7eb".to_owned())).path("/foo", None), "/~b");
        for bad in ["new", "/a?b=c", "/a#b", "/a\r\nb"] {
            for rewrite in [PathRewrite::Full(bad.to_owned()), PathRewrite::Prefix(bad.to_owned())] {
                let error = Rewriter::new(&Rewrite { hostname: None, path: Some(rewrite) }).unwrap_err();
                assert!(matches!(error, FilterError::Path { .. }), "{bad:?}");
            }
        }
    }

    #[test]
    fn the_host_is_a_name_without_port() {
        let hostname = |name: &str| {
            Rewriter::new(&Rewrite { hostname: Some(name.to_owned()), path: None })
                .map(|rewriter| rewriter.hostname().cloned().unwrap())
        };
        assert_eq!(hostname("web.shop").unwrap(), "web.shop");
        for bad in ["", "web:80", "a b", "a..b", "-a", "a\r\nb", "[::1]", "*.a", "10.0.0.1"] {
            assert!(matches!(hostname(bad), Err(FilterError::Hostname { .. })), "{bad:?}");
        }
    }
}
