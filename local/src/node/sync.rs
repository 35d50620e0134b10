//! Whether everything is as the manifests want it, down to the tables in every sidecar.
//!
//! Pure, from what the node knows and what the controller says at `/status`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{cluster::Cluster, components::ComponentState};

/// A probe that has failed for so long is told as the reason; at first they all do.
const PATIENCE: Duration = Duration::from_secs(3);

/// The part of the controller's status that is looked at here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ControllerView {
    source: SourceView,
    subscribers: Vec<SubscriberView>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SourceView {
    synced: bool,
    /// The newest `resourceVersion` that it has read.
    resource_version: Option<u64>,
    /// Statuses that it has yet to write.
    unwritten: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SubscriberView {
    uid: String,
    in_sync: bool,
    behind: Vec<String>,
    refused: Vec<RefusedView>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RefusedView {
    key: String,
    reason: String,
}

impl ControllerView {
    /// Reads a status; what isn't understood is as good as not said.
    pub(crate) fn read(status: &Value) -> Self {
        Self::deserialize(status).unwrap_or_default()
    }

    /// What sidecars lack, a line each. `revision`: of the newest object. `pods`: titles of pods with a sidecar that runs,
    /// by UID.
    pub(crate) fn missing(&self, revision: u64, pods: &BTreeMap<&str, String>) -> Vec<String> {
        let newest = self.source.resource_version.is_some_and(|read| read >= revision);
        if !self.source.synced || !newest {
            return vec!["the controller to read the newest objects".to_owned()];
        }
        let subscribers: BTreeMap<&str, &SubscriberView> =
            self.subscribers.iter().map(|subscriber| (subscriber.uid.as_str(), subscriber)).collect();
        let missing = pods.iter().filter_map(|(uid, title)| match subscribers.get(uid) {
            None => Some(format!("the sidecar of {title} to subscribe")),
            Some(SubscriberView { refused, .. }) if !refused.is_empty() => {
                let refused: Vec<String> =
                    refused.iter().map(|one| format!("{} ({})", one.key, one.reason)).collect();
                Some(format!("the sidecar of {title}, which refuses {}", refused.join(", ")))
            }
            Some(SubscriberView { in_sync: false, behind, .. }) => Some(format!(
                "the sidecar of {title} to take {}",
                behind.first().map_or("its tables", String::as_str)
            )),
            Some(_) => None,
        });
        let verdicts = (self.source.unwritten > 0).then(|| "the controller to write its verdicts".to_owned());
        missing.chain(verdicts).collect()
    }
}

/// What pods and components lack, a line each.
pub(crate) fn missing_pods(cluster: &Cluster, components: &[ComponentState]) -> Vec<String> {
    let now = Instant::now();
    let mut missing: Vec<String> = Vec::new();
    for (name, title) in [("ca", "the CA"), ("controller", "the controller")] {
        if !components.iter().any(|component| component.name == name && component.ready) {
            missing.push(title.to_owned());
        }
    }
    missing.extend(cluster.workloads.iter().filter_map(|workload| {
        let members = cluster.kubelet.members(&workload.id, &workload.hash);
        let line = workload.missing(&members)?;
        let problem = cluster.problems.workloads.get(&workload.id).cloned().or_else(|| {
            let pods = members.iter().filter_map(|member| cluster.kubelet.get(&member.uid));
            pods.filter_map(|pod| pod.state.trouble(now, PATIENCE)).next()
        });
        Some(problem.map_or(line.clone(), |problem| format!("{line}: {problem}")))
    }));
    let orphans = cluster.kubelet.iter().filter(|(_, pod)| {
        pod.deleted.is_some() && !cluster.workloads.iter().any(|workload| workload.id == pod.workload)
    });
    missing.extend(orphans.map(|(_, pod)| format!("{} to end", pod.title())));
    missing
}

/// What sidecars lack, a line each, by the controller's word.
pub(crate) fn missing_tables(cluster: &Cluster, controller: Option<&ControllerView>) -> Vec<String> {
    let meshed =
        cluster.kubelet.iter().filter(|(_, pod)| pod.meshed && pod.deleted.is_none() && pod.state.ready());
    let pods: BTreeMap<&str, String> = meshed.map(|(uid, pod)| (uid, pod.title())).collect();
    match controller {
        Some(controller) => controller.missing(cluster.revision(), &pods),
        None => vec!["the controller to answer".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn missing(status: Value) -> Vec<String> {
        let pods = BTreeMap::from([("u-1", "Pod demo/web-1".to_owned())]);
        ControllerView::read(&status).missing(7, &pods)
    }

    fn with_subscriber(subscriber: Value) -> Value {
        json!({"source": {"synced": true, "resourceVersion": 7}, "subscribers": [subscriber]})
    }

    #[test]
    fn a_controller_that_has_not_read_the_newest_objects_says_nothing_about_them() {
        let stale = json!({"source": {"synced": true, "resourceVersion": 6}, "subscribers": [
            {"uid": "u-1", "inSync": true}
        ]});
        assert_eq!(missing(stale), ["the controller to read the newest objects"]);
        assert_eq!(missing(json!({"subscribers": []})), ["the controller to read the newest objects"]);
    }

    #[test]
    fn what_the_controller_thinks_of_routes_must_be_written() {
        let unwritten = |count: u64| {
            let mut status = with_subscriber(json!({"uid": "u-1", "inSync": true}));
            status["source"]["unwritten"] = count.into();
            missing(status)
        };
        assert_eq!(unwritten(2), ["the controller to write its verdicts"]);
        assert_eq!(unwritten(0), [""; 0]);
    }

    #[test]
    fn every_sidecar_must_hold_the_newest_of_everything() {
        assert_eq!(missing(with_subscriber(json!({"uid": "u-1", "inSync": true}))), [""; 0]);
        let other = with_subscriber(json!({"uid": "u-2", "inSync": true}));
        assert_eq!(missing(other), ["the sidecar of Pod demo/web-1 to subscribe"]);
        let behind =
            with_subscriber(json!({"uid": "u-1", "inSync": false, "behind": ["RouteTable demo/web:80"]}));
        assert_eq!(missing(behind), ["the sidecar of Pod demo/web-1 to take RouteTable demo/web:80"]);
        let refused = json!({"uid": "u-1", "inSync": false, "refused": [{"key": "K", "reason": "too odd"}]});
        assert_eq!(
            missing(with_subscriber(refused)),
            ["the sidecar of Pod demo/web-1, which refuses K (too odd)"]
        );
    }
}
