//! Filters: what a rule changes in a request or response, as data, and how it is done.
//!
//! A [`Filter`] is what the manifest says. [`Compiled`] is the list of a rule or backendRef made ready when a
//! table is activated: names and values parsed, lines that never change written. A request meets it in this
//! order, whatever the order in the list (each kind touches something else, so that only answers need an
//! order): CORS answers a preflight; a redirect answers; mirrors take their copy; headers, host and path are
//! edited; on the way back the response's headers are edited and CORS adds its own.

use std::time::Duration;

use http::{HeaderMap, Uri, request::Parts, uri::PathAndQuery};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{matcher::Matched, name::BackendId, path::PathError};

pub mod cors;
pub mod headers;
pub mod mirror;
pub mod redirect;
pub mod rewrite;

use self::{cors::CorsPolicy, headers::HeaderOps, mirror::Sampler, redirect::Redirector, rewrite::Rewriter};

/// One filter of a rule or backendRef.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Filter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderEdits),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderEdits),
    /// `RequestRedirect`: the proxy answers.
    Redirect(Redirect),
    /// `URLRewrite`.
    Rewrite(Rewrite),
    /// `RequestMirror`: a copy goes to another backend, whose answer is dropped.
    Mirror(Mirror),
    /// `CORS`.
    Cors(Cors),
}

/// Header edits, carried out in this order: set, add, remove. Names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderEdits {
    /// Replaces every value of the name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<(String, String)>,
    /// Adds a value behind those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<(String, String)>,
    /// Takes every value of the name away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Where a redirect leads; what isn't set stays as the request has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host of the Location, without port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path of the Location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
    /// The port of the Location; unset: the scheme's well-known one if a scheme is set, else the one the
    /// request came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A rewrite of host and path on the way to the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// Replaces the host of the request, port included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Replaces the path, or its matched prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathRewrite>,
}

/// A new path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathRewrite {
    /// The whole path; the query stays.
    Full(String),
    /// In place of the prefix that the rule's PathPrefix match matched.
    Prefix(String),
}

/// A copy of a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Whose endpoints get the copy (one of them).
    pub backend: BackendId,
    /// The share's numerator.
    pub numerator: u32,
    /// The share's denominator; never 0.
    pub denominator: u32,
}

/// Cross-origin resource sharing as the Gateway API has it (GEP-1767).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cors {
    /// Exact origins, `*`, or `scheme://*.suffix`.
    pub allow_origins: Vec<String>,
    /// True: answers carry `Access-Control-Allow-Credentials: true`.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<String>,
    /// Request headers, or `*`.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer may be kept.
    pub max_age: Duration,
}

/// The filters of a rule or backendRef, ready for requests.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Edits of the request's headers.
    pub request_headers: HeaderOps,
    /// Edits of the response's headers.
    pub response_headers: HeaderOps,
    /// Answers with a redirect.
    pub redirect: Option<Redirector>,
    /// Edits host and path.
    pub rewrite: Rewriter,
    /// Who gets a copy, and of which share.
    pub mirrors: Vec<Sampler>,
    /// Answers preflights and marks responses.
    pub cors: Option<CorsPolicy>,
    /// Whether the host of [`Compiled::rewrite`] goes before the one that is set as a header.
    rewrites_host_last: bool,
}

/// Why filters can't be carried out. The rule that has them is answered 500, and its route's condition says
/// this.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// A name that can't be a header's.
    #[error("{name:?} is not the name of an HTTP header")]
    HeaderName {
        /// As written.
        name: String,
    },
    /// A value that can't be a header's.
    #[error("the value for header {name} has a character that headers can't carry")]
    HeaderValue {
        /// The header.
        name: String,
    },
    /// A header that frames messages on the connection (RFC 9110 §7.6.1), which is the proxy's to write.
    #[error("header {name} belongs to the connection and can't be edited by a filter")]
    ConnectionHeader {
        /// The header.
        name: String,
    },
    /// Two edits of one header in one filter, which the specification doesn't allow.
    #[error("header {name} is edited twice in one filter; one action for each name is allowed")]
    EditedTwice {
        /// The header.
        name: String,
    },
    /// A replacement that can't be a path.
    #[error("{value:?} can't replace a path: {reason}")]
    Path {
        /// As written.
        value: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A hostname that can't be one.
    #[error("{hostname:?} is not a hostname; give a DNS name without port")]
    Hostname {
        /// As written.
        hostname: String,
    },
    /// A scheme other than http and https.
    #[error("{scheme:?} can't be the scheme of a redirect; it is http or https")]
    Scheme {
        /// As written.
        scheme: String,
    },
    /// A status that isn't a redirect's.
    #[error("{status} can't be the status of a redirect; it is 301, 302, 303, 307 or 308")]
    Status {
        /// As written.
        status: u16,
    },
    /// A share of a mirror with denominator 0.
    #[error("a mirror's fraction has denominator 0")]
    Fraction,
    /// An origin of CORS that isn't one.
    #[error(
        "{origin:?} is not an origin; it is '*' or like https://app.example, https://*.example or http://app.example:8080"
    )]
    Origin {
        /// As written.
        origin: String,
    },
    /// A filter that may be there once only.
    #[error("there are two {kind} filters; one is allowed")]
    Repeated {
        /// Its type as manifests write it.
        kind: &'static str,
    },
    /// A redirect and a rewrite.
    #[error("RequestRedirect and URLRewrite can't be used together")]
    RedirectAndRewrite,
}

impl Compiled {
    /// Prepares a list of filters.
    pub fn new(filters: &[Filter]) -> Result<Self, FilterError> {
        let mut compiled = Self::default();
        let mut rewrite = None;
        for filter in filters {
            match filter {
                Filter::RequestHeaders(edits) => {
                    compiled.request_headers.extend(edits)?;
                    compiled.rewrites_host_last = rewrite.is_none();
                }
                Filter::ResponseHeaders(edits) => compiled.response_headers.extend(edits)?,
                Filter::Redirect(redirect) => {
                    once(&mut compiled.redirect, Redirector::new(redirect)?, "RequestRedirect")?
                }
                Filter::Rewrite(what) => once(&mut rewrite, Rewriter::new(what)?, "URLRewrite")?,
                Filter::Mirror(mirror) => compiled.mirrors.push(Sampler::new(mirror)?),
                Filter::Cors(cors) => once(&mut compiled.cors, CorsPolicy::new(cors)?, "CORS")?,
            }
        }
        if compiled.redirect.is_some() && rewrite.is_some() {
            return Err(FilterError::RedirectAndRewrite);
        }
        compiled.rewrite = rewrite.unwrap_or_default();
        Ok(compiled)
    }

    /// The host that the request gets: of a `URLRewrite` and a `RequestHeaderModifier` that both set it, the later one's
    /// ("filters SHOULD be executed in the order they are specified", HTTPRouteRule.filters).
    pub fn authority(&self) -> Option<&http::HeaderValue> {
        match self.rewrites_host_last {
            true => self.rewrite.hostname().or(self.request_headers.host()),
            false => self.request_headers.host().or(self.rewrite.hostname()),
        }
    }

    /// Makes of the headers of an answer that the rule gives itself to an actual request those that the client gets.
    pub fn finish_own(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        self.response_headers.apply(answer);
        if let Some(cors) = &self.cors {
            cors.finish(cors.allowed_origin(request), answer);
        }
    }
}

/// Makes the edits of a rule and then of a backend. Both see the path that was matched; where both change it, the
/// backend's change counts. The request has its host among its headers.
///
/// # Errors
/// The edited path can't be a request's.
pub fn edit(
    head: &mut Parts,
    filters: [&Compiled; 2],
    matched: Matched,
) -> Result<(), http::uri::InvalidUri> {
    let original = head.uri.path();
    let changed =
        filters.iter().rev().find_map(|filters| match filters.rewrite.path(original, matched.prefix) {
            path if path == original => None,
            path => Some(path.into_owned()),
        });
    if let Some(path) = changed {
        set_path(&mut head.uri, &path)?;
    }
    for filters in filters {
        filters.request_headers.apply(&mut head.headers);
        if let Some(host) = filters.authority() {
            head.headers.insert(http::header::HOST, host.clone());
        }
    }
    Ok(())
}

/// Puts another path into a request's target, which becomes origin-form; the query stays.
///
/// # Errors
/// The path can't be a request's.
pub fn set_path(uri: &mut Uri, path: &str) -> Result<(), http::uri::InvalidUri> {
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}"))?,
        None => PathAndQuery::try_from(path)?,
    };
    *uri = Uri::from(target);
    Ok(())
}

fn once<T>(slot: &mut Option<T>, value: T, kind: &'static str) -> Result<(), FilterError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FilterError::Repeated { kind }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> HeaderEdits {
        HeaderEdits { set: vec![(name.to_owned(), value.to_owned())], ..HeaderEdits::default() }
    }

    fn redirect() -> Filter {
        Filter::Redirect(Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 })
    }

    fn rewrite(hostname: &str) -> Filter {
        Filter::Rewrite(Rewrite { hostname: Some(hostname.to_owned()), path: None })
    }

    #[test]
    fn no_filters_change_nothing() {
        let compiled = Compiled::new(&[]).unwrap();
        assert!(compiled.request_headers.is_empty() && compiled.response_headers.is_empty());
        assert!(compiled.redirect.is_none() && compiled.cors.is_none() && compiled.mirrors.is_empty());
        assert_eq!(compiled.rewrite.path("/a", Some(0)), "/a");
        assert_eq!(compiled.authority(), None);
    }

    #[test]
    fn the_headers_of_requests_and_responses_are_edited_apart() {
        let filters = [Filter::RequestHeaders(set("a", "1")), Filter::ResponseHeaders(set("b", "2"))];
        let compiled = Compiled::new(&filters).unwrap();
        let (mut request, mut response) = (http::HeaderMap::new(), http::HeaderMap::new());
        compiled.request_headers.apply(&mut request);
        compiled.response_headers.apply(&mut response);
        assert_eq!((request.len(), &request["a"]), (1, &http::HeaderValue::from_static("1")));
        assert_eq!((response.len(), &response["b"]), (1, &http::HeaderValue::from_static("2")));
    }

    #[test]
    fn of_two_filters_that_set_the_host_the_later_one_counts() {
        let header = Filter::RequestHeaders(set("Host", "from-header"));
        let other = Filter::RequestHeaders(set("x-other", "1"));
        let of = |filters: &[Filter]| Compiled::new(filters).unwrap().authority().unwrap().clone();
        assert_eq!(of(std::slice::from_ref(&header)), "from-header");
        assert_eq!(of(&[header.clone(), rewrite("from-rewrite")]), "from-rewrite");
        assert_eq!(of(&[rewrite("from-rewrite"), header]), "from-header");
        assert_eq!(of(&[rewrite("from-rewrite"), other]), "from-rewrite");
    }

    #[test]
    fn an_answer_of_the_rules_own_is_marked_for_scripts_as_any_other() {
        let cors = Cors { allow_origins: vec!["https://app.example".to_owned()], ..Cors::default() };
        let edits = Filter::ResponseHeaders(set("x-rule", "moved"));
        let compiled = Compiled::new(&[redirect(), Filter::Cors(cors), edits]).unwrap();
        let origin = (http::header::ORIGIN, http::HeaderValue::from_static("https://app.example"));
        let mut answer = HeaderMap::new();
        compiled.finish_own(&HeaderMap::from_iter([origin]), &mut answer);
        assert_eq!(answer["access-control-allow-origin"], "https://app.example");
        assert_eq!(answer["x-rule"], "moved");
    }

    #[test]
    fn what_may_be_there_once_is_there_once() {
        let cors = Filter::Cors(Cors::default());
        for (filter, kind) in [(redirect(), "RequestRedirect"), (rewrite("a"), "URLRewrite"), (cors, "CORS")]
        {
            let error = Compiled::new(&[filter.clone(), filter]).unwrap_err();
            assert_eq!(error, FilterError::Repeated { kind });
        }
        assert_eq!(Compiled::new(&[redirect(), rewrite("a")]).unwrap_err(), FilterError::RedirectAndRewrite);
    }

    #[test]
    fn several_mirrors_are_all_kept() {
        let mirror = |name| Mirror {
            backend: BackendId::Service(crate::ServicePort::new("shop", name, 80)),
            numerator: 1,
            denominator: 1,
        };
        let compiled = Compiled::new(&[Filter::Mirror(mirror("a")), Filter::Mirror(mirror("b"))]).unwrap();
        let backends: Vec<String> =
            compiled.mirrors.iter().map(|mirror| mirror.backend().to_string()).collect();
        assert_eq!(backends, ["service/shop/a:80", "service/shop/b:80"]);
    }
}
