//! Values that the API server would refuse although their types are right, and what is too much for one machine.

use gamut_manifest::Object;
use serde_json::Value;

/// How many pods at once an object may ask for. More than a machine runs, and few enough for the node to go on answering.
const MOST_PODS: u64 = 1000;
/// How many characters a namespace and a name may have together. Objects are files here, named after both, and so are their
/// pods, whose names are longer; a file's name has 255 bytes.
const LONGEST_NAME: usize = 200;
/// How many characters a key of a ConfigMap or Secret may have.
const LONGEST_KEY: usize = 253;

/// What is refused in an object, a sentence with a remedy each.
pub(crate) fn problems(object: &Object) -> Vec<String> {
    let mut problems: Vec<String> = too_long(object).into_iter().collect();
    problems.extend(too_many(object));
    problems.extend(bad_keys(object));
    problems
}

fn too_long(object: &Object) -> Option<String> {
    let length = object.namespace.as_deref().map_or(0, str::len) + object.name.len();
    (length > LONGEST_NAME).then(|| {
        format!(
            "metadata.name: namespace and name have {length} characters together, and gamut up takes {LONGEST_NAME}; \
             choose a shorter name"
        )
    })
}

fn too_many(object: &Object) -> Option<String> {
    let field = match object.kind.as_str() {
        "Deployment" | "StatefulSet" => "replicas",
        "Job" => "parallelism",
        _ => return None,
    };
    let count = object.raw.pointer(&format!("/spec/{field}")).and_then(Value::as_u64)?;
    (count > MOST_PODS).then(|| {
        format!("spec.{field}: {count} pods are more than gamut up runs at once; write at most {MOST_PODS}")
    })
}

/// Keys become names of files in volumes: what leads elsewhere is no key, as on a cluster.
fn bad_keys(object: &Object) -> Vec<String> {
    let fields = match object.kind.as_str() {
        "ConfigMap" => ["data", "binaryData"],
        "Secret" => ["data", "stringData"],
        _ => return Vec::new(),
    };
    let keys = |field| {
        let keys = object.raw.get(field).and_then(Value::as_object).into_iter().flat_map(|set| set.keys());
        keys.filter(|key| !is_key(key)).map(move |key| {
            format!(
                "{field}: {key:?} is not a key; use letters, digits, '-', '_' and '.', at most {LONGEST_KEY}, not beginning \
                 with '..'"
            )
        })
    };
    fields.into_iter().flat_map(keys).collect()
}

fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(plain) && key != "." && !key.starts_with("..")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gamut_manifest::Origin;
    use serde_json::json;

    use super::*;

    fn problems_of(value: Value) -> Vec<String> {
        let origin = Origin { file: Arc::new("test.yaml".into()), document: 0, line: 1 };
        problems(&Object::from_value(value, &origin).unwrap())
    }

    fn map(kind: &str, field: &str, key: &str) -> Value {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "demo"}, field: {key: "eA=="}})
    }

    #[test]
    fn keys_that_would_lead_out_of_their_volume_are_refused() {
        for (kind, field) in
            [("ConfigMap", "data"), ("ConfigMap", "binaryData"), ("Secret", "data"), ("Secret", "stringData")]
        {
            for key in ["../up", "/etc/passwd", "..", ".", "..data", "a/b", "", "a b", &"k".repeat(254)] {
                let problems = problems_of(map(kind, field, key));
                assert_eq!(problems.len(), 1, "{kind} {key:?}");
                assert!(
                    problems[0].starts_with(field) && problems[0].contains("is not a key"),
                    "{problems:?}"
                );
            }
            for key in ["nginx.conf", ".env", "A-b_c.1"] {
                assert!(problems_of(map(kind, field, key)).is_empty(), "{key}");
            }
        }
    }

    #[test]
    fn more_pods_than_a_machine_runs_are_refused_with_their_field() {
        let workload = |kind: &str, group: &str, field: &str, count: u64| json!({"apiVersion": group, "kind": kind, "metadata": {"name": "a", "namespace": "demo"}, "spec": {field: count}});
        for (kind, group, field) in [
            ("Deployment", "apps/v1", "replicas"),
            ("StatefulSet", "apps/v1", "replicas"),
            ("Job", "batch/v1", "parallelism"),
        ] {
            assert!(problems_of(workload(kind, group, field, 1000)).is_empty());
            let problems = problems_of(workload(kind, group, field, 2_000_000_000));
            assert!(problems[0].starts_with(&format!("spec.{field}: 2000000000 pods")), "{problems:?}");
        }
    }

    #[test]
    fn names_that_make_no_file_are_refused() {
        let named = |length| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "n".repeat(length), "namespace": "demo"}});
        assert!(problems_of(named(196)).is_empty());
        assert!(problems_of(named(253))[0].contains("257 characters"));
    }
}
