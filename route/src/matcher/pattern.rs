//! Regular expressions of matches: linear time, bounded size, and always about the whole value (GEP-4359).

use std::borrow::Cow;

use regex_automata::{
    meta::{Config, Regex},
    util::syntax,
};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, literal::Extractor},
};

use super::MatcherError;

/// The most memory, in bytes, that one compiled expression may take, far above what routes need. All of a route together
/// are bounded by the controller, which asks [`super::Matcher::size_of_expressions`].
const SIZE_LIMIT: usize = 1 << 20;

/// The most memory, in bytes, in which each worker that uses an expression keeps what it has learned about it. An
/// expression for which that is too little takes longer, not more.
const LEARNED_LIMIT: usize = 64 << 10;

/// How much of an expression messages show, in characters.
const SHOWN: usize = 80;

/// Compiles an expression so that it must match from the first to the last byte.
pub(crate) fn compile(pattern: &str) -> Result<Regex, MatcherError> {
    // By itself first: an unbalanced ")" must not close the group that is put around it.
    parse(pattern)?;
    let whole = format!(r"\A(?:{pattern})\z");
    // Values are only asked whether they match: the engine that finds groups would take memory for nothing.
    let config = Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(SIZE_LIMIT))
        .hybrid_cache_capacity(LEARNED_LIMIT)
        .onepass(false);
    let built = Regex::builder().syntax(syntax::Config::new().utf8(false)).configure(config).build(&whole);
    built.map_err(|reason| match reason.size_limit() {
        Some(_) => {
            error(pattern, &format!("it takes more than {} MiB of memory; shorten it", SIZE_LIMIT >> 20))
        }
        None => error(pattern, &reason),
    })
}

/// An expression as messages show it.
pub(super) fn shortened(pattern: &str) -> Cow<'_, str> {
    match pattern.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(pattern),
        Some((at, _)) => Cow::Owned(format!("{}...", &pattern[..at])),
    }
}

/// Bytes that every value which the expression matches begins with; possibly none.
pub(super) fn literal_prefix(pattern: &str) -> Result<Vec<u8>, MatcherError> {
    let literals = Extractor::new().extract(&parse(pattern)?);
    Ok(literals.longest_common_prefix().unwrap_or_default().to_vec())
}

/// Values are bytes, as headers are; an expression may ask for bytes that aren't UTF-8.
fn parse(pattern: &str) -> Result<Hir, MatcherError> {
    ParserBuilder::new().utf8(false).build().parse(pattern).map_err(|reason| match &reason {
        // The whole error is a drawing of the expression over several lines.
        regex_syntax::Error::Parse(reason) => error(pattern, reason.kind()),
        regex_syntax::Error::Translate(reason) => error(pattern, reason.kind()),
        _ => error(pattern, &reason),
    })
}

fn error(pattern: &str, reason: &dyn std::fmt::Display) -> MatcherError {
    MatcherError::Regex { pattern: pattern.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_about_the_whole_value() {
        let matches = |pattern: &str, value: &str| compile(pattern).unwrap().is_match(value.as_bytes());
        assert!(matches("a|ab", "ab"));
        assert!(!matches("a|ab", "abc"));
        assert!(!matches("a", "a\n"));
        assert!(!matches("^a$", "a\nb"));
        assert!(!matches("(?m)^a$", "a\nb"));
        assert!(matches("", ""));
        assert!(!matches("", "a"));
    }

    #[test]
    fn what_cannot_be_compiled_says_why() {
        for pattern in [
            "a)|(?:b",
            "(",
            "(?=a)",
            r"(a)\1",
            "(?x)a # swallows the end",
            r"\w{5000}",
            "(((a{100}){100}){100})",
        ] {
            let error = compile(pattern).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{pattern:?} can't be")), "{error}");
        }
    }

    #[test]
    fn an_expression_that_backtracking_would_never_finish_takes_linear_time() {
        // Twice as long, twice as many ways for a backtracking engine, at every step: 2^100000.
        let value = "a".repeat(100_000);
        for pattern in ["(a|a)*b", "(a+)+b", "(a*)*b", "(.*a){12}b", "(a|b|ab)*c"] {
            assert!(!compile(pattern).unwrap().is_match(value.as_bytes()), "{pattern}");
        }
    }

    #[test]
    fn a_long_expression_is_shortened_in_messages() {
        let pattern = format!("({}", "é".repeat(1000));
        let message = compile(&pattern).unwrap_err().to_string();
        assert!(message.contains(&format!("({}...", "é".repeat(79))), "{message}");
        assert!(message.chars().count() < 300, "{message}");
    }

    #[test]
    fn values_that_are_not_text_are_no_error() {
        assert!(!compile("[^a]*").unwrap().is_match(b"\xff"));
        assert!(compile("(?-u:.)*").unwrap().is_match(b"\xff"));
    }

    #[test]
    fn a_literal_prefix_is_never_more_than_every_match_has() {
        for (pattern, prefix) in [
            ("/api/v[0-9]+/.*", "/api/v"),
            ("/ab?c", "/a"),
            ("/a|/b", "/"),
            ("/abc|/abd", "/ab"),
            (".*", ""),
            ("(?i)/ab", "/"),
            ("/x*", "/"),
            ("[a&&b]", ""),
            ("^/a$", "/a"),
        ] {
            assert_eq!(String::from_utf8(literal_prefix(pattern).unwrap()).unwrap(), prefix, "{pattern}");
        }
    }
}
