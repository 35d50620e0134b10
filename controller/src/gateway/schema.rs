//! What the CRDs allow, for who plays the API server: every field of `spec` that the Gateway API v1.7.0 has, with its type and,
//! of numbers, its range.
//!
//! The readers of this module are lenient, because a cluster's CRDs may be older or newer than we are. Somebody who writes a
//! manifest wants the opposite: `wieght: 50` is refused, as `kubectl` does, and not carried out without the weight.
//!
//! Deliberately absent: which texts are allowed, and which fields must be there. The compiler says that in conditions.

use std::{collections::BTreeMap, sync::LazyLock};

use gamut_manifest::{Object, nearest};
use serde_json::Value;

/// A kind's name alone, then its leaves with their types and ranges, a line each.
const FIELDS: &str = include_str!("schema-v1.7.0.txt");

/// Fields of `sessionPersistence` that only older versions have: clusters with their CRDs take them, and so do we.
const OLDER: &[(&str, &str)] = &[
    ("sessionPersistence.idleTimeout", "string"),
    ("sessionPersistence.sessionName", "string"),
    ("sessionPersistence.cookieConfig.lifetimeType", "string"),
];

/// The schemas, by kind.
static SCHEMAS: LazyLock<BTreeMap<&'static str, Schema>> = LazyLock::new(schemas);

/// What belongs at one place of an object.
#[derive(Clone, Debug)]
enum Schema {
    Text,
    /// From the one to the other, both included.
    Integer(Option<i64>, Option<i64>),
    Boolean,
    /// Any keys, with texts.
    Map,
    List(Box<Schema>),
    Fields(BTreeMap<&'static str, Schema>),
}

/// A field that isn't as the schema has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// Its path: `spec.rules[0].backendRefs[1].wieght`.
    pub path: String,
    /// What is wrong with it.
    pub problem: SchemaProblem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaProblem {
    /// There is no such field; perhaps this one was meant.
    Unknown(Option<&'static str>),
    /// It has another type: what it must be.
    Type(&'static str),
    /// It must be a string, and YAML reads it as something else: as what.
    Unquoted(String),
    /// Its number is out of range: the least and the greatest that it may be.
    Range(Option<i64>, Option<i64>),
}

/// What the API server would refuse in an object of the Gateway API. Other kinds have nothing to be complained about.
pub fn schema_errors(object: &Object) -> Vec<SchemaError> {
    let mut errors = Vec::new();
    let of_the_gateway_api = [super::GROUP, super::EXPERIMENTAL_GROUP].contains(&object.group());
    if let (true, Some(schema)) = (of_the_gateway_api, SCHEMAS.get(object.kind.as_str())) {
        check(schema, object.raw.get("spec").unwrap_or(&Value::Null), "spec", &mut errors);
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        let keys = object.raw.as_object().into_iter().flat_map(|fields| fields.keys());
        for key in keys.filter(|key| !known.contains(&key.as_str())) {
            let problem = SchemaProblem::Unknown(nearest(key, known));
            errors.push(SchemaError { path: key.clone(), problem });
        }
    }
    errors
}

/// A field that is `null` counts as unset, as it does for the API server.
fn check(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<SchemaError>) {
    let mut is = |problem| errors.push(SchemaError { path: path.to_owned(), problem });
    let must_be = SchemaProblem::Type;
    match (schema, value) {
        (_, Value::Null) | (Schema::Text, Value::String(_)) | (Schema::Boolean, Value::Bool(_)) => {}
        (Schema::Integer(least, most), Value::Number(number)) => match number.as_i64() {
            Some(number)
                if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) =>
            {
                is(SchemaProblem::Range(*least, *most));
            }
            Some(_) => {}
            None => is(must_be("a whole number")),
        },
        (Schema::Text, Value::Bool(_) | Value::Number(_)) => is(SchemaProblem::Unquoted(value.to_string())),
        (Schema::Text, _) => is(must_be("a string")),
        (Schema::Boolean, _) => is(must_be("true or false")),
        (Schema::Integer(..), _) => is(must_be("a whole number")),
        (Schema::Map, Value::Object(map)) => {
            for (key, value) in map {
                check(&Schema::Text, value, &format!("{path}[{key:?}]"), errors);
            }
        }
        (Schema::List(of), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                check(of, value, &format!("{path}[{index}]"), errors);
            }
        }
        (Schema::Fields(fields), Value::Object(map)) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                match fields.get(key.as_str()) {
                    Some(schema) => check(schema, value, &path, errors),
                    None => {
                        let problem = SchemaProblem::Unknown(nearest(key, fields.keys().copied()));
                        errors.push(SchemaError { path, problem });
                    }
                }
            }
        }
        (Schema::List(_), _) => is(must_be("a list")),
        (Schema::Map | Schema::Fields(_), _) => is(must_be("a mapping")),
    }
}

fn schemas() -> BTreeMap<&'static str, Schema> {
    let mut kinds = BTreeMap::new();
    let mut kind = "";
    for line in FIELDS.lines().filter(|line| !line.starts_with('#')) {
        let Some((path, of)) = line.split_once(' ') else {
            kind = line;
            continue;
        };
        let schema = kinds.entry(kind).or_insert_with(|| Schema::Fields(BTreeMap::new()));
        let Some(path) = path.strip_prefix("spec.") else { continue };
        insert(schema, path, of);
        // Wherever a session can be, its older fields can be.
        if let Some((above, "type")) = path.split_once("sessionPersistence.") {
            OLDER.iter().for_each(|(path, of)| insert_below(schema, above, path, of));
        }
    }
    kinds
}

/// Puts a leaf where its path leads to.
fn insert(schema: &mut Schema, path: &'static str, of: &str) {
    let Schema::Fields(fields) = schema else { return };
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let below = match rest {
        Some(_) => Schema::Fields(BTreeMap::new()),
        None => leaf(of),
    };
    match (first.strip_suffix("[]"), rest) {
        (Some(list), rest) => {
            let entry = fields.entry(list).or_insert_with(|| Schema::List(Box::new(below)));
            if let (Schema::List(entry), Some(rest)) = (entry, rest) {
                insert(entry, rest, of);
            }
        }
        (None, Some(rest)) => insert(fields.entry(first).or_insert(below), rest, of),
        (None, None) => drop(fields.insert(first, below)),
    }
}

/// Puts a leaf below a place that is there already: `rules[].`, or empty for the root.
fn insert_below(schema: &mut Schema, above: &str, path: &'static str, of: &str) {
    let Some((first, rest)) = above.split_once('.') else { return insert(schema, path, of) };
    let Schema::Fields(fields) = schema else { return };
    match fields.get_mut(first.trim_end_matches("[]")) {
        Some(Schema::List(of_list)) => insert_below(of_list, rest, path, of),
        Some(below) => insert_below(below, rest, path, of),
        None => {}
    }
}

fn leaf(of: &str) -> Schema {
    let (of, range) = of.split_once(' ').unwrap_or((of, ".."));
    let (least, most) = range.split_once("..").unwrap_or_default();
    match of {
        "integer" => Schema::Integer(least.parse().ok(), most.parse().ok()),
        "boolean" => Schema::Boolean,
        "map" => Schema::Map,
        _ => Schema::Text,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;
    use serde_json::json;

    use super::*;

    fn errors(kind: &str, spec: &Value) -> Vec<(String, SchemaProblem)> {
        let version = match kind.starts_with('X') {
            true => format!("{}/v1alpha1", super::super::EXPERIMENTAL_GROUP),
            false => format!("{}/v1", super::super::GROUP),
        };
        let value = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
        let errors = schema_errors(&Object::from_value(value, &origin).unwrap());
        errors.into_iter().map(|error| (error.path, error.problem)).collect()
    }

    #[test]
    fn a_misspelt_field_is_found_at_any_depth_with_what_was_meant() {
        let spec = json!({
            "parentRefs": [{"kind": "Service", "name": "web"}],
            "rules": [
                {"matches": [{"headers": [{"name": "a", "valeu": "b"}]}]},
                {"backendRefs": [{"name": "web", "port": 80, "wieght": 50}], "colour": "red"},
            ],
        });
        assert_eq!(
            errors("HTTPRoute", &spec),
            [
                ("spec.rules[0].matches[0].headers[0].valeu".into(), SchemaProblem::Unknown(Some("value"))),
                ("spec.rules[1].backendRefs[0].wieght".into(), SchemaProblem::Unknown(Some("weight"))),
                ("spec.rules[1].colour".into(), SchemaProblem::Unknown(None)),
            ]
        );
        let spec = json!({"ruels": []});
        assert_eq!(errors("TCPRoute", &spec), [("spec.ruels".into(), SchemaProblem::Unknown(Some("rules")))]);
    }

    #[test]
    fn a_field_of_another_type_is_told_what_it_must_be() {
        let spec = json!({
            "hostnames": "web",
            "rules": [{"backendRefs": [{"name": ["a"], "weight": "50"}], "timeouts": [], "filters": [{"cors": {"allowCredentials": "yes"}}]}],
        });
        assert_eq!(
            errors("HTTPRoute", &spec),
            [
                ("spec.hostnames".into(), SchemaProblem::Type("a list")),
                ("spec.rules[0].backendRefs[0].name".into(), SchemaProblem::Type("a string")),
                ("spec.rules[0].backendRefs[0].weight".into(), SchemaProblem::Type("a whole number")),
                ("spec.rules[0].timeouts".into(), SchemaProblem::Type("a mapping")),
                (
                    "spec.rules[0].filters[0].cors.allowCredentials".into(),
                    SchemaProblem::Type("true or false")
                ),
            ]
        );
    }

    #[test]
    fn null_is_unset_and_sessions_may_be_written_as_they_were() {
        let session = json!({
            "sessionName": "a", "idleTimeout": "1h", "cookieConfig": {"lifetimeType": "Session"}, "header": null,
        });
        let spec = json!({"hostnames": null, "rules": [{"sessionPersistence": session}]});
        assert_eq!(errors("HTTPRoute", &spec), []);
        assert_eq!(errors("XBackendTrafficPolicy", &json!({"sessionPersistence": session})), []);
        assert_eq!(errors("XBackend", &json!({"endpointSelector": {"matchLabels": {"app": "web"}}})), []);
        assert_eq!(
            errors("XBackend", &json!({"endpointSelector": {"matchLabels": {"app": 1}}})),
            [("spec.endpointSelector.matchLabels[\"app\"]".into(), SchemaProblem::Unquoted("1".to_owned()))]
        );
    }

    #[test]
    fn a_number_beyond_the_range_of_its_field_is_told_the_range_and_the_ends_belong_to_it() {
        let backend = |port: i64, weight: i64| json!({"rules": [{"backendRefs": [{"name": "web", "port": port, "weight": weight}]}]});
        for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"] {
            assert_eq!(errors(kind, &backend(1, 0)), []);
            assert_eq!(errors(kind, &backend(65_535, 1_000_000)), []);
            for (port, weight) in [(0, -10), (65_536, 1_000_001)] {
                let range = |field: &str, least, most| {
                    let path = format!("spec.rules[0].backendRefs[0].{field}");
                    (path, SchemaProblem::Range(Some(least), Some(most)))
                };
                assert_eq!(
                    errors(kind, &backend(port, weight)),
                    [range("port", 1, 65_535), range("weight", 0, 1_000_000)]
                );
            }
        }
        let retry = json!({"rules": [{"retry": {"attempts": -1, "codes": [503, 200]}}]});
        assert_eq!(
            errors("HTTPRoute", &retry),
            [
                ("spec.rules[0].retry.attempts".into(), SchemaProblem::Range(Some(0), None)),
                ("spec.rules[0].retry.codes[1]".into(), SchemaProblem::Range(Some(400), Some(599))),
            ]
        );
    }

    #[test]
    fn what_yaml_reads_as_something_else_than_the_string_it_looks_like_is_told_as_what() {
        let header = |value: Value| json!({"rules": [{"matches": [{"headers": [{"name": "x-beta", "value": value}]}]}]});
        for (value, read) in [(json!(true), "true"), (json!(5), "5")] {
            let path = "spec.rules[0].matches[0].headers[0].value";
            let expected = [(path.into(), SchemaProblem::Unquoted(read.to_owned()))];
            assert_eq!(errors("HTTPRoute", &header(value)), expected);
        }
        assert_eq!(errors("HTTPRoute", &header(json!("y"))), []);
    }
}
