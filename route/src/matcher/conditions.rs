//! What a match asks of a request beside its path: method, headers and query parameters, compiled once per
//! table.

use http::{HeaderMap, HeaderName, header};
use regex_automata::meta::Regex;
use smallvec::SmallVec;

use super::{MatcherError, RequestView, pattern, query};
use crate::{
    authority,
    table::{Match, NamedMatch, ValueMatch},
};

/// The tests of a match, all of which must hold.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    method: Option<Box<str>>,
    headers: Box<[(Field, ValueTest)]>,
    query: Box<[(Box<str>, ValueTest)]>,
}

/// The first condition of a match that a request doesn't meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'m> {
    /// The path is another.
    Path,
    /// The method is another.
    Method,
    /// This header is absent or has another value.
    Header(&'m str),
    /// This query parameter is absent or has another value.
    Query(&'m str),
}

/// Where a header test finds its value.
#[derive(Clone, Debug)]
enum Field {
    /// `host`: HTTP/1.1 and HTTP/2 carry it in different places, so it is taken from the view.
    Authority,
    /// Among the headers.
    Header(HeaderName),
    /// Among those about the connection, which proxies take out before they do anything else (RFC 9110 §7.6.1).
    Received(HeaderName),
}

/// The headers about the connection.
static OF_THE_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A test of bytes.
#[derive(Clone, Debug)]
enum ValueTest {
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Conditions {
    pub(super) fn new(when: &Match) -> Result<Self, MatcherError> {
        let headers = first_of_each(&when.headers, str::eq_ignore_ascii_case).map(header_test);
        let query = first_of_each(&when.query, str::eq)
            .map(|test| Ok((test.name.as_str().into(), ValueTest::new(&test.value)?)));
        Ok(Self {
            method: when.method.as_deref().map(Into::into),
            headers: headers.collect::<Result<_, MatcherError>>()?,
            query: query.collect::<Result<_, MatcherError>>()?,
        })
    }

    /// Whether a test is about the headers as they were received.
    pub(super) fn reads_received(&self) -> bool {
        self.headers.iter().any(|(field, _)| matches!(field, Field::Received(_)))
    }

    /// The memory that the regular expressions take, in bytes.
    pub(super) fn size_of_expressions(&self) -> usize {
        let tests = self.headers.iter().map(|(_, test)| test).chain(self.query.iter().map(|(_, test)| test));
        tests.map(ValueTest::size_of_expression).sum()
    }

    /// The first condition that doesn't hold.
    pub(super) fn unmet(&self, request: &RequestView<'_>) -> Option<Unmet<'_>> {
        if self.method.as_deref().is_some_and(|method| method != request.method) {
            return Some(Unmet::Method);
        }
        if let Some((field, _)) =
            self.headers.iter().find(|(field, test)| !header_holds(field, test, request))
        {
            return Some(Unmet::Header(field.name()));
        }
        let query = request.query.unwrap_or_default();
        let unmet = self.query.iter().find(|(name, test)| !query_holds(name, test, query));
        unmet.map(|(name, _)| Unmet::Query(name))
    }
}

/// Only the first entry of each name counts (`HTTPHeaderMatch.name`, `HTTPQueryParamMatch.name`).
fn first_of_each(
    tests: &[NamedMatch],
    same: impl Fn(&str, &str) -> bool,
) -> impl Iterator<Item = &NamedMatch> {
    let first = move |&(at, test): &(usize, &NamedMatch)| {
        !tests[..at].iter().any(|before| same(&before.name, &test.name))
    };
    tests.iter().enumerate().filter(first).map(|(_, test)| test)
}

fn header_test(test: &NamedMatch) -> Result<(Field, ValueTest), MatcherError> {
    let name = match test.name.as_str() {
        ":authority" => header::HOST,
        name => HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| MatcherError::HeaderName { name: name.to_owned() })?,
    };
    if OF_THE_CONNECTION.contains(&name) {
        return Ok((Field::Received(name), ValueTest::new(&test.value)?));
    }
    if name != header::HOST {
        return Ok((Field::Header(name), ValueTest::new(&test.value)?));
    }
    let value = match &test.value {
        ValueMatch::Exact(host) => ValueTest::Exact(authority::canonical(host).as_slice().into()),
        regex => ValueTest::new(regex)?,
    };
    Ok((Field::Authority, value))
}

fn header_holds(field: &Field, test: &ValueTest, request: &RequestView<'_>) -> bool {
    match field {
        Field::Header(name) => joined_holds(test, name, request.headers),
        Field::Received(name) => joined_holds(test, name, request.received.unwrap_or(request.headers)),
        Field::Authority => {
            let in_headers = || request.headers.get(header::HOST)?.to_str().ok();
            request.authority.or_else(in_headers).is_some_and(|host| test.holds(&authority::canonical(host)))
        }
    }
}

/// Tests a header that may come in several lines as the one value that they are (RFC 9110 §5.3): joined by a
/// comma, cookies by `; ` (RFC 9113 §8.2.3).
fn joined_holds(test: &ValueTest, name: &HeaderName, headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return false };
    let Some(second) = values.next() else { return test.holds(first.as_bytes()) };
    let separator: &[u8] = if name == header::COOKIE { b"; " } else { b"," };
    let mut joined: SmallVec<[u8; 512]> = SmallVec::from_slice(first.as_bytes());
    for value in std::iter::once(second).chain(values) {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(value.as_bytes());
    }
    test.holds(&joined)
}

fn query_holds(name: &str, test: &ValueTest, query: &str) -> bool {
    let Some(value) = query::first(query, name) else { return false };
    match test {
        ValueTest::Exact(expected) => query::equals(value, expected),
        ValueTest::Regex(regex) if value.contains(['%', '+']) => {
            regex.is_match(query::decode(value).as_slice())
        }
        ValueTest::Regex(regex) => regex.is_match(value.as_bytes()),
    }
}

impl Field {
    fn name(&self) -> &str {
        match self {
            Self::Authority => "host",
            Self::Header(name) | Self::Received(name) => name.as_str(),
        }
    }
}

impl ValueTest {
    fn new(value: &ValueMatch) -> Result<Self, MatcherError> {
        Ok(match value {
            ValueMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueMatch::Regex(pattern) => Self::Regex(pattern::compile(pattern)?),
        })
    }

    fn size_of_expression(&self) -> usize {
        match self {
            Self::Exact(_) => 0,
            Self::Regex(regex) => regex.memory_usage(),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(expected) => **expected == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
