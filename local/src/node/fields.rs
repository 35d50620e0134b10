//! Unknown and mistyped fields and numbers out of range, found where the API server would refuse them (`kubectl`'s strict
//! validation).
//!
//! The Gateway API's kinds are held against their CRDs' schema, the core kinds that are run here against their types: each
//! struct says which fields it has when it is read, and what is there beside them is noted with its path.

use std::{cell::RefCell, fmt};

use gamut_controller::gateway::{SchemaError, SchemaProblem, schema_errors};
use gamut_manifest::{Object, nearest};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        batch::v1::Job,
        core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Value};

/// What the API server would refuse in an object, a sentence with a remedy each.
pub(crate) fn problems(object: &Object) -> Vec<String> {
    match (object.api_version.as_str(), object.kind.as_str()) {
        ("v1", "ConfigMap") => check::<ConfigMap>(&object.raw),
        ("v1", "Namespace") => check::<Namespace>(&object.raw),
        ("v1", "Pod") => check::<Pod>(&object.raw),
        ("v1", "Secret") => check::<Secret>(&object.raw),
        ("v1", "Service") => check::<Service>(&object.raw),
        ("v1", "ServiceAccount") => check::<ServiceAccount>(&object.raw),
        ("apps/v1", "Deployment") => check::<Deployment>(&object.raw),
        ("apps/v1", "StatefulSet") => check::<StatefulSet>(&object.raw),
        ("batch/v1", "Job") => check::<Job>(&object.raw),
        ("discovery.k8s.io/v1", "EndpointSlice") => check::<EndpointSlice>(&object.raw),
        _ => {
            let metadata =
                object.raw.get("metadata").map(|metadata| check_at::<ObjectMeta>(metadata, "metadata"));
            let mut problems = metadata.unwrap_or_default();
            problems.extend(schema_errors(object).iter().map(of_schema));
            problems
        }
    }
}

fn of_schema(error: &SchemaError) -> String {
    match &error.problem {
        SchemaProblem::Unknown(meant) => unknown(&error.path, *meant),
        SchemaProblem::Type(what) => format!("{} must be {what}; write it as one", error.path),
        SchemaProblem::Unquoted(read) => {
            format!("{}: YAML reads this as {read}, and it must be a string: put it in quotes", error.path)
        }
        SchemaProblem::Range(least, most) => {
            let allowed = match (least, most) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("{least} or more"),
                (None, Some(most)) => format!("{most} or less"),
                (None, None) => "a number".to_owned(),
            };
            format!("{} is out of range; write {allowed}", error.path)
        }
    }
}

fn unknown(path: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => {
            format!("{path}: there is no such field; write {meant}, if that was meant, or remove it")
        }
        None => format!("{path}: there is no such field; correct its name or its place, or remove it"),
    }
}

fn check<'a, T: Deserialize<'a>>(value: &'a Value) -> Vec<String> {
    check_at::<T>(value, "")
}

fn check_at<'a, T: Deserialize<'a>>(value: &'a Value, path: &str) -> Vec<String> {
    let notes = Notes::default();
    let read = T::deserialize(Strict { value, path: path.to_owned(), notes: &notes });
    let mut problems = notes.unknown.into_inner();
    if let Err(error) = read {
        let path = notes.failed_at.into_inner().unwrap_or_default();
        problems.push(format!("{path}: {}", in_words(&error)));
    }
    problems
}

/// The error in the words of YAML instead of those of Rust.
fn in_words(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("invalid type: ").unwrap_or(&text);
    let Some((found, expected)) = text.split_once(", expected ") else { return text.to_owned() };
    let found = found.replace("map", "a mapping").replace("sequence", "a list");
    let expected = match expected {
        "a string" | "string" => "a string: put it in quotes",
        "a sequence" | "Vec" => "a list",
        "a map" => "a mapping",
        "i32" | "i64" | "u16" => "a whole number",
        "a boolean" => "true or false",
        expected if expected.starts_with(char::is_uppercase) || expected.starts_with("struct ") => {
            "a mapping"
        }
        expected => expected,
    };
    format!("found {found}, must be {expected}")
}

#[derive(Debug, Default)]
struct Notes {
    unknown: RefCell<Vec<String>>,
    /// Where reading ended.
    failed_at: RefCell<Option<String>>,
}

/// A value that is read by who knows its type, and where it is.
struct Strict<'a, 'n> {
    value: &'a Value,
    path: String,
    notes: &'n Notes,
}

impl<'a> Strict<'a, '_> {
    fn noting<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.is_err() {
            // The innermost place is the first to hear of it.
            self.notes.failed_at.borrow_mut().get_or_insert_with(|| self.path.clone());
        }
        outcome
    }

    fn below(&self, value: &'a Value, part: impl fmt::Display) -> Self {
        Strict { value, path: format!("{}{part}", self.path), notes: self.notes }
    }
}

impl<'de> Deserializer<'de> for Strict<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let read = match self.value {
            Value::Object(map) => {
                let fields = Fields { of: &self, entries: map.iter(), next: None };
                visitor.visit_map(fields)
            }
            Value::Array(list) => visitor.visit_seq(Items { of: &self, entries: list.iter().enumerate() }),
            scalar => scalar.deserialize_any(visitor),
        };
        self.noting(read)
    }

    /// A mapping is a mapping, and every field of it is to be one of these.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            Value::Object(map) => {
                for key in map.keys().filter(|key| !fields.contains(&key.as_str())) {
                    let path = joined(&self.path, key);
                    let problem = unknown(&path, nearest(key, fields.iter().copied()));
                    self.notes.unknown.borrow_mut().push(problem);
                }
                self.deserialize_any(visitor)
            }
            Value::Array(_) => {
                let error = Error::invalid_type(Unexpected::Seq, &visitor);
                self.noting(Err(error))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            // The API server takes `cpu: 1` for `cpu: "1"`.
            Value::Number(number) if name == "Quantity" => {
                visitor.visit_newtype_struct(number.to_string().into_deserializer())
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

/// The path of a field, given that of what it is in.
fn joined(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

struct Fields<'s, 'a, 'n> {
    of: &'s Strict<'a, 'n>,
    entries: serde_json::map::Iter<'a>,
    next: Option<(&'a str, &'a Value)>,
}

impl<'a> MapAccess<'a> for Fields<'_, 'a, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.entries.next().map(|(key, value)| (key.as_str(), value));
        let key = self.next.map(|(key, _)| seed.deserialize(StrDeserializer::<Error>::new(key)));
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((key, value)) = self.next.take() else { return Err(Error::custom("a value without a key")) };
        let part = if self.of.path.is_empty() { key.to_owned() } else { format!(".{key}") };
        seed.deserialize(self.of.below(value, part))
    }
}

struct Items<'s, 'a, 'n> {
    of: &'s Strict<'a, 'n>,
    entries: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'a> SeqAccess<'a> for Items<'_, 'a, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let next = self.entries.next();
        next.map(|(index, value)| seed.deserialize(self.of.below(value, format_args!("[{index}]"))))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;
    use serde_json::json;

    use super::*;

    fn problems_of(value: Value) -> Vec<String> {
        let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
        problems(&Object::from_value(value, &origin).unwrap())
    }

    #[test]
    fn a_misspelt_field_of_a_pod_template_is_named_by_its_path_with_what_was_meant() {
        let problems = problems_of(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replcias": 2, "template": {"spec": {"containers": [{"name": "app", "imgae": "x", "colour": 1}]}}},
        }));
        assert_eq!(
            problems,
            [
                "spec.replcias: there is no such field; write replicas, if that was meant, or remove it",
                "spec.template.spec.containers[0].imgae: there is no such field; write image, if that was meant, or remove it",
                "spec.template.spec.containers[0].colour: there is no such field; correct its name or its place, or remove it",
            ]
        );
    }

    #[test]
    fn a_field_of_another_type_is_told_with_what_it_must_be() {
        let service = |port: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": port}]}});
        assert_eq!(
            problems_of(service(json!("80"))),
            ["spec.ports[0].port: found string \"80\", must be a whole number"]
        );
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": 5}});
        assert_eq!(problems_of(map), ["data.k: found integer `5`, must be a string: put it in quotes"]);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": []});
        assert_eq!(problems_of(pod), ["spec: found a list, must be a mapping"]);
    }

    #[test]
    fn what_is_right_is_not_complained_about() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": null}, "spec": {
            "containers": [{
                "name": "app", "image": "x", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 3},
                "readinessProbe": {"tcpSocket": {"port": 80}},
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        }, "status": {"phase": "Running"}});
        assert_eq!(problems_of(pod), [""; 0]);
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a", "lables": {}},
            "spec": {"parentRefs": [{"name": "web"}]},
        });
        assert_eq!(
            problems_of(route),
            ["metadata.lables: there is no such field; write labels, if that was meant, or remove it"]
        );
    }

    #[test]
    fn values_that_a_crd_would_refuse_are_told_with_what_to_write() {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "a"},
            "spec": {"rules": [{
                "matches": [{"headers": [{"name": "x-beta", "value": true}]}],
                "backendRefs": [{"name": "web", "port": 80, "weight": -10}], "retry": {"attempts": -1},
            }]},
        });
        assert_eq!(
            problems_of(route),
            [
                "spec.rules[0].matches[0].headers[0].value: YAML reads this as true, and it must be a string: put it in quotes",
                "spec.rules[0].backendRefs[0].weight is out of range; write 0 to 1000000",
                "spec.rules[0].retry.attempts is out of range; write 0 or more",
            ]
        );
    }
}
