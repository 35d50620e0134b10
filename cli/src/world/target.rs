//! Pods by the names that people give them: `web-1`, `deploy/web`, `svc/web`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::Context as _;
use gamut_kubernetes::{Selection, core};
use gamut_local::control::{self, PodReport};
use serde_json::Value;

use super::{World, place, pod};

/// Whose pods are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A pod.
    Pod(String),
    /// The pods of a workload.
    Workload {
        /// `Deployment`, `StatefulSet` and so on.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The pods that a Service selects.
    Service(String),
}

/// A pod and what Services know it by.
type Labelled = (PodReport, BTreeMap<String, String>);

impl World {
    /// The namespace that is meant where none is named: that of the kubeconfig's context, or `default`.
    pub(crate) fn namespace<'a>(&'a self, named: Option<&'a str>) -> &'a str {
        match (named, self) {
            (Some(named), _) => named,
            (None, Self::Cluster(cluster, _)) => cluster.namespace(),
            (None, Self::Instance(_)) => "default",
        }
    }

    /// The pods of a namespace, or of all. In a cluster their sidecars aren't asked.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub(crate) async fn pods(&self, namespace: Option<&str>) -> anyhow::Result<Vec<PodReport>> {
        let pods = self.labelled(namespace).await?.into_iter();
        Ok(pods.map(|(pod, _)| pod).filter(|pod| !pod::is_over(pod)).collect())
    }

    /// The pods of a target.
    ///
    /// # Errors
    /// As [`Self::pods`], and if there are none.
    pub(crate) async fn pods_of(&self, target: &Target, namespace: &str) -> anyhow::Result<Vec<PodReport>> {
        let all = self.labelled(Some(namespace)).await?;
        let selector = match target {
            Target::Service(name) => Some(self.selector(namespace, name).await?),
            _ => None,
        };
        let is_meant = |(pod, labels): &Labelled| match (target, &selector) {
            (Target::Pod(name), _) => pod.name == *name,
            (Target::Workload { kind, name }, _) => pod.workload == Some(format!("{kind} {name}")),
            (Target::Service(_), Some(selector)) => {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            }
            (Target::Service(_), None) => false,
        };
        let meant = all.iter().filter(|pod| is_meant(pod)).map(|(pod, _)| pod);
        let pods: Vec<PodReport> = meant.filter(|pod| !pod::is_over(pod)).cloned().collect();
        if !pods.is_empty() {
            return Ok(pods);
        }
        // As kubectl has it a bare name is a pod's; of a workload's it is said how that is written.
        let of_workload = |(pod, _): &Labelled| {
            let Target::Pod(name) = target else { return None };
            let (kind, of) = pod.workload.as_deref()?.split_once(' ')?;
            let written = control::Target::written(kind, name).filter(|_| of == name)?;
            Some(format!("there is {kind} {name}: write {written}"))
        };
        let workload = all.iter().find_map(of_workload);
        // Who may not look everywhere gets the same answer without the hint.
        let everywhere = match target {
            // A selector means the pods of its own namespace alone.
            Target::Service(_) => Vec::new(),
            _ => self.labelled(None).await.unwrap_or_default(),
        };
        let hint = match everywhere.iter().find(|pod| is_meant(pod)) {
            Some((pod, _)) => format!("there is one in namespace {0}: add -n {0}", pod.namespace),
            None => workload.unwrap_or_else(|| "-n NAMESPACE names another".to_owned()),
        };
        match target {
            Target::Pod(name) => anyhow::bail!("there is no pod {name} in namespace {namespace}; {hint}"),
            _ => anyhow::bail!("{target} has no pod in namespace {namespace}; {hint}"),
        }
    }

    async fn labelled(&self, namespace: Option<&str>) -> anyhow::Result<Vec<Labelled>> {
        let has = |pod: &PodReport| namespace.is_none_or(|wanted| pod.namespace == wanted);
        match self {
            Self::Instance(client) => {
                let objects = client.objects("Pod")?;
                let labels = |pod: &PodReport| {
                    let is = |object: &&Value| {
                        text(object, "/metadata/name") == pod.name
                            && text(object, "/metadata/namespace") == pod.namespace
                    };
                    objects.iter().find(is).map(self::labels).unwrap_or_default()
                };
                let pods = client.status()?.pods.into_iter().filter(has);
                Ok(pods.map(|pod| (pod.clone(), labels(&pod))).collect())
            }
            Self::Cluster(cluster, context) => {
                let namespace = namespace.map(str::to_owned);
                let selection = Selection { namespace, ..Selection::default() };
                let objects = cluster.list(&core::POD, &selection).await;
                let objects = objects.with_context(|| place::called(context))?.unwrap_or_default();
                Ok(objects.iter().map(|object| (pod::report(object), self::labels(object))).collect())
            }
        }
    }

    /// What a Service's pods are labelled with.
    async fn selector(&self, namespace: &str, name: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let service = self.workload("Service", namespace, name).await?;
        let service = service.with_context(|| format!("there is no Service {namespace}/{name}"))?;
        let selector = map(&service.raw, "/spec/selector");
        match selector.is_empty() {
            true => anyhow::bail!("Service {namespace}/{name} has no selector, so nobody knows its pods"),
            false => Ok(selector),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(control::Target::Pod(name)) => Ok(Self::Pod(name)),
            Ok(control::Target::Workload { kind, name }) => Ok(Self::Workload { kind, name }),
            Ok(control::Target::Service(name)) => Ok(Self::Service(name)),
            Ok(control::Target::Node) | Err(_) => Err(format!(
                "{text:?} names no pods; use NAME (a pod), pod/NAME, deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME or svc/NAME"
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "Pod {name}"),
            Self::Workload { kind, name } => write!(f, "{kind} {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    map(object, "/metadata/labels")
}

fn map(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::scripted::{self, list};

    fn world() -> World {
        let pod = |name: &str, owner: &str, app: &str| {
            json!({
                "metadata": {
                    "namespace": "shop", "name": name, "labels": {"app": app, "pod-template-hash": "5d4f"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": format!("{owner}-5d4f")}],
                },
                "spec": {"containers": [{"name": "app"}]}, "status": {"phase": "Running"},
            })
        };
        let pods = [pod("web-1", "web", "web"), pod("web-2", "web-canary", "web"), pod("db-1", "db", "db")];
        let service = |selector| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "web"}, "spec": {"selector": selector}});
        scripted::world(vec![
            ("/api/v1/pods", list(&pods)),
            ("/api/v1/namespaces/shop/pods", list(&pods)),
            ("/api/v1/namespaces/default/pods", list(&[])),
            ("/api/v1/namespaces/shop/services/web", service(json!({"app": "web"}))),
            ("/api/v1/namespaces/shop/services/outside", service(json!({}))),
        ])
    }

    async fn names(target: &str) -> Result<Vec<String>, String> {
        let pods = world().pods_of(&target.parse().unwrap(), "shop").await;
        pods.map(|pods| pods.into_iter().map(|pod| pod.name).collect()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn pods_are_found_by_their_name_their_workload_and_their_service() {
        assert_eq!(names("web-1").await.unwrap(), ["web-1"]);
        assert_eq!(names("deploy/web").await.unwrap(), ["web-1"]);
        assert_eq!(names("svc/web").await.unwrap(), ["web-1", "web-2"]);
    }

    #[tokio::test]
    async fn who_has_no_pods_is_named_with_the_namespace() {
        assert_eq!(
            names("deploy/api").await.unwrap_err(),
            "Deployment api has no pod in namespace shop; -n NAMESPACE names another"
        );
        assert_eq!(names("svc/api").await.unwrap_err(), "there is no Service shop/api");
        assert!(names("svc/outside").await.unwrap_err().contains("has no selector"));
    }

    #[tokio::test]
    async fn who_has_pods_in_another_namespace_is_told_how_to_name_it() {
        let error = async |target: &str| {
            let pods = world().pods_of(&target.parse().unwrap(), "default").await;
            pods.unwrap_err().to_string()
        };
        assert_eq!(
            error("deploy/web").await,
            "Deployment web has no pod in namespace default; there is one in namespace shop: add -n shop"
        );
        assert_eq!(
            error("web-1").await,
            "there is no pod web-1 in namespace default; there is one in namespace shop: add -n shop"
        );
        assert_eq!(
            error("nix").await,
            "there is no pod nix in namespace default; -n NAMESPACE names another"
        );
    }

    #[tokio::test]
    async fn a_bare_name_of_a_workload_is_answered_with_how_that_is_written() {
        assert_eq!(
            names("web").await.unwrap_err(),
            "there is no pod web in namespace shop; there is Deployment web: write deploy/web"
        );
        let nobody = names("nobody").await.unwrap_err();
        assert_eq!(nobody, "there is no pod nobody in namespace shop; -n NAMESPACE names another");
    }

    #[test]
    fn what_names_no_pods_is_refused_with_what_does() {
        for text in ["node", "svc/", "rs/web", "deploy/a/b"] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains("svc/NAME"), "{error}");
        }
    }
}
