//! The CA's root is replaced on a mesh that runs, and put back, while requests go on: nothing restarts and none fails.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_ca::{Authority, Stored};
use jiff::{Span, Timestamp};
use serde_json::{Value, json};

use crate::{
    authority::{bundle, secret},
    harness::{Cluster, json_of, until},
    shop::{Canary, Load, Release},
};

/// Sidecars renew after half of it.
const LEAF_LIFETIME: &str = "ca.leafLifetime=20s";

/// An entry of a Secret.
fn entry(cluster: &Cluster, name: &str, entry: &str) -> String {
    let path = format!(".data.{}", entry.replace('.', r"\."));
    let data = cluster.value("gamut-system", &format!("secret/{name}"), &path);
    String::from_utf8(STANDARD.decode(data).unwrap()).unwrap()
}

/// Has the CA's record say that everything in it happened so much earlier, in place of waiting.
fn later(cluster: &Cluster, span: Span) {
    let times: BTreeMap<String, BTreeMap<String, Timestamp>> =
        serde_json::from_str(&entry(cluster, "gamut-ca-roots", "times.json")).unwrap();
    let earlier = |times: BTreeMap<String, Timestamp>| -> BTreeMap<String, Timestamp> {
        times.into_iter().map(|(name, time)| (name, time - span)).collect()
    };
    let times: BTreeMap<_, _> = times.into_iter().map(|(root, times)| (root, earlier(times))).collect();
    let times = STANDARD.encode(serde_json::to_string(&times).unwrap());
    let patch = json!({"data": {"times.json": times}}).to_string();
    cluster.kubectl(&[
        "patch",
        "secret",
        "-n",
        "gamut-system",
        "gamut-ca-roots",
        "--type=merge",
        "-p",
        &patch,
    ]);
}

/// What the shop's sidecars say of their certificates and roots.
fn identities(cluster: &Cluster) -> Value {
    json_of(&cluster.gamut(&["identity", "-n", "shop", "-o", "json"]))
}

/// Waits until every sidecar trusts so many roots and no other.
fn trust(cluster: &Cluster, count: usize) {
    until(&format!("{count} roots are trusted by everybody"), || {
        let said = identities(cluster);
        let (sidecars, roots) =
            (said["identities"].as_array().unwrap().len(), said["roots"].as_array().unwrap());
        roots.len() == count && roots.iter().all(|root| root["trusted_by"] == sidecars)
    });
}

const NEWCOMER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: newcomer, namespace: shop}
spec: {containers: [{name: echo, image: gamut.mesh/echo}]}
";

/// Waits until every sidecar has a certificate that was issued from now on.
fn renewed(cluster: &Cluster) {
    let now = Timestamp::now();
    // What is issued is backdated: the end tells when it was.
    let lifetime = Span::new().seconds(20);
    until("everybody has a certificate of the new key", || {
        let said = identities(cluster);
        let mut identities = said["identities"].as_array().unwrap().iter();
        identities.all(|it| {
            let expires =
                it["certificate"]["expires"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
            expires.is_some_and(|expires| expires - lifetime > now)
        })
    });
}

/// The pods of the mesh and of the shop, and how often their containers have started.
fn pods(cluster: &Cluster) -> String {
    let each = "{.metadata.uid} {.status.initContainerStatuses[*].restartCount} {.status.containerStatuses[*].restartCount}";
    let range = format!("-o=jsonpath={{range .items[*]}}{each}{{\"\\n\"}}{{end}}");
    let of = |namespace| cluster.kubectl(&["get", "pods", "-n", namespace, &range]);
    of("gamut-system") + "\n" + &of("shop")
}

#[test]
fn a_root_is_replaced_and_put_back_under_load_without_a_restart_and_no_request_fails() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster, &[LEAF_LIFETIME]);
    let canary = Canary::start(&cluster);
    let started = pods(&cluster);
    let kept = Load::start(&cluster, &[]);
    let new_connections = Load::start(&cluster, &["--reconnect"]);
    let goes_on = || {
        kept.more(50);
        new_connections.more(50);
        // And the API server knows the injector, whose certificate is renewed when its own time comes.
        let dry = ["--dry-run=server", "-o=jsonpath={.spec.initContainers[*].name}"];
        until("a pod could be created", || {
            cluster.try_apply(NEWCOMER, &dry).stdout == b"gamut-init gamut-proxy"
        });
    };
    goes_on();
    let [key, chain, roots] = ["tls.key", "tls.crt", "ca.crt"].map(|name| entry(&cluster, "gamut-ca", name));
    let old = Stored { key, chain, roots: Some(roots) };
    let new = Authority::make("cluster.local", SystemTime::now()).unwrap();
    let ca_says = |text: &str| {
        let logs = ["logs", "-n", "gamut-system", "deployment/gamut-ca"];
        until(text, || cluster.kubectl(&logs).contains(text));
    };

    secret(&cluster, "gamut-ca", &new);
    trust(&cluster, 2);
    goes_on();
    later(&cluster, Span::new().minutes(3));
    ca_says("the new signing key is in use");
    renewed(&cluster);
    goes_on();

    // Back, while the old root is still trusted: its key signs again at once.
    secret(&cluster, "gamut-ca", &old);
    until("the old root comes first", || {
        bundle(&cluster, "gamut-system").starts_with(old.roots.as_deref().unwrap().trim())
    });
    renewed(&cluster);
    goes_on();
    later(&cluster, Span::new().hours(2));
    trust(&cluster, 1);
    assert_eq!(bundle(&cluster, "shop"), old.roots.as_deref().unwrap().trim());
    renewed(&cluster);
    goes_on();

    for load in [kept, new_connections] {
        let seen = load.stop();
        assert!(seen.failed.is_empty(), "{} answers, of which failed: {:?}", seen.answers, seen.failed);
    }
    assert_eq!(pods(&cluster), started, "something was restarted");
    drop(canary);
    release.uninstall();
}
