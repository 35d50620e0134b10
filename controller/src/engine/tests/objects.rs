//! Objects in a line each.

use std::{path::PathBuf, sync::Arc};

use gamut_manifest::{Object, ObjectId, Origin};
use serde_json::{Value, json};

use crate::source::SourceEvent;

pub(super) const WEB: &str = "10.96.0.1:80";

fn applied(value: Value) -> SourceEvent {
    let origin = Origin { file: Arc::new(PathBuf::from("test.yaml")), document: 0, line: 1 };
    SourceEvent::Applied(Box::new(Object::from_value(value, &origin).unwrap()))
}

pub(super) fn service(name: &str, ip: &str) -> SourceEvent {
    applied(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "clusterIP": ip, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
}

/// The endpoints 10.0.0.`n` of a Service.
pub(super) fn endpoints(name: &str, pods: &[u8]) -> SourceEvent {
    slice(name, &format!("{name}-1"), pods)
}

/// A slice of them.
pub(super) fn slice(name: &str, slice: &str, pods: &[u8]) -> SourceEvent {
    let of = |n: &u8| json!({ "addresses": [format!("10.0.0.{n}")], "conditions": { "ready": true } });
    let endpoints: Vec<Value> = pods.iter().map(of).collect();
    applied(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": slice,
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    }))
}

/// A route for `web` that splits among Services.
pub(super) fn route(backends: &[(&str, u32)]) -> SourceEvent {
    route_with(backends, json!({}))
}

/// The same, with a session.
pub(super) fn sticky_route(backends: &[(&str, u32)]) -> SourceEvent {
    route_with(backends, json!({ "sessionPersistence": { "type": "Cookie" } }))
}

fn route_with(backends: &[(&str, u32)], rule: Value) -> SourceEvent {
    let of = |(name, weight): &(&str, u32)| json!({ "name": name, "port": 80, "weight": weight });
    let mut rule = rule;
    rule["backendRefs"] = backends.iter().map(of).collect();
    applied(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "namespace": "shop", "name": "web" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
            "rules": [rule],
        },
    }))
}

/// The installation's session keys.
pub(super) fn session_keys(key: &str) -> SourceEvent {
    applied(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "namespace": "gamut-system", "name": "gamut-session-keys" },
        "data": { "key-1": key },
    }))
}

pub(super) fn deleted(kind: &str, name: &str) -> SourceEvent {
    let (kind, namespace, name) = (kind.to_owned(), Some("shop".to_owned()), name.to_owned());
    SourceEvent::Deleted(ObjectId { kind, namespace, name })
}

/// `web` with versions v1 and v2, of which v1 gets everything.
pub(super) fn canary() -> Vec<SourceEvent> {
    vec![
        service("web", "10.96.0.1"),
        service("web-v1", "10.96.0.2"),
        service("web-v2", "10.96.0.3"),
        endpoints("web-v1", &[1, 2]),
        endpoints("web-v2", &[3]),
        route(&[("web-v1", 1)]),
    ]
}
