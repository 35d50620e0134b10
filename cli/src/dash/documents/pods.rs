//! A pod, and what its sidecar says of itself.

use std::collections::HashMap;

use gamut_local::control::ContainerReport;
use gamut_proxy::admin::ProxyStatus;
use serde::Serialize;

use super::{Sent, sent};
use crate::{
    dash::{
        figures::Count,
        history::{History, Key},
        live::Answers,
    },
    status,
};

/// A pod.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    /// As `gamut status -o json` has it: identity, certificate, whether the tables are the newest.
    #[serde(flatten)]
    pod: &'a status::Pod,
    /// `Deployment web`.
    workload: Option<&'a str>,
    containers: &'a [ContainerReport],
    /// All that its sidecar says: tables one by one, connections, what goes on at endpoints.
    proxy: Option<ProxyStatus>,
    /// What it called in the window.
    sent: Vec<Sent>,
}

/// None where there is no such pod.
pub(super) fn one<'a>(
    answers: &'a Answers,
    history: &History,
    namespace: &str,
    name: &str,
) -> Option<Page<'a>> {
    let pod = answers.status.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name)?;
    let report = answers.pods.iter().find(|pod| pod.namespace == namespace && pod.name == name)?;
    let proxy = report.proxy.clone().and_then(|status| serde_json::from_value(status).ok());
    Some(Page {
        pod,
        workload: report.workload.as_deref(),
        containers: &report.containers,
        proxy,
        sent: sent(called(history, &format!("{namespace}/{name}")), history),
    })
}

fn called(history: &History, pod: &str) -> HashMap<Key, Count> {
    let mut sums: HashMap<Key, Count> = HashMap::new();
    for (key, count) in history.recent().filter_map(|step| step.by_pod.get(pod)).flatten() {
        sums.entry(Key::clone(key)).or_default().add(count);
    }
    sums
}
