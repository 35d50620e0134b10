//! Canonical paths: one value that every reader understands alike.

use gamut_route::path::canonical;

/// A canonical path is its own canonical form, has nothing in it that two readers spell differently, and climbs nowhere,
/// in whatever order its reader decodes, cuts off parameters and resolves dots.
pub(crate) fn path(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let Ok(path) = canonical(input) else { return };
    assert_eq!(canonical(&path).as_deref(), Ok(&*path), "{input:?}");

    assert!(path.starts_with('/'));
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            assert!(byte.is_ascii_alphanumeric() || b"-._~/:@!$&'()*+,;=".contains(&byte), "{path:?}");
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| char::from(digit.expect("two digits")));
        assert!(!digits.iter().any(char::is_ascii_lowercase), "{path:?}");
        let value = digits.iter().fold(0, |value, digit| value * 16 + digit.to_digit(16).expect("a digit"));
        let value = char::from(u8::try_from(value).expect("two digits"));
        assert!(value != '\0' && !value.is_ascii_alphanumeric() && !"-._~".contains(value), "{path:?}");
    }

    for element in decoded(&path).split(['/', '\\']) {
        let name = element.split(';').next().unwrap_or_default();
        assert!(!matches!(name, "." | ".."), "{input:?} became {path:?}, which climbs for some");
    }
}

/// As an application has it that decodes before it looks at elements.
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let value = u8::from_str_radix(&part[..2], 16).expect("checked above");
        out.push(char::from(value));
        out.push_str(&part[2..]);
    }
    out
}
