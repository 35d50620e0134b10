//! Durations of the Gateway API (GEP-2257): one to four components of up to five digits and a unit, `1h30m`, `500ms`.

use std::time::Duration;

use thiserror::Error;

/// A text that isn't a GEP-2257 duration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a duration; write up to four numbers with units h, m, s or ms, like 1h30m or 500ms")]
pub struct DurationError {
    text: String,
}

/// Units with their milliseconds; `ms` before `m` and `s`, which it begins or ends with.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// Reads a duration. Units may come in any order and repeatedly; the sum counts.
///
/// # Errors
/// Any other text: no unit, fractions, signs, days, a fifth component, a sixth digit.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let mut milliseconds = 0;
    let mut rest = text;
    let mut components = 0;
    while !rest.is_empty() {
        let (component, after) = component(rest).ok_or_else(|| DurationError { text: text.to_owned() })?;
        milliseconds += component;
        components += 1;
        rest = after;
    }
    match components {
        1..=4 => Ok(Duration::from_millis(milliseconds)),
        _ => Err(DurationError { text: text.to_owned() }),
    }
}

/// Writes a duration in the standard form: descending units, each once, zero as `0s`. Less than a millisecond
/// is cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    text
}

/// The first component in milliseconds, and what follows it.
fn component(text: &str) -> Option<(u64, &str)> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, after) = text.split_at_checked(digits)?;
    let number: u64 = (1..=5).contains(&digits).then(|| number.parse().ok())??;
    let (unit, size) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
    Some((number * size, &after[unit.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of GEP-2257: input, canonical form, milliseconds.
    const VALID: [(&str, &str, u64); 13] = [
        ("0h", "0s", 0),
        ("0s", "0s", 0),
        ("0h0m0s", "0s", 0),
        ("1h", "1h", 3_600_000),
        ("30m", "30m", 1_800_000),
        ("10s", "10s", 10_000),
        ("500ms", "500ms", 500),
        ("2h30m", "2h30m", 9_000_000),
        ("150m", "2h30m", 9_000_000),
        ("7230s", "2h30s", 7_230_000),
        ("1h30m10s", "1h30m10s", 5_410_000),
        ("10s30m1h", "1h30m10s", 5_410_000),
        ("100ms200ms300ms", "600ms", 600),
    ];

    #[test]
    fn the_valid_vectors_of_the_specification_are_read_and_written_in_standard_form() {
        for (text, canonical, milliseconds) in VALID {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(format_duration(duration), canonical, "{text}");
        }
    }

    #[test]
    fn the_invalid_vectors_of_the_specification_are_refused() {
        for text in
            ["1", "1m1", "1d", "1h30m10s20ms50h", "999999h", "1.5h", "-15m", "", "0", "h", "1 h", "١s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
