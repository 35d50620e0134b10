//! The CA on a real API server: whom it believes, what it keeps, and where it publishes its roots.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_ca::{Authority, Stored};

use crate::harness::{Cluster, Process, until};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: replica, namespace: gamut-system}
spec:
  serviceAccountName: gamut-controller
  schedulerName: none # it exists, which is all that a token needs; on a node that there is not, Kubernetes collects it as garbage
  containers: [{name: controller, image: none}]
---
apiVersion: v1
kind: Pod
metadata: {name: former, namespace: gamut-system}
spec:
  serviceAccountName: gamut-controller
  schedulerName: none
  containers: [{name: controller, image: none}]
";

/// A controller as the CA's client, with this token.
fn client(cluster: &Cluster, directory: &tempfile::TempDir, token: &str) -> Process {
    let (token_file, roots_file) = (directory.path().join("token"), directory.path().join("root.pem"));
    std::fs::write(&token_file, token).unwrap();
    std::fs::write(&roots_file, bundle(cluster, "gamut-system")).unwrap();
    let files = ["--token-file", token_file.to_str().unwrap(), "--roots-file", roots_file.to_str().unwrap()];
    cluster.controller("client", 15_100, &files)
}

fn token(cluster: &Cluster, more: &[&str]) -> String {
    cluster.kubectl(&[&["create", "token", "gamut-controller", "-n", "gamut-system"], more].concat())
}

/// What is published in a namespace.
pub(crate) fn bundle(cluster: &Cluster, namespace: &str) -> String {
    cluster.wait_for(namespace, "configmap/gamut-trust-bundle");
    cluster.value(namespace, "configmap/gamut-trust-bundle", r#".data.root\.pem"#)
}

/// Writes a Secret to sign with.
pub(crate) fn secret(cluster: &Cluster, name: &str, stored: &Stored) {
    let entry = |text: &str| STANDARD.encode(text);
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: gamut-system}}
type: kubernetes.io/tls
data: {{tls.key: {}, tls.crt: {}, ca.crt: {}}}
",
        entry(&stored.key),
        entry(&stored.chain),
        entry(stored.roots.as_deref().unwrap_or_default()),
    ));
}

fn is_ready(cluster: &Cluster) -> bool {
    cluster.get("http://127.0.0.1:15101/ready").0 == 200
}

#[test]
fn a_pods_own_token_gets_a_certificate_and_no_other_does() {
    let Some(cluster) = Cluster::take() else { return };
    let directory = tempfile::tempdir().unwrap();
    cluster.apply(PODS);
    let (kind, name) = ("--bound-object-kind=Pod", "--bound-object-name=replica");
    let ours = "--audience=gamut.mesh/ca";
    let former = token(&cluster, &[kind, "--bound-object-name=former", ours]);
    cluster.kubectl(&["delete", "-n", "gamut-system", "pod", "former", "--force", "--grace-period=0"]);
    let ca = cluster.ca(15_010, &[]);
    ca.says("the CA is ready");

    let controller = client(&cluster, &directory, &token(&cluster, &[kind, name, ours]));
    until("the client has a certificate", || is_ready(&cluster));
    ca.says("issued");
    controller.terminate();

    for (reason, token) in [
        ("audience", token(&cluster, &[kind, name])),
        ("isn't bound to a pod", token(&cluster, &[ours])),
        ("isn't one of this cluster's", "no.such.token".to_owned()),
        ("isn't one of this cluster's", former),
    ] {
        let controller = client(&cluster, &directory, &token);
        controller.says(reason);
        assert!(!is_ready(&cluster), "{reason}");
        controller.kill();
    }
    ca.terminate();
}

#[test]
fn two_that_start_at_the_same_time_agree_on_one_root_and_keep_it() {
    let Some(cluster) = Cluster::take() else { return };
    let first = cluster.ca(15_010, &[]);
    let second = cluster.ca(15_020, &[]);
    first.says("the CA is ready");
    second.says("the CA is ready");
    let root = cluster.value("gamut-system", "secret/gamut-ca", r#".data.ca\.crt"#);
    let root = String::from_utf8(STANDARD.decode(root).unwrap()).unwrap();
    assert_eq!(bundle(&cluster, "gamut-system"), root.trim());
    first.terminate();
    second.terminate();

    let again = cluster.ca(15_010, &[]);
    again.says("the CA is ready");
    assert!(!again.has_said("made a new root"));
    assert_eq!(bundle(&cluster, "gamut-system"), root.trim());
    again.terminate();
}

#[test]
fn the_roots_are_published_where_there_are_sidecars_and_put_back_when_somebody_removes_them() {
    let Some(cluster) = Cluster::take() else { return };
    let ca = cluster.ca(15_010, &[]);
    ca.says("the CA is ready");
    let root = bundle(&cluster, "gamut-system");
    cluster.kubectl(&["label", "namespace", "shop", "gamut.mesh/inject=enabled"]);
    assert_eq!(bundle(&cluster, "shop"), root);
    assert!(!cluster.try_kubectl(&["get", "-n", "lab", "configmap/gamut-trust-bundle"]).status.success());
    cluster.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: lab, labels: {gamut.mesh/inject: enabled}}
spec: {schedulerName: none, containers: [{name: app, image: none}]}
",
    );
    assert_eq!(bundle(&cluster, "lab"), root);

    cluster.kubectl(&["delete", "-n", "shop", "configmap/gamut-trust-bundle"]);
    assert_eq!(bundle(&cluster, "shop"), root);
    let spoiled = r#"{"data": {"root.pem": "spoiled"}}"#;
    cluster.kubectl(&["patch", "-n", "lab", "configmap/gamut-trust-bundle", "--type=merge", "-p", spoiled]);
    until("the spoiled bundle is put right", || bundle(&cluster, "lab") == root);
    ca.terminate();
}

#[test]
fn the_roots_are_a_cluster_trust_bundle_too_and_put_back_when_somebody_changes_it() {
    let Some(cluster) = Cluster::take() else { return };
    let ca = cluster.ca(15_010, &[]);
    ca.says("is published as ClusterTrustBundle gamut-trust-bundle");
    let name = "clustertrustbundle/gamut-trust-bundle";
    let held = || cluster.value("", name, ".spec.trustBundle");
    let root = bundle(&cluster, "gamut-system");
    assert_eq!(held(), root);

    let other = Authority::make("cluster.local", SystemTime::now()).unwrap().chain;
    let patch = serde_json::json!({"spec": {"trustBundle": other}}).to_string();
    cluster.kubectl(&["patch", name, "--type=merge", "-p", &patch]);
    until("somebody else's root is replaced", || held() == root);
    cluster.kubectl(&["delete", name]);
    cluster.wait_for("", name);
    assert_eq!(held(), root);
    ca.terminate();
}

#[test]
fn a_users_secret_is_waited_for_followed_and_when_broken_left_alone() {
    let Some(cluster) = Cluster::take() else { return };
    let make = || Authority::make("cluster.local", SystemTime::now()).unwrap();
    let (old, new) = (make(), make());
    let ca = cluster.ca(15_010, &["--existing-secret", "our-pki"]);
    ca.says("Secret gamut-system/our-pki doesn't exist (yet)");
    secret(&cluster, "our-pki", &old);
    ca.says("the CA is ready");
    assert_eq!(bundle(&cluster, "gamut-system"), old.chain.trim());

    // What can't be used changes nothing.
    secret(&cluster, "our-pki", &Stored { key: new.key.clone(), ..old.clone() });
    ca.says("do the three belong together?");
    assert_eq!(bundle(&cluster, "gamut-system"), old.chain.trim());

    // A new root is trusted first, beside the old one.
    secret(&cluster, "our-pki", &new);
    ca.says("its roots are published, and sign when they have spread");
    let both = format!("{}{}", new.chain, old.chain);
    until("both are published", || bundle(&cluster, "gamut-system") == both.trim());
    assert!(!ca.has_said("the new signing key is in use"));
    ca.terminate();
}

#[test]
fn a_root_on_its_way_out_is_not_forgotten_when_somebody_deletes_what_is_published() {
    let Some(cluster) = Cluster::take() else { return };
    let make = || Authority::make("cluster.local", SystemTime::now()).unwrap();
    let (old, new, strangers) = (make(), make(), make());
    let published = || bundle(&cluster, "gamut-system");
    let delete = || cluster.kubectl(&["delete", "-n", "gamut-system", "configmap/gamut-trust-bundle"]);
    secret(&cluster, "gamut-ca", &old);
    let ca = cluster.ca(15_010, &[]);
    ca.says("the CA is ready");
    secret(&cluster, "gamut-ca", &new);
    let both = format!("{}{}", new.chain, old.chain).trim().to_owned();
    until("both are published", || published() == both);

    delete();
    until("both are published again", || published() == both);
    let patch = serde_json::json!({"data": {"root.pem": strangers.chain}}).to_string();
    cluster.kubectl(&[
        "patch",
        "-n",
        "gamut-system",
        "configmap/gamut-trust-bundle",
        "--type=merge",
        "-p",
        &patch,
    ]);
    until("both are published, and the stranger's root isn't", || published() == both);
    cluster.kubectl(&["delete", "-n", "gamut-system", "secret/gamut-ca-roots"]);
    cluster.wait_for("gamut-system", "secret/gamut-ca-roots");
    delete();
    until("both are published though their record was deleted, too", || published() == both);

    // Nor while the CA is away.
    ca.terminate();
    delete();
    let ca = cluster.ca(15_010, &[]);
    ca.says("the CA is ready");
    assert_eq!(published(), both);
    ca.terminate();
}
