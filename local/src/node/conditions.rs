//! What is wrong with routes, as the controller says in their statuses: for people at a terminal, who don't look there.

use std::collections::BTreeSet;

use gamut_manifest::Object;
use serde_json::Value;

use super::{admission::line, report};

/// A line for each condition that isn't as its author will want it. A status that is about an older generation says
/// nothing.
pub(crate) fn problems<'a>(objects: impl Iterator<Item = &'a Object>) -> BTreeSet<String> {
    let routes = objects.filter(|object| object.kind.ends_with("Route"));
    let status = |route: &Object| report::status(&route.id()).unwrap_or_default();
    routes.flat_map(|route| of_route(route, &status(route))).collect()
}

fn of_route(route: &Object, status: &Value) -> BTreeSet<String> {
    let parents = status.get("parents").and_then(Value::as_array).into_iter().flatten();
    let conditions = parents.filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
    let current = conditions.filter(|condition| condition["observedGeneration"] == route.generation);
    current.filter_map(in_words).map(|problem| line(&route.origin, &route.id(), &problem)).collect()
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
        let lines = of_route(&route, &status);
        assert_eq!(
            lines.into_iter().collect::<Vec<_>>(),
            [
                "web.yaml:7: HTTPRoute demo/web: PartiallyInvalid is True: R: m",
                "web.yaml:7: HTTPRoute demo/web: ResolvedRefs is False: R: m",
            ]
        );
        assert!(of_route(&route, &Value::Null).is_empty());
    }
}
