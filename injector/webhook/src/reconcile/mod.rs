//! Pods that should have a sidecar and don't: created while nobody asked us, labelled later, or unable to have one.
//!
//! ```text
//! pods without `gamut.mesh/injected` ─┐
//! namespaces' labels ─────────────────┴► missing ─read─► finding ─► Event on the pod, metric, /status
//! ```
//! It tells and changes nothing: who restarts a workload must know what that costs. Every replica does this; the names of Events
//! are made from pods' UIDs, so that there is one Event for a pod and not one for each replica. All of it is bounded: how often it
//! is looked, how many pods at once, how many are listed.

mod finding;
mod pods;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    time::Duration,
};

use gamut_injector::Config;
use gamut_kubernetes::{Cluster, Selection, Watch, core};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use self::{
    finding::{Finding, event},
    pods::{Missing, Pods},
};
use crate::{
    follow::{Problems, follow},
    namespaces::{Known, Namespaces},
    status::{Cause, WithoutSidecar},
};

/// How long changes are let gather before they are looked at.
const SETTLE: Duration = Duration::from_secs(1);
/// How many pods are read, and told about, at once.
const BATCH: usize = 20;
/// How soon a failure is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How soon an Event is written again, if nothing has changed: the API server forgets them after an hour.
const TELL_AGAIN: Duration = Duration::from_secs(65 * 60);
/// How many pods are listed; more are only counted.
const LISTED: usize = 500;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// The first of them, by namespace and name.
    pub(crate) listed: Vec<WithoutSidecar>,
    /// How many there are, by namespace and cause.
    pub(crate) counts: BTreeMap<(String, Cause), usize>,
}

struct Reconciler {
    cluster: Cluster,
    config: Config,
    replica: String,
    pods: watch::Receiver<Pods>,
    namespaces: watch::Receiver<Known>,
    /// By the pods' UIDs.
    findings: HashMap<Box<str>, Told>,
    report: watch::Sender<Report>,
}

/// A finding, and when it is to be told again.
struct Told {
    finding: Finding,
    again: Instant,
}

/// Begins to look; says what is found.
pub(crate) fn start(
    cluster: &Cluster,
    namespaces: &Namespaces,
    config: Config,
    replica: String,
    problems: &Problems,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Report> {
    let (tell, pods) = watch::channel(Pods::default());
    let (report, reported) = watch::channel(Report::default());
    let selection =
        Selection { fields: Some(pods::UNFINISHED.to_owned()), ..Selection::labelled(pods::BARE) };
    let watch = Watch::new(cluster.clone(), core::POD, selection.metadata_only());
    let problems = problems.clone();
    tasks.spawn(async move {
        let hear = |events| tell.send_modify(|pods| pods.hear(events));
        match follow(watch, "pods without a sidecar aren't looked for meanwhile", &problems, hear).await {}
    });
    let (cluster, namespaces) = (cluster.clone(), namespaces.subscribe());
    let reconciler =
        Reconciler { cluster, config, replica, pods, namespaces, findings: HashMap::new(), report };
    tasks.spawn(async move { match reconciler.run().await {} });
    reported
}

impl Reconciler {
    async fn run(mut self) -> Infallible {
        loop {
            let missing =
                self.pods.borrow_and_update().missing(&self.namespaces.borrow_and_update(), &self.config);
            let next = self.look(&missing).await;
            let report = self.report_on(&missing);
            self.report.send_if_modified(|before| {
                let differs = *before != report;
                *before = report;
                differs
            });
            tokio::select! {
                // Neither closes: the watches end with this task.
                _ = self.pods.changed() => {}
                _ = self.namespaces.changed() => {}
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
            sleep(SETTLE).await;
        }
    }

    /// Looks at some of the pods that are due, and returns when to go on.
    async fn look(&mut self, missing: &[Missing]) -> Option<Instant> {
        let uids: HashSet<&str> = missing.iter().map(|pod| &*pod.uid).collect();
        self.findings.retain(|uid, _| uids.contains(&**uid));
        let now = Instant::now();
        let due =
            missing.iter().filter(|pod| self.findings.get(&pod.uid).is_none_or(|told| told.again <= now));
        let due: Vec<&Missing> = due.take(BATCH).collect();
        for pod in &due {
            match self.look_at(pod).await {
                Some(told) => drop(self.findings.insert(pod.uid.clone(), told)),
                // The watch will say so.
                None => drop(self.findings.remove(&pod.uid)),
            }
        }
        if due.len() == BATCH {
            return Some(now);
        }
        self.findings.values().map(|told| told.again).min()
    }

    /// Reads a pod and tells about it; `None` if there is nothing to tell any more.
    async fn look_at(&self, pod: &Missing) -> Option<Told> {
        let known = self.findings.get(&pod.uid).map(|told| &told.finding);
        let told = |finding, after| Some(Told { finding, again: Instant::now() + after });
        let object = match self.cluster.get(&core::POD, Some(&pod.namespace), &pod.name).await {
            Ok(object) => object?,
            Err(error) => {
                debug!(pod = %pod.key(), "it has no sidecar, and can't be read: {error}");
                return told(known.cloned().unwrap_or_else(Finding::unexamined), AGAIN);
            }
        };
        let finding = Finding::of(&object, &pod.view, &self.config)?;
        let is_news = known != Some(&finding);
        if is_news {
            warn!(pod = %pod.key(), "{}", finding.message);
        }
        let event = event(pod, &finding, &self.replica, jiff::Timestamp::now());
        match self.cluster.create(&core::EVENT, &event).await {
            // One that exists was written by another replica, or by us.
            Ok(_) => told(finding, TELL_AGAIN),
            Err(error) if is_news => {
                warn!(pod = %pod.key(), "an Event about its missing sidecar can't be written: {error}");
                told(finding, AGAIN)
            }
            Err(_) => told(finding, AGAIN),
        }
    }

    fn report_on(&self, missing: &[Missing]) -> Report {
        let mut report = Report::default();
        for pod in missing {
            let finding = self.findings.get(&pod.uid).map(|told| told.finding.clone());
            let finding = finding.unwrap_or_else(Finding::unexamined);
            *report.counts.entry((pod.namespace.to_string(), finding.cause)).or_default() += 1;
            if report.listed.len() < LISTED {
                report.listed.push(WithoutSidecar {
                    namespace: pod.namespace.to_string(),
                    name: pod.name.to_string(),
                    owner: pod.owner.as_deref().map(str::to_owned),
                    cause: finding.cause,
                    message: finding.message,
                });
            }
        }
        report
    }
}
