//! The mesh loses parts of itself while requests go on: none of them fails, and `gamut check` says what is missing.

use std::{fs, path::PathBuf};

use crate::{
    harness::{Cluster, until},
    shop::{Callers, Canary, Load, Release},
};

/// Kills the pods of a component without notice, and waits for those that come instead.
fn kill(cluster: &Cluster, component: &str) {
    let pods = format!("--selector=app.kubernetes.io/component={component}");
    cluster.kubectl(&["delete", "pods", "-n", "gamut-system", &pods, "--force", "--grace-period=0"]);
    let deployment = format!("deployment/gamut-{component}");
    cluster.kubectl(&["rollout", "status", "-n", "gamut-system", &deployment, "--timeout=120s"]);
}

/// Has what fails tried again elsewhere, as a route must for a sidecar that dies with requests in it.
const RETRIED: &str =
    r#"[{"op": "add", "path": "/spec/rules/1/retry", "value": {"attempts": 3, "backoff": "10ms"}}]"#;

#[test]
fn no_request_fails_while_the_meshs_own_pods_and_sidecars_die_and_its_objects_are_deleted() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    let load = Load::start(&cluster, &[]);
    load.more(100);

    cluster.kubectl(&["patch", "httproute", "-n", "shop", "web", "--type=json", "-p", RETRIED]);
    cluster.wait("shop", "httproute/web", ".status.parents[0].conditions[0].observedGeneration", "2");
    load.more(100);
    let backend = ["get", "pods", "-n", "shop", "-l=version=v1", "-o=jsonpath={.items[0].metadata.name}"];
    cluster.kill_sidecar("shop", &cluster.kubectl(&backend));
    load.more(100);

    for component in ["controller", "ca", "injector"] {
        kill(&cluster, component);
        load.more(100);
    }
    for namespace in ["shop", "gamut-system"] {
        cluster.kubectl(&["delete", "configmap", "-n", namespace, "gamut-trust-bundle"]);
        cluster.wait_for(namespace, "configmap/gamut-trust-bundle");
    }
    // Pods that start with and after all this get their certificates as ever.
    canary.restart("web-v1");
    load.more(100);

    // Without its configuration the API server asks nobody: pods start without a sidecar, and that is said.
    cluster.kubectl(&["delete", "mutatingwebhookconfiguration", "gamut-injector"]);
    canary.restart("web-v2");
    let (result, detail) = cluster.check("webhook");
    assert!(result == "failed" && detail.contains("pods start without a sidecar"), "{result}: {detail}");
    let (result, detail) = cluster.check("pods without sidecar");
    assert!(result == "failed" && detail.contains("Deployment web-v2 in shop"), "{result}: {detail}");
    load.more(100);

    release.upgrade(&["controller.replicas=1", "mtls=strict"]);
    canary.restart("web-v2");
    assert_eq!(cluster.check("webhook").0, "ok");
    assert_eq!(cluster.check("pods without sidecar").0, "ok");

    // The label is about pods to come: those that there are stay as they are.
    cluster.kubectl(&["label", "namespace", "shop", "gamut.mesh/inject-"]);
    load.more(100);
    cluster.kubectl(&["label", "namespace", "shop", "gamut.mesh/inject=enabled"]);
    load.more(100);

    // Routes whose kind isn't defined any more are gone: requests go to the Service's own pods, which are of both versions alike.
    let of_new = || canary.versions(60).get("v2").copied().unwrap_or_default();
    cluster.remove_gateway_api();
    assert_eq!(cluster.check("Gateway API").0, "failed");
    until("the route is gone", || of_new() >= 18);
    load.more(100);
    cluster.install_gateway_api();
    cluster.kubectl(&["apply", "-f", Cluster::CANARY]);
    until("the split is back", || of_new() <= 12);
    load.more(100);

    let seen = load.stop();
    assert!(seen.failed.is_empty(), "{} answers, of which failed: {:?}", seen.answers, seen.failed);
    drop(canary);
    release.uninstall();
}

/// Has the whole split go to the canary.
const ALL_NEW: &str = r#"[
    {"op": "replace", "path": "/spec/rules/1/backendRefs/0/weight", "value": 0},
    {"op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": 100}
]"#;

#[test]
fn no_request_fails_while_the_api_server_is_away_and_what_is_changed_then_is_in_force() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    let callers = Callers::start(&cluster);
    let controllers = controllers(&cluster);
    let logs = || controllers.iter().map(|log| fs::read_to_string(log).unwrap());
    let say = |words: &str| logs().filter(|log| log.contains(words)).count();
    let said = |words: &str| logs().map(|log| log.matches(words).count()).sum::<usize>();
    callers.more(100);

    let stopped = cluster.kill_api_server();
    callers.more(100);
    until("every controller misses it", || say("what was known stays in force") == controllers.len());
    // Which takes longer than anything else that its absence makes them do. As often as one began to lead one has ceased to.
    until("none of them leads any more", || {
        said("this replica writes") > 0 && said("another replica writes") == said("this replica writes")
    });
    callers.more(100);

    cluster.start_api_server(stopped);
    until("every controller watches again", || say("all kinds are watched again") == controllers.len());
    cluster.kubectl(&["patch", "httproute", "-n", "shop", "web", "--type=json", "-p", ALL_NEW]);
    until("the canary gets everything", || callers.last(50).iter().all(|version| version == "v2"));
    cluster.wait("shop", "httproute/web", ".status.parents[0].conditions[0].observedGeneration", "2");
    callers.more(100);

    let seen = callers.seen();
    assert!(seen.failed.is_empty(), "{} answers, of which failed: {:?}", seen.answers, seen.failed);
    drop(canary);
    release.uninstall();
}

/// Where each controller's output is kept.
fn controllers(cluster: &Cluster) -> Vec<PathBuf> {
    let pods = ["get", "pods", "-n", "gamut-system", "-l=app.kubernetes.io/component=controller"];
    let names = cluster.kubectl(&[pods.as_slice(), &["-o=jsonpath={.items[*].metadata.name}"]].concat());
    names.split(' ').map(|pod| cluster.log("gamut-system", pod, "controller")).collect()
}
