//! A real Prometheus beside a mesh: Debian's package, on the mesh's node, scraping all that there is to scrape. Without the package a test
//! says so and is over; CI installs it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Mesh, PATIENCE, text_of};

/// Where it answers, on the node.
const ADDRESS: &str = "127.0.0.1:9090";
/// How often it scrapes: what it knows changes no faster, and it tells nobody when.
const SCRAPE: Duration = Duration::from_secs(1);

/// The alerts that the chart installs.
pub(crate) const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/gamut/files/rules.yaml");

/// A running Prometheus. Dropping it ends it.
pub(crate) struct Prometheus<'m> {
    mesh: &'m Mesh,
    child: Child,
    _directory: TempDir,
}

/// A series of an answer: its labels, and its value now.
pub(crate) type Sample = (BTreeMap<String, String>, f64);

/// Whether the programs of the package are there.
pub(crate) fn is_installed() -> bool {
    let runs =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success());
    let installed = runs("prometheus") && runs("promtool");
    if !installed {
        println!("skipped: there is no Prometheus; apt-get install --no-install-recommends prometheus");
    }
    installed
}

impl<'m> Prometheus<'m> {
    /// Starts one that scrapes the control plane and the sidecars that there are now, with the chart's alerts.
    pub(crate) fn beside(mesh: &'m Mesh) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let directory = TempDir::with_prefix("gamut-e2e-").unwrap();
        let config = directory.path().join("prometheus.yaml");
        fs::write(&config, configuration(mesh)).unwrap();
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", directory.path().join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
            "--log.level=error".to_owned(),
        ];
        let command: Vec<&str> =
            std::iter::once("prometheus").chain(arguments.iter().map(String::as_str)).collect();
        let mut command = mesh.exec_command("node", &command);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let ready = format!("http://{ADDRESS}/-/ready");
        let retry = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1"];
        text_of(mesh.exec("node", &[&["curl", "-sf", &ready][..], &retry].concat()));
        Some(Self { mesh, child, _directory: directory })
    }

    /// What a query is answered with now. Series whose value is no number, such as a quotient of nothing, are left out.
    pub(crate) fn query(&self, query: &str) -> Vec<Sample> {
        let answer = self.get("query", query);
        assert_eq!(answer["status"], "success", "{query}: {answer:#}");
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer:#}"));
        let sample = |series: &Value| {
            let value: f64 = series["value"][1].as_str()?.parse().ok()?;
            Some((serde_json::from_value(series["metric"].clone()).ok()?, value))
        };
        series.iter().filter_map(sample).filter(|(_, value)| value.is_finite()).collect()
    }

    /// The one value of a query, once it is as wanted.
    pub(crate) fn value(&self, query: &str, is: impl Fn(f64) -> bool) -> f64 {
        self.until(query, |samples| matches!(samples, [(_, value)] if is(*value)))[0].1
    }

    /// The answer to a query once it is as wanted.
    pub(crate) fn until(&self, query: &str, is: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let samples = self.query(query);
            if is(&samples) {
                return samples;
            }
            assert!(Instant::now() < deadline, "{query}: {samples:#?}");
            thread::sleep(SCRAPE);
        }
    }

    /// Each alert by name: whether its expression could be evaluated, and whether it is true of anything.
    pub(crate) fn alerts(&self) -> BTreeMap<String, String> {
        let answer = self.get("rules", "");
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        let told = |rule: &Value| {
            let text = |field: &str| rule[field].as_str().unwrap_or_default().to_owned();
            let state = if text("health") == "ok" { text("state") } else { text("lastError") };
            (text("name"), state)
        };
        rules.map(told).collect()
    }

    fn get(&self, what: &str, query: &str) -> Value {
        let url = format!("http://{ADDRESS}/api/v1/{what}");
        let query = format!("query={query}");
        let output = self.mesh.exec("node", &["curl", "-s", "--data-urlencode", &query, "-G", &url]);
        serde_json::from_str(&text_of(output)).unwrap()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scrapes as the chart's monitors have it: labels of a sidecar's own stay as they are.
fn configuration(mesh: &Mesh) -> String {
    let pods = mesh.status().pods.into_iter().filter(|pod| pod.meshed);
    let sidecars: Vec<String> = pods.map(|pod| format!("{}:15020", pod.ips[0])).collect();
    let seconds = SCRAPE.as_secs();
    assert!(Path::new(RULES).exists());
    format!(
        "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s}}
rule_files: ['{RULES}']
scrape_configs:
- {{job_name: gamut-system/gamut-sidecars, honor_labels: true, static_configs: [{{targets: {sidecars:?}}}]}}
- {{job_name: gamut-controller, static_configs: [{{targets: ['127.0.0.1:15014']}}]}}
- {{job_name: gamut-ca, static_configs: [{{targets: ['127.0.0.1:15011']}}]}}
"
    )
}
