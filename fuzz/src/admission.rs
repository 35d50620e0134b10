//! Pods that are about to be created.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_injector::{Config, INJECT, Injection, NamespaceView, PROXY_CONTAINER, inject};
use json_patch::Patch;
use serde_json::{Value, json};

/// An AdmissionReview. A line says what is wrong with it, or its answer names it; a patch does what it says, and is needed
/// once.
pub(crate) fn review(input: &[u8]) {
    let (uid, pod, answer) = match gamut_webhook::fuzz::review(input) {
        Ok(answered) => answered,
        Err(message) => {
            assert!(message.len() < 2000 && !message.contains('\n'), "{message:?}");
            return;
        }
    };
    let response = &answer["response"];
    assert_eq!(response["uid"], *uid);
    let allowed = response["allowed"].as_bool().expect("a verdict");
    let Some(patch) = response["patch"].as_str() else { return };
    assert!(allowed, "a patch of a pod that is refused");
    let patch: Patch = serde_json::from_slice(&STANDARD.decode(patch).expect("base64")).expect("a patch");
    let mut patched = pod;
    json_patch::patch(&mut patched, &patch).expect("it fits the pod");
    check(&patched);
}

/// Lines `name=value`: a pod's annotations. What is taken becomes text that can be nothing else in the pod or in a log.
pub(crate) fn annotations(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let annotations: BTreeMap<&str, &str> =
        text.lines().take(32).filter_map(|line| line.split_once('=')).collect();
    let pod = json!({
        "metadata": {"name": "web-0", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "app", "readinessProbe": {"httpGet": {"port": 80}}}]},
    });
    match inject(&pod, &namespace(), &Config::default()) {
        Ok(Injection::Injected(injected)) => {
            let mut patched = pod;
            json_patch::patch(&mut patched, &injected.patch).expect("it fits the pod");
            assert_eq!(patched, injected.pod);
            check(&patched);
        }
        Ok(Injection::Skipped(_)) => {}
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
    }
}

fn namespace() -> NamespaceView {
    let labels = [(INJECT.to_owned(), "enabled".to_owned())].into();
    NamespaceView { name: "shop".to_owned(), labels }
}

/// An injected pod has a sidecar whose settings are lines, and is injected no further.
fn check(pod: &Value) {
    let sidecars = pod["spec"]["initContainers"].as_array().expect("the sidecar is among them");
    let sidecars: Vec<_> = sidecars.iter().filter(|container| container["name"] == PROXY_CONTAINER).collect();
    let [sidecar] = sidecars.as_slice() else { panic!("{} sidecars", sidecars.len()) };
    for variable in sidecar["env"].as_array().expect("settings") {
        let value = variable["value"].as_str().unwrap_or_default();
        assert!(!value.contains(char::is_control), "{variable}");
    }
    match inject(pod, &namespace(), &Config::default()) {
        Ok(Injection::Injected(again)) => assert!(again.patch.is_empty(), "{}", again.patch),
        other => panic!("an injected pod became {other:?}"),
    }
}
