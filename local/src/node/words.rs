//! Our own labels and annotations on what manifests hold: names that nobody knows and values that nobody understands.
//!
//! Whoever writes `gamut.mesh/mtsl: strict` believes to be safe, so it is said. Annotations of pods are the injector's to
//! check.

use gamut_injector as known;
use gamut_manifest::{Object, nearest};

/// What an object's author should know about its labels and annotations, a sentence each.
pub(crate) fn warnings(object: &Object) -> Vec<String> {
    let (labels, annotations) = match (object.group(), object.kind.as_str()) {
        ("", "Namespace") => (known::NAMESPACE_LABELS, Some(known::NAMESPACE_ANNOTATIONS)),
        ("", "Service") => (&[][..], Some(known::SERVICE_ANNOTATIONS)),
        ("", "Pod") => (known::POD_LABELS, None),
        ("apps" | "batch", _) => (known::POD_LABELS, None),
        (_, kind) if kind.ends_with("Route") => (&[][..], Some(known::ROUTE_ANNOTATIONS)),
        _ => return Vec::new(),
    };
    let mut warnings = Vec::new();
    let own_labels = match object.group() {
        "apps" | "batch" => labels_of_template(object),
        _ => object.labels.keys().cloned().collect(),
    };
    warnings.extend(
        own_labels
            .iter()
            .filter_map(|name| unknown("label", name, labels, annotations.unwrap_or(known::POD_ANNOTATIONS))),
    );
    if let Some(annotations) = annotations {
        let names = object.annotations.keys();
        warnings.extend(names.filter_map(|name| unknown("annotation", name, annotations, labels)));
    }
    warnings
}

/// Values of a namespace that are read as the strictest there is, because they can't be read. A sentence each.
pub(crate) fn errors(object: &Object) -> Vec<String> {
    let mode = object.annotations.get(known::MTLS).filter(|_| object.kind == "Namespace");
    let bad = mode.filter(|mode| !["strict", "permissive"].contains(&mode.as_str()));
    let error = bad.map(|mode| {
        format!(
            "annotation {}: {mode:?} is not a mode; strict is in force; write strict or permissive",
            known::MTLS
        )
    });
    error.into_iter().collect()
}

/// Why nobody can tell whether a namespace's pods get sidecars, if that is so.
pub(crate) fn unreadable_choice(object: &Object) -> Option<String> {
    let value = object.labels.get(known::INJECT).filter(|_| object.kind == "Namespace")?;
    (!["enabled", "disabled"].contains(&value.as_str())).then(|| {
        format!("label {}: {value:?} says neither yes nor no; write enabled or disabled", known::INJECT)
    })
}

fn labels_of_template(object: &Object) -> Vec<String> {
    let labels = object.raw.pointer("/spec/template/metadata/labels").and_then(serde_json::Value::as_object);
    labels.into_iter().flat_map(|labels| labels.keys().cloned()).collect()
}

/// `elsewhere`: the names of the other sort, for who has taken a label for an annotation.
fn unknown(sort: &str, name: &str, names: &[&str], elsewhere: &[&str]) -> Option<String> {
    if !name.starts_with(known::PREFIX) || names.contains(&name) {
        return None;
    }
    let other = if sort == "label" { "an annotation" } else { "a label" };
    let remedy = match nearest(name, names.iter().copied()) {
        _ if elsewhere.contains(&name) => format!("it is {other}: write it there"),
        Some(meant) => format!("write {meant}, if that was meant"),
        None if names.is_empty() => "this kind of object has none of that name".to_owned(),
        None => format!("known here: {}", names.join(", ")),
    };
    Some(format!("{sort} {name} is unknown and does nothing; {remedy}"))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;
    use serde_json::{Value, json};

    use super::*;

    fn object(value: Value) -> Object {
        let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
        Object::from_value(value, &origin).unwrap()
    }

    fn namespace(labels: Value, annotations: Value) -> Object {
        let metadata = json!({"name": "shop", "labels": labels, "annotations": annotations});
        object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    }

    #[test]
    fn a_misspelt_name_is_told_with_the_one_that_was_meant() {
        let shop = namespace(
            json!({"gamut.mesh/injct": "enabled", "team": "a"}),
            json!({"gamut.mesh/mtsl": "strict", "other/thing": "x"}),
        );
        assert_eq!(
            warnings(&shop),
            [
                "label gamut.mesh/injct is unknown and does nothing; write gamut.mesh/inject, if that was meant",
                "annotation gamut.mesh/mtsl is unknown and does nothing; write gamut.mesh/mtls, if that was meant",
            ]
        );
    }

    #[test]
    fn a_label_that_was_written_as_an_annotation_and_the_other_way_round_is_told_where_it_belongs() {
        let shop = namespace(json!({"gamut.mesh/mtls": "strict"}), json!({"gamut.mesh/inject": "enabled"}));
        assert_eq!(
            warnings(&shop),
            [
                "label gamut.mesh/mtls is unknown and does nothing; it is an annotation: write it there",
                "annotation gamut.mesh/inject is unknown and does nothing; it is a label: write it there",
            ]
        );
    }

    #[test]
    fn every_kind_has_its_own_names() {
        let service = |name: &str| {
            let metadata = json!({"name": "a", "annotations": {name: "1"}});
            warnings(&object(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}))).len()
        };
        assert_eq!((service("gamut.mesh/opaque-ports"), service("gamut.mesh/mtls")), (0, 1));
        let route = |name: &str| {
            let metadata = json!({"name": "a", "annotations": {name: "1"}});
            let group = "gateway.networking.k8s.io/v1";
            warnings(&object(json!({"apiVersion": group, "kind": "HTTPRoute", "metadata": metadata}))).len()
        };
        assert_eq!((route("gamut.mesh/session-scope"), route("gamut.mesh/sesion-scope")), (0, 1));
        let template = json!({"metadata": {"labels": {"gamut.mesh/injekt": "enabled"}}});
        let metadata = json!({"name": "a"});
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"template": template}});
        assert_eq!(warnings(&object(deployment)).len(), 1);
    }

    #[test]
    fn a_mode_that_cannot_be_read_is_an_error() {
        assert_eq!(
            errors(&namespace(json!({}), json!({"gamut.mesh/mtls": "stritc"}))),
            [
                "annotation gamut.mesh/mtls: \"stritc\" is not a mode; strict is in force; write strict or permissive"
            ]
        );
        assert_eq!(errors(&namespace(json!({}), json!({"gamut.mesh/mtls": "permissive"}))), [""; 0]);
    }
}
