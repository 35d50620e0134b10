//! The matcher: from a request's head to the match that wins it.
//!
//! Built once from a table's rules, asked once per request. The index finds the matches whose path may hold;
//! of those, in order of precedence, the first whose method, headers and query parameters hold too is the
//! answer. Nothing here allocates per request, short of more than 16 nested prefixes or 512 bytes of a header
//! that comes in several lines.

use std::borrow::Cow;

use http::HeaderMap;
use regex_automata::meta::Regex;
use thiserror::Error;

use crate::{
    path::{self, PathError},
    table::{HttpRules, PathMatch, RankedMatch},
};

mod conditions;
mod index;
pub(crate) mod pattern;
mod query;

pub use conditions::Unmet;

use self::{conditions::Conditions, index::Index};

/// What matches look at, borrowed from a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a str,
    /// The canonical path (see [`crate::path`]).
    pub path: &'a str,
    /// The query without `?`, as it came.
    pub query: Option<&'a str>,
    /// The authority of an absolute-form target or of HTTP/2, as it came; else `Host`. Where it is `None`,
    /// the header `host` is used.
    pub authority: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The headers as they were received, for tests of those about the connection (`Upgrade`), where they have been taken
    /// out of `headers`.
    pub received: Option<&'a HeaderMap>,
}

/// The match that won.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Index into [`HttpRules::rules`].
    pub rule: usize,
    /// Index into [`HttpRules::matches`].
    pub rank: usize,
    /// How many bytes of the path the matched prefix takes, without trailing slash, where the match has a
    /// prefix: what `ReplacePrefixMatch` replaces.
    pub prefix: Option<usize>,
}

/// What became of one match, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'m> {
    /// It holds, and none before it does.
    Won,
    /// It holds, but one before it does too.
    Outranked,
    /// It doesn't hold.
    Unmet(Unmet<'m>),
}

/// Why a table's matches can't be used. The controller turns it into a condition of the route before it gets
/// into a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MatcherError {
    /// Not a regular expression of the `regex` crate's syntax, or one that is too large.
    #[error("{:?} can't be used as a regular expression: {reason}", pattern::shortened(pattern))]
    Regex {
        /// As written.
        pattern: String,
        /// In the words of the parser.
        reason: String,
    },
    /// An Exact or PathPrefix value that can't be a path.
    #[error("{value:?} can't be matched as a path: {reason}")]
    Path {
        /// As written.
        value: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// A header test whose name can't be a header's.
    #[error("{name:?} is not the name of an HTTP header")]
    HeaderName {
        /// As written.
        name: String,
    },
    /// A match that selects a rule which isn't there.
    #[error("the match at rank {rank} selects rule {rule}, but there are only {rules} rules")]
    NoSuchRule {
        /// Index into [`HttpRules::matches`].
        rank: usize,
        /// The index it has.
        rule: usize,
        /// How many there are.
        rules: usize,
    },
}

/// An index over the matches of a table.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// By rank.
    entries: Box<[Entry]>,
    index: Index,
    reads_received: bool,
}

/// One match, compiled.
#[derive(Clone, Debug)]
struct Entry {
    rule: usize,
    path: PathTest,
    conditions: Conditions,
}

#[derive(Clone, Debug)]
enum PathTest {
    Exact(Box<str>),
    /// Without trailing slash; so `/` is empty.
    Prefix(Box<str>),
    Regex(Regex),
}

impl Matcher {
    /// Builds the index. The values of Exact and PathPrefix are brought into canonical form, as paths of
    /// requests are.
    pub fn new(rules: &HttpRules) -> Result<Self, MatcherError> {
        let mut index = Index::default();
        let mut entries = Vec::with_capacity(rules.matches.len());
        for (rank, ranked) in rules.matches.iter().enumerate() {
            if ranked.rule >= rules.rules.len() {
                return Err(MatcherError::NoSuchRule { rank, rule: ranked.rule, rules: rules.rules.len() });
            }
            let entry = Entry::new(ranked)?;
            match (&entry.path, &ranked.when.path) {
                (PathTest::Exact(path), _) => index.add_exact(path, rank),
                (PathTest::Prefix(prefix), _) => index.add_prefix(prefix, rank),
                (PathTest::Regex(_), PathMatch::Regex(pattern)) => {
                    index.add_regex(&pattern::literal_prefix(pattern)?, rank)
                }
                (PathTest::Regex(_), _) => {}
            }
            entries.push(entry);
        }
        let reads_received = entries.iter().any(|entry| entry.conditions.reads_received());
        Ok(Self { entries: entries.into(), index, reads_received })
    }

    /// Whether any match needs [`RequestView::received`].
    pub fn reads_received(&self) -> bool {
        self.reads_received
    }

    /// The memory that the regular expressions take, in bytes. What searches need on the way comes on top of it, and is
    /// bounded for each ([`pattern`]).
    pub fn size_of_expressions(&self) -> usize {
        let of_path = |entry: &Entry| match &entry.path {
            PathTest::Regex(regex) => regex.memory_usage(),
            PathTest::Exact(_) | PathTest::Prefix(_) => 0,
        };
        self.entries.iter().map(|entry| of_path(entry) + entry.conditions.size_of_expressions()).sum()
    }

    /// The first match in order of precedence that holds; `None` is 404.
    pub fn find(&self, request: &RequestView<'_>) -> Option<Matched> {
        let mut best: Option<(usize, &Entry)> = None;
        for candidates in self.index.candidates(request.path) {
            // Each list is in order of rank: the first that holds is its best, and behind the best so far
            // nothing can win.
            for &rank in candidates {
                if best.is_some_and(|(best, _)| best <= rank) {
                    break;
                }
                let entry = &self.entries[rank];
                if entry.path.holds_as_candidate(request.path) && entry.conditions.unmet(request).is_none() {
                    best = Some((rank, entry));
                    break;
                }
            }
        }
        best.map(|(rank, entry)| Matched { rule: entry.rule, rank, prefix: entry.path.prefix() })
    }

    /// What becomes of every match, by rank. Slow: it looks at all of them.
    pub fn verdicts(&self, request: &RequestView<'_>) -> Vec<Verdict<'_>> {
        let mut won = false;
        let verdict = |entry| match Entry::unmet(entry, request) {
            Some(unmet) => Verdict::Unmet(unmet),
            None if std::mem::replace(&mut won, true) => Verdict::Outranked,
            None => Verdict::Won,
        };
        self.entries.iter().map(verdict).collect()
    }
}

impl Entry {
    fn new(ranked: &RankedMatch) -> Result<Self, MatcherError> {
        let path = match &ranked.when.path {
            PathMatch::Exact(path) => PathTest::Exact(canonical(path)?.into()),
            PathMatch::Prefix(prefix) => PathTest::Prefix(canonical(prefix)?.trim_end_matches('/').into()),
            PathMatch::Regex(pattern) => PathTest::Regex(pattern::compile(pattern)?),
        };
        Ok(Self { rule: ranked.rule, path, conditions: Conditions::new(&ranked.when)? })
    }

    fn unmet(&self, request: &RequestView<'_>) -> Option<Unmet<'_>> {
        if !self.path.holds(request.path) {
            return Some(Unmet::Path);
        }
        self.conditions.unmet(request)
    }
}

fn canonical(value: &str) -> Result<Cow<'_, str>, MatcherError> {
    path::canonical(value).map_err(|reason| MatcherError::Path { value: value.to_owned(), reason })
}

impl PathTest {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            // "/" matches every request, that for "*" too.
            Self::Prefix(prefix) if prefix.is_empty() => true,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }

    /// [`PathTest::holds`] for a path that the index led here.
    fn holds_as_candidate(&self, path: &str) -> bool {
        match self {
            Self::Exact(_) | Self::Prefix(_) => true,
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }

    fn prefix(&self) -> Option<usize> {
        match self {
            Self::Prefix(prefix) => Some(prefix.len()),
            Self::Exact(_) | Self::Regex(_) => None,
        }
    }
}
