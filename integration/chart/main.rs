//! The Helm chart without a cluster: what it renders, what it refuses, and that its roles are those of the reference.
//!
//! Needs Helm: `GAMUT_HELM` names it; else it is looked for where `integration/cluster/cluster build` puts it. Without it a test says so and
//! is over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/gamut");

/// Everything that can be set, set to something else.
const ALL: &[&str] = &[
    "image.registry=registry.example.com/mesh",
    "image.tag=edge",
    "image.pullPolicy=Always",
    "image.pullSecrets={pull}",
    "trustDomain=prod.example.com",
    "mtls=strict",
    "requireReferenceGrant=true",
    "log.level=info\\,gamut_controller=debug",
    "log.format=json",
    "controller.replicas=3",
    "controller.resources.limits.memory=1Gi",
    "ca.replicas=2",
    "ca.leafLifetime=1h30m",
    "ca.existingSecret=our-pki",
    "injector.replicas=3",
    "sidecar.log.level=warn",
    "sidecar.drainTime=1m",
    "sidecar.traces.to=grpc://collector.observability:4317",
    "sidecar.traces.share=1",
    "sidecar.resources.limits.cpu=2",
    "sidecar.resources.limits.memory=256Mi",
    "metrics.from[0].podSelector.matchLabels.app=prometheus",
    "metrics.podMonitors=true",
    "metrics.serviceMonitors=true",
    "metrics.prometheusRules=true",
    "metrics.dashboard=true",
    "networkPolicies.enabled=false",
    "cleanup.enabled=false",
    "priorityClassName=system-cluster-critical",
    "nodeSelector.pool=infra",
    "tolerations[0].operator=Exists",
];

/// Runs Helm on the chart: what it prints, or why it refuses.
fn helm(arguments: &[&str]) -> Option<Result<String, String>> {
    let cache = env::var_os("GAMUT_CLUSTER_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/gamut-cluster")));
    let named = env::var_os("GAMUT_HELM").map(PathBuf::from);
    let Some(program) = named.or_else(|| cache.map(|it| it.join("helm")).filter(|it| it.exists())) else {
        println!("skipped: there is no Helm; integration/cluster/cluster build makes one");
        return None;
    };
    let output = Command::new(program).args(arguments).output().expect("Helm runs");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) })
}

/// What the chart renders with these values.
fn template(values: &[&str]) -> Option<Result<String, String>> {
    let set: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
    let mut arguments = vec!["template", "gamut", CHART, "--namespace=gamut-system", "--kube-version=1.34.0"];
    arguments.extend(set.iter().map(String::as_str));
    helm(&arguments)
}

#[test]
fn helm_finds_no_fault_with_the_chart() {
    let Some(linted) =
        helm(&["lint", "--strict", CHART, "--namespace=gamut-system", "--kube-version=1.34.0"])
    else {
        return;
    };
    linted.unwrap();
}

#[test]
fn it_renders_what_it_rendered_before() {
    if let Some(rendered) = template(&[]) {
        insta::assert_snapshot!("defaults", rendered.unwrap());
    }
    if let Some(rendered) = template(ALL) {
        insta::assert_snapshot!("all", rendered.unwrap());
    }
}

#[test]
fn each_process_is_scraped_once_whatever_monitors_are_wanted() {
    for (values, pods, services) in [
        (&[][..], 0, 0),
        (&["metrics.podMonitors=true"], 4, 0),
        (&["metrics.serviceMonitors=true"], 0, 3),
        (&["metrics.podMonitors=true", "metrics.serviceMonitors=true"], 1, 3),
    ] {
        let Some(rendered) = template(values) else { return };
        let rendered = rendered.unwrap();
        let count = |kind: &str| rendered.lines().filter(|line| *line == format!("kind: {kind}")).count();
        assert_eq!((count("PodMonitor"), count("ServiceMonitor")), (pods, services), "{values:?}");
    }
}

#[test]
fn a_value_that_makes_no_sense_is_named_in_the_refusal() {
    for (value, refusal) in [
        ("controller.replicas=0", "at '/controller/replicas': minimum: got 0, want 1"),
        ("injector.replicas=eleven", "at '/injector/replicas': got string, want integer"),
        ("mtls=maybe", "at '/mtls': value must be one of 'permissive', 'strict'"),
        ("log.format=xml", "at '/log/format': value must be one of 'text', 'json'"),
        ("trustDomain=Prod", "at '/trustDomain': 'Prod' does not match pattern"),
        ("ca.leafLifetime=a day", "at '/ca/leafLifetime': 'a day' does not match pattern"),
        ("ca.leafLifetime=5s", "ca.leafLifetime is 5s; it must be a duration from 10s to 720h"),
        ("ca.leafLifetime=721h", "ca.leafLifetime is 721h; it must be a duration from 10s to 720h"),
        ("sidecar.drainTime=2h", "sidecar.drainTime is 2h; it must be a duration from 0s to 1h"),
        ("sidecar.resources.limits.cpu=lots", "at '/sidecar/resources/limits/cpu': 'lots' does not match"),
        ("controler.replicas=2", "additional properties 'controler' not allowed"),
    ] {
        let Some(rendered) = template(&[value]) else { return };
        let refused = rendered.expect_err(value);
        assert!(refused.contains(refusal), "{value}: {refused}");
    }
    let elsewhere = helm(&["template", "gamut", CHART, "--namespace=mesh", "--kube-version=1.34.0"]).unwrap();
    assert!(elsewhere.unwrap_err().contains("Use --namespace gamut-system"));
}

#[test]
fn roles_allow_what_the_reference_says_and_no_more() {
    let Some(rendered) = template(&["cleanup.enabled=false"]) else { return };
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/kubernetes.md"));
    let page = page.unwrap();
    let (_, documented) = page.split_once("```yaml\n").expect("the page lists the roles");
    let (documented, _) = documented.split_once("```").expect("the list ends");
    assert_eq!(permissions(&rendered.unwrap()), permissions(documented));
}

/// What each role allows: group, resource, name (or `*`) and verb.
fn permissions(manifests: &str) -> BTreeMap<String, BTreeSet<[String; 4]>> {
    let documents =
        manifests.split("\n---").map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let roles = documents.filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    roles.map(|role| (format!("{} {}", role["kind"], role["metadata"]["name"]), allowed(&role))).collect()
}

fn allowed(role: &Value) -> BTreeSet<[String; 4]> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let words = |field: &str| -> Vec<String> {
            let words = rule[field].as_array().into_iter().flatten();
            words.map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let names = Some(words("resourceNames")).filter(|it| !it.is_empty()).unwrap_or(vec!["*".to_owned()]);
        for group in words("apiGroups") {
            for resource in words("resources") {
                for name in &names {
                    for verb in words("verbs") {
                        all.insert([group.clone(), resource.clone(), name.clone(), verb]);
                    }
                }
            }
        }
    }
    all
}
