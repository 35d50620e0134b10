//! Which pods should have a sidecar and don't, from labels alone.

use std::collections::BTreeMap;

use gamut_injector::{Config, INJECT, NamespaceView};
use gamut_kubernetes::{Event, Key};
use serde_json::Value;

use crate::{admit::is_exempt, namespaces::Known};

/// Pods that the injection hasn't labelled.
pub(super) const BARE: &str = "gamut.mesh/injected!=true";
/// Pods that go on.
pub(super) const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Every pod without a sidecar, whether it should have one or not.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_key: BTreeMap<Key, Pod>,
    complete: bool,
}

#[derive(Debug)]
struct Pod {
    uid: Box<str>,
    /// The label `gamut.mesh/inject`.
    inject: Option<Box<str>>,
    /// Kind and name of what made it.
    owner: Option<Box<str>>,
}

/// One that should have a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
    pub(super) owner: Option<Box<str>>,
    /// Its namespace, as the patch looks at it.
    pub(super) view: NamespaceView,
}

impl Pods {
    pub(super) fn hear(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Applied(object) => {
                    let metadata = object.get("metadata").unwrap_or(&Value::Null);
                    let text =
                        |pointer: &str| metadata.pointer(pointer).and_then(Value::as_str).map(Box::from);
                    let Some(name) = text("/name") else { continue };
                    let key = Key { namespace: text("/namespace"), name };
                    if metadata.get("deletionTimestamp").is_some() {
                        self.by_key.remove(&key);
                        continue;
                    }
                    let labels = metadata.get("labels");
                    let inject = labels.and_then(|labels| labels.get(INJECT)).and_then(Value::as_str);
                    let owner = text("/ownerReferences/0/kind").zip(text("/ownerReferences/0/name"));
                    let owner =
                        owner.map(|(kind, name): (Box<str>, Box<str>)| format!("{kind} {name}").into());
                    let uid = text("/uid").unwrap_or_default();
                    self.by_key.insert(key, Pod { uid, inject: inject.map(Box::from), owner });
                }
                Event::Deleted(key) => drop(self.by_key.remove(&key)),
                Event::Complete => self.complete = true,
                // There is no API server without pods.
                Event::NotServed => {}
            }
        }
    }

    /// Those that should have a sidecar, by namespace and name; none before all is known.
    pub(super) fn missing(&self, namespaces: &Known, config: &Config) -> Vec<Missing> {
        if !self.complete || !namespaces.complete {
            return Vec::new();
        }
        let missing = self.by_key.iter().filter_map(|(key, pod)| {
            let namespace = key.namespace.clone()?;
            let view = &namespaces.by_name.get(&*namespace)?.view;
            let of_namespace = view.labels.get(INJECT).map(String::as_str);
            if is_exempt(&namespace, config) || !asks(pod.inject.as_deref(), of_namespace) {
                return None;
            }
            let (name, uid, owner) = (key.name.clone(), pod.uid.clone(), pod.owner.clone());
            Some(Missing { namespace, name, uid, owner, view: view.clone() })
        });
        missing.collect()
    }
}

impl Missing {
    /// For people.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Whether somebody asks for a sidecar, by the pod's label, else the namespace's. Who has misspelt it asks: see `decide` of the patch.
fn asks(of_pod: Option<&str>, of_namespace: Option<&str>) -> bool {
    of_pod.or(of_namespace).is_some_and(|value| value != "disabled")
}

#[cfg(test)]
mod tests {
    use gamut_injector::NamespaceView;
    use serde_json::json;

    use super::*;
    use crate::namespaces::Namespace;

    fn namespaces(labelled: &[(&str, Option<&str>)]) -> Known {
        let entry = |(name, inject): &(&str, Option<&str>)| {
            let labels = inject.map(|value| (INJECT.to_owned(), value.to_owned())).into_iter().collect();
            let view = NamespaceView { name: (*name).to_owned(), labels };
            ((*name).to_owned(), Namespace { view, annotations: BTreeMap::new() })
        };
        Known { by_name: labelled.iter().map(entry).collect(), complete: true }
    }

    fn pod(namespace: &str, name: &str, inject: Option<&str>) -> Event {
        let labels = inject.map(|value| json!({INJECT: value}));
        Event::Applied(json!({"metadata": {
            "namespace": namespace, "name": name, "uid": name, "labels": labels,
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f"}],
        }}))
    }

    fn names(pods: &Pods, namespaces: &Known) -> Vec<String> {
        pods.missing(namespaces, &Config::default()).iter().map(Missing::key).collect()
    }

    #[test]
    fn who_asks_and_has_none_is_missing_one() {
        let namespaces = namespaces(&[
            ("shop", Some("enabled")),
            ("lab", None),
            ("off", Some("disabled")),
            ("kube-system", Some("enabled")),
            ("gamut-system", Some("enabled")),
        ]);
        let mut pods = Pods::default();
        pods.hear(vec![
            pod("shop", "plain", None),
            pod("shop", "out", Some("disabled")),
            pod("lab", "plain", None),
            pod("lab", "in", Some("enabled")),
            pod("lab", "misspelt", Some("enalbed")),
            pod("off", "plain", None),
            pod("off", "in", Some("enabled")),
            pod("kube-system", "dns", None),
            pod("gamut-system", "ca", None),
            pod("unknown", "plain", Some("enabled")),
        ]);
        assert!(names(&pods, &namespaces).is_empty(), "not all is known yet");
        pods.hear(vec![Event::Complete]);
        assert_eq!(names(&pods, &namespaces), ["lab/in", "lab/misspelt", "off/in", "shop/plain"]);
    }

    #[test]
    fn a_label_that_comes_later_is_noticed_and_a_pod_that_goes_is_forgotten() {
        let mut pods = Pods::default();
        pods.hear(vec![pod("shop", "old", None), pod("shop", "older", None), Event::Complete]);
        assert!(names(&pods, &namespaces(&[("shop", None)])).is_empty());
        let labelled = namespaces(&[("shop", Some("enabled"))]);
        assert_eq!(names(&pods, &labelled), ["shop/old", "shop/older"]);
        let mut leaving = json!({"metadata": {"namespace": "shop", "name": "old", "uid": "old"}});
        leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let key = Key { namespace: Some("shop".into()), name: "older".into() };
        pods.hear(vec![Event::Applied(leaving), Event::Deleted(key)]);
        assert!(names(&pods, &labelled).is_empty());
    }
}
