//! What is wrong with routes, policies and XBackends, as the controller says in their statuses: for people at a terminal, who don't look there.
//! And what no status says: a route that misses its Service has none.

use std::collections::BTreeSet;

use gamut_controller::gateway::{Route, name_of};
use gamut_manifest::Object;
use gamut_route::{NamespacedName, RouteKind};
use serde_json::Value;

use super::{admission::line, report};

/// A line for each condition that isn't as its author will want it, and for what is allowed and hardly meant. A status that
/// is about an older generation says nothing.
pub(crate) fn problems<'a>(objects: impl Iterator<Item = &'a Object> + Clone) -> BTreeSet<String> {
    let services: BTreeSet<NamespacedName> =
        objects.clone().filter(|object| object.kind == "Service").map(name_of).collect();
    let doubts = objects.clone().flat_map(|object| doubts(object, &services));
    let judged = objects.filter(|object| {
        object.kind.ends_with("Route") || matches!(object.kind.as_str(), "XBackend" | "XBackendTrafficPolicy")
    });
    let status = |object: &Object| report::status(&object.id()).unwrap_or_default();
    judged.flat_map(|object| of_object(object, &status(object))).chain(doubts).collect()
}

fn doubts(object: &Object, services: &BTreeSet<NamespacedName>) -> Vec<String> {
    let kinds = [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp];
    let Some(kind) = kinds.into_iter().find(|kind| kind.as_str() == object.kind) else { return Vec::new() };
    // Nothing is filled in here: who writes Gateway means it.
    let doubts = Route::read(kind, object).doubts(|name| services.contains(name), |_| true);
    doubts.iter().map(|doubt| line(&object.origin, &object.id(), doubt)).collect()
}

/// Routes have parents, the others ancestors; an XBackend says the same to each of them, which is told once.
fn of_object(object: &Object, status: &Value) -> BTreeSet<String> {
    let lists = ["parents", "ancestors"].map(|list| status.get(list).and_then(Value::as_array));
    let entries = lists.into_iter().flatten().flatten();
    let conditions = entries.filter_map(|entry| entry.get("conditions")?.as_array()).flatten();
    let current = conditions.filter(|condition| condition["observedGeneration"] == object.generation);
    current.filter_map(in_words).map(|problem| line(&object.origin, &object.id(), &problem)).collect()
}

/// `PartiallyInvalid` is the one condition that is bad when it is true.
fn in_words(condition: &Value) -> Option<String> {
    let text = |field: &str| condition.get(field).and_then(Value::as_str);
    let (kind, reason, message) = (text("type")?, text("reason")?, text("message")?);
    let bad = if kind == "PartiallyInvalid" { "True" } else { "False" };
    (text("status")? == bad).then(|| format!("{kind} is {bad}: {reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_that_are_bad_and_current_are_told_with_the_routes_place() {
        let metadata = json!({"name": "web", "namespace": "demo", "generation": 2});
        let route =
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata});
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 7 };
        let route = Object::from_value(route, &origin).unwrap();
        let condition = |kind: &str, status: &str, generation: i64| json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": generation});
        let status = json!({"parents": [{"conditions": [
            condition("Accepted", "True", 2),
            condition("ResolvedRefs", "False", 2),
            condition("PartiallyInvalid", "True", 2),
            condition("Accepted", "False", 1),
        ]}]});
        let lines = of_object(&route, &status);
        assert_eq!(
            lines.into_iter().collect::<Vec<_>>(),
            [
                "web.yaml:7: HTTPRoute demo/web: PartiallyInvalid is True: R: m",
                "web.yaml:7: HTTPRoute demo/web: ResolvedRefs is False: R: m",
            ]
        );
        assert!(of_object(&route, &Value::Null).is_empty());
    }

    #[test]
    fn a_route_that_misses_its_service_is_told_with_its_place() {
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 7 };
        let object = |value: Value| Object::from_value(value, &origin).unwrap();
        let metadata = json!({"name": "web", "namespace": "demo"});
        let route = object(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata,
            "spec": {"parentRefs": [{"name": "web"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
        }));
        let service = object(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}));
        let lines = problems([&route, &service].into_iter());
        assert_eq!(lines.len(), 1);
        let expected =
            "web.yaml:7: HTTPRoute demo/web: spec.parentRefs[0]: without a kind it names a Gateway";
        assert!(lines.iter().all(|line| line.starts_with(expected)), "{lines:?}");
        assert!(problems([&route].into_iter()).is_empty(), "there is no such Service");
    }

    #[test]
    fn a_refused_policy_is_told_once_whatever_it_is_for() {
        let policy = json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy",
            "metadata": {"name": "sticky", "namespace": "demo", "generation": 1},
        });
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
        let policy = Object::from_value(policy, &origin).unwrap();
        let refused = json!({"conditions": [
            {"type": "Accepted", "status": "False", "reason": "R", "message": "m", "observedGeneration": 1},
        ]});
        let lines = of_object(&policy, &json!({"ancestors": [refused, refused]}));
        assert_eq!(
            lines.into_iter().collect::<Vec<_>>(),
            ["web.yaml:1: XBackendTrafficPolicy demo/sticky: Accepted is False: R: m"]
        );
    }
}
