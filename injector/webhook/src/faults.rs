//! Labels and annotations of ours that do nothing or too little, or that nobody understands, on Namespaces, Services, routes and
//! workloads, and namespaces that ask for sidecars and forbid them: an Event on each such object.
//!
//! ```text
//! Namespaces, Services, routes (metadata), workloads ─Watch─► gamut_injector::faults ─► Faulty, by kind and key ─► Event
//! ```
//! Who creates a pod by hand reads our answer as an admission warning. Most pods are created by the controllers of Kubernetes, which
//! nobody listens to; and of other objects we aren't asked. Every replica does this, as the search for pods without a sidecar.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use gamut_injector::faults;
use gamut_kubernetes::{ApiError, Cluster, Event, Key, Resource, Selection, Watch, core, routes};
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use crate::{
    event::{About, Words, event},
    follow::{Problems, follow},
    pod_security, review,
};

/// How long changes are let gather before they are told.
const SETTLE: Duration = Duration::from_secs(1);
/// How many objects are told about at once.
const BATCH: usize = 20;
/// How soon a failure is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How soon an Event is written again, if nothing has changed: the API server forgets them after an hour.
const TELL_AGAIN: Duration = Duration::from_secs(65 * 60);

/// What is watched, in the versions that it may be served in, whether its metadata are enough, and what happens while it can't be.
const WATCHED: [(&[Resource], bool, &str); 11] = [
    (&[core::NAMESPACE], true, "misspelt annotations of Namespaces aren't told in Events meanwhile"),
    (&[core::SERVICE], true, "misspelt annotations of Services aren't told in Events meanwhile"),
    (&routes::HTTP, true, "misspelt annotations of HTTPRoutes aren't told in Events meanwhile"),
    (&routes::GRPC, true, "misspelt annotations of GRPCRoutes aren't told in Events meanwhile"),
    (&routes::TLS, true, "misspelt annotations of TLSRoutes aren't told in Events meanwhile"),
    (&routes::TCP, true, "misspelt annotations of TCPRoutes aren't told in Events meanwhile"),
    (&[core::DEPLOYMENT], false, "misspelt annotations of Deployments aren't told in Events meanwhile"),
    (&[core::STATEFUL_SET], false, "misspelt annotations of StatefulSets aren't told in Events meanwhile"),
    (&[core::DAEMON_SET], false, "misspelt annotations of DaemonSets aren't told in Events meanwhile"),
    (&[core::JOB], false, "misspelt annotations of Jobs aren't told in Events meanwhile"),
    (&[core::CRON_JOB], false, "misspelt annotations of CronJobs aren't told in Events meanwhile"),
];

/// The reason of Events about labels and annotations.
const ANNOTATION: &str = "InvalidAnnotation";
/// The reason of Events about namespaces that forbid what they ask for.
const POD_SECURITY: &str = "PodSecurity";

/// The objects with something wrong about them, by kind, key and reason. Of all others nothing is kept.
#[derive(Debug, Default)]
struct Faulty(BTreeMap<(&'static str, Key, &'static str), Told>);

/// What is told of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    about: About,
    reason: &'static str,
    /// All that is wrong with it, each with its remedy.
    message: String,
}

/// Begins to look, and to tell.
pub(crate) fn start(cluster: &Cluster, replica: String, problems: &Problems, tasks: &mut JoinSet<()>) {
    let (tell, faulty) = watch::channel(Faulty::default());
    for (versions, metadata_only, meanwhile) in WATCHED {
        let Some(Resource { kind, .. }) = versions.first() else { continue };
        let selection = Selection { metadata_only, ..Selection::default() };
        let watch = Watch::of_versions(cluster.clone(), versions.to_vec(), selection);
        let (tell, problems) = (tell.clone(), problems.clone());
        tasks.spawn(async move {
            let hear = |events| {
                tell.send_if_modified(|faulty| faulty.hear(kind, events));
            };
            match follow(watch, meanwhile, &problems, hear).await {}
        });
    }
    let cluster = cluster.clone();
    tasks.spawn(async move { match keep_telling(&cluster, &replica, faulty).await {} });
}

async fn keep_telling(cluster: &Cluster, replica: &str, mut faulty: watch::Receiver<Faulty>) -> Infallible {
    // When each is told again, by what was told.
    let mut again: HashMap<(Box<str>, String), Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        let is_due = |told: &&Told| again.get(&told.key()).is_none_or(|again| *again <= now);
        let due: Vec<Told> = {
            let faulty = faulty.borrow_and_update();
            // Who was told of longest ago first: those that can't be told must not hold up the others.
            let mut due: Vec<&Told> = faulty.0.values().filter(is_due).collect();
            due.sort_by_key(|told| again.get(&told.key()).copied());
            let due = due.into_iter().take(BATCH).cloned().collect();
            let known: HashSet<_> = faulty.0.values().map(Told::key).collect();
            again.retain(|key, _| known.contains(key));
            due
        };
        for told in &due {
            let after = match write(cluster, replica, told).await {
                // One that exists was written by another replica, or by us.
                Ok(()) => TELL_AGAIN,
                Err(error) => {
                    let About { kind, namespace, name, .. } = &told.about;
                    if !again.contains_key(&told.key()) {
                        warn!(
                            "{kind} {namespace}/{name}: {}; an Event about it can't be written: {error}",
                            told.message
                        );
                    }
                    AGAIN
                }
            };
            again.insert(told.key(), Instant::now() + after);
        }
        let next = if due.len() == BATCH { Some(now) } else { again.values().min().copied() };
        tokio::select! {
            // It doesn't close: the watches end with this task.
            _ = faulty.changed() => {}
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
        sleep(SETTLE).await;
    }
}

/// Sees to it that the API server has the Event, and logs what it says.
async fn write(cluster: &Cluster, replica: &str, told: &Told) -> Result<(), ApiError> {
    let About { kind, namespace, name, .. } = &told.about;
    let suffix = told.suffix();
    let words = Words { reason: told.reason, message: &told.message, suffix: &suffix };
    cluster.create(&core::EVENT, &event(&told.about, words, replica, jiff::Timestamp::now())).await?;
    warn!("{kind} {namespace}/{name}: {}", told.message);
    Ok(())
}

impl Faulty {
    /// Whether anything that is told has changed.
    fn hear(&mut self, kind: &'static str, events: Vec<Event>) -> bool {
        let mut changed = false;
        for event in events {
            match event {
                Event::Applied(object) => {
                    let Some(about) = about(kind, &object) else { continue };
                    let key = key(&object, &about);
                    for (reason, message) in
                        [(ANNOTATION, misspelt(&object)), (POD_SECURITY, forbidden(&object))]
                    {
                        let key = (kind, key.clone(), reason);
                        changed |= match message {
                            Some(message) => {
                                let told = Told { about: about.clone(), reason, message };
                                self.0.insert(key, told.clone()) != Some(told)
                            }
                            None => self.0.remove(&key).is_some(),
                        };
                    }
                }
                Event::Deleted(key) => {
                    for reason in [ANNOTATION, POD_SECURITY] {
                        changed |= self.0.remove(&(kind, key.clone(), reason)).is_some();
                    }
                }
                // Of a kind that isn't served any more each object is told to be gone.
                Event::Complete | Event::NotServed => {}
            }
        }
        changed
    }
}

impl Told {
    /// Of an object that is changed another Event is written.
    fn key(&self) -> (Box<str>, String) {
        (self.about.uid.clone(), self.message.clone())
    }

    /// The same for all replicas of one version.
    fn suffix(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.message.hash(&mut hasher);
        format!("{:08x}", hasher.finish() & 0xffff_ffff)
    }
}

/// All that is wrong with an object's labels and annotations; `None` if nothing is, if it is going, or if a CronJob made it,
/// which is told about instead.
fn misspelt(object: &Value) -> Option<String> {
    let owner = object.pointer("/metadata/ownerReferences/0/kind").and_then(Value::as_str);
    if owner == Some("CronJob") || is_going(object) {
        return None;
    }
    let faults: Vec<String> = faults(object).iter().map(ToString::to_string).collect();
    (!faults.is_empty()).then(|| review::message(&faults.join(". ")))
}

/// Why no pod with a sidecar can be created in a namespace that asks for them.
fn forbidden(object: &Value) -> Option<String> {
    let is_namespace = object.get("kind").and_then(Value::as_str) == Some("Namespace");
    if !is_namespace || is_going(object) {
        return None;
    }
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object)?;
    let labels = labels.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    pod_security::refusal(&labels.collect())
}

fn is_going(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

fn about(kind: &'static str, object: &Value) -> Option<About> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(Box::from);
    let name: Box<str> = text("/metadata/name")?;
    Some(About {
        api_version: object.get("apiVersion").and_then(Value::as_str).unwrap_or_default().to_owned(),
        kind,
        namespace: text("/metadata/namespace").unwrap_or_else(|| name.clone()),
        uid: text("/metadata/uid").unwrap_or_default(),
        name,
    })
}

fn key(object: &Value, about: &About) -> Key {
    let namespaced = object.pointer("/metadata/namespace").is_some();
    Key { namespace: namespaced.then(|| about.namespace.clone()), name: about.name.clone() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(name: &str, annotations: Value) -> Event {
        let template = json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
        Event::Applied(json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "shop", "name": name, "uid": name}, "spec": {"template": template},
        }))
    }

    fn told(faulty: &Faulty) -> Vec<String> {
        faulty.0.values().map(|told| format!("{}: {}", told.about.name, told.message)).collect()
    }

    #[test]
    fn what_is_wrong_is_kept_until_it_is_mended_or_gone_and_nothing_else_is() {
        let mut faulty = Faulty::default();
        let (good, bad) = (json!({"gamut.mesh/mtls": "strict"}), json!({"gamut.mesh/mtsl": "strict"}));
        let events = vec![
            deployment("good", good.clone()),
            deployment("web", bad.clone()),
            deployment("api", bad.clone()),
        ];
        assert!(faulty.hear("Deployment", events));
        let said = told(&faulty);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].contains("web: spec.template.metadata: annotation gamut.mesh/mtsl"), "{said:?}");
        assert!(!faulty.hear("Deployment", vec![deployment("web", bad)]), "that isn't news");

        let gone = Event::Deleted(Key { namespace: Some("shop".into()), name: "api".into() });
        assert!(faulty.hear("Deployment", vec![deployment("web", good), gone]));
        assert!(told(&faulty).is_empty());
    }

    #[test]
    fn all_that_is_wrong_with_an_object_is_in_one_message() {
        let mut faulty = Faulty::default();
        let both = json!({"gamut.mesh/mtsl": "strict", "gamut.mesh/drain-time": "30"});
        faulty.hear("Deployment", vec![deployment("web", both)]);
        let said = told(&faulty).concat();
        assert!(
            said.contains("gamut.mesh/mtsl is unknown") && said.contains("\"30\" is not a duration"),
            "{said}"
        );
    }

    #[test]
    fn pods_that_a_rollout_ends_before_their_requests_may_are_told_of_at_their_deployment() {
        let mut faulty = Faulty::default();
        faulty.hear("Deployment", vec![deployment("web", json!({"gamut.mesh/drain-time": "45s"}))]);
        let said = told(&faulty).concat();
        assert!(
            said.contains("45s is not shorter than the pod's terminationGracePeriodSeconds, 30"),
            "{said}"
        );
        faulty.hear("Deployment", vec![deployment("web", json!({"gamut.mesh/drain-time": "20s"}))]);
        assert!(told(&faulty).is_empty());
    }

    #[test]
    fn a_route_is_told_about_in_the_version_that_the_cluster_serves() {
        let mut faulty = Faulty::default();
        let metadata = json!({"namespace": "shop", "name": "web", "annotations": {"gamut.mesh/sesion-scope": "backend"}});
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "HTTPRoute", "metadata": metadata});
        assert!(faulty.hear("HTTPRoute", vec![Event::Applied(route)]));
        let told = faulty.0.values().next().unwrap();
        assert_eq!(told.about.api_version, "gateway.networking.k8s.io/v1beta1");
        assert!(
            told.message.contains("write gamut.mesh/session-scope, if that was meant"),
            "{}",
            told.message
        );
    }

    #[test]
    fn a_job_of_a_cron_job_is_left_to_the_cron_job() {
        let template = json!({"metadata": {"annotations": {"gamut.mesh/mtsl": "strict"}}});
        let job = |owners: Value| {
            let metadata = json!({"namespace": "shop", "name": "a", "ownerReferences": owners});
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}})
        };
        assert_eq!(misspelt(&job(json!([{"kind": "CronJob", "name": "nightly"}]))), None);
        assert!(misspelt(&job(json!([]))).is_some());
    }

    #[test]
    fn a_namespace_that_forbids_what_it_asks_for_is_told_what_to_write() {
        let namespace = |labels: Value| {
            Event::Applied(
                json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop", "labels": labels}}),
            )
        };
        let mut faulty = Faulty::default();
        let restricted = "pod-security.kubernetes.io/enforce";
        assert!(!faulty.hear("Namespace", vec![namespace(json!({restricted: "restricted"}))]));
        let asking = namespace(json!({restricted: "restricted", "gamut.mesh/inject": "enabled"}));
        assert!(faulty.hear("Namespace", vec![asking]));
        let said = told(&faulty).concat();
        assert!(said.contains("gamut-init") && said.contains("enforce=privileged"), "{said}");
        let key = Key { namespace: None, name: "shop".into() };
        assert!(faulty.hear("Namespace", vec![Event::Deleted(key)]) && faulty.0.is_empty());
    }

    #[test]
    fn another_fault_is_another_event_and_the_same_one_is_the_same_for_every_replica() {
        let told = |message: &str| {
            let about = about("Namespace", &json!({"metadata": {"name": "shop", "uid": "1"}})).unwrap();
            Told { about, reason: ANNOTATION, message: message.to_owned() }
        };
        assert_eq!(told("a").suffix(), told("a").suffix());
        assert_ne!(told("a").suffix(), told("b").suffix());
        assert_eq!(&*told("a").about.namespace, "shop", "where its people look");
    }
}
