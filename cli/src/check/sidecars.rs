//! The sidecars that there are: whether they start, answer, have certificates and the newest tables, and what they have met.

use std::collections::{BTreeMap, BTreeSet};

use gamut_injector::{INIT_CONTAINER, PROXY_CONTAINER};
use gamut_kubernetes::FORWARD_PERMISSION;
use gamut_proxy::{
    admin::{ProxyStatus, RootStatus},
    tables::is_of_other_roots,
};
use jiff::Timestamp;

use super::{
    finding::{Finding, Remedy},
    restarts::{self, Old},
};
use crate::{
    output::{count, few, few_lines},
    status::{self, KnownSidecar, Pod, Sidecar},
    world::{Mesh, Place},
};

const WHAT: &str = "sidecars";
const CERTIFICATES: &str = "certificates";

/// How far in the future a certificate may have been issued before the CA's clock is doubted, in seconds.
const ISSUED_EARLY: i64 = 60;
/// How soon the end of a root is a warning, in seconds: a month. The CA replaces it by itself long before.
const ROOT_LEFT: i64 = 30 * 24 * 60 * 60;

/// All of them.
pub(super) fn all(mesh: Mesh, now: Timestamp) -> Vec<Finding> {
    let told = told(&mesh);
    let mut of_manifests = manifests(&mesh);
    let mut findings = versions(&mesh);
    let (of_status, number) = in_order(mesh, now);
    findings.extend(of_status);
    findings.extend(roots(&told, now));
    findings.extend(met(&told));
    if findings.is_empty() {
        findings.push(match number {
            0 => Finding::ok(WHAT, "none yet"),
            number => Finding::ok(WHAT, format!("{number} with a certificate and the newest tables")),
        });
    }
    of_manifests.extend(findings);
    of_manifests
}

/// What a `gamut up` has told of its manifests, and of pods that can't start.
fn manifests(mesh: &Mesh) -> Vec<Finding> {
    if !matches!(mesh.world, Place::Instance { .. }) {
        return Vec::new();
    }
    let of_problems = "what can't be used stays as it was when it was last good; gamut status has all of it";
    let of_warnings = "what nobody knows does nothing: correct or remove it; gamut status has all of it";
    let told = [("manifests, pods", &mesh.problems, of_problems), ("manifests", &mesh.warnings, of_warnings)];
    let told = told.into_iter().filter(|(_, lines, _)| !lines.is_empty());
    told.map(|(what, lines, remedy)| Finding::warning(what, few_lines(lines), remedy)).collect()
}

/// What the sidecars that answer say, by pod.
fn told(mesh: &Mesh) -> Vec<(String, ProxyStatus)> {
    let told = mesh.pods.iter().filter_map(|pod| {
        let status = serde_json::from_value(pod.proxy.clone()?).ok()?;
        Some((format!("{}/{}", pod.namespace, pod.name), status))
    });
    told.collect()
}

/// What `gamut status` would show, judged; and how many sidecars there are.
fn in_order(mesh: Mesh, now: Timestamp) -> (Vec<Finding>, usize) {
    let ours = |line: &&String| {
        [INIT_CONTAINER, PROXY_CONTAINER].iter().any(|name| line.contains(&format!("container {name}")))
    };
    let stuck: Vec<String> = mesh.waiting_for.iter().filter(ours).cloned().collect();
    let log_of_ca = match mesh.world {
        Place::Instance { .. } => "gamut logs node -c ca",
        _ => "gamut logs -n gamut-system deploy/gamut-ca",
    };
    let mut findings = Vec::new();
    let restarts = Restarts::of(&mesh);
    let no_ca = !mesh.components.is_empty() && !mesh.components.iter().any(|it| it.name == "ca" && it.ready);
    let report = status::of(mesh, |_| true);
    let sidecars: Vec<(String, &Sidecar)> = report
        .pods
        .iter()
        .filter_map(|pod: &Pod| Some((format!("{}/{}", pod.namespace, pod.name), pod.sidecar.as_ref()?)))
        .collect();
    if !stuck.is_empty() {
        let remedy = where_to_look(&stuck);
        findings.push(Finding::failed(WHAT, few(&stuck), remedy));
    }
    let silent: Vec<String> = sidecars
        .iter()
        .filter_map(|(pod, sidecar)| match sidecar {
            Sidecar::Silent(reason) => Some(format!("{pod}: {reason}")),
            Sidecar::Known(_) => None,
        })
        .collect();
    if !silent.is_empty() {
        let (forbidden, silent): (Vec<String>, Vec<String>) =
            silent.into_iter().partition(|line| line.contains(FORWARD_PERMISSION));
        let role = "ask as somebody who has the role for it (docs/reference/cli.md)".to_owned();
        let look = format!(
            "pods that have just started or ended answer soon, or never: check again; \
             gamut logs {} -c gamut-proxy says what they do",
            first_pod(&silent)
        );
        let unknown = [(forbidden, role), (silent, look)].into_iter().filter(|(lines, _)| !lines.is_empty());
        findings.extend(unknown.map(|(lines, remedy)| Finding::unknown(WHAT, few_lines(&lines), remedy)));
    }
    let known = || {
        sidecars.iter().filter_map(|(pod, sidecar)| match sidecar {
            Sidecar::Known(known) => Some((pod, known)),
            Sidecar::Silent(_) => None,
        })
    };
    let mut lines = |what, failed, lines: Vec<String>, remedy: Remedy| match (lines.is_empty(), failed) {
        (true, _) => {}
        (false, true) => findings.push(Finding::failed(what, few_lines(&lines), remedy)),
        (false, false) => findings.push(Finding::warning(what, few_lines(&lines), remedy)),
    };
    // Who has no certificate can't connect to the controller either, whose fault that isn't.
    let away = known().filter(|(_, known)| known.certificate.is_some());
    let away = away.filter_map(|(pod, known)| Some((pod, known.tables.controller_away.as_ref()?)));
    let (of_other_roots, away): (Vec<_>, Vec<_>) = away.partition(|(_, reason)| is_of_other_roots(reason));
    let remedy = restarts.remedy(
        "an earlier installation made these pods, and nobody else has its roots any more; restart them",
        of_other_roots.iter().map(|(pod, _)| *pod),
    );
    let said = |(pod, reason): (&String, &String)| format!("{pod}: {reason}");
    lines(WHAT, true, of_other_roots.into_iter().map(said).collect(), remedy);
    lines(
        WHAT,
        true,
        away.into_iter().map(said).collect(),
        "they go on with what they have; new workloads wait: see controller".into(),
    );
    let refusing = known().filter(|(_, known)| !known.tables.refused.is_empty()).map(|(pod, _)| pod);
    let remedy = restarts.remedy(
        "the table before stays in force; a sidecar of the controller's version would take it; restart them",
        refusing,
    );
    let refused =
        known().flat_map(|(pod, known)| known.tables.refused.iter().map(move |key| format!("{pod}: {key}")));
    lines(WHAT, true, refused.collect(), remedy);
    let behind = known().flat_map(|(pod, known)| known.tables.behind.iter().map(move |table| (table, pod)));
    lines(WHAT, false, waiting(behind), "if it lasts: `gamut status` has it pod by pod".into());

    let why =
        |known: &KnownSidecar| known.renewal_error.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let ended = known().filter_map(|(pod, known)| match &known.certificate {
        None => Some(format!("{pod} has none yet{}", why(known))),
        Some(certificate) => (certificate.expires <= now).then(|| format!("{pod}: expired{}", why(known))),
    });
    let ended: Vec<String> = ended.collect();
    let look = match no_ca {
        true => format!("no CA is ready, which issues them: the line ca, or {log_of_ca}, says why"),
        false => format!("{log_of_ca}, and gamut logs {} -c gamut-proxy, say why", first_pod(&ended)),
    };
    lines(CERTIFICATES, true, ended, format!("nothing new connects to or from these pods: {look}").into());
    let still_good = |known: &KnownSidecar| known.certificate.as_ref().is_some_and(|it| it.expires > now);
    let failing = known().filter(|(_, known)| still_good(known)).filter_map(|(pod, known)| {
        let (error, certificate) = (known.renewal_error.as_ref()?, known.certificate.as_ref()?);
        Some(format!("{pod}: ends {:.0}: {error}", certificate.expires))
    });
    lines(
        CERTIFICATES,
        false,
        failing.collect(),
        format!("the certificate they have stays good until it ends; {log_of_ca} says why there is no other")
            .into(),
    );
    let early = known().filter_map(|(pod, known)| {
        let ahead = known.certificate.as_ref()?.issued.as_second() - now.as_second();
        (ahead > ISSUED_EARLY).then(|| format!("{pod}: issued {ahead} s in the future"))
    });
    lines(
        CERTIFICATES,
        false,
        early.collect(),
        "the clock of the CA's node is ahead, or this machine's behind: set them by NTP".into(),
    );
    (findings, sidecars.len())
}

/// How the pods of a mesh are made anew, by their names; in a `gamut up` by its next start alone, which has no line.
struct Restarts(BTreeMap<String, Old>);

impl Restarts {
    fn of(mesh: &Mesh) -> Self {
        let pods = mesh.pods.iter().filter(|_| !matches!(mesh.world, Place::Instance { .. }));
        Self(pods.map(|pod| (format!("{}/{}", pod.namespace, pod.name), Old::from(pod))).collect())
    }

    fn remedy<'a>(&self, words: &str, pods: impl Iterator<Item = &'a String>) -> Remedy {
        restarts::remedy(words, pods.filter_map(|pod| self.0.get(pod)))
    }
}

/// What to ask about the first of these containers, whose lines begin with `pod NAMESPACE/NAME: container CONTAINER`.
fn where_to_look(stuck: &[String]) -> String {
    let first = stuck.first().and_then(|line| line.strip_prefix("pod ")?.split_once(": container "));
    let (pod, rest) = first.unwrap_or(("NAMESPACE/NAME", PROXY_CONTAINER));
    let (namespace, name) = pod.split_once('/').unwrap_or(("NAMESPACE", pod));
    let container = rest.split([':', ' ']).next().unwrap_or(PROXY_CONTAINER);
    format!("kubectl -n {namespace} describe pod {name}; gamut logs -n {namespace} {name} -c {container}")
}

/// How the first pod of a list is named to other commands: its lines begin with `NAMESPACE/NAME`.
fn first_pod(lines: &[String]) -> String {
    let pod = lines.first().and_then(|line| line.split([':', ' ']).next()).unwrap_or_default();
    pod.split_once('/').map_or_else(String::new, |(namespace, name)| format!("-n {namespace} {name}"))
}

/// Who waits for each table: a change makes many sidecars wait for the same one.
fn waiting<'a>(behind: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    let mut by_table: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (table, pod) in behind {
        by_table.entry(table).or_default().insert(pod);
    }
    let line = |(table, pods): (&str, BTreeSet<&str>)| match (pods.len(), pods.first()) {
        (1, Some(pod)) => format!("{pod} waits for {table}"),
        (many, _) => format!("{many} sidecars wait for {table}"),
    };
    by_table.into_iter().map(line).collect()
}

/// Sidecars of another version than their controller, among the pods that are asked about.
fn versions(mesh: &Mesh) -> Vec<Finding> {
    let Some(version) = mesh.controllers.iter().map(|status| status.version.as_str()).max() else {
        return Vec::new();
    };
    let restarts = Restarts::of(mesh);
    let subscribers = mesh.controllers.iter().flat_map(|status| &status.subscribers);
    let others = subscribers.filter(|subscriber| subscriber.proxy_version != version).map(|subscriber| {
        (format!("{}/{}", subscriber.namespace, subscriber.pod), subscriber.proxy_version.as_str())
    });
    let asked: BTreeSet<String> =
        mesh.pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    let others: BTreeMap<String, &str> = others.filter(|(pod, _)| asked.contains(pod)).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let said: Vec<String> = others.iter().map(|(pod, version)| format!("{pod} ({version})")).collect();
    vec![Finding::warning(
        "sidecar versions",
        format!("other than the controller's {version}: {}", few(&said)),
        restarts.remedy("a restart gives them the new one", others.keys()),
    )]
}

/// Whether all trust the same roots, and for how long these are good: a rotation that got stuck is an outage to come.
fn roots(told: &[(String, ProxyStatus)], now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "trusted roots";
    let all: BTreeSet<&RootStatus> = told.iter().flat_map(|(_, status)| &status.roots).collect();
    // Who has no certificate yet has no roots either, which is told already.
    let lacking =
        told.iter().filter(|(_, status)| !status.roots.is_empty() && status.roots.len() < all.len());
    let lacking: Vec<String> = lacking
        .map(|(pod, status)| format!("{pod} trusts {} of {}", status.roots.len(), count(all.len(), "root")))
        .collect();
    let mut findings = Vec::new();
    if !lacking.is_empty() {
        findings.push(Finding::warning(
            WHAT,
            few(&lacking),
            "while a root is replaced this is so for a moment; if it lasts, these sidecars will refuse certificates of the new root: \
             `gamut identity` shows who trusts what, and sidecars hear of roots from their controller",
        ));
    }
    let ends = all.iter().filter_map(|root| {
        let left = i64::try_from(root.not_after).ok()? - now.as_second();
        let at = Timestamp::from_second(i64::try_from(root.not_after).ok()?).ok()?;
        (left < ROOT_LEFT).then(|| format!("{} ({}) ends at {at}", root.subject, root.serial))
    });
    let ends: Vec<String> = ends.collect();
    if !ends.is_empty() {
        findings.push(Finding::warning(
            WHAT,
            few(&ends),
            "the CA's own root is replaced by itself, and the old one stays until its certificates have ended: see signing key; \
             one of your own is yours to replace (docs/tasks/rotate-the-root.md)",
        ));
    }
    findings
}

/// What sidecars have met that somebody should know of.
fn met(told: &[(String, ProxyStatus)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let silent = told.iter().filter(|(_, status)| status.detect_timeouts > 0);
    let silent: Vec<String> = silent
        .map(|(pod, status)| format!("{pod}: {}", count_of(status.detect_timeouts, "connection")))
        .collect();
    if !silent.is_empty() {
        findings.push(Finding::warning(
            "protocols",
            format!("connections were kept waiting because nobody said what they speak: {}", few(&silent)),
            "name the protocol: appProtocol of the Service's port; where the server speaks first, annotation \
             gamut.mesh/opaque-ports of the pod",
        ));
    }
    let mut ejected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for endpoints in told.iter().flat_map(|(_, status)| &status.endpoints) {
        for endpoint in &endpoints.ejected {
            let name = endpoint.pod.clone().unwrap_or_else(|| endpoint.address.to_string());
            ejected.entry(&endpoints.backend).or_default().insert(name);
        }
    }
    let ejected: Vec<String> = ejected
        .into_iter()
        .map(|(backend, endpoints)| format!("{backend}: {}", few(&endpoints.into_iter().collect::<Vec<_>>())))
        .collect();
    if !ejected.is_empty() {
        findings.push(Finding::warning(
            "endpoints",
            format!("get nothing for a while, because requests to them failed: {}", few(&ejected)),
            "gamut tap -n NAMESPACE POD --status 5xx shows what fails; gamut logs what the app says of it",
        ));
    }
    findings
}

fn count_of(number: u64, what: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), what)
}

#[cfg(test)]
mod tests;
