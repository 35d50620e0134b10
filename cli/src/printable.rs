//! Text that a terminal shows and doesn't obey.
//!
//! Messages, names and headers come from manifests and from the wire. Whoever writes them could move the cursor, repaint what
//! was said before, or turn text round, if it were printed as it is.

use std::borrow::Cow;

/// The text, with control characters and those that change its direction escaped as Rust escapes them: `\u{1b}`.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| match is_obeyed(c) {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escaped).collect())
}

/// Whether a terminal does something with a character other than to show it.
pub(crate) fn is_obeyed(c: char) -> bool {
    // Unicode Standard Annex 9: embeddings, overrides and isolates.
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_changes_of_direction_are_escaped_and_everything_else_stays() {
        assert_eq!(printable("web, v2: größer 测试"), "web, v2: größer 测试");
        assert_eq!(
            printable("a\x1b[31m\r\n\u{9b}2J\x7f\u{202e}b"),
            "a\\u{1b}[31m\\r\\n\\u{9b}2J\\u{7f}\\u{202e}b"
        );
    }
}
