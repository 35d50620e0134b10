//! Regular expressions of matches: linear time, bounded size, and always about the whole value (GEP-4359).

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, literal::Extractor},
};

use super::MatcherError;

/// The most memory, in bytes, that one compiled expression may take. Far above what routes need, and small
/// enough that a full CRD's worth of matches (128 of a route) can't exhaust a sidecar.
const SIZE_LIMIT: usize = 1 << 20;

/// Compiles an expression so that it must match from the first to the last byte.
pub(crate) fn compile(pattern: &str) -> Result<Regex, MatcherError> {
    // By itself first: an unbalanced ")" must not close the group that is put around it.
    parse(pattern)?;
    let whole = format!(r"\A(?:{pattern})\z");
    RegexBuilder::new(&whole).size_limit(SIZE_LIMIT).build().map_err(|reason| error(pattern, &reason))
}

/// Bytes that every value which the expression matches begins with; possibly none.
pub(super) fn literal_prefix(pattern: &str) -> Result<Vec<u8>, MatcherError> {
    let literals = Extractor::new().extract(&parse(pattern)?);
    Ok(literals.longest_common_prefix().unwrap_or_default().to_vec())
}

/// Values are bytes, as headers are; an expression may ask for bytes that aren't UTF-8.
fn parse(pattern: &str) -> Result<Hir, MatcherError> {
    ParserBuilder::new().utf8(false).build().parse(pattern).map_err(|reason| error(pattern, &reason))
}

fn error(pattern: &str, reason: &dyn std::error::Error) -> MatcherError {
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
            assert!(error.to_string().contains(pattern), "{error}");
        }
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
