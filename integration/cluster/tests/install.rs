//! Gamut as people install it: the chart, the images, a labelled namespace, and `examples/canary` as it is, word by word as the README has it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    harness::{Cluster, json_of, until},
    pages::Reader,
    person,
    shop::{Canary, Load, Release},
};

#[test]
fn the_canary_of_the_readme_runs_on_a_cluster_and_nothing_is_left_after_an_uninstallation() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let before = everything(&cluster);
    Release::restrict(&cluster);
    Reader::new(&cluster).follow("README.md", "On a cluster");
    let (release, canary) = (Release::installed(&cluster), Canary::applied(&cluster));

    let versions = canary.versions(500);
    let new = versions.get("v2").copied().unwrap_or_default();
    assert_eq!(versions.values().sum::<usize>(), 500, "{versions:?}");
    assert!((20..=90).contains(&new), "10 % of 500 are about 50: {versions:?}");
    let asked = canary.ask(&["client", "http://web/", "-H", "x-canary:always"]);
    assert!(asked.contains("ServiceVersion=v2"), "{asked}");

    what_commands_ask_goes_through_the_api_server(&cluster);
    person::has_every_command_with_the_role_of_the_page_and_hears_what_it_takes_without(&cluster);
    the_live_page_shows_services_and_their_rates(&cluster);

    // The namespace is strict. The node isn't in the mesh.
    let address = ["get", "pods", "-n", "shop", "-l=version=v1", "-o=jsonpath={.items[0].status.podIP}"];
    let address = cluster.kubectl(&address);
    let (status, answer) = cluster.get(&format!("http://{address}:8080/"));
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("mtls-required"), "{answer}");

    // What the kubelet asks, others may see; whom the controller serves they may not.
    let replica = ["get", "pods", "-n", "gamut-system", "-l=app.kubernetes.io/component=controller"];
    let replica = cluster.kubectl(&[replica.as_slice(), &["-o=jsonpath={.items[0].status.podIP}"]].concat());
    assert_eq!(cluster.get(&format!("http://{replica}:15014/ready")).0, 200);
    assert_eq!(cluster.get(&format!("http://{replica}:15014/healthz")).0, 200);
    assert_eq!(cluster.get(&format!("http://{replica}:15014/status")).0, 403);

    let trusted = ca_bundle(&cluster);
    release.upgrade(&["log.level=debug"]);
    assert_eq!(ca_bundle(&cluster), trusted, "an upgrade leaves the injector's caBundle alone");
    let refused = Release::refusal(&cluster, "upgrade", &["trustDomain=other"]);
    assert!(refused.contains(r#"trustDomain is "other"; it must be "cluster.local""#), "{refused}");
    canary.restart("client");
    assert_eq!(canary.versions(100).values().sum::<usize>(), 100, "after the upgrade");

    drop(canary);
    release.uninstall();
    until("only what was there before is left", || everything(&cluster).is_subset(&before));
}

#[test]
fn a_rolling_restart_of_a_meshed_deployment_under_load_fails_no_request() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);

    for (how, more) in
        [("on kept connections", [].as_slice()), ("on a connection for each", &["--reconnect"])]
    {
        let load = Load::start(&cluster, more);
        load.more(200);
        for deployment in ["web-v1", "web-v2"] {
            canary.restart(deployment);
        }
        until("the old pods are gone", || canary.pods("app=web") == 4);
        load.more(200);
        let seen = load.stop();
        assert!(seen.failed.is_empty(), "requests {how}: {seen:?}");
    }
    drop(canary);
    release.uninstall();
}

/// Sidecars are asked by a connection that the API server forwards, containers' output is had from their kubelets.
fn what_commands_ask_goes_through_the_api_server(cluster: &Cluster) {
    let load = Load::start(cluster, &[]);
    let tap = ["tap", "-n", "shop", "svc/web-v1", "--from", "client", "--count", "5", "-o", "json"];
    let tapped = cluster.gamut(&tap);
    assert!(tapped.status.success(), "{tapped:?}");
    let told = String::from_utf8(tapped.stdout).unwrap();
    assert_eq!(told.matches(r#""peer":"spiffe://cluster.local/ns/shop/sa/client""#).count(), 5, "{told}");
    assert!(load.stop().failed.is_empty());

    let identity = json_of(&cluster.gamut(&["identity", "-n", "shop", "deploy/client", "-o", "json"]));
    assert_eq!(identity["identities"][0]["id"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(identity["roots"][0]["trusted_by"], 1, "{identity:#}");
    let check = cluster.gamut(&["check", "--proxy", "-n", "shop"]);
    assert!(check.status.success(), "{check:?}");
    let logs = cluster.gamut(&["logs", "-n", "shop", "-c", "gamut-proxy", "--tail", "2", "deploy/client"]);
    assert_eq!(String::from_utf8(logs.stdout).unwrap().lines().count(), 2);
}

/// `gamut dash`, as a browser sees it: the page itself, and the documents that its script makes the page of.
fn the_live_page_shows_services_and_their_rates(cluster: &Cluster) {
    let load = Load::start(cluster, &[]);
    let dash = cluster.start("dash", &["dash", "-n", "shop", "--port", "15080"]);
    let get = |path: &str| cluster.get(&format!("http://127.0.0.1:15080{path}"));
    until("the page is served", || get("/").0 == 200);
    assert!(get("/").1.contains("<title>gamut</title>"), "{}", get("/").1);
    // Nothing as long as the first round of questions takes longer than whoever asks here waits.
    let document = |path: &str| -> Value { serde_json::from_str(&get(path).1).unwrap_or_default() };
    let services = || document("/api/services");
    let rate = |figures: &Value| figures["rate"].as_f64().unwrap_or_default();
    until("the rates are there", || {
        let services = services();
        services["page"].as_array().is_some_and(|rows| {
            rows.iter().all(|row| rate(&row["received"]) > 0.0 || row["name"] == "shop/web")
        })
    });
    let services = services();
    let rows = services["page"].as_array().unwrap();
    let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["shop/web", "shop/web-v1", "shop/web-v2"]);
    assert!(rate(&rows[0]["figures"]) > 1.0, "{services:#}");
    assert_eq!(rows[0]["figures"]["success"], 100.0, "{services:#}");
    assert!(services["world"].as_str().unwrap().starts_with("context test, https://10.0.0.10:6443"));
    assert_eq!(services["problem"], Value::Null);

    // Ten seconds in which no request was counted have no share.
    until("the split is as it was set", || {
        let route = document("/api/routes/HTTPRoute/shop/web");
        let split = &route["page"]["rules"][1];
        assert_eq!(split["backends"][0]["id"], "service/shop/web-v1:80", "{route:#}");
        let point = split["points"].as_array().and_then(|points| points.last().cloned()).unwrap_or_default();
        point["set"][0] == 90.0 && point["got"][0].as_f64().is_some_and(|got| (70.0..100.0).contains(&got))
    });
    let callers = document("/api/services/shop/web");
    assert!(
        callers["page"]["callers"][0]["pod"].as_str().unwrap().starts_with("shop/client-"),
        "{callers:#}"
    );
    drop(dash);
    assert!(load.stop().failed.is_empty());
}

/// What the API server trusts the injector by.
fn ca_bundle(cluster: &Cluster) -> String {
    let path = ".webhooks[*].clientConfig.caBundle";
    let bundle = cluster.value("", "mutatingwebhookconfiguration/gamut-injector", path);
    assert!(!bundle.is_empty());
    bundle
}

/// Every object there is, but for those that come and go by themselves.
fn everything(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let names = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
    let all = cluster.kubectl(&["get", &kinds.join(","), "--all-namespaces", names]);
    all.lines().map(str::to_owned).collect()
}
