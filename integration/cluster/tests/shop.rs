//! Gamut installed by its chart, `examples/canary` in it, and requests without a pause: what tests of a whole mesh begin with.
//!
//! The images must be loaded (`integration/cluster/images --load`).

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use crate::harness::{Cluster, until};

/// A Helm release. What a test that fails leaves of it, the next one cleans up.
pub(crate) struct Release<'a>(&'a Cluster);

impl<'a> Release<'a> {
    /// With these values besides the chart's own, as `--set` takes them.
    pub(crate) fn install(cluster: &'a Cluster, values: &[&str]) -> Self {
        Self::restrict(cluster);
        let release = Self(cluster);
        release.set("install", values);
        release
    }

    /// Has the mesh's own namespace take no pods but those that meet the strictest standard.
    pub(crate) fn restrict(cluster: &Cluster) {
        let standard = "pod-security.kubernetes.io/enforce=restricted";
        cluster.kubectl(&["label", "--overwrite", "namespace", "gamut-system", standard]);
    }

    /// Which somebody has installed.
    pub(crate) fn installed(cluster: &'a Cluster) -> Self {
        Self(cluster)
    }

    /// What Helm says where it does neither: `install` or `upgrade` with these values.
    pub(crate) fn refusal(cluster: &Cluster, command: &str, values: &[&str]) -> String {
        let mut helm = cluster.inside("helm");
        helm.args([command, "gamut", Cluster::CHART, "--namespace=gamut-system"]);
        let output = helm.args(values.iter().map(|value| format!("--set={value}"))).output().unwrap();
        assert!(!output.status.success(), "{command} {values:?} was taken");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Brings everything to what the chart has with these values.
    pub(crate) fn upgrade(&self, values: &[&str]) {
        self.set("upgrade", values);
    }

    fn set(&self, command: &str, values: &[&str]) {
        let values: Vec<String> = values.iter().map(|value| format!("--set={value}")).collect();
        let mut arguments = vec![command, "gamut", Cluster::CHART, "--wait", "--timeout=2m"];
        arguments.extend(values.iter().map(String::as_str));
        self.helm(&arguments);
    }

    fn helm(&self, arguments: &[&str]) -> String {
        self.0.run("helm", &[arguments, &["--namespace=gamut-system"]].concat())
    }

    pub(crate) fn uninstall(self) {
        self.helm(&["uninstall", "gamut", "--wait", "--timeout=2m"]);
    }
}

/// `examples/canary`, rolled out. Its objects are deleted when dropped; the namespace stays.
pub(crate) struct Canary<'a>(&'a Cluster);

impl<'a> Canary<'a> {
    pub(crate) fn start(cluster: &'a Cluster) -> Self {
        cluster.kubectl(&["apply", "-f", Cluster::CANARY]);
        Self::applied(cluster)
    }

    /// Which somebody has applied.
    pub(crate) fn applied(cluster: &'a Cluster) -> Self {
        let canary = Self(cluster);
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

    pub(crate) fn rolled_out(&self, deployment: &str) {
        let deployment = format!("deployment/{deployment}");
        self.0.kubectl(&["rollout", "status", "-n", "shop", &deployment, "--timeout=180s"]);
    }

    /// Makes the pods of a Deployment anew.
    pub(crate) fn restart(&self, deployment: &str) {
        self.0.kubectl(&["rollout", "restart", "-n", "shop", &format!("deployment/{deployment}")]);
        self.rolled_out(deployment);
    }

    /// Requests from the client's pod.
    pub(crate) fn ask(&self, arguments: &[&str]) -> String {
        let exec = ["exec", "-n", "shop", "deployment/client", "-c", "echo", "--"];
        self.0.kubectl(&[exec.as_slice(), arguments].concat())
    }

    pub(crate) fn pods(&self, labels: &str) -> usize {
        self.0.kubectl(&["get", "pods", "-n", "shop", "-l", labels, "-o", "name"]).lines().count()
    }

    /// How often each version answered.
    pub(crate) fn versions(&self, count: usize) -> BTreeMap<String, usize> {
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

/// Requests without a pause from the client's pod.
pub(crate) struct Load {
    exec: Child,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: usize,
    pub(crate) failed: Vec<String>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster, more: &[&str]) -> Self {
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
    pub(crate) fn more(&self, count: usize) {
        let before = self.seen.lock().unwrap().answers;
        until("there are more answers", || self.seen.lock().unwrap().answers >= before + count);
    }

    /// Ends it, and gives what it has seen.
    pub(crate) fn stop(mut self) -> Seen {
        drop(self.exec.stdin.take());
        self.exec.wait().unwrap();
        self.reader.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// Requests from a pod of their own, whose containers ask by themselves: nobody has to be connected to them, and what they print is read on
/// their node.
pub(crate) struct Callers {
    logs: [PathBuf; 2],
}

/// One on a connection that is kept, the other on one for each request. Nothing is ever written to their standard input, and it doesn't end.
/// A hundred requests a second: beyond 10 MB of output the kubelet begins another file.
const CALLERS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: callers, namespace: shop}
spec:
  serviceAccountName: client
  containers:
  - name: kept
    image: gamut.mesh/echo
    imagePullPolicy: IfNotPresent
    command: [gamut-echo, load, "http://web/?delay=10ms"]
    stdin: true
  - name: new
    image: gamut.mesh/echo
    imagePullPolicy: IfNotPresent
    command: [gamut-echo, load, "http://web/?delay=10ms", --reconnect]
    stdin: true
"#;

impl Callers {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        cluster.apply(CALLERS);
        cluster.kubectl(&["wait", "-n", "shop", "pod/callers", "--for=condition=Ready", "--timeout=60s"]);
        Self { logs: ["kept", "new"].map(|container| cluster.log("shop", "callers", container)) }
    }

    /// Waits until each has so many answers more.
    pub(crate) fn more(&self, count: usize) {
        let counts = || self.logs.each_ref().map(|log| answers(log).len());
        let before = counts();
        until("there are more answers", || {
            counts().iter().zip(before).all(|(now, before)| *now >= before + count)
        });
    }

    /// The versions that answered each of them last.
    pub(crate) fn last(&self, count: usize) -> Vec<String> {
        let last = self.logs.iter().flat_map(|log| answers(log).into_iter().rev().take(count));
        last.map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect()
    }

    /// What they have seen so far.
    pub(crate) fn seen(&self) -> Seen {
        let lines: Vec<String> = self.logs.iter().flat_map(|log| answers(log)).collect();
        Seen {
            answers: lines.len(),
            failed: lines.into_iter().filter(|line| !line.starts_with("200 ")).collect(),
        }
    }
}

/// The lines of standard output in a kubelet's log: each behind a time, the name of the stream, and whether it is a whole one. The last
/// may be on its way.
fn answers(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    whole.lines().filter_map(|line| Some(line.split_once(" stdout F ")?.1.to_owned())).collect()
}
