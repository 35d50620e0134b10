//! Signing with an intermediate of one's own PKI, in a Secret as cert-manager writes it, and what happens when that Secret breaks.

use std::{fs, process::Stdio};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::{
    harness::{Cluster, until},
    shop::{Canary, Release},
};

/// PEM.
struct Pki {
    root: String,
    intermediate: String,
    key: String,
}

impl Pki {
    fn make() -> Self {
        let root_key = KeyPair::generate().unwrap();
        let root = authority("Example root", IsCa::Ca(BasicConstraints::Unconstrained));
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let intermediate = authority("Example mesh", IsCa::Ca(BasicConstraints::Constrained(0)));
        let signed = intermediate.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        Self { root: root_pem, intermediate: signed.pem(), key: key.serialize_pem() }
    }

    /// The Secret that cert-manager makes of a Certificate with `isCA: true`.
    fn secret(&self, root: &str) -> String {
        let [key, chain, root] = [&self.key, &self.intermediate, root].map(|text| STANDARD.encode(text));
        format!(
            "
apiVersion: v1
kind: Secret
metadata: {{name: our-pki, namespace: gamut-system}}
type: kubernetes.io/tls
data: {{tls.key: {key}, tls.crt: {chain}, ca.crt: {root}}}
"
        )
    }
}

fn authority(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// What the controller's port shows of its certificate to somebody who trusts these roots, as openssl tells it.
fn shown_by_the_controller(cluster: &Cluster, roots: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), roots).unwrap();
    let pod = ["get", "pods", "-n", "gamut-system", "-l=app.kubernetes.io/component=controller"];
    let address = cluster.kubectl(&[pod.as_slice(), &["-o=jsonpath={.items[0].status.podIP}"]].concat());
    let mut openssl = cluster.inside("openssl");
    openssl.args([
        "s_client",
        "-connect",
        &format!("{address}:15012"),
        "-noservername",
        "-showcerts",
        "-CAfile",
    ]);
    let output = openssl.arg(file.path()).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn certificates_lead_to_the_users_root_and_a_secret_that_breaks_is_told_about_and_costs_no_request() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let pki = Pki::make();
    let refused_for = |lacking: &str| {
        let refused = Release::refusal(&cluster, "install", &["ca.existingSecret=our-pki"]);
        assert!(refused.contains(lacking), "{refused}");
    };
    refused_for("gamut-system has none of that name");
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "-n",
        "gamut-system",
        "our-pki",
        "--from-literal=tls.key=x",
    ]);
    refused_for("this one has no tls.crt");
    cluster.kubectl(&["delete", "secret", "-n", "gamut-system", "our-pki"]);
    cluster.apply(&pki.secret(&pki.root));
    let release = Release::install(&cluster, &["ca.existingSecret=our-pki"]);
    let canary = Canary::start(&cluster);
    let works = |when: &str| assert_eq!(canary.versions(50).values().sum::<usize>(), 50, "{when}");
    works("with the user's own PKI");
    let published = cluster.value("shop", "configmap/gamut-trust-bundle", r".data.root\.pem");
    assert_eq!(published, pki.root.trim());
    let shown = shown_by_the_controller(&cluster, &pki.root);
    assert!(shown.contains("Verify return code: 0 (ok)") && shown.contains("CN = Example mesh"), "{shown}");
    assert_eq!(cluster.check("signing key").0, "ok");

    // While the CA runs: what it signs with stays, new pods included.
    cluster.apply(&pki.secret("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"));
    until("the broken Secret is told about", || cluster.check("signing key").0 == "failed");
    let (_, detail) = cluster.check("signing key");
    assert!(detail.contains("Secret gamut-system/our-pki: ca.crt can't be used"), "{detail}");
    canary.restart("client");
    works("while the Secret is broken");

    // A CA that starts now has nothing to sign with, and says why it ended. Who has a certificate goes on.
    let pods = ["delete", "pods", "-n", "gamut-system", "-l=app.kubernetes.io/component=ca"];
    cluster.kubectl(&[pods.as_slice(), &["--force", "--grace-period=0"]].concat());
    until("the CA's last words are told", || cluster.check("ca").1.contains("ca.crt can't be used"));
    works("while there is no CA");

    cluster.apply(&pki.secret(&pki.root));
    cluster.kubectl(&["rollout", "status", "-n", "gamut-system", "deployment/gamut-ca", "--timeout=120s"]);
    until("all is well again", || cluster.check("signing key").0 == "ok" && cluster.check("ca").0 == "ok");
    canary.restart("client");
    works("with the Secret mended");
    drop(canary);
    release.uninstall();
}
