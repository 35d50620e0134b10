//! Flagger and Argo Rollouts as this mesh meets them: what they write into an HTTPRoute, and what they ask Prometheus before the
//! next step. The tests write and ask the same; the machinery in between, which is theirs, is left out.
//!
//! - Flagger, provider `gatewayapi:v1`: `pkg/router/gateway_api.go` writes the route, `pkg/metrics/observers/istio.go` has the queries (what its
//!   factory gives to providers without queries of their own).
//! - Argo Rollouts with `rollouts-plugin-trafficrouter-gatewayapi`: `pkg/plugin/httproute.go`; the query is that of Argo's page about analysis.

use serde_json::{Value, json};

use crate::harness::{
    App, Load, Mesh, app, assert_no_failure, by_version, namespace, prometheus::Prometheus, service_with,
};

/// Releases that steps of a canary lead to: the Service that clients call, and one for each version.
fn release(stable: &str, canary: &str, route: &Value, services: [&str; 2]) -> Mesh {
    let ports = "[{name: http, port: 80, targetPort: 8080}]";
    let in_shop = |app: App| app.in_namespace("shop");
    let mesh = Mesh::up(&[
        namespace("shop", "strict"),
        in_shop(app("client")),
        in_shop(app(stable)),
        in_shop(app(canary)),
        service_with("shop", "podinfo", stable, ports, ""),
        service_with("shop", services[0], stable, ports, ""),
        service_with("shop", services[1], canary, ports, ""),
    ]);
    update(&mesh, route);
    mesh
}

/// What a controller's update of the route is on a machine: its file is saved. Returns when the weights are in force everywhere.
fn update(mesh: &Mesh, route: &Value) {
    mesh.save("route.json", &route.to_string());
    mesh.settle();
}

/// How many percent of the next answers come from a version.
fn share(load: &mut Load, version: &str) -> f64 {
    let answers = load.more(600);
    assert_no_failure(&answers);
    by_version(&answers).get(version).copied().unwrap_or(0) as f64 / 6.0
}

/// The route as Flagger makes and updates it: always whole, with these weights.
fn flaggers_route(primary: u32, canary: u32) -> Value {
    let backend = |name: &str, weight: u32| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "podinfo", "namespace": "shop", "annotations": {}},
        "spec": {
            // The `gatewayRefs` of a Canary for a mesh. Flagger's documentation has the group "core".
            "parentRefs": [{"group": "core", "kind": "Service", "name": "podinfo", "namespace": "shop", "port": 80}],
            "hostnames": [],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [backend("podinfo-primary", primary), backend("podinfo-canary", canary)],
            }],
        },
    })
}

/// Flagger's `request-success-rate` of a workload, in percent, over this interval.
fn flaggers_success_rate(target: &str, interval: &str) -> String {
    let labels = format!(
        r#"reporter="destination", destination_workload_namespace="shop", destination_workload=~"{target}""#
    );
    format!(
        r#"sum(rate(istio_requests_total{{{labels}, response_code!~"5.*"}}[{interval}])) / sum(rate(istio_requests_total{{{labels}}}[{interval}])) * 100"#
    )
}

/// Flagger's `request-duration` of a workload, in milliseconds: 99 of 100 requests take no longer.
fn flaggers_duration(target: &str, interval: &str) -> String {
    let labels = format!(
        r#"reporter="destination", destination_workload_namespace="shop", destination_workload=~"{target}""#
    );
    format!(
        "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{{{labels}}}[{interval}])) by (le))"
    )
}

#[test]
fn flagger_walks_a_canary_to_its_end_and_takes_back_one_that_fails() {
    let mesh =
        release("podinfo-primary", "podinfo", &flaggers_route(100, 0), ["podinfo-primary", "podinfo-canary"]);
    let Some(prometheus) = Prometheus::beside(&mesh) else { return };
    let mut users = mesh.load("shop/deploy/client", &["http://podinfo/"]);
    assert_eq!(share(&mut users, "podinfo"), 0.0, "nobody meets the canary before its first step");

    for weight in [10, 50] {
        update(&mesh, &flaggers_route(100 - weight, weight));
        let got = share(&mut users, "podinfo");
        assert!(got > 0.0 && (got - f64::from(weight)).abs() < 12.0, "{weight} was set, and {got} % came");
        // The step that comes next depends on these two.
        prometheus.value(&flaggers_success_rate("podinfo", "1m"), |percent| percent == 100.0);
        prometheus.value(&flaggers_duration("podinfo", "1m"), |milliseconds| {
            milliseconds > 0.0 && milliseconds < 500.0
        });
    }

    // Flagger's load tester calls the canary's own Service. This release fails there.
    mesh.load("shop/deploy/client", &["http://podinfo-canary/?status=503", "--count=1500"]).finish();
    prometheus.value(&flaggers_success_rate("podinfo", "1m"), |percent| percent < 99.0);
    prometheus.value(&flaggers_success_rate("podinfo-primary", "1m"), |percent| percent == 100.0);
    update(&mesh, &flaggers_route(100, 0));
    assert_eq!(share(&mut users, "podinfo"), 0.0, "taken back at once");
    assert_no_failure(&users.finish());
}

/// The route that its owner wrote for Argo Rollouts, before the plug-in's first update.
fn owners_route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "podinfo", "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "podinfo", "port": 80}],
            "rules": [{
                "name": "primary",
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "stable", "port": 80}, {"name": "canary", "port": 80}],
            }],
        },
    })
}

/// The plug-in's `SetWeight`: the weights of the two Services, wherever they stand, and nothing else but its label.
fn set_weight(route: &mut Value, canary: u32) {
    for rule in route["spec"]["rules"].as_array_mut().unwrap() {
        for backend in rule["backendRefs"].as_array_mut().unwrap() {
            backend["weight"] = match backend["name"].as_str() {
                Some("canary") => canary.into(),
                _ => (100 - canary).into(),
            };
        }
    }
    route["metadata"]["labels"] = match canary {
        0 => json!({}),
        _ => json!({"rollouts.argoproj.io/gatewayapi-canary": "in-progress"}),
    };
}

/// The plug-in's `SetHeaderRoute`: one more rule, for those who ask for the canary.
fn set_header_route(route: &mut Value) {
    let mut matches = route["spec"]["rules"][0]["matches"].clone();
    matches[0]["headers"] = json!([{"type": "Exact", "name": "x-canary", "value": "always"}]);
    let canary = json!([{"group": "", "kind": "Service", "name": "canary", "port": 80}]);
    let rule = json!({"matches": matches, "filters": [], "backendRefs": canary});
    route["spec"]["rules"].as_array_mut().unwrap().push(rule);
}

/// The success rate of Argo's page about analysis, for a Service.
fn argos_success_rate(service: &str) -> String {
    let labels = format!(r#"reporter="source",destination_service=~"{service}""#);
    format!(
        r#"sum(irate(istio_requests_total{{{labels},response_code!~"5.*"}}[5m])) / sum(irate(istio_requests_total{{{labels}}}[5m]))"#
    )
}

#[test]
fn argo_rollouts_sets_weights_and_header_routes_and_its_analysis_sees_each_service_alone() {
    let mut route = owners_route();
    set_weight(&mut route, 0);
    let mesh = release("old", "new", &route, ["stable", "canary"]);
    let Some(prometheus) = Prometheus::beside(&mesh) else { return };
    let mut users = mesh.load("shop/deploy/client", &["http://podinfo/"]);

    set_header_route(&mut route);
    update(&mesh, &route);
    let mut testers = mesh.load("shop/deploy/client", &["http://podinfo/", "-H", "x-canary:always"]);
    testers.until_steady("testers meet the canary", 50, |answer| answer.version == "new");
    assert_eq!(share(&mut users, "new"), 0.0, "and nobody else does");
    assert_no_failure(&testers.finish());

    for weight in [20, 100] {
        set_weight(&mut route, weight);
        update(&mesh, &route);
        let got = share(&mut users, "new");
        assert!(got > 0.0 && (got - f64::from(weight)).abs() < 12.0, "{weight} was set, and {got} % came");
        prometheus.value(&argos_success_rate("canary.shop.svc.cluster.local"), |rate| rate >= 0.95);
    }
    assert_no_failure(&users.finish());

    let failing = mesh.load("shop/deploy/client", &["http://podinfo/?status=503"]);
    prometheus.value(&argos_success_rate("canary.shop.svc.cluster.local"), |rate| rate < 0.95);
    failing.finish();
}
