//! The Helm chart without a cluster: what it renders and what it refuses; `roles`: what it allows; `network`: who reaches it; `monitors`: what they select; `images`: what it runs.
//!
//! Needs Helm: `GAMUT_HELM` names it; else it is looked for where `integration/cluster/cluster build` puts it. Without it a test says so and
//! is over.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod images;
mod monitors;
mod network;
mod roles;

use std::{env, path::PathBuf, process::Command};

use gamut_injector::{Config, INJECT, Injection, NamespaceView, PROXY_CONTAINER};
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

/// The Gateway API's definitions aren't ours, and Helm would install what lies there before anything else, unseen by `helm template`.
#[test]
fn it_brings_no_definitions() {
    assert!(!PathBuf::from(CHART).join("crds").exists());
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
        ("trustDomain=Prod", "trustDomain is \"Prod\"; it must be a name of lower-case letters"),
        (
            "ca.leafLifetime=a day",
            "ca.leafLifetime is \"a day\"; it must be a duration from 10s to 720h, such as",
        ),
        ("ca.leafLifetime=5s", "ca.leafLifetime is 5s; it must be a duration from 10s to 720h"),
        ("ca.leafLifetime=721h", "ca.leafLifetime is 721h; it must be a duration from 10s to 720h"),
        ("sidecar.drainTime=2h", "sidecar.drainTime is 2h; it must be a duration from 0s to 1h"),
        (
            "sidecar.resources.limits.cpu=lots",
            "sidecar.resources.limits.cpu is \"lots\"; it must be a quantity, such as",
        ),
        ("controler.replicas=2", "additional properties 'controler' not allowed"),
        (
            "controller.resources.requests.cpu=-1",
            "at '/controller/resources/requests/cpu': minimum: got -1, want 0",
        ),
        ("image.registry=https://registry", "image.registry is \"https://registry\"; it must be a registry"),
        ("image.registry=registry/Mesh", "image.registry is \"registry/Mesh\"; it must be a registry"),
        ("image.registry=registry:65536/mesh", "image.registry is \"registry:65536/mesh\"; it must be"),
        ("image.tag=a b", "image.tag is \"a b\"; it must be an image's tag, such as 1.2.3, or empty"),
        (
            "log.level=loud",
            "log.level is \"loud\"; it must be error, warn, info, debug, trace or off, or a list",
        ),
        ("sidecar.log.level=a=1", "sidecar.log.level is \"a=1\"; it must be error, warn, info"),
        (
            "sidecar.drainTime=5ss",
            "sidecar.drainTime is \"5ss\"; it must be a duration from 0s to 1h, such as",
        ),
        ("ca.resources.requests.memory=64MB", "it must be a quantity, such as 64Mi or 1Gi"),
        ("image.pullSecrets={a,B}", "image.pullSecrets[1] is \"B\"; it must be the name of an object"),
        ("priorityClassName=a_b", "priorityClassName is \"a_b\"; it must be empty or the name of an object"),
        ("image.tag=1", "at '/image/tag': got number, want string"),
        ("trustDomain=-.-", "trustDomain is \"-.-\"; it must be a name of lower-case letters"),
        ("sidecar.traces.to=grpc://collector:65536", "it must be empty or a collector with its port"),
        ("sidecar.traces.to=grpc://collector:0", "it must be empty or a collector with its port"),
        ("sidecar.traces.to=http://a]b:4318", "it must be empty or a collector with its port"),
        ("sidecar.traces.to=collector:4317", "it must be empty or a collector with its port"),
        ("sidecar.traces.share=1.5", "sidecar.traces.share is \"1.5\"; it must be a number from 0 to 1"),
        ("sidecar.traces.share=2", "at '/sidecar/traces/share': maximum: got 2, want 1"),
        ("sidecar.traces.share=much", "sidecar.traces.share is \"much\"; it must be a number from 0 to 1"),
        (
            "sidecar.resources.limits.memory=16Mi",
            "sidecar.resources.limits.memory is 16Mi; it must not be less",
        ),
        (
            "ca.resources.limits.cpu=0.001",
            "not be less than what is requested, 10m: set ca.resources.requests.cpu",
        ),
        (
            "ca.existingSecret=a..b",
            "ca.existingSecret is \"a..b\"; it must be empty or the name of an object",
        ),
        (
            "nodeSelector.kubernetes\\.io/os=windows",
            "at '/nodeSelector/kubernetes.io~1os': value must be 'linux'",
        ),
        ("ca=null", "at '': missing property 'ca'"),
        ("ca.replicas=null", "at '/ca': missing property 'replicas'"),
        ("sidecar.traces=null", "at '/sidecar': missing property 'traces'"),
    ] {
        let Some(rendered) = template(&[value]) else { return };
        let refused = rendered.expect_err(value);
        assert!(refused.contains(refusal), "{value}: {refused}");
        let said = refused.lines().filter(|line| line.contains("at '") || line.contains("it must"));
        assert_eq!(said.count(), 1, "{value}: {refused}");
    }
    let elsewhere = helm(&["template", "gamut", CHART, "--namespace=mesh", "--kube-version=1.34.0"]).unwrap();
    assert!(elsewhere.unwrap_err().contains("Use --namespace gamut-system"));
}

#[test]
fn values_as_people_write_them_are_taken() {
    for (value, rendered_as) in [
        ("sidecar.traces.share=0.5,sidecar.traces.to=grpc://c.o:4317", r#"TRACES_SHARE, value: "0.5""#),
        ("sidecar.traces.share=1,sidecar.traces.to=http://[::1]:4318/v1", r#"TRACES_SHARE, value: "1""#),
        ("sidecar.resources.limits.memory=1Ti", r#"MEMORY_LIMIT, value: "1Ti""#),
        ("sidecar.resources.limits.cpu=10m", r#"CPU_LIMIT, value: "10m""#),
        ("sidecar.resources.requests.cpu=0.5", r#"CPU_REQUEST, value: "0.5""#),
        ("image.registry=localhost:5000/a/b", "image: \"localhost:5000/a/b/gamut:"),
        ("sidecar.resources.requests.cpu=0", r#"CPU_REQUEST, value: "0""#),
        ("sidecar.resources.limits.memory=1e9", r#"MEMORY_LIMIT, value: "1e9""#),
        ("sidecar.traces.share=0,sidecar.traces.to=grpc://c.o:4317", r#"TRACES_SHARE, value: "0""#),
        ("sidecar.log.level=info\\,gamut_proxy::tcp=debug", r#"LOG, value: "info,gamut_proxy::tcp=debug""#),
        ("image.pullSecrets={a.b}", "imagePullSecrets:\n      - name: \"a.b\""),
        ("ca.resources=null", "resources:\n          null"),
        ("priorityClassName=1e3", "priorityClassName: \"1e3\""),
        ("nodeSelector.kubernetes\\.io/os=linux", "nodeSelector:\n        kubernetes.io/os: linux\n      #"),
    ] {
        let Some(rendered) = template(&[value]) else { return };
        let rendered = rendered.expect(value);
        assert!(rendered.contains(rendered_as), "{value}: {rendered}");
    }
}

#[test]
fn what_is_said_of_sidecars_reaches_them() {
    let Some(rendered) = template(ALL) else { return };
    let rendered = rendered.unwrap();
    let is_it = |it: &Value| it["kind"] == "Deployment" && it["metadata"]["name"] == "gamut-injector";
    let injector = objects(&rendered).find(is_it).unwrap();
    let sidecar = sidecar(&injected(&gamut_webhook::sidecars_of(&injector).unwrap()));
    for (name, value) in [
        ("GAMUT_TRUST_DOMAIN", "prod.example.com"),
        ("GAMUT_LOG", "warn"),
        ("GAMUT_LOG_FORMAT", "json"),
        ("GAMUT_DRAIN_TIME", "1m"),
        ("GAMUT_TRACES_TO", "grpc://collector.observability:4317"),
        ("GAMUT_TRACES_SHARE", "1"),
    ] {
        let mut env = sidecar["env"].as_array().unwrap().iter();
        let found = env.find(|variable| variable["name"] == name);
        assert_eq!(found.map(|it| &it["value"]), Some(&Value::from(value)), "{name}: {sidecar:#}");
    }
    assert_eq!(sidecar["image"], "registry.example.com/mesh/gamut-proxy:edge");
    assert_eq!(sidecar["resources"]["limits"], serde_json::json!({"cpu": "2", "memory": "256Mi"}));
}

#[test]
fn a_ca_of_several_replicas_leaves_one_at_a_time() {
    for (replicas, expected) in [("ca.replicas=1", false), ("ca.replicas=2", true)] {
        let Some(rendered) = template(&[replicas]) else { return };
        let rendered = rendered.unwrap();
        let mut budgets = objects(&rendered).filter(|object| object["kind"] == "PodDisruptionBudget");
        assert_eq!(budgets.any(|budget| budget["metadata"]["name"] == "gamut-ca"), expected);
    }
}

#[test]
fn what_may_be_created_is_restricted_by_name_where_kubernetes_can() {
    for (version, expected) in [("1.29.0", 0), ("1.30.0", 1), ("1.34.0", 1)] {
        let version = format!("--kube-version={version}");
        let Some(rendered) = helm(&["template", "gamut", CHART, "--namespace=gamut-system", &version]) else {
            return;
        };
        let rendered = rendered.unwrap();
        let policies = objects(&rendered).filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
        assert_eq!(policies.count(), expected, "{version}");
    }
}

/// A pod as the API server has it after injection, with its sidecar told this.
fn injected(config: &Config) -> Value {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "labels": {INJECT: "enabled"}},
        "spec": {"containers": [{"name": "web", "image": "shop/web", "ports": [{"name": "http", "containerPort": 80}]}]},
    });
    match gamut_injector::inject(&pod, &NamespaceView::default(), config) {
        Ok(Injection::Injected(injected)) => injected.pod,
        other => panic!("{other:?}"),
    }
}

fn sidecar(pod: &Value) -> Value {
    let mut containers = pod["spec"]["initContainers"].as_array().unwrap().iter();
    containers.find(|container| container["name"] == PROXY_CONTAINER).unwrap().clone()
}

fn objects(manifests: &str) -> impl Iterator<Item = Value> {
    manifests.split("\n---").map(|document| serde_saphyr::from_str::<Value>(document).unwrap())
}
