//! The CRDs' schema, the reader, and the documentation know the same fields: none is forgotten, none is invented.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use gamut_controller::gateway::{Lenient, ReferenceGrant, Route, Rules, TrafficPolicy, XBackend};
use gamut_manifest::{Object, Origin};
use gamut_route::RouteKind;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../src/gateway/schema-v1.7.0.txt");
const HTTPROUTE: &str = include_str!("../../docs/reference/httproute.md");
const OTHERS: &str = include_str!("../../docs/reference/gateway-api.md");

/// The leaves of each kind's `spec`, without `spec.`, with their types and ranges.
fn schema() -> BTreeMap<&'static str, Vec<(&'static str, &'static str)>> {
    let mut kinds: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut kind = "";
    for line in SCHEMA.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ') {
            None => kind = line,
            Some((path, of)) => {
                kinds.entry(kind).or_default().push((path.strip_prefix("spec.").unwrap(), of))
            }
        }
    }
    kinds
}

/// The part of the documentation that is about a kind.
fn page(kind: &str) -> &'static str {
    if kind == "HTTPRoute" {
        return HTTPROUTE;
    }
    let section = OTHERS.split("\n## ").find(|section| section.starts_with(&format!("{kind}\n")));
    section.unwrap_or_else(|| panic!("docs/reference/gateway-api.md has no section {kind}"))
}

/// The fields in the first column of a page's tables.
fn documented(page: &'static str) -> Vec<&'static str> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect()
}

/// Whether a documented field is this one, or stands for everything below it (`tls.*`).
fn covers(documented: &str, field: &str) -> bool {
    documented == field || documented.strip_suffix('*').is_some_and(|above| field.starts_with(above))
}

#[test]
fn the_documentation_has_every_field_of_the_schema_and_no_other() {
    for (kind, fields) in schema() {
        let documented = documented(page(kind));
        for (field, _) in &fields {
            let rows = documented.iter().filter(|row| covers(row, field)).count();
            assert_eq!(rows, 1, "{kind}: {field} is in {rows} rows of the documentation");
        }
        for row in &documented {
            assert!(fields.iter().any(|(field, _)| covers(row, field)), "{kind}: {row} isn't in the schema");
        }
    }
}

/// A spec in which every field is set.
fn everything(fields: &[(&str, &str)]) -> Value {
    let mut spec = json!({});
    for (path, of) in fields {
        let value = match of.split(' ').next().unwrap() {
            "integer" => json!(1),
            "boolean" => json!(true),
            "map" => json!({"a": "b"}),
            _ => json!("a"),
        };
        set(&mut spec, &path.split('.').collect::<Vec<_>>(), value);
    }
    spec
}

fn set(at: &mut Value, path: &[&str], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        *at = value;
        return;
    };
    match first.strip_suffix("[]") {
        Some(list) => {
            if at.get(list).is_none() {
                at[list] = json!([{}]);
            }
            set(&mut at[list][0], rest, value);
        }
        None => {
            if at.get(first).is_none() {
                at[*first] = json!({});
            }
            set(&mut at[*first], rest, value);
        }
    }
}

fn object(kind: &str, spec: Value) -> Object {
    let group = if kind.starts_with('X') {
        "gateway.networking.x-k8s.io/v1alpha1"
    } else {
        "gateway.networking.k8s.io/v1"
    };
    let value =
        json!({"apiVersion": group, "kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec});
    let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
    Object::from_value(value, &origin).unwrap()
}

/// What a reader has to complain about.
fn complaints<T>(part: &Lenient<T>) -> Vec<String> {
    part.value.as_ref().err().map(ToString::to_string).into_iter().chain(part.unknown.clone()).collect()
}

fn complaints_about(kind: &str, object: &Object) -> Vec<String> {
    let kind = match kind {
        "HTTPRoute" => RouteKind::Http,
        "GRPCRoute" => RouteKind::Grpc,
        "TLSRoute" => RouteKind::Tls,
        "TCPRoute" => RouteKind::Tcp,
        "ReferenceGrant" => return complaints(&ReferenceGrant::read(object)),
        "XBackend" => return complaints(&XBackend::read(object).spec),
        "XBackendTrafficPolicy" => return complaints(&TrafficPolicy::read(object).spec),
        other => panic!("no reader for {other}"),
    };
    let route = Route::read(kind, object);
    let rules: Vec<String> = match &route.rules {
        Rules::Http(rules) => rules.iter().flat_map(complaints).collect(),
        Rules::Grpc(rules) => rules.iter().flat_map(complaints).collect(),
        Rules::Stream(rules) => rules.iter().flat_map(complaints).collect(),
        Rules::Unreadable => vec!["rules".to_owned()],
    };
    [route.unknown.clone(), complaints(&route.parents), complaints(&route.hostnames), rules].concat()
}

#[test]
fn the_reader_knows_every_field_of_the_schema() {
    let schema = schema();
    let kinds: BTreeSet<&str> = schema.keys().copied().collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    for (kind, fields) in schema {
        let object = object(kind, everything(&fields));
        assert_eq!(complaints_about(kind, &object), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn the_reader_complains_about_a_field_that_is_not_in_the_schema_wherever_it_is() {
    for (kind, fields) in schema() {
        // Beside every leaf, except in what isn't looked into because it isn't supported.
        let places: BTreeSet<&str> =
            fields.iter().filter_map(|(field, _)| Some(field.rsplit_once('.')?.0)).collect();
        let opaque = |place: &str| {
            ["externalAuth", "validation", "clientCertificateRef", "externalHostname", "matchLabels"]
                .iter()
                .any(|name| place.split(['.', '[']).any(|part| part == *name))
        };
        for place in places.into_iter().filter(|place| !opaque(place)) {
            let mut spec = everything(&fields);
            let path = format!("{place}.notInTheSchema");
            set(&mut spec, &path.split('.').collect::<Vec<_>>(), json!(1));
            let complaints = complaints_about(kind, &object(kind, spec));
            assert!(
                complaints.iter().any(|complaint| complaint.contains("notInTheSchema")),
                "{kind}: {path}: {complaints:?}"
            );
        }
    }
}
