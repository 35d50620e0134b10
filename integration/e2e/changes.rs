//! Saving manifests while traffic flows: what was saved takes effect within a second, and nobody notices.

use std::time::Duration;

use crate::harness::{Mesh, app, assert_no_failure, namespace, route, service};

const SPLIT: &str = "backendRefs: [{name: one, port: 80, weight: 1}, {name: two, port: 80, weight: 0}]";

/// A client, `one` and `two`, and a route that sends everything that is addressed to Service `one` to `one`.
fn shop(rule: &str) -> Vec<String> {
    vec![
        namespace("shop", "strict"),
        app("client").in_namespace("shop"),
        app("one").in_namespace("shop"),
        app("two").in_namespace("shop"),
        service("shop", "one"),
        service("shop", "two"),
        route("shop", "split", "name: one", &[rule]),
    ]
}

#[test]
fn saved_weights_are_in_effect_soon_and_no_request_is_lost() {
    let mesh = Mesh::up(&shop(SPLIT));
    let mut load = mesh.load("shop/deploy/client", &["http://one/", "--users=2"]);
    let before = load.more(100);
    assert!(before.iter().all(|answer| answer.version == "one"));

    let saved = mesh.edit(
        "all.yaml",
        SPLIT,
        &SPLIT.replace("weight: 1", "weight: 2").replace("weight: 0", "weight: 1"),
    );
    let first = load.until("an answer from two", |answer| answer.version == "two");
    // A fraction of a second (integration/bench/scale measures it), unless other tests keep the machine busy.
    assert!(first.at - saved < Duration::from_secs(5), "it took {:?}", first.at - saved);
    assert_no_failure(&load.finish());
}

#[test]
fn a_new_rule_a_service_without_routes_and_an_old_rule_follow_each_other_without_a_lost_request() {
    let mesh = Mesh::up(&shop(SPLIT));
    let mut load = mesh.load("shop/deploy/client", &["http://one/"]);
    load.more(20);
    for (from, to, version) in [
        ("rules:\n  - backendRefs", "rules:\n  - backendRefs: [{name: two, port: 80}]\n    #", "two"),
        ("kind: HTTPRoute", "kind: ReferenceGrant", "one"),
        ("kind: ReferenceGrant", "kind: HTTPRoute", "two"),
    ] {
        mesh.edit("all.yaml", from, to);
        load.until_steady(version, 20, |answer| answer.version == version);
    }
    assert_no_failure(&load.finish());
}

#[test]
fn scaling_up_and_down_under_load_loses_nothing() {
    let mesh = Mesh::up(&shop("backendRefs: [{name: one, port: 80}]"));
    // Some requests take a while, so that they are under way when a pod is told to end; the others come so fast that pods
    // which are just gone are asked, too.
    let mut slow = mesh.load("shop/deploy/client", &["http://one/?delay=100ms", "--users=8"]);
    let mut load = mesh.load("shop/deploy/client", &["http://one/", "--users=64"]);
    let old = load.more(1)[0].pod.clone();

    for replicas in ["10", "1", "10", "1", "2"] {
        let manifest = shop("backendRefs: [{name: one, port: 80}]");
        let one = app("one").replicas(replicas.parse().unwrap()).in_namespace("shop");
        mesh.save("all.yaml", &manifest.concat().replace(&app("one").in_namespace("shop"), &one));
        mesh.settle();
        assert_eq!(mesh.pods("one").len().to_string(), replicas);
        slow.more(40);
        load.more(1000);
    }
    load.until("an answer from a new pod", |answer| answer.pod != old);
    assert_no_failure(&slow.finish());
    assert_no_failure(&load.finish());
}

#[test]
fn a_manifest_that_cannot_be_read_is_one_line_and_changes_nothing_else() {
    let mut mesh = Mesh::up(&shop(SPLIT));
    let mut load = mesh.load("shop/deploy/client", &["http://one/"]);
    mesh.save("broken.yaml", "kind: HTTPRoute\nmetadata: {name: [\n");
    let (_, line) = mesh.output.until("an error about broken.yaml", |line| line.contains("broken.yaml"));
    assert!(line.contains("error"), "{line}");
    load.more(50);

    mesh.save("broken.yaml", "# mended\n");
    mesh.output.until("the error is gone", |line| {
        line.contains("no longer a problem") && line.contains("broken.yaml")
    });
    assert_no_failure(&load.finish());
}
