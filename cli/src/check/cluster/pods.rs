//! Namespaces that ask for sidecars, and pods that should have one.

use std::collections::BTreeMap;

use gamut_injector::{Config, INIT_CONTAINER, INJECT, Injection, NamespaceView, ROOTS_CONFIG_MAP, Skipped};
use serde_json::Value;

use super::{
    Facts, Finding, count,
    facts::{labels, name, namespace},
    few,
    restarts::{self, Old},
    unread,
};
use crate::world::{self, SYSTEM_NAMESPACE};

/// Pods that violate this Pod Security level are refused.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// Which namespaces ask for sidecars.
pub(super) fn namespaces(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "namespaces";
    if facts.namespaces.is_err() {
        return unread(WHAT, &facts.namespaces);
    }
    let asking = asking(facts);
    Some(match asking.is_empty() {
        true => Finding::warning(
            WHAT,
            "none asks for sidecars",
            format!("kubectl label namespace NAME {INJECT}=enabled, then restart its workloads"),
        ),
        false => Finding::ok(WHAT, format!("sidecars for {}", few(&asking))),
    })
}

/// The namespaces with the label that asks for sidecars.
fn asking(facts: &Facts) -> Vec<String> {
    let namespaces = facts.namespaces.iter().flatten();
    let asks = |object: &&Value| labels(object).get(INJECT).is_some_and(|value| value == "enabled");
    namespaces.filter(asks).map(|object| name(object).to_owned()).collect()
}

/// Whether each namespace that asks for sidecars has the roots that they mount.
pub(super) fn roots(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "roots";
    let Ok(published) = &facts.roots else { return unread(WHAT, &facts.roots) };
    let wanted = std::iter::once(SYSTEM_NAMESPACE.to_owned()).chain(asking(facts));
    let without: Vec<String> = wanted.filter(|namespace| !published.contains_key(namespace)).collect();
    Some(match without.is_empty() {
        true => Finding::ok(WHAT, format!("published in {}", count(published.len(), "namespace"))),
        false => Finding::failed(
            WHAT,
            format!("no ConfigMap {ROOTS_CONFIG_MAP} in {}: pods with sidecars wait there", few(&without)),
            "the CA publishes it: kubectl -n gamut-system logs deployment/gamut-ca",
        ),
    })
}

/// Namespaces that ask for sidecars and forbid them.
pub(super) fn pod_security(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "Pod Security";
    let Ok(namespaces) = &facts.namespaces else { return None };
    let asking = asking(facts);
    let asked = |object: &&Value| asking.iter().any(|namespace| namespace == name(object));
    let forbidding = forbidding(namespaces.iter().filter(asked));
    Some(match forbidding.is_empty() {
        true => Finding::ok(WHAT, "no namespace that asks for sidecars forbids them"),
        false => Finding::failed(
            WHAT,
            format!(
                "NET_ADMIN of container {INIT_CONTAINER} is forbidden in {}: pods are refused",
                few(&forbidding)
            ),
            format!(
                "kubectl label namespace NAME {ENFORCE}=privileged --overwrite, or pods with {INJECT}=disabled"
            ),
        ),
    })
}

/// Namespaces that would forbid sidecars.
pub(super) fn pod_security_anywhere(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "Pod Security";
    let Ok(namespaces) = &facts.namespaces else { return unread(WHAT, &facts.namespaces) };
    // Our own pods are restricted, and have no sidecars.
    let forbidding = forbidding(namespaces.iter().filter(|object| name(object) != SYSTEM_NAMESPACE));
    Some(match forbidding.is_empty() {
        true => Finding::ok(WHAT, "no namespace forbids sidecars by its label"),
        false => Finding::warning(
            WHAT,
            format!("{} would refuse pods with sidecars", few(&forbidding)),
            format!(
                "container {INIT_CONTAINER} needs NET_ADMIN; where sidecars are wanted: \
                 kubectl label namespace NAME {ENFORCE}=privileged --overwrite"
            ),
        ),
    })
}

/// *Baseline* and *restricted* forbid adding NET_ADMIN.
fn forbidding<'a>(namespaces: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let forbids = |object: &'a Value| {
        let level = labels(object).remove(ENFORCE)?;
        ["baseline", "restricted"].contains(&level.as_str()).then(|| format!("{} ({level})", name(object)))
    };
    namespaces.filter_map(forbids).collect()
}

/// Pods without a sidecar that somebody asked for.
pub(super) fn without_sidecar(facts: &Facts) -> Vec<Finding> {
    const WHAT: &str = "pods without sidecar";
    let Ok(pods) = &facts.pods else { return unread(WHAT, &facts.pods).into_iter().collect() };
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    let (mut old, mut impossible, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for pod in pods {
        let report = world::pod_report(pod);
        let ours = [SYSTEM_NAMESPACE, "kube-system"].contains(&namespace(pod));
        if ours || world::has_sidecar(pod) || world::is_over(&report) || report.terminating {
            continue;
        }
        let view = NamespaceView { name: namespace(pod).to_owned(), labels: facts.labels(namespace(pod)) };
        match gamut_injector::inject(pod, &view, &Config::default()) {
            Ok(Injection::Injected(_)) => {
                old.push(Old::from(&report));
                let workload = report.workload.unwrap_or_else(|| format!("Pod {}", report.name));
                *missing.entry(format!("{workload} in {}", view.name)).or_default() += 1;
            }
            Ok(Injection::Skipped(
                Skipped::NotSelected(_)
                | Skipped::Disabled(_)
                | Skipped::SystemNamespace(_)
                | Skipped::KubeSystem,
            )) => {}
            Ok(Injection::Skipped(reason)) => {
                impossible.push(format!("{}/{}: {reason}", view.name, report.name))
            }
            Err(error) => refused.push(format!("{}/{}: {error}", view.name, report.name)),
        }
    }
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let pods: usize = missing.values().sum();
        let workloads: Vec<String> = missing.into_keys().collect();
        findings.push(Finding::failed(
            WHAT,
            format!("{} that should have one: {}", count(pods, "pod"), few(&workloads)),
            restarts::remedy(
                "they were made before their namespace had its label, or without the injector; restart them",
                &old,
            ),
        ));
    }
    if !refused.is_empty() {
        let remedy = "as it is it would be refused when it is made anew: mend what is named";
        findings.push(Finding::failed(WHAT, few(&refused), remedy));
    }
    if !impossible.is_empty() {
        let remedy = "their traffic stays outside of the mesh; the label gamut.mesh/inject=disabled on the pod says that this is meant";
        findings.push(Finding::warning(WHAT, few(&impossible), remedy));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(WHAT, "none that should have one"));
    }
    findings
}
