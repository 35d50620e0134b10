//! Gamut as people install it: the chart, the images, a labelled namespace, and `examples/canary` as it is.
//!
//! The images must be loaded (`integration/cluster/images --load`).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use crate::harness::{Cluster, until};

/// A Helm release, uninstalled when dropped.
struct Release<'a>(&'a Cluster);

impl<'a> Release<'a> {
    fn install(cluster: &'a Cluster) -> Self {
        let standard = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl(&["label", "--overwrite", "namespace", "gamut-system", standard]);
        let release = Self(cluster);
        release.helm(&["install", "gamut", Cluster::CHART, "--wait", "--timeout=2m"]);
        release
    }

    fn helm(&self, arguments: &[&str]) -> String {
        self.0.run("helm", &[arguments, &["--namespace=gamut-system"]].concat())
    }

    fn uninstall(self) {
        self.helm(&["uninstall", "gamut", "--wait", "--timeout=2m"]);
    }
}

/// `examples/canary`, rolled out. Its objects are deleted when dropped; the namespace stays.
struct Canary<'a>(&'a Cluster);

impl<'a> Canary<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let canary = Self(cluster);
        cluster.kubectl(&["apply", "-f", Cluster::CANARY]);
        for deployment in ["web-v1", "web-v2", "client"] {
            canary.rolled_out(deployment);
        }
        cluster.wait(
            "shop",
            "httproute/web",
            r#".status.parents[0].conditions[?(@.type=="Accepted")].status"#,
            "True",
        );
        canary
    }

    fn rolled_out(&self, deployment: &str) {
        let deployment = format!("deployment/{deployment}");
        self.0.kubectl(&["rollout", "status", "-n", "shop", &deployment, "--timeout=180s"]);
    }

    /// Requests from the client's pod.
    fn ask(&self, arguments: &[&str]) -> String {
        let exec = ["exec", "-n", "shop", "deployment/client", "-c", "echo", "--"];
        self.0.kubectl(&[exec.as_slice(), arguments].concat())
    }

    fn pods(&self, labels: &str) -> usize {
        self.0.kubectl(&["get", "pods", "-n", "shop", "-l", labels, "-o", "name"]).lines().count()
    }

    /// How often each version answered.
    fn versions(&self, count: usize) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for line in self.ask(&["client", "http://web/", &format!("--count={count}")]).lines() {
            if let Some((_, version)) = line.split_once("ServiceVersion=") {
                *versions.entry(version.to_owned()).or_default() += 1;
            }
        }
        versions
    }
}

impl Drop for Canary<'_> {
    fn drop(&mut self) {
        let all = "deployments.apps,services,serviceaccounts,httproutes";
        self.0.kubectl(&["delete", "-n", "shop", "--all", "--wait=false", all]);
        self.0.kubectl(&["delete", "-n", "shop", "--all", "pods", "--force", "--grace-period=0"]);
    }
}

#[test]
fn the_canary_of_the_readme_runs_on_a_cluster_and_nothing_is_left_after_an_uninstallation() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let before = everything(&cluster);
    let release = Release::install(&cluster);
    let canary = Canary::start(&cluster);

    let versions = canary.versions(500);
    let new = versions.get("v2").copied().unwrap_or_default();
    assert_eq!(versions.values().sum::<usize>(), 500, "{versions:?}");
    assert!((20..=90).contains(&new), "10 % of 500 are about 50: {versions:?}");
    let asked = canary.ask(&["client", "http://web/", "-H", "x-canary:always"]);
    assert!(asked.contains("ServiceVersion=v2"), "{asked}");

    // The namespace is strict. The node isn't in the mesh.
    let address = ["get", "pods", "-n", "shop", "-l=version=v1", "-o=jsonpath={.items[0].status.podIP}"];
    let address = cluster.kubectl(&address);
    let (status, answer) = cluster.get(&format!("http://{address}:8080/"));
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("mtls-required"), "{answer}");

    // What the kubelet asks, others may see; whom the controller serves they may not.
    let replica = ["get", "pods", "-n", "gamut-system", "-l=app.kubernetes.io/component=controller"];
    let replica = cluster.kubectl(&[replica.as_slice(), &["-o=jsonpath={.items[0].status.podIP}"]].concat());
    assert_eq!(cluster.get(&format!("http://{replica}:15014/ready")).0, 200);
    assert_eq!(cluster.get(&format!("http://{replica}:15014/status")).0, 403);

    let trusted = ca_bundle(&cluster);
    release.helm(&["upgrade", "gamut", Cluster::CHART, "--wait", "--timeout=2m", "--set=log.level=debug"]);
    assert_eq!(ca_bundle(&cluster), trusted, "an upgrade leaves the injector's caBundle alone");
    cluster.kubectl(&["rollout", "restart", "-n", "shop", "deployment/client"]);
    canary.rolled_out("client");
    assert_eq!(canary.versions(100).values().sum::<usize>(), 100, "after the upgrade");

    drop(canary);
    release.uninstall();
    until("only what was there before is left", || everything(&cluster).is_subset(&before));
}

#[test]
fn a_rolling_restart_of_a_meshed_deployment_under_load_fails_no_request() {
    let Some(cluster) = Cluster::take_empty() else { return };
    cluster.install_gateway_api();
    let release = Release::install(&cluster);
    let canary = Canary::start(&cluster);

    for (how, more) in
        [("on kept connections", [].as_slice()), ("on a connection for each", &["--reconnect"])]
    {
        let load = Load::start(&cluster, more);
        load.more(200);
        for deployment in ["web-v1", "web-v2"] {
            cluster.kubectl(&["rollout", "restart", "-n", "shop", &format!("deployment/{deployment}")]);
            canary.rolled_out(deployment);
        }
        until("the old pods are gone", || canary.pods("app=web") == 4);
        load.more(200);
        let seen = load.stop();
        assert!(seen.failed.is_empty(), "requests {how}: {seen:?}");
    }
    drop(canary);
    release.uninstall();
}

/// Requests without a pause from the client's pod.
struct Load {
    exec: Child,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    failed: Vec<String>,
}

impl Load {
    fn start(cluster: &Cluster, more: &[&str]) -> Self {
        let exec = ["exec", "-i", "-n", "shop", "deployment/client", "-c", "echo", "--"];
        let load = ["gamut-echo", "load", "http://web/", "--users=4"];
        let mut command = cluster.inside("kubectl");
        command.args(exec).args(load).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut exec = command.spawn().unwrap();
        let lines = BufReader::new(exec.stdout.take().unwrap()).lines();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let into = seen.clone();
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut seen = into.lock().unwrap();
                seen.answers += 1;
                if !line.starts_with("200 ") {
                    seen.failed.push(line);
                }
            }
        });
        Self { exec, seen, reader }
    }

    /// Waits for so many answers more.
    fn more(&self, count: usize) {
        let before = self.seen.lock().unwrap().answers;
        until("there are more answers", || self.seen.lock().unwrap().answers >= before + count);
    }

    /// Ends it, and gives what it has seen.
    fn stop(mut self) -> Seen {
        drop(self.exec.stdin.take());
        self.exec.wait().unwrap();
        self.reader.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// What the API server trusts the injector by.
fn ca_bundle(cluster: &Cluster) -> String {
    let path = ".webhooks[*].clientConfig.caBundle";
    let bundle = cluster.value("", "mutatingwebhookconfiguration/gamut-injector", path);
    assert!(!bundle.is_empty());
    bundle
}

/// Every object there is, but for those that come and go by themselves.
fn everything(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let names = "-o=jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
    let all = cluster.kubectl(&["get", &kinds.join(","), "--all-namespaces", names]);
    all.lines().map(str::to_owned).collect()
}
