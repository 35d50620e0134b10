//! What roles can't say and the chart's admission policy does: by what names the control plane creates things.

use std::process::Output;

use crate::harness::{Cluster, until};

/// Kubernetes would write a token of the CA into it.
const ANOTHERS_TOKEN: &str = "
apiVersion: v1
kind: Secret
metadata:
  name: gamut-session-keys
  namespace: gamut-system
  annotations: {kubernetes.io/service-account.name: gamut-ca}
type: kubernetes.io/service-account-token
";

#[test]
fn the_control_plane_creates_what_has_its_names_and_nothing_else() {
    let Some(cluster) = Cluster::take() else { return };
    let chart = ["template", "gamut", Cluster::CHART, "--namespace=gamut-system", "--kube-version=1.34.0"];
    let policy = cluster.run("helm", &[chart.as_slice(), &["--show-only=templates/admission.yaml"]].concat());
    cluster.apply(&policy);

    let creates = |account: &str, namespace: &str, what: &[&str]| {
        let who = format!("--as=system:serviceaccount:gamut-system:{account}");
        cluster.try_kubectl(&[&["create", "-n", namespace, "--dry-run=server", &who], what].concat())
    };
    // An API server looks for policies once a second.
    until("the policy is in force", || {
        refusal(&creates("gamut-ca", "gamut-system", &["secret", "generic", "other"])).is_some()
    });
    for (account, namespace, kind, ours) in [
        ("gamut-ca", "gamut-system", &["secret", "generic"][..], "gamut-ca"),
        ("gamut-ca", "gamut-system", &["secret", "generic"], "gamut-ca-roots"),
        ("gamut-ca", "shop", &["configmap"], "gamut-trust-bundle"),
        ("gamut-controller", "gamut-system", &["secret", "generic"], "gamut-session-keys"),
    ] {
        let made = creates(account, namespace, &[kind, &[ours]].concat());
        assert!(made.status.success(), "{account}: {made:?}");
        let refused = refusal(&creates(account, namespace, &[kind, &["other"]].concat())).unwrap();
        assert!(refused.contains("other, only ") && refused.contains(ours), "{refused}");
    }
    let who = "--as=system:serviceaccount:gamut-system:gamut-controller";
    let refused = refusal(&cluster.try_apply(ANOTHERS_TOKEN, &[who])).unwrap();
    assert!(refused.contains("no Secret that Kubernetes itself would fill"), "{refused}");
    cluster.kubectl(&["create", "-n", "gamut-system", "secret", "generic", "somebodys"]);
}

/// What our policy says, if it refuses.
fn refusal(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success() && said.contains("gamut-control-plane")).then_some(said)
}
