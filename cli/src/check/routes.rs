//! Routes that aren't in force, or not whole: their status says so, and nobody looks at a status that was never asked for.

use gamut_controller::status::CONTROLLER;
use gamut_manifest::Object;
use gamut_route::RouteKind;
use serde_json::Value;

use super::{
    finding::Finding,
    words::{count, few},
};
use crate::world::World;

const WHAT: &str = "routes";

/// What the controller says of the routes of a namespace, or of all; nothing where there are none.
pub(super) async fn all(world: &World, namespace: Option<&str>) -> Option<Finding> {
    let (mut routes, mut wrong) = (0, Vec::new());
    for kind in [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp] {
        let objects = match world.objects(kind.as_str()).await {
            Ok(objects) => objects.unwrap_or_default(),
            Err(error) => {
                return Some(Finding::unknown(
                    WHAT,
                    format!("can't be examined: {error:#}"),
                    "ask as somebody who has the role for it (docs/reference/cli.md), or try again",
                ));
            }
        };
        for route in objects.iter().filter(|route| is_in(route, namespace)) {
            routes += 1;
            wrong.extend(wrong_of(route));
        }
    }
    match (routes, wrong.is_empty()) {
        (0, _) => None,
        (routes, true) => Some(Finding::ok(WHAT, format!("{} without complaints", count(routes, "route")))),
        (_, false) => Some(Finding::warning(
            WHAT,
            few(&wrong),
            "gamut routes -n NAMESPACE shows the whole message; gamut explain, what happens to a request meanwhile",
        )),
    }
}

fn is_in(route: &Object, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|wanted| route.namespace.as_deref() == Some(wanted))
}

/// The first complaint about a route, if there is any.
fn wrong_of(route: &Object) -> Option<String> {
    let parents = route.raw.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten();
    let ours = parents.filter(|parent| text(parent, "/controllerName") == CONTROLLER);
    let mut conditions = ours.filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
    let condition = conditions.find(|condition| {
        matches!(
            (text(condition, "/type"), text(condition, "/status")),
            ("Accepted" | "ResolvedRefs", "False") | ("PartiallyInvalid", "True")
        )
    })?;
    let namespace = route.namespace.as_deref().unwrap_or_default();
    let (kind, reason) = (text(condition, "/type"), text(condition, "/reason"));
    let what = if kind == "PartiallyInvalid" { kind.to_owned() } else { format!("not {kind}") };
    Some(format!("{} {namespace}/{}: {what} ({reason})", route.kind, route.name))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::scripted::{self, forbidden, list};

    const PATH: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";

    fn route(name: &str, conditions: &[(&str, &str, &str)]) -> Value {
        let condition = |(kind, status, reason): &(&str, &str, &str)| json!({"type": kind, "status": status, "reason": reason});
        let conditions: Vec<Value> = conditions.iter().map(condition).collect();
        json!({
            "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": {},
            "status": {"parents": [
                {"controllerName": "other.example/gateway", "conditions": [{"type": "Accepted", "status": "False"}]},
                {"controllerName": CONTROLLER, "conditions": conditions},
            ]},
        })
    }

    #[tokio::test]
    async fn a_route_that_is_not_in_force_is_named_with_the_reason_and_anothers_verdict_is_not_ours() {
        let good =
            route("good", &[("Accepted", "True", "Accepted"), ("ResolvedRefs", "True", "ResolvedRefs")]);
        let lost =
            route("lost", &[("Accepted", "True", "Accepted"), ("ResolvedRefs", "False", "BackendNotFound")]);
        let world = scripted::world(vec![(PATH, list(&[good, lost]))]);
        let finding = all(&world, None).await.unwrap();
        assert_eq!(finding.detail, "HTTPRoute shop/lost: not ResolvedRefs (BackendNotFound)");
        assert!(all(&world, Some("other")).await.is_none(), "there are none");
    }

    #[tokio::test]
    async fn who_may_not_read_routes_hears_that_they_are_unknown() {
        let world = scripted::world(vec![(PATH, forbidden("httproutes is forbidden"))]);
        assert!(all(&world, None).await.unwrap().detail.contains("forbidden"));
    }
}
