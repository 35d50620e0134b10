//! How pods are made anew, as lines to paste: for each namespace one that restarts workloads, and one that deletes the pods of those that
//! `kubectl rollout restart` doesn't know. A pod that nothing makes again has no line: pasting one would be the end of it.

use std::collections::{BTreeMap, BTreeSet};

use gamut_local::control::PodReport;

use super::finding::Remedy;
use crate::output::{count, few};

/// How many namespaces get their lines at once.
const NAMESPACES: usize = 8;
/// How many workloads, or pods, a line names: a terminal takes 4,096 bytes of one.
const NAMES: usize = 20;

/// A pod that is to be made anew.
#[derive(Clone, Debug)]
pub(super) struct Old {
    namespace: String,
    name: String,
    /// As `Deployment web`.
    workload: Option<String>,
}

/// What is to be made anew in one namespace.
#[derive(Default)]
struct Lines<'a> {
    workloads: BTreeSet<String>,
    pods: BTreeSet<&'a str>,
}

impl From<&PodReport> for Old {
    fn from(pod: &PodReport) -> Self {
        Self { namespace: pod.namespace.clone(), name: pod.name.clone(), workload: pod.workload.clone() }
    }
}

/// The words, with what they leave out, and the lines.
pub(super) fn remedy<'a>(words: &str, pods: impl IntoIterator<Item = &'a Old>) -> Remedy {
    let (mut by_namespace, mut bare): (BTreeMap<&str, Lines<'_>>, _) = (BTreeMap::new(), BTreeSet::new());
    for Old { namespace, name, workload } in pods {
        match workload.as_deref().and_then(|workload| workload.split_once(' ')) {
            Some((kind @ ("Deployment" | "StatefulSet" | "DaemonSet"), workload)) => {
                let workload = format!("{}/{workload}", kind.to_lowercase());
                by_namespace.entry(namespace).or_default().workloads.insert(workload);
            }
            // What made it makes another.
            Some(_) => {
                by_namespace.entry(namespace).or_default().pods.insert(name);
            }
            None => {
                bare.insert(format!("{namespace}/{name}"));
            }
        }
    }
    let left_out = |(index, lines): (usize, &Lines<'_>)| {
        let shown = if index < NAMESPACES { NAMES } else { 0 };
        lines.workloads.len().saturating_sub(shown) + lines.pods.len().saturating_sub(shown)
    };
    let left_out: usize = by_namespace.values().enumerate().map(left_out).sum();
    let commands = by_namespace.into_iter().take(NAMESPACES).flat_map(|(namespace, lines)| {
        let Lines { workloads, pods } = lines;
        let workloads: Vec<&str> = workloads.iter().take(NAMES).map(String::as_str).collect();
        let pods: Vec<&str> = pods.into_iter().take(NAMES).collect();
        let restart = (!workloads.is_empty())
            .then(|| format!("kubectl rollout restart -n {namespace} {}", workloads.join(" ")));
        let delete =
            (!pods.is_empty()).then(|| format!("kubectl delete pod -n {namespace} {}", pods.join(" ")));
        restart.into_iter().chain(delete).collect::<Vec<_>>()
    });
    let mut words = words.to_owned();
    if !bare.is_empty() {
        let bare: Vec<String> = bare.into_iter().collect();
        words += &format!(" (nobody but you makes {} again: delete and apply by hand)", few(&bare));
    }
    if left_out > 0 {
        words += &format!("; check names {} more when these are done", count(left_out, "workload"));
    }
    Remedy { words, commands: commands.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(namespace: &str, name: &str, workload: &str) -> Old {
        let workload = (!workload.is_empty()).then(|| workload.to_owned());
        Old { namespace: namespace.to_owned(), name: name.to_owned(), workload }
    }

    #[test]
    fn each_namespace_has_one_line_for_its_workloads_and_one_for_pods_of_others() {
        let pods = [
            old("shop", "web-1", "Deployment web"),
            old("shop", "web-2", "Deployment web"),
            old("shop", "db-0", "StatefulSet db"),
            old("shop", "nightly-1-x", "Job nightly-1"),
            old("lab", "agent-x", "DaemonSet agent"),
            old("lab", "bare", ""),
        ];
        let remedy = remedy("restart them", &pods);
        insta::assert_snapshot!([&[remedy.words], remedy.commands.as_slice()].concat().join("\n"), @r"
        restart them (nobody but you makes lab/bare again: delete and apply by hand)
        kubectl rollout restart -n lab daemonset/agent
        kubectl rollout restart -n shop deployment/web statefulset/db
        kubectl delete pod -n shop nightly-1-x
        ");
    }

    #[test]
    fn a_crowd_is_restarted_by_turns() {
        let of = |namespace: usize, workload: usize| {
            old(&format!("n{namespace:02}"), "x", &format!("Deployment w{workload:02}"))
        };
        let crowd: Vec<Old> =
            (0..10).flat_map(|namespace| (0..21).map(move |it| of(namespace, it))).collect();
        let remedy = remedy("restart them", &crowd);
        // One of each of eight namespaces, and two namespaces.
        assert_eq!(remedy.words, "restart them; check names 50 workloads more when these are done");
        assert_eq!(remedy.commands.len(), NAMESPACES);
        let [first, ..] = remedy.commands.as_slice() else { panic!("no line") };
        assert!(
            first.ends_with("deployment/w19") && first.matches("deployment/").count() == NAMES,
            "{first}"
        );
    }
}
