//! Precedence: which match wins where several hold, across all rules of all routes that are attached to one
//! Service.
//!
//! The order is total, so a table's matches are sorted once, when it is compiled, and the proxy takes the
//! first that holds. The criteria are those of `HTTPRouteRule.matches` and `GRPCRouteRule.matches` (Gateway
//! API v1.7.0), in their order. What the specification leaves to implementations is decided here:
//!
//! - regular expressions of paths rank behind Exact and before every PathPrefix, whatever their length;
//! - a prefix's characters are counted in its canonical form and without the trailing `/`, which the specification
//!   says to ignore: `/a/` and `/a` tie;
//! - in GRPCRoutes a regular expression ranks behind Exact and before an absent service or method.

use std::{cmp::Reverse, time::SystemTime};

use crate::{
    grpc::GrpcMatch,
    name::NamespacedName,
    path,
    table::{Match, NamedMatch, PathMatch, ValueMatch},
};

/// Where a match stands among all matches of a set of routes. Sort by it: the smallest wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a> {
    /// How specific the match is.
    pub specificity: Specificity,
    /// The route's `creationTimestamp`: the oldest wins.
    pub created: SystemTime,
    /// The route. Alphabetical by `namespace/name`, see [`RouteName`].
    pub route: RouteName<'a>,
    /// Index of the rule in the route: the first wins.
    pub rule: usize,
    /// Index of the match in the rule: the first wins.
    pub index: usize,
}

/// How specific a match is: smaller wins. Comparable between routes of one kind only; kinds are never merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity([Criterion; 5]);

type Criterion = Reverse<usize>;

/// A route's name, ordered by its printed form `namespace/name`.
///
/// Comparing the parts one after the other would differ: `a-b/x` is before `a/x`, because `-` is before `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteName<'a>(pub &'a NamespacedName);

impl Specificity {
    /// For a match of an HTTPRoute: Exact, then regular expression, then the longest prefix; has a method;
    /// most headers; most query parameters.
    pub fn http(when: &Match) -> Self {
        let (class, characters) = match &when.path {
            PathMatch::Exact(_) => (2, 0),
            PathMatch::Regex(_) => (1, 0),
            PathMatch::Prefix(prefix) => (0, prefix_characters(prefix)),
        };
        Self([
            Reverse(class),
            Reverse(characters),
            Reverse(usize::from(when.method.is_some())),
            Reverse(counted(&when.headers, str::eq_ignore_ascii_case)),
            Reverse(counted(&when.query, str::eq)),
        ])
    }

    /// For a match of a GRPCRoute: most characters in the service, most characters in the method, most headers.
    pub fn grpc(when: &GrpcMatch) -> Self {
        let part = |value: &Option<ValueMatch>| match value {
            Some(ValueMatch::Exact(name)) => (2, name.chars().count()),
            Some(ValueMatch::Regex(_)) => (1, 0),
            None => (0, 0),
        };
        let (service_class, service_characters) = part(&when.service);
        let (method_class, method_characters) = part(&when.method);
        Self([
            Reverse(service_class),
            Reverse(service_characters),
            Reverse(method_class),
            Reverse(method_characters),
            Reverse(counted(&when.headers, str::eq_ignore_ascii_case)),
        ])
    }
}

fn prefix_characters(prefix: &str) -> usize {
    // A prefix that isn't a path never gets as far as a table.
    let canonical = path::canonical(prefix).unwrap_or_default();
    canonical.trim_end_matches('/').chars().count()
}

/// How many tests there are, those that are ignored because their name came before not counted.
fn counted(tests: &[NamedMatch], same: impl Fn(&str, &str) -> bool) -> usize {
    let first =
        |(at, test): &(usize, &NamedMatch)| !tests[..*at].iter().any(|before| same(&before.name, &test.name));
    tests.iter().enumerate().filter(first).count()
}

impl RouteName<'_> {
    fn printed(&self) -> impl Iterator<Item = u8> {
        self.0.namespace.bytes().chain([b'/']).chain(self.0.name.bytes())
    }
}

impl Ord for RouteName<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.printed().cmp(other.printed())
    }
}

impl PartialOrd for RouteName<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
