//! Reading a part of an object so that nothing gets lost: the part if it can be read, why not if it can't,
//! and the fields in it that nobody here knows.

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::shape::Shaped;

/// A part of an object: a rule, a list of parents, a `spec`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lenient<T> {
    /// The part, or what is wrong with it.
    pub value: Result<T, ReadError>,
    /// Fields that are set and not known, as paths from the part's own root.
    pub unknown: Vec<String>,
    /// Of a rule that can't be read: what it says about which requests it is for, if that can be (see
    /// [`Lenient::read_rule`]).
    pub about: Option<T>,
}

/// The fields of a rule that say which requests it is for.
const ABOUT: [&str; 2] = ["name", "matches"];

/// A value of a type that the field can't have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{what}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct ReadError {
    /// The field, as a path from the part's own root; empty for the part itself.
    path: String,
    /// What was found and what belongs there.
    what: String,
}

impl ReadError {
    /// The error with the field's whole path, given the part's.
    pub fn below(&self, part: &str) -> String {
        format!("{}: {}", joined(part, &self.path), self.what)
    }
}

/// A path from the object's root, given a part's and one from the part's own root.
pub fn joined(part: &str, path: &str) -> String {
    let separator = if path.is_empty() || path.starts_with('[') { "" } else { "." };
    format!("{part}{separator}{path}")
}

impl<T: DeserializeOwned> Lenient<T> {
    /// Reads a part. Fields that are `null` count as unset, as they do for the API server.
    pub fn read(mut value: Value) -> Self {
        remove_nulls(&mut value);
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(Shaped(value), &mut track);
        let value =
            serde_ignored::deserialize(deserializer, |path| unknown.push(readable(&path.to_string())));
        let value = value.map_err(|error: serde_json::Error| {
            let path = track.path().to_string();
            ReadError { path: if path == "." { String::new() } else { path }, what: plain(&error) }
        });
        Self { value, unknown, about: None }
    }

    /// Reads a rule. Of one that can't be read as a whole, its name and matches are read by themselves: the requests that
    /// they name mustn't be somebody else's as if the rule weren't there.
    pub fn read_rule(value: Value) -> Self {
        let about = value.as_object().map(|fields| {
            let about = fields.iter().filter(|(name, _)| ABOUT.contains(&name.as_str()));
            Value::Object(about.map(|(name, value)| (name.clone(), value.clone())).collect())
        });
        let mut rule = Self::read(value);
        if rule.value.is_err() {
            rule.about = about.and_then(|about| Self::read(about).value.ok());
        }
        rule
    }
}

impl<T> Lenient<T> {
    /// The part, if it could be read.
    pub fn ok(&self) -> Option<&T> {
        self.value.as_ref().ok()
    }
}

/// The error in the words of YAML instead of those of Rust.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string().replace("invalid type: ", "found ");
    let Some((found, expected)) = text.split_once(", expected ") else { return text };
    let found = match found {
        "found map" => "found a mapping",
        "found sequence" => "found a list",
        other => other,
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        expected if expected.starts_with("struct ") => "a mapping",
        "i64" | "i32" | "u16" => "a number",
        other => other,
    };
    format!("{found}, expected {expected}")
}

/// `serde_ignored` writes `matches.0.foo` and `?` for an `Option`; people write `matches[0].foo`.
fn readable(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        match part.bytes().all(|c| c.is_ascii_digit()) {
            true => text.push_str(&format!("[{part}]")),
            false if text.is_empty() => text.push_str(part),
            false => text.push_str(&format!(".{part}")),
        }
    }
    text
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Part {
        names: Vec<Name>,
        limit: Option<u16>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Name {
        text: Option<String>,
    }

    #[test]
    fn unknown_fields_are_collected_and_cost_nothing() {
        let part = Lenient::<Part>::read(json!({"names": [{"text": "a"}, {"colour": 1}], "size": {"x": 1}}));
        assert_eq!(part.ok().map(|part| part.names.len()), Some(2));
        assert_eq!(part.unknown, ["names[1].colour", "size"]);
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let part = Lenient::<Part>::read(json!({"names": [{"text": "a"}, {"text": 5}]}));
        let error = part.value.unwrap_err();
        assert_eq!(error.below("spec"), "spec.names[1].text: found integer `5`, expected a string");

        let whole = Lenient::<Part>::read(json!("a")).value.unwrap_err();
        assert_eq!(whole.below("spec"), "spec: found string \"a\", expected a mapping");
        let list = Lenient::<Vec<Name>>::read(json!([[]])).value.unwrap_err();
        assert_eq!(list.below("spec.names"), "spec.names[0]: found a list, expected a mapping");
    }

    #[test]
    fn null_is_unset() {
        let part = Lenient::<Part>::read(json!({"names": [{"text": null}], "limit": null, "gone": null}));
        assert_eq!(part.value, Ok(Part { names: vec![Name { text: None }], limit: None }));
        assert!(part.unknown.is_empty());
    }
}
