//! Routes that aren't in force, or not whole: their status says so, and nobody looks at a status that was never asked for.
//! Of those that miss their Service there is no status, and those that answer 500 as they are written have a good one.

use std::collections::BTreeSet;

use gamut_controller::{
    gateway::{Route, name_of},
    status::CONTROLLER,
};
use gamut_manifest::Object;
use gamut_route::{NamespacedName, RouteKind};
use serde_json::Value;

use super::finding::Finding;
use crate::{
    output::{count, few_lines},
    routes,
    world::{Objects, Place, World},
};

const WHAT: &str = "routes";

/// What the controller says of the routes of a namespace, or of all; nothing where there are none.
pub(super) async fn all(world: &World, namespace: Option<&str>) -> Option<Finding> {
    let services = world.objects("Service").await.ok().flatten().unwrap_or_default();
    let services: BTreeSet<NamespacedName> = services.iter().map(name_of).collect();
    let gateways = world.gateways().await;
    let is_gateway = |name: &NamespacedName| gateways.as_ref().is_none_or(|gateways| gateways.contains(name));
    let (mut routes, mut wrong, mut namespaces) = (0, Vec::new(), BTreeSet::new());
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
            let doubt = || {
                let doubts = Route::read(kind, route).doubts(|name| services.contains(name), is_gateway);
                doubts.into_iter().next()
            };
            let complaint = wrong_of(route).or_else(doubt);
            if let Some(complaint) = complaint {
                let name = name_of(route);
                wrong.push(format!("{} {name}: {complaint}", route.kind));
                namespaces.insert(name.namespace);
            }
        }
    }
    match (routes, wrong.is_empty()) {
        (0, _) => None,
        (routes, true) => Some(Finding::ok(WHAT, format!("{} without complaints", count(routes, "route")))),
        (_, false) => Some(Finding::warning(
            WHAT,
            few_lines(&wrong),
            format!(
                "gamut routes {} shows the whole message; gamut explain, what happens to a request meanwhile",
                where_to_look(&namespaces)
            ),
        )),
    }
}

/// The flag that shows all of these namespaces.
fn where_to_look(namespaces: &BTreeSet<String>) -> String {
    match namespaces.first().filter(|_| namespaces.len() == 1) {
        Some(namespace) => format!("-n {namespace}"),
        None => "-A".to_owned(),
    }
}

/// Backends that a route gives a share and that nobody answers for, and those whose pods are outside of the mesh; nothing
/// where that isn't known.
pub(super) async fn backends(world: &World, place: &Place, namespace: Option<&str>) -> Vec<Finding> {
    let Ok(objects) = Objects::of_backends(world, place.clone()).await else { return Vec::new() };
    let report = routes::of(place.clone(), &[], objects, |of| namespace.is_none_or(|wanted| wanted == of));
    let lines = |of: fn(&routes::Route) -> &[String]| {
        let named = |route: &routes::Route| {
            let name = format!("{} {}/{}", route.kind, route.namespace, route.name);
            of(route).iter().map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        };
        report.routes.iter().flat_map(named).collect::<Vec<String>>()
    };
    let (silent, bare) = (lines(|route| &route.silent), lines(|route| &route.bare));
    let no_endpoint = "their share of the requests is answered 503: correct the Service's selector, or see why its pods aren't ready";
    let no_sidecar = "no mTLS and no inbound policy there: kubectl label namespace NAME gamut.mesh/inject=enabled, then restart \
                      their workloads; the label gamut.mesh/inject=disabled on the pods says that this is meant";
    let found =
        [(silent, no_endpoint), (bare, no_sidecar)].into_iter().filter(|(lines, _)| !lines.is_empty());
    found.map(|(lines, remedy)| Finding::warning("backends", few_lines(&lines), remedy)).collect()
}

fn is_in(route: &Object, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|wanted| route.namespace.as_deref() == Some(wanted))
}

/// The complaints about a route, if there are any.
fn wrong_of(route: &Object) -> Option<String> {
    let parents = route.raw.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten();
    let ours = parents.filter(|parent| text(parent, "/controllerName") == CONTROLLER);
    let conditions = ours.filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
    let is_complaint = |condition: &&Value| {
        matches!(
            (text(condition, "/type"), text(condition, "/status")),
            ("Accepted" | "ResolvedRefs", "False") | ("PartiallyInvalid", "True")
        )
    };
    let said = |condition: &Value| {
        let (kind, reason) = (text(condition, "/type"), text(condition, "/reason"));
        let what = if kind == "PartiallyInvalid" { kind.to_owned() } else { format!("not {kind}") };
        match text(condition, "/message") {
            "" => format!("{what} ({reason})"),
            message => format!("{what} ({reason}): {}", shortened(message)),
        }
    };
    // Of several parents all may say the same.
    let said: BTreeSet<String> = conditions.filter(is_complaint).map(said).collect();
    (!said.is_empty()).then(|| said.into_iter().collect::<Vec<_>>().join("; "))
}

/// So much of a message as a line can hold. `gamut routes` has it whole.
fn shortened(message: &str) -> String {
    const LONGEST: usize = 160;
    match message.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", message.get(..end).unwrap_or(message)),
        None => message.to_owned(),
    }
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
        assert!(finding.remedy.unwrap().starts_with("gamut routes -n shop shows"));
        assert_eq!(where_to_look(&["a", "b"].map(str::to_owned).into()), "-A");
        assert!(all(&world, Some("other")).await.is_none(), "there are none");
    }

    #[tokio::test]
    async fn a_route_that_misses_its_service_and_one_that_only_fails_are_no_good_ones() {
        let route = |name: &str, parent: Value, rules: Value| {
            let spec = json!({"parentRefs": [parent], "rules": rules});
            json!({"metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": spec})
        };
        let (good, bad) = (json!([{"backendRefs": [{"name": "web", "port": 80}]}]), json!([{}]));
        let missed = route("missed", json!({"kind": "Service", "name": "web"}), good);
        let futile = route("futile", json!({"group": "", "kind": "Service", "name": "web"}), bad);
        let world = scripted::world(vec![(PATH, list(&[missed, futile]))]);
        let finding = all(&world, None).await.unwrap();
        assert_eq!(
            finding.detail,
            "HTTPRoute shop/missed: spec.parentRefs[0]: kind Service of group gateway.networking.k8s.io is no Service; \
             write group: \"\" to attach the route to Service shop/web\nHTTPRoute shop/futile: rules[0] has no backendRefs and no \
             filter that answers, so requests that it matches are answered 500; name a backend"
        );
    }

    #[tokio::test]
    async fn what_an_api_server_filled_in_does_not_hide_that_a_service_was_meant() {
        let group = "gateway.networking.k8s.io";
        let parent = json!({"group": group, "kind": "Gateway", "name": "web"});
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let route = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"}, "spec": {"parentRefs": [parent], "rules": rules},
        });
        let named = json!({"metadata": {"namespace": "shop", "name": "web"}});
        let documents =
            vec![("/api/v1/services", list(std::slice::from_ref(&named))), (PATH, list(&[route]))];
        let finding = all(&scripted::world(documents.clone()), None).await.unwrap();
        assert!(
            finding.detail.contains("there is no Gateway shop/web; write group: \"\""),
            "{}",
            finding.detail
        );

        let gateways = "/apis/gateway.networking.k8s.io/v1/gateways";
        for answer in [list(&[named]), forbidden("gateways is forbidden")] {
            let documents = [documents.clone(), vec![(gateways, answer)]].concat();
            let finding = all(&scripted::world(documents), None).await.unwrap();
            assert_eq!(finding.detail, "1 route without complaints", "it may be meant");
        }
    }

    #[tokio::test]
    async fn a_service_that_does_not_exist_is_told_in_the_words_of_the_condition() {
        let mut lost = route("lost", &[("Accepted", "False", "NoMatchingParent")]);
        lost["status"]["parents"][1]["conditions"][0]["message"] = "Service shop/nosuch doesn't exist".into();
        let finding = all(&scripted::world(vec![(PATH, list(&[lost]))]), None).await.unwrap();
        assert_eq!(
            finding.detail,
            "HTTPRoute shop/lost: not Accepted (NoMatchingParent): Service shop/nosuch doesn't exist"
        );
    }

    #[tokio::test]
    async fn a_share_that_nobody_answers_for_is_told_and_one_of_weight_0_is_not() {
        let service = |name: &str| {
            json!({
                "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
                "spec": {"clusterIP": "10.0.0.1", "selector": {"app": name}, "ports": [{"port": 80}]},
            })
        };
        let backends = json!([{"name": "web", "port": 80}, {"name": "old", "port": 80, "weight": 0}]);
        let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{"backendRefs": backends}]});
        let world = |accepted: &str| {
            let status = json!({"parents": [{
                "parentRef": {"group": "", "kind": "Service", "name": "web"}, "controllerName": CONTROLLER,
                "conditions": [{"type": "Accepted", "status": accepted, "reason": "Some", "message": ""}],
            }]});
            let metadata = json!({"namespace": "shop", "name": "web", "resourceVersion": "1"});
            scripted::world(vec![
                ("/api/v1/services", list(&[service("web"), service("old")])),
                ("/api/v1/pods", list(&[])),
                ("/apis/discovery.k8s.io/v1/endpointslices", list(&[])),
                (PATH, list(&[json!({"metadata": metadata, "spec": spec, "status": status})])),
            ])
        };
        let findings = self::backends(&world("True"), &Place::Machine, None).await;
        let told: Vec<&str> = findings.iter().map(|finding| finding.detail.as_str()).collect();
        assert_eq!(told, ["HTTPRoute shop/web: web:80: no ready endpoint: selector app=web matches no pod"]);
        let elsewhere = self::backends(&world("True"), &Place::Machine, Some("other")).await;
        assert!(elsewhere.is_empty(), "not of its routes");
        let refused = self::backends(&world("False"), &Place::Machine, None).await;
        assert!(refused.is_empty(), "what isn't in force has no share: {refused:?}");
    }

    #[tokio::test]
    async fn pods_that_a_route_leads_out_of_the_mesh_are_told_unless_they_say_that_it_is_meant() {
        let service = json!({
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        let route = json!({
            "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
            },
        });
        let endpoint = json!({
            "addresses": ["10.244.0.7"], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u-1"},
        });
        let slice = json!({
            "metadata": {"name": "web-x", "namespace": "shop", "resourceVersion": "1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": [endpoint],
        });
        let told = async |labels: Value, init: Value| {
            let pod = json!({
                "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "resourceVersion": "1", "labels": labels},
                "spec": {"containers": [{"name": "app"}], "initContainers": init},
                "status": {
                    "phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "initContainerStatuses": [{"name": "gamut-proxy", "started": true, "ready": true, "state": {"running": {}}}],
                },
            });
            let world = scripted::world(vec![
                ("/api/v1/services", list(std::slice::from_ref(&service))),
                ("/api/v1/pods", list(&[pod])),
                ("/apis/discovery.k8s.io/v1/endpointslices", list(std::slice::from_ref(&slice))),
                (PATH, list(std::slice::from_ref(&route))),
            ]);
            let findings = self::backends(&world, &Place::Machine, None).await;
            findings.into_iter().map(|finding| finding.detail).collect::<Vec<_>>()
        };
        assert_eq!(
            told(json!({"app": "web"}), json!([])).await,
            ["HTTPRoute shop/web: web:80: no sidecar at 1 of 1 pods: they are sent plaintext"]
        );
        let meant = told(json!({"app": "web", "gamut.mesh/inject": "disabled"}), json!([])).await;
        assert_eq!(meant, [""; 0]);
        let labels = json!({"app": "web", "gamut.mesh/injected": "true"});
        let meshed = told(labels, json!([{"name": "gamut-proxy", "restartPolicy": "Always"}])).await;
        assert_eq!(meshed, [""; 0]);
    }

    #[tokio::test]
    async fn who_may_not_read_routes_hears_that_they_are_unknown() {
        let world = scripted::world(vec![(PATH, forbidden("httproutes is forbidden"))]);
        assert!(all(&world, None).await.unwrap().detail.contains("forbidden"));
    }
}
