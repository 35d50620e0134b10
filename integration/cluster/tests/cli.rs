//! The command line against a real API server: what it finds, and how it gets through to ports inside pods.
//!
//! Pods here run the executable under test from the machine's own file system, so that no image has to be built first.

use std::{fs, process::Output};

use serde_json::json;

use crate::harness::{Cluster, finding, json_of};

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}], selector: {app: web}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{name: all, backendRefs: [{name: web, port: 80}]}]
";

/// A pod that runs `gamut` with these arguments.
fn pod_of(name: &str, arguments: &[&str]) -> String {
    let mounts = [
        ("executable", env!("CARGO_BIN_EXE_gamut"), "/gamut"),
        ("usr", "/usr", "/usr"),
        ("lib", "/usr/lib", "/lib"),
        ("lib64", "/usr/lib64", "/lib64"),
    ];
    let command: Vec<&str> = ["/gamut"].iter().chain(arguments).copied().collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "gamut-system"},
        "spec": {
            "serviceAccountName": "gamut-controller",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "gamut", "image": "gamut.test/pause:1", "imagePullPolicy": "IfNotPresent", "command": command,
                "volumeMounts": mounts.map(|(name, _, to)| json!({"name": name, "mountPath": to, "readOnly": true})),
            }],
            "volumes": mounts.map(|(name, from, _)| json!({"name": name, "hostPath": {"path": from}})),
        },
    })
    .to_string()
}

/// A pod whose sidecar isn't one: nothing in it listens.
const MUTE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: mute, namespace: shop}
spec:
  terminationGracePeriodSeconds: 1
  initContainers: [{name: gamut-proxy, restartPolicy: Always, image: 'gamut.test/pause:1', imagePullPolicy: IfNotPresent}]
  containers: [{name: app, image: 'gamut.test/pause:1', imagePullPolicy: IfNotPresent}]
";

#[test]
fn a_cluster_without_gamut_may_have_it_and_is_told_that_it_has_not() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    let before = cluster.gamut(&["check", "--pre", "-o", "json"]);
    assert!(before.status.success(), "{before:?}");
    let before = json_of(&before);
    assert_eq!(before["world"]["kind"], "cluster");
    for (what, found) in [
        ("Kubernetes", "with native sidecars"),
        ("permissions", "all "),
        ("control plane", "not installed yet"),
        ("Gateway API", "experimental channel"),
        ("clock", "agrees"),
    ] {
        let (result, detail) = finding(&before, what);
        assert!(result == "ok" && detail.contains(found), "{what}: {result}: {detail}");
    }

    let now = cluster.gamut(&["check", "-o", "json"]);
    assert_eq!(now.status.code(), Some(1));
    assert_eq!(finding(&json_of(&now), "control plane").0, "failed");
}

#[test]
fn a_controller_is_asked_through_the_api_server_and_routes_and_explanations_are_the_clusters() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.install_gateway_api();
    cluster.apply(&pod_of(
        "controller",
        &["controller", "--ca-address", "127.0.0.1:15010", "--require-reference-grant"],
    ));
    cluster.kubectl(&[
        "wait",
        "-n",
        "gamut-system",
        "pod/controller",
        "--for=condition=Ready",
        "--timeout=60s",
    ]);
    cluster.apply(WEB);
    let accepted = r#".status.parents[?(@.controllerName=="gamut.mesh/controller")].conditions[?(@.type=="Accepted")].status"#;
    cluster.wait("shop", "httproute/web", accepted, "True");

    let status = json_of(&cluster.gamut(&["status", "-o", "json"]));
    assert_eq!(status["components"][0]["pod"], "controller", "{status:#}");
    let problems = status["problems"].to_string();
    assert!(!problems.contains("can't be asked"), "the controller's admin port answers: {problems}");

    let logs = |arguments: &[&str]| cluster.gamut(&[&["logs", "-n", "gamut-system"], arguments].concat());
    let last = logs(&["--tail", "1", "controller"]);
    assert!(last.status.success(), "{last:?}");
    assert_eq!(String::from_utf8(last.stdout).unwrap().lines().count(), 1, "its last line and no more");
    let refused = logs(&["-c", "nobody", "pod/controller"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.contains("container nobody is not valid") && refused.lines().count() == 1, "{refused}");

    let routes = json_of(&cluster.gamut(&["routes", "-n", "shop", "-o", "json"]));
    let route = &routes["routes"][0];
    assert_eq!((&route["name"], &route["rules"][0]["name"]), (&json!("web"), &json!("all")), "{routes:#}");
    let conditions = route["parents"][0]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Accepted" && c["status"] == "True"), "{routes:#}");

    let answer = json_of(&cluster.gamut(&["explain", "http://web/", "-n", "shop", "-o", "json"]));
    assert_eq!(answer["outcome"], "forwarded by httproute/shop/web, rule all");
    assert_eq!(answer["notes"], json!([]), "the controller said by what settings it compiles");
}

#[test]
fn a_sidecar_that_does_not_listen_is_shown_with_the_reason() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.apply(MUTE);
    cluster.kubectl(&["wait", "-n", "shop", "pod/mute", "--for=condition=Ready", "--timeout=60s"]);
    let status = json_of(&cluster.gamut(&["status", "-n", "shop", "-o", "json"]));
    assert_eq!(
        status["pods"][0]["sidecar"]["silent"],
        "its sidecar can't be asked: nothing listens on port 15000 inside of it",
        "{status:#}"
    );
}

#[test]
fn whoever_may_not_or_cannot_ask_gets_one_line() {
    let Some(cluster) = Cluster::take() else { return };
    let one_line = |output: Output| {
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let ca = cluster.kubeconfig("gamut-ca");
    let text = one_line(cluster.gamut(&["routes", "--kubeconfig", &ca]));
    assert!(text.contains("forbidden") && text.contains("docs/reference"), "{text}");

    let gone = tempfile::NamedTempFile::new().unwrap();
    let admin = fs::read_to_string(cluster.admin()).unwrap();
    fs::write(gone.path(), admin.replace(":6443", ":1")).unwrap();
    let text = one_line(cluster.gamut(&["status", "--kubeconfig", gone.path().to_str().unwrap()]));
    assert!(text.contains("onnection refused"), "{text}");

    let text = one_line(cluster.gamut(&["status", "--context", "nosuch"]));
    assert!(text.contains(r#"no context "nosuch"; it has ["#), "{text}");
}

#[test]
fn the_clusters_namespaces_say_which_manifests_get_a_sidecar() {
    let Some(cluster) = Cluster::take() else { return };
    cluster.kubectl(&["label", "namespace", "shop", "gamut.mesh/inject=enabled"]);
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let pod = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: app, namespace: {namespace}}}\n\
             spec: {{containers: [{{name: app, image: app}}]}}\n"
        )
    };
    fs::write(file.path(), [pod("shop"), pod("lab"), pod("unknown")].join("---\n")).unwrap();
    let meshed = |more: &[&str]| {
        let inject = ["inject", "-o", "json", "-f", file.path().to_str().unwrap()];
        let output = cluster.gamut(&[inject.as_slice(), more].concat());
        assert!(output.status.success(), "{output:?}");
        let list = json_of(&output);
        let pods = list["items"].as_array().unwrap().iter();
        let meshed: Vec<bool> = pods.map(|pod| pod.to_string().contains("gamut-proxy")).collect();
        (meshed, String::from_utf8(output.stderr).unwrap())
    };
    let (of_cluster, said) = meshed(&["--context", "test"]);
    assert_eq!(
        of_cluster,
        [true, false, true],
        "shop asks for it, lab doesn't, and of unknown nobody knows: {said}"
    );
    assert!(said.contains("as in context test"), "{said}");
    assert!(said.contains("Pod lab/app: no sidecar"), "{said}");
    let admin = cluster.admin();
    assert_eq!(meshed(&["--kubeconfig", admin.to_str().unwrap()]).0, [true, false, true]);
    assert_eq!(meshed(&[]).0, [true, false, true], "the current context's cluster is asked");
    assert_eq!(meshed(&["--offline"]).0, [true; 3], "no cluster is asked");
}
