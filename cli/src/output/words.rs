//! Lists and numbers as people say them.

/// How many of a list are shown.
const SHOWN: usize = 5;

/// The first few of a list, and how many more there are.
pub(crate) fn few(items: &[String]) -> String {
    first(items, ", ", " ")
}

/// The same of sentences: a line each.
pub(crate) fn few_lines(items: &[String]) -> String {
    first(items, "\n", "\n")
}

fn first(items: &[String], between: &str, before_the_rest: &str) -> String {
    let shown = items.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(between);
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}{before_the_rest}and {more} more"),
    }
}

/// `1 pod`, `2 pods`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_list_five_are_named_and_the_others_counted() {
        let items: Vec<String> = ('a'..='g').map(String::from).collect();
        assert_eq!(few(&items), "a, b, c, d, e and 2 more");
        assert_eq!(few_lines(&items), "a\nb\nc\nd\ne\nand 2 more");
        assert_eq!((few(&items[..2]), few_lines(&items[..2])), ("a, b".to_owned(), "a\nb".to_owned()));
    }
}
