//! What is known of namespaces: their labels and annotations, as far as they are about us, by a watch.
//!
//! The watch may lag behind the API server that asks. So whoever would turn a pod away because of what is known here looks
//! again first ([`Namespaces::read`]).

use std::{collections::BTreeMap, time::Duration};

use gamut_injector::{NamespaceView, PREFIX};
use gamut_kubernetes::{Cluster, Event, Selection, Watch, core};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    follow::{Problems, follow},
    pod_security,
};

/// How long reading one may take: the API server waits for us meanwhile.
const READ: Duration = Duration::from_secs(4);

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// For the patch.
    pub(crate) view: NamespaceView,
    /// Its annotations `gamut.mesh/*`.
    pub(crate) annotations: BTreeMap<String, String>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) by_name: BTreeMap<String, Namespace>,
    /// Whether that is all there are.
    pub(crate) complete: bool,
}

/// The way to what is known. Clones see the same.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    cluster: Cluster,
    known: watch::Receiver<Known>,
}

impl Namespaces {
    /// Begins to watch.
    pub(crate) fn start(cluster: Cluster, problems: &Problems, tasks: &mut JoinSet<()>) -> Self {
        let (tell, known) = watch::channel(Known::default());
        let watch = Watch::new(cluster.clone(), core::NAMESPACE, Selection::default().metadata_only());
        let problems = problems.clone();
        tasks.spawn(async move {
            let hear = |events| tell.send_modify(|known| known.hear(events));
            match follow(watch, "what is known of namespaces stays", &problems, hear).await {}
        });
        Self { cluster, known }
    }

    /// Whether all have been listed once.
    pub(crate) fn are_listed(&self) -> bool {
        self.known.borrow().complete
    }

    /// What is known of one.
    pub(crate) fn get(&self, name: &str) -> Option<Namespace> {
        self.known.borrow().by_name.get(name).cloned()
    }

    /// What the API server says of one now.
    ///
    /// # Errors
    /// Why it can't be had, in words.
    pub(crate) async fn read(&self, name: &str) -> Result<Namespace, String> {
        let read = timeout(READ, self.cluster.get(&core::NAMESPACE, None, name)).await;
        let read = read.map_err(|_| format!("the API server didn't answer within {} s", READ.as_secs()))?;
        let object = read.map_err(|error| error.to_string())?;
        object.map(|object| Namespace::of(&object)).ok_or_else(|| "there is no such namespace".to_owned())
    }

    /// For who wants to be told of changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.clone()
    }
}

impl Known {
    fn hear(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Applied(object) => {
                    let namespace = Namespace::of(&object);
                    self.by_name.insert(namespace.view.name.clone(), namespace);
                }
                Event::Deleted(key) => drop(self.by_name.remove(&*key.name)),
                Event::Complete => self.complete = true,
                // There is no API server without namespaces.
                Event::NotServed => {}
            }
        }
    }
}

impl Namespace {
    fn of(object: &Value) -> Self {
        let metadata = object.get("metadata").unwrap_or(&Value::Null);
        let ours = |field: &str, prefixes: &[&str]| {
            let entries = metadata.get(field).and_then(Value::as_object).into_iter().flatten();
            let ours = entries.filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
            ours.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        };
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            view: NamespaceView { name, labels: ours("labels", &[PREFIX, pod_security::PREFIX]) },
            annotations: ours("annotations", &[PREFIX]),
        }
    }
}

#[cfg(test)]
mod tests {
    use gamut_kubernetes::Key;
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_namespace_what_is_about_us_is_kept_and_follows_changes() {
        let mut known = Known::default();
        let object = |inject: &str| {
            Event::Applied(json!({"metadata": {
                "name": "shop",
                "labels": {"gamut.mesh/inject": inject, "team": "a", "pod-security.kubernetes.io/warn": "baseline"},
                "annotations": {"gamut.mesh/mtls": "strict", "note": "long"},
            }}))
        };
        known.hear(vec![object("enabled"), Event::Complete]);
        let shop = known.by_name["shop"].clone();
        assert!(known.complete);
        assert_eq!(shop.view.labels.len(), 2);
        assert_eq!(
            shop.annotations.into_iter().collect::<Vec<_>>(),
            [("gamut.mesh/mtls".to_owned(), "strict".to_owned())]
        );
        known.hear(vec![object("disabled")]);
        assert_eq!(known.by_name["shop"].view.labels["gamut.mesh/inject"], "disabled");
        known.hear(vec![Event::Deleted(Key { namespace: None, name: "shop".into() })]);
        assert!(known.by_name.is_empty());
    }
}
