//! The roots in every namespace that has sidecars, where their pods mount them from.
//!
//! A namespace has some if it is labelled, or if one of its pods is: without the ConfigMap such a pod would wait for its volume for
//! ever. What is published stays when the label goes, because pods that run still mount it; it goes with its namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gamut_identity::SYSTEM_NAMESPACE;
use gamut_kubernetes::{
    ApiError, Cluster, Created, Event, MANAGED_BY, Problem, Replaced, Resource, Selection, Watch, core,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::keeper::empty;
use crate::bundle::{TRUST_BUNDLE, TRUST_BUNDLE_KEY};

/// Namespaces and pods that say that they want sidecars.
const ENABLED: &str = "gamut.mesh/inject=enabled";
/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// What is known of the cluster.
#[derive(Debug, Default)]
struct Known {
    /// Namespaces that are labelled.
    namespaces: BTreeSet<String>,
    /// Pods that are labelled, by namespace.
    pods: BTreeMap<String, BTreeSet<Box<str>>>,
    /// What our ConfigMap holds, by namespace.
    bundles: BTreeMap<String, String>,
    /// Watches that haven't listed everything yet.
    awaited: usize,
}

/// Publishes what `bundle` says, for ever.
pub(crate) async fn publish(cluster: Cluster, mut bundle: watch::Receiver<String>) {
    let (tell, mut told) = mpsc::channel(16);
    let mut watches = JoinSet::new();
    for (resource, selection) in [
        (core::NAMESPACE, Selection::labelled(ENABLED).metadata_only()),
        (core::POD, Selection::labelled(ENABLED).metadata_only()),
        (core::CONFIG_MAP, Selection::named(None, TRUST_BUNDLE)),
    ] {
        watches.spawn(follow(Watch::new(cluster.clone(), resource, selection), resource, tell.clone()));
    }
    let mut known = Known { awaited: watches.len(), ..Known::default() };
    let mut again = None;
    loop {
        tokio::select! {
            news = told.recv() => match news {
                Some((resource, events)) => known.hear(&resource, events),
                None => return,
            },
            changed = bundle.changed() => if changed.is_err() { return },
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
        let pem = bundle.borrow_and_update().clone();
        again = None;
        for namespace in known.due(&pem) {
            match write(&cluster, &namespace, &pem).await {
                Ok(true) => {
                    known.bundles.insert(namespace, pem.clone());
                }
                Ok(false) => again = Some(Instant::now() + AGAIN),
                // Most of the time because it is just being deleted.
                Err(ApiError { problem: Problem::Forbidden(reason), .. }) => {
                    debug!("namespace {namespace} gets no trust bundle: {reason}");
                    again = Some(Instant::now() + AGAIN);
                }
                Err(error) => {
                    warn!("the trust bundle of namespace {namespace} can't be written: {error}");
                    again = Some(Instant::now() + AGAIN);
                }
            }
        }
    }
}

impl Known {
    fn hear(&mut self, resource: &Resource, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Complete | Event::NotServed => self.awaited = self.awaited.saturating_sub(1),
                Event::Applied(object) => {
                    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                    let (namespace, name) = (text("/metadata/namespace").to_owned(), text("/metadata/name"));
                    let leaving = object.pointer("/metadata/deletionTimestamp").is_some();
                    match resource.kind {
                        "Namespace" if leaving => drop(self.namespaces.remove(name)),
                        "Namespace" => drop(self.namespaces.insert(name.to_owned())),
                        "Pod" if leaving => self.forget_pod(&namespace, name),
                        "Pod" => drop(self.pods.entry(namespace).or_default().insert(name.into())),
                        _ => {
                            let pem = object.get("data").and_then(|data| data.get(TRUST_BUNDLE_KEY));
                            let pem = pem.and_then(Value::as_str).unwrap_or_default();
                            self.bundles.insert(namespace, pem.to_owned());
                        }
                    }
                }
                Event::Deleted(key) => {
                    let namespace = key.namespace.as_deref().unwrap_or_default();
                    match resource.kind {
                        "Namespace" => drop(self.namespaces.remove(&*key.name)),
                        "Pod" => self.forget_pod(namespace, &key.name),
                        _ => drop(self.bundles.remove(namespace)),
                    }
                }
            }
        }
    }

    fn forget_pod(&mut self, namespace: &str, name: &str) {
        if let Some(pods) = self.pods.get_mut(namespace) {
            pods.remove(name);
            if pods.is_empty() {
                self.pods.remove(namespace);
            }
        }
    }

    /// The namespaces to write to: those with sidecars, and those with an old bundle. The CA's own is the keeper's.
    fn due(&self, pem: &str) -> Vec<String> {
        if self.awaited > 0 {
            return Vec::new();
        }
        let wanted: BTreeSet<&String> =
            self.namespaces.iter().chain(self.pods.keys()).chain(self.bundles.keys()).collect();
        let differs = |namespace: &&&String| self.bundles.get(**namespace).is_none_or(|known| known != pem);
        let others = wanted.iter().filter(|namespace| **namespace != SYSTEM_NAMESPACE);
        others.filter(differs).map(|namespace| (*namespace).clone()).collect()
    }
}

/// Tells what a watch says; its failures are in the log once each.
async fn follow(mut watch: Watch, resource: Resource, tell: mpsc::Sender<(Resource, Vec<Event>)>) {
    let (mut told, mut listed) = (String::new(), false);
    loop {
        match watch.next().await {
            Ok(mut events) => {
                told.clear();
                // A later listing changes nothing about who is awaited.
                events.retain(|event| !matches!(event, Event::Complete | Event::NotServed) || !listed);
                listed |= events.iter().any(|event| matches!(event, Event::Complete | Event::NotServed));
                if tell.send((resource, events)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    warn!("{error}; trust bundles stay as they are");
                    told = error;
                }
            }
        }
    }
}

/// Writes one namespace's ConfigMap; false if somebody else was faster.
async fn write(cluster: &Cluster, namespace: &str, pem: &str) -> Result<bool, ApiError> {
    let before = cluster.get(&core::CONFIG_MAP, Some(namespace), TRUST_BUNDLE).await?;
    let exists = before.is_some();
    let mut map = before.unwrap_or_else(|| empty(namespace));
    map["data"][TRUST_BUNDLE_KEY] = pem.into();
    map["metadata"]["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
    match exists {
        true => Ok(matches!(cluster.replace(&core::CONFIG_MAP, &map).await?, Replaced::Done(_))),
        false => match cluster.create(&core::CONFIG_MAP, &map).await {
            Ok(created) => Ok(matches!(created, Created::New(_))),
            // The namespace is gone.
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use gamut_kubernetes::Key;
    use serde_json::json;

    use super::*;

    fn object(namespace: Option<&str>, name: &str, extra: Value) -> Event {
        let mut object = json!({"metadata": {"name": name, "namespace": namespace}});
        for (field, value) in extra.as_object().unwrap() {
            match field.as_str() {
                "deletionTimestamp" => object["metadata"][field] = value.clone(),
                _ => object[field] = value.clone(),
            }
        }
        Event::Applied(object)
    }

    fn known() -> Known {
        let mut known = Known { awaited: 3, ..Known::default() };
        known.hear(
            &core::NAMESPACE,
            vec![object(None, "shop", json!({})), object(None, SYSTEM_NAMESPACE, json!({})), Event::Complete],
        );
        known.hear(&core::POD, vec![object(Some("lab"), "opted-in", json!({})), Event::Complete]);
        known
    }

    #[test]
    fn nothing_is_written_before_all_is_known() {
        assert!(known().due("pem").is_empty());
    }

    #[test]
    fn namespaces_with_sidecars_get_the_roots_until_they_have_them() {
        let mut known = known();
        known.hear(&core::CONFIG_MAP, vec![Event::Complete]);
        assert_eq!(known.due("pem"), ["lab", "shop"]);
        known.hear(
            &core::CONFIG_MAP,
            vec![object(Some("shop"), TRUST_BUNDLE, json!({"data": {"root.pem": "pem"}}))],
        );
        assert_eq!(known.due("pem"), ["lab"]);
        assert_eq!(known.due("newer"), ["lab", "shop"]);
        let key = Key { namespace: Some("shop".into()), name: TRUST_BUNDLE.into() };
        known.hear(&core::CONFIG_MAP, vec![Event::Deleted(key)]);
        assert_eq!(known.due("pem"), ["lab", "shop"]);
    }

    #[test]
    fn a_namespace_that_goes_is_left_alone() {
        let mut known = known();
        known.hear(&core::CONFIG_MAP, vec![Event::Complete]);
        known.hear(
            &core::NAMESPACE,
            vec![object(None, "shop", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))],
        );
        known.hear(
            &core::POD,
            vec![Event::Deleted(Key { namespace: Some("lab".into()), name: "opted-in".into() })],
        );
        assert!(known.due("pem").is_empty());
    }
}
