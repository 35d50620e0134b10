//! Tables in few words. Each test binary uses some of them.

#![allow(dead_code, reason = "not every test binary uses everything")]

use gamut_route::table::{HttpRules, Match, NamedMatch, RankedMatch, Rule, Split, ValueMatch};

/// A rule of which nothing but its index matters.
pub(crate) fn rule() -> Rule {
    Rule::forward(Split::default())
}

/// A table whose matches are ranked as they come, each with a rule of its own.
pub(crate) fn table(matches: Vec<Match>) -> HttpRules {
    HttpRules {
        rules: matches.iter().map(|_| rule()).collect(),
        matches: matches.into_iter().enumerate().map(|(rule, when)| RankedMatch { when, rule }).collect(),
    }
}

/// A test of a header or query parameter.
pub(crate) fn named(name: &str, value: ValueMatch) -> NamedMatch {
    NamedMatch { name: name.to_owned(), value }
}
