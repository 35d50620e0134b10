//! What breaks about an installation, `gamut check` tells with its remedy; it is well again when that has been done, word by word. Requests
//! go on meanwhile.

use std::{cell::RefCell, fs};

use serde_json::{Value, json};

use crate::{
    harness::{Cluster, json_of, until},
    shop::{Canary, Load, Release},
};

/// An image that isn't on any node, and that none fetches.
const NO_IMAGE: &str = r#"{"spec": {"template": {"spec": {"containers": [
    {"name": "ca", "image": "gamut.mesh/gamut:nosuch", "imagePullPolicy": "Never"}
]}}}}"#;

/// No node is like that.
const NO_NODE: &str = r#"{"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "plan9"}}}}}"#;

/// Nobody but its kubelet and its sidecar has to do with it.
const LONE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: lone, namespace: lab}
spec: {containers: [{name: app, image: gamut.mesh/echo, imagePullPolicy: IfNotPresent}]}
";

/// What `gamut check`, with more arguments if need be, says of something.
fn findings(cluster: &Cluster, what: &str, more: &[&str]) -> Vec<Value> {
    let report = json_of(&cluster.gamut(&[&["check", "-o", "json"], more].concat()));
    let findings = report["findings"].as_array().unwrap().iter();
    findings.filter(|finding| finding["what"] == what).cloned().collect()
}

/// Waits until one of them has these words, and gives it.
fn told(cluster: &Cluster, what: &str, words: &[&str]) -> Value {
    told_by(cluster, &[], what, words)
}

fn told_by(cluster: &Cluster, more: &[&str], what: &str, words: &[&str]) -> Value {
    let says = |finding: &Value| words.iter().all(|word| finding["detail"].as_str().unwrap().contains(word));
    let found = RefCell::new(None);
    until(&format!("check says of {what}: {words:?}"), || {
        found.replace(findings(cluster, what, more).into_iter().find(says));
        found.borrow().is_some()
    });
    found.into_inner().unwrap()
}

/// Waits until there is nothing to complain of.
fn is_well(cluster: &Cluster, what: &str) {
    until(&format!("{what} is in order"), || {
        let said = findings(cluster, what, &[]);
        !said.is_empty() && said.iter().all(|finding| finding["result"] == "ok")
    });
}

/// Types the lines that mend something.
fn do_what_mends(cluster: &Cluster, finding: &Value) {
    let commands = finding["commands"].as_array().unwrap_or_else(|| panic!("there are none: {finding:#}"));
    for command in commands {
        cluster.run("bash", &["-c", command.as_str().unwrap()]);
    }
}

#[test]
fn what_breaks_about_the_control_plane_is_told_and_is_well_again_when_the_remedy_is_done() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    let load = Load::start(&cluster, &[]);
    load.more(100);

    // A CA that can't start: the one that there is goes on.
    for (patch, why, remedy) in [
        (NO_IMAGE, ["1 of 2 pods ready", "ErrImageNeverPull"], "correct the chart's values below image"),
        (NO_NODE, ["1 of 2 pods ready", "Unschedulable: 0/1 nodes are available"], "no node takes it"),
    ] {
        cluster.kubectl(&["patch", "-n", "gamut-system", "deployment/gamut-ca", "-p", patch]);
        let finding = told(&cluster, "ca", &why);
        assert_eq!(finding["result"], "warning", "{finding:#}");
        assert!(finding["remedy"].as_str().unwrap().contains(remedy), "{finding:#}");
    }
    cluster.kubectl(&["delete", "validatingadmissionpolicy", "gamut-control-plane"]);
    let finding = told(&cluster, "admission policy", &["there is no ValidatingAdmissionPolicy"]);
    assert!(finding["remedy"].as_str().unwrap().contains("`helm upgrade`"), "{finding:#}");
    load.more(100);
    release.upgrade(&[]);
    is_well(&cluster, "ca");
    is_well(&cluster, "admission policy");

    // Without a CA who has a certificate goes on, and who is new waits for one.
    cluster.kubectl(&["scale", "-n", "gamut-system", "deployment/gamut-ca", "--replicas=0"]);
    let scaled = told(&cluster, "ca", &["no pod: Deployment gamut-ca is scaled to 0"]);
    assert_eq!(scaled["result"], "failed", "{scaled:#}");
    cluster.kubectl(&["rollout", "restart", "-n", "shop", "deployment/web-v2"]);
    let new = told(&cluster, "certificates", &["shop/web-v2-", "has none yet: can't connect to the CA"]);
    assert!(new["remedy"].as_str().unwrap().contains("no CA is ready, which issues them"), "{new:#}");
    load.more(100);
    do_what_mends(&cluster, &scaled);
    canary.rolled_out("web-v2");
    is_well(&cluster, "ca");
    load.more(100);

    let seen = load.stop();
    assert!(seen.failed.is_empty(), "{} answers, of which failed: {:?}", seen.answers, seen.failed);
    drop(canary);
    release.uninstall();
}

#[test]
fn pods_of_an_earlier_installation_go_on_and_are_the_new_ones_when_they_are_restarted_as_check_says() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[]);
    let canary = Canary::start(&cluster);
    let load = Load::start(&cluster, &[]);
    load.more(100);

    release.uninstall();
    let release = Release::install(&cluster, &[]);
    load.more(100);
    let old =
        told(&cluster, "sidecars", &["shop/client-", "shop/web-v1-", "shop/web-v2-", "restart its pod"]);
    let seen = load.stop();
    assert!(seen.failed.is_empty(), "{} answers, of which failed: {:?}", seen.answers, seen.failed);

    let restart = "kubectl rollout restart -n shop deployment/client deployment/web-v1 deployment/web-v2";
    assert_eq!(old["commands"], json!([restart]), "{old:#}");
    do_what_mends(&cluster, &old);
    for deployment in ["client", "web-v1", "web-v2"] {
        canary.rolled_out(deployment);
    }
    is_well(&cluster, "sidecars");
    assert_eq!(canary.versions(100).values().sum::<usize>(), 100);
    drop(canary);
    release.uninstall();
}

#[test]
fn a_pod_whose_traffic_cannot_be_redirected_says_in_its_description_what_to_do() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.kubectl(&[
        "create",
        "configmap",
        "-n",
        "lab",
        "gamut-trust-bundle",
        "--from-literal=root.pem=none",
    ]);
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    fs::write(file.path(), LONE).unwrap();
    let injected = cluster.gamut(&["inject", "--offline", "-o", "json", "-f", file.path().to_str().unwrap()]);
    let mut pod = json_of(&injected)["items"][0].take();
    // As a policy that knows nothing of sidecars makes of it.
    let capabilities = &mut pod["spec"]["initContainers"][0]["securityContext"]["capabilities"];
    assert_eq!(capabilities.as_object_mut().unwrap().remove("add"), Some(json!(["NET_ADMIN"])));
    cluster.wait_for("lab", "serviceaccount/default");
    cluster.apply(&pod.to_string());

    until("kubectl describe has what is wrong and what to do", || {
        let described = cluster.kubectl(&["describe", "pod", "-n", "lab", "lone"]);
        ["Operation not permitted", "gamut-init asks for NET_ADMIN, and something has taken it away"]
            .iter()
            .all(|words| described.contains(words))
    });
    let words = ["pod lab/lone: container gamut-init: ", "; its last words: gamut: ", "asks for NET_ADMIN"];
    let finding = told_by(&cluster, &["--proxy", "-n", "lab"], "sidecars", &words);
    assert!(finding["remedy"].as_str().unwrap().contains("describe pod lone"), "{finding:#}");
    cluster.kubectl(&["delete", "-n", "lab", "pod/lone", "--force", "--grace-period=0"]);
}
