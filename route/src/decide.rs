//! A request's fate told in full, for those who ask instead of send: `gamut explain` and the corpus.
//!
//! ```text
//! canonical path -> match -> CORS preflight, redirect -> every backend it may go to, as it would arrive there
//!      400           404        200, 30x                 500 for what leads nowhere
//! ```
//!
//! The sidecar takes the same steps with the same parts ([`Matcher`], [`Compiled`], [`filter::edit`]); it draws one
//! backend where this tells of all. What only a running mesh knows isn't here: endpoints, sessions, time.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use thiserror::Error;

use crate::{
    filter::{
        self, Compiled, Filter, FilterError, Mirror,
        cors::is_preflight,
        redirect::{RedirectedRequest, Scheme},
    },
    matcher::{Matched, Matcher, MatcherError, RequestView, Verdict},
    path::{self, PathError},
    table::{Backend, Outcome, RouteTable, Rule},
};

/// A table that can be asked.
#[derive(Debug)]
pub struct Decider<'t> {
    table: &'t RouteTable,
    matcher: Matcher,
}

/// A request, as the app sends it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// `Host` or `:authority`.
    pub host: &'a str,
    /// The other headers.
    pub headers: &'a HeaderMap,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Fate<'t> {
    /// Answered 400 before any rule is asked.
    Refused(PathError),
    /// No rule matches: 404.
    NoRule,
    /// This rule has it.
    Ruled {
        /// The match that won.
        matched: Matched,
        /// Its rule.
        rule: &'t Rule,
        /// What the rule does.
        does: Does<'t>,
    },
}

/// What a rule does with a request.
#[derive(Debug)]
pub enum Does<'t> {
    /// Answers by itself: a redirect, a CORS preflight.
    Answers(StatusCode, HeaderMap),
    /// Answers 400: a redirect that has no host to lead to.
    NoHost,
    /// Answers 500, and why.
    Fails(String),
    /// Sends it on to one of these, in the table's order. Without any weight among them: 500.
    Forwards(Vec<Forwarded<'t>>),
}

/// A request on its way to one of the backends that it may go to.
#[derive(Debug)]
pub struct Forwarded<'t> {
    /// The rule.
    pub rule: &'t Rule,
    /// The backend.
    pub backend: &'t Backend,
    /// Its share of the rule's requests: weight and sum of weights.
    pub share: (u32, u64),
    /// The request as it arrives there; the host is among the headers.
    pub head: Parts,
    /// Who gets copies.
    pub mirrors: Vec<&'t Mirror>,
    origin: Option<crate::filter::cors::AllowedOrigin>,
    of_rule: Compiled,
    of_backend: Compiled,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecideError {
    /// A filter of the table can't be carried out; the controller lets no such table out.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The host can't be a header's value.
    #[error("{0:?} can't be a host")]
    Host(String),
    /// An edited path isn't one.
    #[error("the rule makes a path of the request's that isn't one: {0}")]
    Path(String),
}

impl<'t> Decider<'t> {
    /// Makes a table ready for questions.
    ///
    /// # Errors
    /// Its matches can't be used.
    pub fn new(table: &'t RouteTable) -> Result<Self, MatcherError> {
        Ok(Self { table, matcher: Matcher::new(&table.http)? })
    }

    /// What becomes of a request.
    ///
    /// # Errors
    /// The table or the request isn't what any sidecar could have.
    pub fn decide(&self, asked: &Asked<'_>) -> Result<Fate<'t>, DecideError> {
        let path = match path::of_request(asked.method, asked.uri) {
            Ok(path) => path,
            Err(error) => return Ok(Fate::Refused(error)),
        };
        let view = view(asked, &path);
        let Some(matched) = self.matcher.find(&view) else { return Ok(Fate::NoRule) };
        let Some(rule) = self.table.http.rules.get(matched.rule) else { return Ok(Fate::NoRule) };
        let does = self.does(asked, &path, matched, rule)?;
        Ok(Fate::Ruled { matched, rule, does })
    }

    /// What becomes of each match of the table, in order of precedence; none where the path is refused.
    pub fn verdicts(&self, asked: &Asked<'_>) -> Vec<Verdict<'_>> {
        let path = path::of_request(asked.method, asked.uri);
        path.map(|path| self.matcher.verdicts(&view(asked, &path))).unwrap_or_default()
    }

    fn does(
        &self,
        asked: &Asked<'_>,
        path: &str,
        matched: Matched,
        rule: &'t Rule,
    ) -> Result<Does<'t>, DecideError> {
        let of_rule = Compiled::new(&rule.filters)?;
        if let Some(cors) = &of_rule.cors
            && is_preflight(asked.method, asked.headers)
        {
            return Ok(Does::Answers(StatusCode::OK, cors.preflight(asked.headers)));
        }
        if let Some(redirect) = &of_rule.redirect {
            let location = redirect.location(&RedirectedRequest {
                scheme: Scheme::Http,
                authority: asked.host,
                port: self.table.parent.port,
                path,
                prefix: matched.prefix,
                query: asked.uri.query(),
            });
            let Some(location) = location else { return Ok(Does::NoHost) };
            let mut headers = HeaderMap::from_iter([(header::LOCATION, location)]);
            of_rule.finish_own(asked.headers, &mut headers);
            return Ok(Does::Answers(redirect.status(), headers));
        }
        let split = match &rule.outcome {
            Outcome::Fail(why) => return Ok(Does::Fails(why.clone())),
            Outcome::Forward(split) => split,
        };
        let total = split.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let forwarded = split.backends.iter().map(|backend| {
            let of_backend = Compiled::new(&backend.filters)?;
            let mut head = head(asked, path)?;
            filter::edit(&mut head, [&of_rule, &of_backend], matched)
                .map_err(|error| DecideError::Path(error.to_string()))?;
            Ok(Forwarded {
                rule,
                backend,
                share: (backend.weight, total),
                head,
                mirrors: mirrors(&rule.filters).chain(mirrors(&backend.filters)).collect(),
                origin: of_rule.cors.as_ref().and_then(|cors| cors.allowed_origin(asked.headers)),
                of_rule: of_rule.clone(),
                of_backend,
            })
        });
        forwarded.collect::<Result<_, DecideError>>().map(Does::Forwards)
    }
}

/// Whose list a filter stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `rules[].filters`.
    Rule,
    /// `rules[].backendRefs[].filters`.
    Backend,
}

impl<'t> Forwarded<'t> {
    /// The filters that edit the request, in the order in which it meets them: the rule's, then the backend's.
    pub fn on_request(&self) -> impl Iterator<Item = (Owner, &'t Filter)> {
        let edits = |filter: &&Filter| matches!(filter, Filter::RequestHeaders(_) | Filter::Rewrite(_));
        let of_rule = self.rule.filters.iter().filter(edits).map(|filter| (Owner::Rule, filter));
        of_rule.chain(self.backend.filters.iter().filter(edits).map(|filter| (Owner::Backend, filter)))
    }

    /// The filters that edit the answer, in the order of [`Forwarded::finish`]: the backend's, then the rule's, and CORS last.
    pub fn on_answer(&self) -> impl Iterator<Item = (Owner, &'t Filter)> {
        let edits = |filter: &&Filter| matches!(filter, Filter::ResponseHeaders(_));
        let of_backend = self.backend.filters.iter().filter(edits).map(|filter| (Owner::Backend, filter));
        let of_rule = self.rule.filters.iter().filter(edits);
        let cors = self.rule.filters.iter().filter(|filter| matches!(filter, Filter::Cors(_)));
        of_backend.chain(of_rule.chain(cors).map(|filter| (Owner::Rule, filter)))
    }

    /// Makes of the headers that the backend answers with those that the client gets.
    pub fn finish(&self, headers: &mut HeaderMap) {
        self.of_backend.response_headers.apply(headers);
        self.of_rule.response_headers.apply(headers);
        if let Some(cors) = &self.of_rule.cors {
            cors.finish(self.origin.clone(), headers);
        }
    }
}

fn view<'a>(asked: &Asked<'a>, path: &'a str) -> RequestView<'a> {
    RequestView {
        method: asked.method.as_str(),
        path,
        query: asked.uri.query(),
        authority: Some(asked.host),
        headers: asked.headers,
        received: None,
    }
}

/// The request in the form in which filters edit it.
fn head(asked: &Asked<'_>, path: &str) -> Result<Parts, DecideError> {
    let host = HeaderValue::from_str(asked.host).map_err(|_| DecideError::Host(asked.host.to_owned()))?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = asked.method.clone();
    head.headers = asked.headers.clone();
    head.headers.insert(header::HOST, host);
    head.uri = asked.uri.clone();
    filter::set_path(&mut head.uri, path).map_err(|error| DecideError::Path(error.to_string()))?;
    Ok(head)
}

fn mirrors(filters: &[Filter]) -> impl Iterator<Item = &Mirror> {
    filters.iter().filter_map(|filter| match filter {
        Filter::Mirror(mirror) => Some(mirror),
        _ => None,
    })
}
