//! The controller on a real API server: what it watches, what it writes, and what it survives.

use serde_json::{Value, json};

use crate::harness::{Cluster, until};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}], selector: {app: web}}
";

/// What has a status of ours beside HTTPRoutes.
const OTHER_KINDS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: other, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: other}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: other, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  hostnames: [web.example]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: other, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: other, namespace: shop}
spec: {type: EndpointSelector, port: {number: 8080}, endpointSelector: {matchLabels: {app: web}}}
---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: other, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: web}], retryConstraint: {}}
";

/// Our Accepted condition of a route.
const ACCEPTED: &str = r#".status.parents[?(@.controllerName=="gamut.mesh/controller")].conditions[?(@.type=="Accepted")].status"#;

fn route(name: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: web}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]
"
    )
}

#[test]
fn definitions_may_come_after_the_controller() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.remove_gateway_api();
    let controller = cluster.controller("late", 15_100, &[]);
    controller.says("everything that exists is known");
    cluster.wait_for("gamut-system", "secret/gamut-session-keys");

    cluster.install_gateway_api();
    cluster.apply(SERVICE);
    cluster.apply(&route("web"));
    cluster.wait("shop", "httproute/web", ACCEPTED, "True");
    controller.says("created XMesh gamut");
    controller.terminate();
}

#[test]
fn every_kind_that_has_a_status_gets_its_own() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let controller = cluster.controller("writer", 15_100, &[]);
    cluster.apply(SERVICE);
    cluster.apply(OTHER_KINDS);
    for kind in ["grpcroute", "tlsroute", "tcproute", "xbackend", "xbackendtrafficpolicy"] {
        let object = format!("{kind}/other");
        until(&format!("{kind} has a status"), || {
            cluster.value("shop", &object, ".status").contains("gamut.mesh/controller")
        });
    }
    for kind in ["grpcroute", "tlsroute", "tcproute", "xbackend", "xbackendtrafficpolicy"] {
        cluster.kubectl(&["delete", "-n", "shop", kind, "other"]);
    }
    controller.terminate();
}

#[test]
fn an_api_server_that_crashes_takes_nothing_away_and_is_followed_again() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let controller = cluster.controller("survivor", 15_100, &[]);
    cluster.apply(SERVICE);
    cluster.apply(&route("before"));
    cluster.wait("shop", "httproute/before", ACCEPTED, "True");

    let stopped = cluster.kill_api_server();
    controller.says("what was known stays in force");
    let (_, status) = cluster.get("http://127.0.0.1:15101/status");
    assert!(status.contains(r#""synced": true"#) && status.contains("no answer"), "{status}");

    cluster.start_api_server(stopped);
    controller.says("all kinds are watched again");
    cluster.apply(&route("after"));
    cluster.wait("shop", "httproute/after", ACCEPTED, "True");
    until("the troubles are over", || {
        cluster.get("http://127.0.0.1:15101/status").1.contains(r#""problems": []"#)
    });
    controller.terminate();
}

#[test]
fn entries_of_other_controllers_stay_as_they_are_while_both_write() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    cluster.apply(&route("shared"));
    let controller = cluster.controller("polite", 15_100, &[]);
    cluster.wait("shop", "httproute/shared", ACCEPTED, "False");

    // Another controller rewrites its own entry, as fast as it can, while ours changes with the Service.
    let last = std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..8 {
                cluster.apply(SERVICE);
                cluster.kubectl(&["delete", "-n", "shop", "service", "web"]);
            }
            cluster.apply(SERVICE);
        });
        (0..40).fold(None, |last, turn| if write_foreign_entry(&cluster, turn) { Some(turn) } else { last })
    });
    cluster.wait("shop", "httproute/shared", ACCEPTED, "True");
    let foreign = r#".status.parents[?(@.controllerName=="example.com/other")].conditions[0].message"#;
    assert_eq!(Some(cluster.value("shop", "httproute/shared", foreign)), last.map(|turn| turn.to_string()));
    let first = cluster.value("shop", "httproute/shared", ".status.parents[0].controllerName");
    assert_eq!(first, "example.com/other", "the order has changed");

    // Ours goes with the parentRef, the other's stays.
    cluster.apply(&route("shared").replace("name: web}]\n  rules", "name: web, port: 81}]\n  rules"));
    cluster.wait("shop", "httproute/shared", ACCEPTED, "False");
    let ours = r#".status.parents[?(@.controllerName=="gamut.mesh/controller")].parentRef.port"#;
    assert_eq!(cluster.value("shop", "httproute/shared", ours), "81");

    // And then nobody writes any more.
    let version = |object: &str| cluster.value("shop", object, ".metadata.resourceVersion");
    let before = version("httproute/shared");
    cluster.apply(&route("another"));
    cluster.wait("shop", "httproute/another", ACCEPTED, "True");
    assert_eq!(version("httproute/shared"), before);
    controller.terminate();
}

/// Reads, puts an entry of another controller first, and replaces; false where somebody else was faster.
fn write_foreign_entry(cluster: &Cluster, turn: u32) -> bool {
    let object = cluster.kubectl(&["get", "-n", "shop", "httproute/shared", "-o", "json"]);
    let mut object: Value = serde_json::from_str(&object).unwrap();
    let parents = object["status"]["parents"].as_array_mut().unwrap();
    parents.retain(|parent| parent["controllerName"] != "example.com/other");
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": turn.to_string(),
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    parents.insert(
        0,
        json!({
            "parentRef": {"group": "", "kind": "Service", "name": "web"},
            "controllerName": "example.com/other",
            "conditions": [condition],
        }),
    );
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), object.to_string()).unwrap();
    let replace = ["replace", "--subresource=status", "-f", file.path().to_str().unwrap()];
    cluster.try_kubectl(&replace).status.success()
}

#[test]
fn one_replica_writes_and_another_takes_over() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let holder = || cluster.value("gamut-system", "lease/gamut-controller", ".spec.holderIdentity");
    let first = cluster.controller("first", 15_100, &[]);
    first.says("holds Lease");
    let second = cluster.controller("second", 15_110, &[]);
    second.says("everything that exists is known");
    assert!(holder().starts_with("first_"), "{}", holder());

    cluster.apply(SERVICE);
    cluster.apply(&route("one"));
    cluster.wait("shop", "httproute/one", ACCEPTED, "True");

    // A crash: the Lease runs out. What changed meanwhile is written by who takes over.
    first.kill();
    cluster.apply(&route("two"));
    second.says("holds Lease");
    cluster.wait("shop", "httproute/two", ACCEPTED, "True");

    // An orderly end: the Lease is free at once.
    let third = cluster.controller("third", 15_100, &[]);
    third.says("everything that exists is known");
    assert!(!third.has_said("holds Lease"));
    second.terminate();
    third.says("holds Lease");
    assert!(holder().starts_with("third_"), "{}", holder());
    cluster.apply(&route("three"));
    cluster.wait("shop", "httproute/three", ACCEPTED, "True");
    third.terminate();
    assert_eq!(holder(), "");
}

#[test]
fn a_leader_that_hangs_is_replaced_and_writes_nothing_when_it_wakes() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let hung = cluster.controller("hung", 15_100, &[]);
    hung.says("holds Lease");
    let other = cluster.controller("other", 15_110, &[]);
    other.says("everything that exists is known");
    cluster.apply(SERVICE);
    cluster.apply(&route("one"));
    cluster.wait("shop", "httproute/one", ACCEPTED, "True");

    hung.signal("STOP");
    // The Lease runs out 15 s after its last renewal was seen; both are looked for every 2 s.
    other.says("holds Lease");
    // It would say of this that its Service is missing, as soon as it runs again and if it still wrote.
    cluster.kubectl(&["delete", "-n", "shop", "service", "web"]);
    cluster.wait("shop", "httproute/one", ACCEPTED, "False");
    cluster.apply(SERVICE);
    cluster.wait("shop", "httproute/one", ACCEPTED, "True");
    let version = || cluster.value("shop", "httproute/one", ".metadata.resourceVersion");
    let before = version();
    hung.signal("CONT");
    hung.says("is lost");
    cluster.apply(&route("two"));
    cluster.wait("shop", "httproute/two", ACCEPTED, "True");
    assert_eq!(version(), before, "who has hung writes no more");
    hung.terminate();
    other.terminate();
}

#[test]
fn the_mesh_is_made_with_sorted_features_and_nobody_elses_is_touched() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    cluster.apply(
        "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: foreign}
spec: {controllerName: example.com/other}
",
    );
    let controller = cluster.controller("mesh", 15_100, &[]);
    cluster.wait_for("", "xmesh/gamut");
    cluster.wait("", "xmesh/gamut", r#".status.conditions[?(@.type=="Accepted")].status"#, "True");
    let features = cluster.value("", "xmesh/gamut", ".status.supportedFeatures[*].name");
    let features: Vec<&str> = features.split(' ').collect();
    assert!(features.is_sorted(), "{features:?}");
    for feature in ["Mesh", "HTTPRoute", "GRPCRoute", "MeshConsumerRoute", "HTTPRoute303RedirectStatusCode"] {
        assert!(features.contains(&feature), "{feature} of {features:?}");
    }
    let foreign = cluster.value("", "xmesh/foreign", r#".status.conditions[?(@.type=="Accepted")].status"#);
    assert_eq!(foreign, "Unknown");
    controller.terminate();
}
