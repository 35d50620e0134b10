//! Query parameters: read in the form that browsers and servers read them (WHATWG URL,
//! `application/x-www-form-urlencoded` parsing), without decoding what isn't compared.

use smallvec::SmallVec;

use crate::path::escape_value;

/// The first value of a parameter, still encoded. A repeated parameter is its first value (the
/// specification's recommendation); one without `=` is empty.
pub(super) fn first<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').filter(|pair| !pair.is_empty()).find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        equals(key, name.as_bytes()).then_some(value)
    })
}

/// Whether an encoded text stands for these bytes.
pub(super) fn equals(encoded: &str, expected: &[u8]) -> bool {
    // Decoding never makes longer.
    encoded.len() >= expected.len() && decoded(encoded).eq(expected.iter().copied())
}

/// The decoded bytes, on the stack where they fit.
pub(super) fn decode(encoded: &str) -> SmallVec<[u8; 256]> {
    decoded(encoded).collect()
}

fn decoded(encoded: &str) -> impl Iterator<Item = u8> {
    let mut rest = encoded.as_bytes();
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        rest = tail;
        match first {
            b'+' => Some(b' '),
            b'%' => {
                // "%" without two digits is just that.
                let Some((digits, after)) = tail.split_at_checked(2) else { return Some(b'%') };
                let Some(byte) = escape_value(&[b'%', digits[0], digits[1]]) else { return Some(b'%') };
                rest = after;
                Some(byte)
            }
            other => Some(other),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_by_its_decoded_name_and_the_first_one_counts() {
        assert_eq!(first("a=1&b=2&a=3", "a"), Some("1"));
        assert_eq!(first("%61=1", "a"), Some("1"));
        assert_eq!(first("a+b=1", "a b"), Some("1"));
        assert_eq!(first("&&a", "a"), Some(""));
        assert_eq!(first("a==b", "a"), Some("=b"));
        assert_eq!(first("ab=1", "a"), None);
        assert_eq!(first("A=1", "a"), None);
        assert_eq!(first("", "a"), None);
        assert_eq!(first("b;a=1", "a"), None);
    }

    #[test]
    fn values_are_compared_decoded() {
        assert!(equals("x%20y", b"x y"));
        assert!(equals("x+y", b"x y"));
        assert!(equals("x%2By", b"x+y"));
        assert!(equals("%C3%A9", "é".as_bytes()));
        assert!(equals("é", "é".as_bytes()));
        assert!(equals("100%", b"100%"));
        assert!(equals("%zz%4", b"%zz%4"));
        assert!(equals("%2541", b"%41"));
        assert!(!equals("a", b"ab"));
        assert!(!equals("ab", b"a"));
        assert_eq!(decode("%ff+").as_slice(), b"\xff ");
    }
}
