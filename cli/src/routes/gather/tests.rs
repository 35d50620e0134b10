//! Objects and counters in, the report out.

use std::{path::PathBuf, sync::Arc};

use gamut_manifest::{Object, Origin};
use serde_json::json;

use super::*;
use crate::world::scripted::{self, list};

fn route() -> RouteObject {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "parentRefs": [
                {"group": "", "kind": "Service", "name": "web", "port": 80},
                {"group": "", "kind": "Service", "name": "api", "namespace": "other"},
                {"name": "a-gateway"},
            ],
            "rules": [{"name": "split", "backendRefs": [
                {"name": "one", "port": 80, "weight": 2}, {"name": "two", "namespace": "other", "port": 81},
            ]}],
        },
        "status": {"parents": [{
            "parentRef": {"group": "", "kind": "Service", "namespace": "shop", "name": "web", "port": 80},
            "controllerName": "gamut.mesh/controller",
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}],
        }]},
    });
    let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
    RouteObject::read(RouteKind::Http, &Object::from_value(object, &origin).unwrap())
}

fn counted(rule: &str, backend: &str, requests: u64, failed: u64) -> ((String, String, String), Count) {
    (("httproute/shop/web".to_owned(), rule.to_owned(), backend.to_owned()), Count { requests, failed })
}

#[test]
fn a_rules_backends_have_the_shares_that_were_set_and_those_that_were_counted() {
    let counters = [
        counted("split", "service/shop/one:80", 60, 0),
        counted("split", "service/other/two:81", 30, 3),
        counted("other", "service/shop/one:80", 1000, 0),
    ];
    let report = route_report(&route(), None, &Counters { by_rule: counters.into(), ..Counters::default() });
    let backends: Vec<_> =
        report.rules[0].backends.iter().map(|b| (b.id.as_str(), b.share, b.got, b.failed)).collect();
    assert_eq!(
        backends,
        [("service/shop/one:80", 66.7, Some(66.7), 0), ("service/other/two:81", 33.3, Some(33.3), 3)]
    );
}

#[test]
fn what_sidecars_answered_themselves_is_counted_where_it_belongs() {
    let counted = |route: &str, rule: &str, backend: &str, [client, server]: [u64; 2]| {
        let by_class = json!({"informational": 0, "success": 10, "redirection": 0, "client_error": client, "server_error": server});
        json!({
            "route": route, "rule": rule, "parent": "shop/web:80", "backend": backend, "requests": 10 + client + server,
            "byClass": by_class, "connections": 0, "retries": 0, "connectFailures": 0,
        })
    };
    let backends = [
        counted("httproute/shop/web", "split", "service/shop/one:80", [0, 0]),
        counted("httproute/shop/web", "split", "", [0, 30]),
        counted("", "", "", [5, 0]),
    ];
    let pod = |namespace: &str| -> PodReport {
        serde_json::from_value(json!({
            "namespace": namespace, "name": "client", "uid": "1", "workload": "client", "node": "", "ips": [], "phase": "Running",
            "ready": true, "terminating": false, "meshed": true, "containers": [],
            "proxy": {"identity": "spiffe://cluster.local/ns/shop/sa/client", "ready": {"ready": true}, "tables": [], "backends": backends, "sessions": []},
        }))
        .unwrap()
    };
    let counters = Counters::of(&[pod("shop"), pod("other")]);
    let report = route_report(&route(), None, &counters);
    assert_eq!(report.unmatched, 30, "of every namespace: the route is a producer's");
    let own = report.rules[0].own;
    assert_eq!((own.requests, own.got, own.failed), (80, Some(75.0), 60));
    assert_eq!(report.rules[0].backends[0].got, Some(25.0), "what failed is part of the rule's requests");
}

#[test]
fn a_parent_in_two_wordings_has_the_conditions_of_each_once() {
    let entry = |reference: serde_json::Value| {
        json!({
            "parentRef": reference, "controllerName": "gamut.mesh/controller",
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""}],
        })
    };
    let short = json!({"group": "", "kind": "Service", "name": "web"});
    let long = json!({"group": "core", "kind": "Service", "name": "web", "namespace": "shop"});
    let both = json!({"group": "", "kind": "Service", "name": "web", "port": 80, "sectionName": "http"});
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"parentRefs": [short, long, both]},
        "status": {"parents": [entry(short.clone()), entry(long.clone()), entry(both.clone())]},
    });
    let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
    let route = RouteObject::read(RouteKind::Http, &Object::from_value(object, &origin).unwrap());
    let report = route_report(&route, None, &Counters::default());
    let parents: Vec<_> = report.parents.iter().map(|p| (p.reference.as_str(), p.conditions.len())).collect();
    assert_eq!(
        parents,
        [("Service shop/web", 1), ("Service shop/web", 1), ("Service shop/web, port 80 named http", 1)]
    );
}

#[test]
fn each_service_parent_has_its_own_conditions_and_gateways_are_nobodys_here() {
    let report = route_report(&route(), None, &Counters::default());
    let parents: Vec<_> =
        report.parents.iter().map(|p| (p.reference.as_str(), p.role, p.conditions.len())).collect();
    assert_eq!(parents, [("Service shop/web, port 80", "producer", 1), ("Service other/api", "consumer", 0)]);
    assert_eq!(report.rules[0].backends[0].got, None, "nothing counted is no share");
}

#[tokio::test]
async fn sessions_are_shown_whatever_way_they_were_set_and_refused_extensions_with_their_reason() {
    let service = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": name}, "ports": [{"port": 80}]},
        })
    };
    let http = |name: &str, annotations: Value, rule: Value| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1", "annotations": annotations},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [rule]},
        })
    };
    let to = |name: &str| json!([{"name": name, "port": 80}]);
    let desk = json!([{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "desk"}]);
    let header = "type: Header\nheader: {name: x-annotated}";
    let routes = [
        http(
            "a-field",
            json!({}),
            json!({
                "name": "r", "sessionPersistence": {"sessionName": "old", "cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"},
                "backendRefs": to("web"),
            }),
        ),
        http(
            "b-annotation",
            json!({"gamut.mesh/session-persistence": header}),
            json!({"backendRefs": to("web")}),
        ),
        http("c-policy", json!({}), json!({"backendRefs": to("api")})),
        http("d-backend", json!({}), json!({"backendRefs": desk})),
        http("e-none", json!({}), json!({"backendRefs": to("web")})),
    ];
    let status = |status: &str, reason: &str, kind: &str, name: &str| {
        let condition = json!({"type": "Accepted", "status": status, "reason": reason, "message": "why"});
        let reference = json!({"group": "", "kind": kind, "name": name});
        json!({"ancestors": [
            {"ancestorRef": reference, "controllerName": "another", "conditions": [condition]},
            {"ancestorRef": reference, "controllerName": CONTROLLER, "conditions": [condition]},
        ]})
    };
    let policy = |name: &str, target: &str, session: Value, status: Value| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": target}], "sessionPersistence": session},
            "status": status,
        })
    };
    let policies = [
        policy(
            "api",
            "api",
            json!({"cookie": {"name": "of-policy"}}),
            status("True", "Accepted", "Service", "api"),
        ),
        policy("bad", "web", json!({"type": "Token"}), status("False", "UnsupportedValue", "Service", "web")),
    ];
    let backend = json!({
        "metadata": {"name": "desk", "namespace": "shop", "resourceVersion": "1"},
        "spec": {
            "type": "EndpointSelector", "port": {"number": 8080}, "endpointSelector": {"matchLabels": {"app": "web"}},
            "sessionPersistence": {"type": "Header", "header": {"name": "x-desk"}},
        },
        "status": status("True", "Accepted", "Service", "web"),
    });
    let world = scripted::world(vec![
        ("/version", json!({"gitVersion": "v1.34.4"})),
        ("/api/v1/pods", list(&[])),
        ("/api/v1/services", list(&[service("web"), service("api")])),
        ("/apis/gateway.networking.k8s.io/v1/httproutes", list(&routes)),
        ("/apis/gateway.networking.x-k8s.io/v1alpha1/xbackends", list(&[backend])),
        ("/apis/gateway.networking.x-k8s.io/v1alpha1/xbackendtrafficpolicies", list(&policies)),
    ]);
    let report = super::report(&world, &Selection::default()).await.unwrap();
    let sessions: Vec<(&str, Vec<String>)> = report
        .routes
        .iter()
        .map(|route| (route.name.as_str(), route.rules[0].sessions.iter().map(ToString::to_string).collect()))
        .collect();
    let one = |text: &str| vec![text.to_owned()];
    assert_eq!(
        sessions,
        [
            ("a-field", one("session in permanent cookie old for 1h, route scope")),
            ("b-annotation", one("session in header x-annotated, route scope")),
            ("c-policy", one("session in cookie of-policy, route scope")),
            ("d-backend", one("session in header x-desk, scope of backend xbackend/shop/desk")),
            ("e-none", vec![]),
        ]
    );
    let page = super::super::page::page(&report, jiff::Timestamp::UNIX_EPOCH, false).render(false);
    let shown = page.split_once("XBackend shop/desk").unwrap().1;
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn a_clusters_routes_are_read_from_its_api_and_what_it_does_not_know_is_noted() {
    let http = json!({
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "1"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": []},
    });
    let world = scripted::world(vec![
        ("/version", json!({"gitVersion": "v1.34.4"})),
        ("/api/v1/pods", list(&[])),
        ("/apis/gateway.networking.k8s.io/v1beta1/httproutes", list(&[http])),
        ("/apis/gateway.networking.k8s.io/v1/grpcroutes", list(&[])),
    ]);
    let report = super::report(&world, &Selection::default()).await.unwrap();
    let names: Vec<_> = report.routes.iter().map(|r| (r.kind.as_str(), r.name.as_str())).collect();
    assert_eq!(names, [("HTTPRoute", "web")], "read in the version that is served");
    assert_eq!(
        report.notes,
        ["the cluster doesn't know the kinds TLSRoute, TCPRoute: `gamut check` says what to install"]
    );
}
