//! The chart's alerts and dashboard, held against a real Prometheus that scrapes a running mesh.

use std::{collections::BTreeMap, fs, process::Command};

use serde_json::Value;

use crate::harness::{
    Mesh,
    prometheus::{self, Prometheus, RULES},
    text_of,
};

const DASHBOARD: &str = include_str!("../../charts/gamut/files/dashboard.json");

#[test]
fn every_alert_is_tested_by_promtool_and_says_what_its_tests_say() {
    if !prometheus::is_installed() {
        return;
    }
    let tests = RULES.replace("rules.yaml", "rules-test.yaml");
    text_of(Command::new("promtool").args(["check", "rules", RULES]).output().unwrap());
    text_of(Command::new("promtool").args(["test", "rules", &tests]).output().unwrap());

    let tests: Value = serde_saphyr::from_str(&fs::read_to_string(tests).unwrap()).unwrap();
    let fired: Vec<&str> = tests["tests"][0]["alert_rule_test"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|test| !test["exp_alerts"].as_array().unwrap().is_empty())
        .map(|test| test["alertname"].as_str().unwrap())
        .collect();
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(RULES).unwrap()).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let alert = rule["alert"].as_str().unwrap();
        assert!(fired.contains(&alert), "no test of {alert} makes it fire");
    }
}

#[test]
fn every_query_of_the_dashboard_has_data_of_a_running_mesh() {
    let mesh = Mesh::example("canary");
    let Some(prometheus) = Prometheus::beside(&mesh) else { return };
    // An answer of a sidecar's own, and load that goes on while the questions are asked.
    mesh.ask("shop/deploy/client", &["http://web/", "-H", "x-canary:always", "-H", "x-echo-close:head"]);
    let _load = mesh.load("shop/deploy/client", &["http://web/"]);

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let asked = variables.iter().filter(|variable| variable["type"] == "query");
    for variable in asked.map(|variable| variable["query"].as_str().unwrap()) {
        let (metric, label) = variable
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')')?.split_once(", "))
            .unwrap_or_else(|| panic!("{variable} is no list of a label's values"));
        prometheus
            .until(&format!("count by ({label}) ({metric}{{{label}!=\"\"}})"), |values| !values.is_empty());
    }
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$__rate_interval", "10s").replace("$namespace", ".*");
            assert!(!query.contains('$'), "a variable that nobody sets: {query}");
            prometheus.until(&query, |samples| !samples.is_empty());
            queries += 1;
        }
    }
    assert!(queries >= 10, "the dashboard has lost its queries: {queries}");
}

#[test]
fn alerts_are_quiet_in_a_mesh_that_is_well_and_see_what_is_wrong() {
    let mesh = Mesh::example("canary");
    let Some(prometheus) = Prometheus::beside(&mesh) else { return };
    let load = mesh.load("shop/deploy/client", &["http://web/"]);
    prometheus.until("sum(rate(istio_requests_total[10s])) > 0", |samples| !samples.is_empty());
    // Of the CA, the controller and each sidecar: what the alerts about certificates compare has the same labels.
    let life_left = "gamut_certificate_not_after_seconds - time() > gamut_certificate_lifetime_seconds * 0.9";
    prometheus.until(life_left, |samples| samples.len() == 2 + mesh.status().pods.len());
    let alerts = prometheus.alerts();
    // On one machine pods get their sidecars from the node: there is no injector to scrape, which is what this alert is about.
    let quiet = |name: &str| if name == "GamutInjectorDown" { "pending" } else { "inactive" };
    let expected: BTreeMap<String, String> =
        alerts.keys().map(|name| (name.clone(), quiet(name).to_owned())).collect();
    assert_eq!(alerts, expected);
    load.finish();

    // The controller hangs, and answers begin to fail.
    mesh.signal("STOP", mesh.component("controller"));
    // As many as it takes: how many good ones there were depends on how fast this machine is.
    let failing = mesh.load("shop/deploy/client", &["http://web/?status=503"]);
    prometheus.until("ALERTS{alertname=\"GamutRequestsFail\"}", |samples| {
        samples.iter().any(|(labels, _)| labels["destination_service"].starts_with("web"))
    });
    failing.finish();
    prometheus.until("ALERTS{alertname=\"GamutControllerAway\"}", |samples| !samples.is_empty());
}
