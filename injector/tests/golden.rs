//! Every file of `golden/` is a namespace and a pod, and what the installation says of sidecars where that matters; beside it stands what becomes of them. Accept changes with
//! `INSTA_UPDATE=always cargo test -p gamut-injector`, and read the difference.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, fs, path::Path};

use gamut_injector::{
    Config, INIT_CONTAINER, Injected, Injection, NamespaceView, PROXY_CONTAINER, Resources, inject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Case {
    namespace: Namespace,
    pod: Value,
    #[serde(default)]
    installation: Option<Installation>,
}

#[derive(Deserialize)]
struct Namespace {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Every setting of an installation: a new one has to be here, and in the case that has them all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Installation {
    image: String,
    image_pull_policy: String,
    trust_domain: String,
    ca_address: String,
    controller_address: String,
    system_namespace: String,
    log_level: String,
    log_format: String,
    traces_to: String,
    traces_share: String,
    drain_time: String,
    token_lifetime: i64,
    cpu_request: String,
    memory_request: String,
    cpu_limit: String,
    memory_limit: String,
}

impl Installation {
    fn config(self) -> Config {
        Config {
            image: self.image,
            image_pull_policy: Some(self.image_pull_policy),
            trust_domain: self.trust_domain,
            ca_address: self.ca_address,
            controller_address: self.controller_address,
            system_namespace: self.system_namespace,
            log_level: self.log_level,
            log_format: self.log_format,
            traces_to: Some(self.traces_to),
            traces_share: Some(self.traces_share),
            drain_time: self.drain_time,
            token_lifetime: self.token_lifetime,
            resources: Resources {
                cpu_request: Some(self.cpu_request),
                memory_request: Some(self.memory_request),
                cpu_limit: Some(self.cpu_limit),
                memory_limit: Some(self.memory_limit),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Refused(String),
    Skipped(String),
    Injected { warnings: Vec<String>, pod: Value, patch: Value },
}

fn case(path: &Path) -> (Value, NamespaceView, Config) {
    let case: Case = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let namespace = NamespaceView { name: case.namespace.name, labels: case.namespace.labels };
    let defaults = || Config { image: "gamut.mesh/gamut:test".to_owned(), ..Config::default() };
    (case.pod, namespace, case.installation.map_or_else(defaults, Installation::config))
}

/// What an injected pod is injected to, for every case that is.
fn for_each_injected(mut look: impl FnMut(&Path, &Value, &dyn Fn(&Value) -> Injection, Injected)) {
    let mut seen = 0;
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let (pod, namespace, config) = case(&path);
            if let Ok(Injection::Injected(injected)) = inject(&pod, &namespace, &config) {
                seen += 1;
                look(&path, &pod, &|pod| inject(pod, &namespace, &config).unwrap(), injected);
            }
        }
    }
    assert!(seen >= 5, "only {seen} cases were injected");
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["spec"]["initContainers"].as_array().unwrap();
    all.iter().find(|container| container["name"] == name).unwrap()
}

#[test]
fn each_pod_becomes_what_stands_beside_it() {
    insta::glob!("golden/*.yaml", |path| {
        let (pod, namespace, config) = case(path);
        let outcome = match inject(&pod, &namespace, &config) {
            Err(error) => Outcome::Refused(error.to_string()),
            Ok(Injection::Skipped(reason)) => Outcome::Skipped(reason.to_string()),
            Ok(Injection::Injected(injected)) => Outcome::Injected {
                warnings: injected.warnings.iter().map(ToString::to_string).collect(),
                pod: injected.pod,
                patch: serde_json::to_value(injected.patch).unwrap(),
            },
        };
        insta::with_settings!({snapshot_path => "golden", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_yaml_snapshot!(outcome);
        });
    });
}

#[test]
fn injecting_twice_is_injecting_once() {
    for_each_injected(|path, _, inject, once| {
        let Injection::Injected(twice) = inject(&once.pod) else {
            panic!("{path:?}: not injected again");
        };
        assert_eq!(twice.pod, once.pod, "{path:?}");
        assert!(twice.patch.is_empty(), "{path:?}: {}", twice.patch);
    });
}

#[test]
fn the_patch_leads_from_the_pod_to_the_injected_pod() {
    for_each_injected(|path, pod, _, injected| {
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &injected.patch).unwrap();
        assert_eq!(patched, injected.pod, "{path:?}");
    });
}

#[test]
fn a_pod_that_others_changed_after_injection_keeps_its_probes_and_gets_the_new_ones() {
    for_each_injected(|path, _, inject, once| {
        let mut changed = once.pod.clone();
        // Another webhook adds a container, and the API server fills in defaults.
        changed["spec"]["containers"]
            .as_array_mut()
            .unwrap()
            .push(json!({"name": "late", "livenessProbe": {"tcpSocket": {"port": 99}}}));
        if let Some(get) = changed.pointer_mut("/spec/containers/0/readinessProbe/httpGet") {
            get["scheme"] = "HTTP".into();
        }
        let Injection::Injected(again) = inject(&changed) else {
            panic!("{path:?}: not injected again");
        };
        let (before, after) = (originals(&once.pod), originals(&again.pod));
        assert_eq!(after["/app/late/liveness"], json!({"tcpSocket": {"port": 99}, "timeoutSeconds": 1}));
        for (path, original) in before.as_object().unwrap() {
            assert_eq!(&after[path], original);
        }
    });
}

fn originals(pod: &Value) -> Value {
    let env = container(pod, PROXY_CONTAINER)["env"].as_array().unwrap();
    match env.iter().find(|variable| variable["name"] == "GAMUT_PROBES") {
        Some(variable) => serde_json::from_str(variable["value"].as_str().unwrap()).unwrap(),
        None => json!({}),
    }
}

#[test]
fn the_sidecar_is_restricted_and_the_init_container_is_but_for_net_admin() {
    for_each_injected(|_, _, _, injected| {
        for (name, user, add) in
            [(PROXY_CONTAINER, 15001, json!(null)), (INIT_CONTAINER, 0, json!(["NET_ADMIN"]))]
        {
            let context = &container(&injected.pod, name)["securityContext"];
            assert_eq!(context["runAsUser"], user);
            assert_eq!(context["runAsNonRoot"], user != 0);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(context["capabilities"]["add"], add);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
        }
    });
}
