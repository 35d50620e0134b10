//! Names and UIDs that the node gives: hashes of templates, suffixes of pods, UIDs.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde_json::Value;

/// The letters that Kubernetes makes names of: no vowels, no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten letters: the same for the same content, in whatever order it is written.
pub(crate) fn hash(value: &Value) -> String {
    letters(sha256(&sorted(value).to_string()), 10)
}

/// So many letters from a number.
pub(crate) fn letters(mut number: u128, length: usize) -> String {
    let base = ALPHABET.len() as u128;
    let mut digits = std::iter::repeat_with(|| {
        let digit = number % base;
        number /= base;
        usize::try_from(digit).ok().and_then(|digit| ALPHABET.get(digit)).copied().map(char::from)
    });
    digits.by_ref().take(length).flatten().collect()
}

/// A UID that is the same whenever the same text is given (RFC 9562, version 8).
pub(crate) fn derived_uid(text: &str) -> String {
    uuid(sha256(text), 8)
}

/// A UID from something random (RFC 9562, version 4).
pub(crate) fn random_uid(random: u128) -> String {
    uuid(random, 4)
}

/// The first half of a digest.
fn sha256(text: &str) -> u128 {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn uuid(bits: u128, version: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | version << 76 | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let mut rest = hex.as_str();
    let parts = [8, 4, 4, 4, 12].map(|length| {
        let (part, after) = rest.split_at(length);
        rest = after;
        part
    });
    parts.join("-")
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<&String, Value> = map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_the_form_and_the_version_that_they_should() {
        assert_eq!(random_uid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(random_uid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let derived = derived_uid("ReplicaSet demo/web-x");
        assert_eq!(derived, derived_uid("ReplicaSet demo/web-x"));
        assert_eq!(derived.as_bytes().get(14), Some(&b'8'));
    }

    #[test]
    fn letters_are_as_many_as_asked_for() {
        assert_eq!(letters(0, 5), "bbbbb");
        assert_eq!(letters(u128::MAX, 10).len(), 10);
    }
}
