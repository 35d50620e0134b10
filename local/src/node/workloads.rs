//! Workloads: Deployments, StatefulSets, Jobs and single Pods as the node reads them, and the Pod objects it makes of them.

use gamut_manifest::{Object, ObjectId};
use jiff::Timestamp;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    names,
    rollout::{self, Member, RolloutStrategy, Steps},
};

/// A workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) id: ObjectId,
    pub(crate) uid: String,
    pub(crate) api_version: String,
    pub(crate) shape: Shape,
    /// `metadata` and `spec` of its pods.
    pub(crate) template: Value,
    /// Another template has another one.
    pub(crate) hash: String,
}

/// How many pods, and how they come and go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    Deployment { replicas: usize, strategy: RolloutStrategy },
    StatefulSet { replicas: usize, parallel: bool, service: String },
    Job { completions: usize, parallelism: usize, backoff_limit: usize },
    Pod,
}

/// A workload that can't be run as it is.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum WorkloadError {
    #[error(
        "gamut up runs Deployments, StatefulSets, Jobs and Pods; make it one of them, or try it on a cluster"
    )]
    Kind,
    #[error("{0} is missing; add it")]
    Missing(&'static str),
    #[error("{field} must be {expected}")]
    Field { field: &'static str, expected: &'static str },
    #[error(
        "spec.selector.matchLabels[{key:?}] is not among spec.template.metadata.labels; a workload must select its own \
         pods"
    )]
    Selector { key: String },
    #[error("spec.volumeClaimTemplates is not supported by gamut up, which has no storage; use emptyDir")]
    VolumeClaims,
}

impl Workload {
    /// Reads a workload; `None` for objects that are none.
    ///
    /// # Errors
    /// Kinds that aren't run here, and fields that don't make sense.
    pub(crate) fn read(object: &Object) -> Result<Option<Self>, WorkloadError> {
        let spec = object.raw.get("spec").unwrap_or(&Value::Null);
        let shape = match (object.group(), object.kind.as_str()) {
            ("apps", "Deployment") => deployment(spec)?,
            ("apps", "StatefulSet") => stateful_set(spec)?,
            ("batch", "Job") => {
                let parallelism = count(spec, "parallelism", "spec.parallelism", 1)?;
                Shape::Job {
                    completions: count(spec, "completions", "spec.completions", 1)?,
                    parallelism,
                    backoff_limit: count(spec, "backoffLimit", "spec.backoffLimit", 6)?,
                }
            }
            ("", "Pod") => Shape::Pod,
            ("apps", "DaemonSet" | "ReplicaSet") | ("batch", "CronJob") => return Err(WorkloadError::Kind),
            _ => return Ok(None),
        };
        let template = match shape {
            Shape::Pod => {
                let metadata = json!({"labels": object.labels, "annotations": object.annotations});
                json!({"metadata": metadata, "spec": spec})
            }
            _ => spec.get("template").ok_or(WorkloadError::Missing("spec.template"))?.clone(),
        };
        if matches!(shape, Shape::Deployment { .. } | Shape::StatefulSet { .. }) {
            check_selector(spec, &template)?;
        }
        Ok(Some(Self {
            id: object.id(),
            uid: object.uid.clone(),
            api_version: object.api_version.clone(),
            shape,
            hash: names::hash(&template),
            template,
        }))
    }

    /// What to do next, given its pods, the oldest first.
    pub(crate) fn steps(&self, members: &[Member]) -> Steps {
        match &self.shape {
            Shape::Deployment { replicas, strategy } => rollout::deployment(*replicas, *strategy, members),
            Shape::StatefulSet { replicas, parallel, .. } => {
                rollout::stateful_set(&self.id.name, *replicas, *parallel, members)
            }
            Shape::Job { completions, parallelism, backoff_limit } => {
                rollout::job(*completions, *parallelism, *backoff_limit, members)
            }
            Shape::Pod => rollout::single(&self.id.name, members),
        }
    }

    /// What isn't as it should be yet, in a line; `None` when all is.
    pub(crate) fn missing(&self, members: &[Member]) -> Option<String> {
        let live = || members.iter().filter(|pod| !pod.terminating);
        let good = live().filter(|pod| pod.current && (pod.ready || pod.outcome == Some(true))).count();
        let wanted = match &self.shape {
            Shape::Deployment { replicas, .. } | Shape::StatefulSet { replicas, .. } => *replicas,
            Shape::Job { completions, .. } => {
                // A Job is there to end: it counts as ready as soon as its pods run.
                let running = live().filter(|pod| pod.ready || pod.outcome.is_some()).count();
                return (running == 0 && *completions > 0).then(|| format!("{} to run", self.id));
            }
            Shape::Pod => 1,
        };
        let old = members.len() - live().filter(|pod| pod.current).count();
        match (good >= wanted, old) {
            (true, 0) => None,
            (true, old) => Some(format!("{} ({old} old {} to end)", self.id, plural(old, "pod"))),
            (false, _) => Some(format!("{} ({good} of {wanted} {} ready)", self.id, plural(wanted, "pod"))),
        }
    }

    /// The name of the ReplicaSet that stands between a Deployment and its pods.
    pub(crate) fn replica_set(&self) -> Option<String> {
        matches!(self.shape, Shape::Deployment { .. }).then(|| format!("{}-{}", self.id.name, self.hash))
    }

    /// A Pod object of the present template, before injection.
    pub(crate) fn pod(&self, name: &str, uid: &str, created: Timestamp) -> Value {
        let part = |of: Option<&Value>| of.and_then(Value::as_object).cloned().unwrap_or_default();
        let mut metadata = part(self.template.get("metadata"));
        let mut labels = part(metadata.get("labels"));
        let mut spec = part(self.template.get("spec"));
        let namespace = self.id.namespace.as_deref().unwrap_or_default();
        let mut label = |key: &str, value: &str| labels.insert(key.to_owned(), value.into());
        match &self.shape {
            Shape::Deployment { .. } => drop(label("pod-template-hash", &self.hash)),
            Shape::StatefulSet { service, .. } => {
                label("statefulset.kubernetes.io/pod-name", name);
                label("apps.kubernetes.io/pod-index", name.rsplit('-').next().unwrap_or_default());
                label("controller-revision-hash", &self.hash);
                spec.entry("hostname").or_insert_with(|| name.into());
                spec.entry("subdomain").or_insert_with(|| service.as_str().into());
            }
            Shape::Job { .. } => {
                label("batch.kubernetes.io/job-name", &self.id.name);
                label("job-name", &self.id.name);
            }
            Shape::Pod => {}
        }
        metadata.insert("labels".to_owned(), labels.into());
        metadata.insert("name".to_owned(), name.into());
        metadata.insert("namespace".to_owned(), namespace.into());
        metadata.insert("uid".to_owned(), uid.into());
        metadata.insert("creationTimestamp".to_owned(), created.to_string().into());
        metadata.extend(self.owner().map(|owner| ("ownerReferences".to_owned(), json!([owner]))));
        spec.entry("serviceAccountName").or_insert_with(|| "default".into());
        spec.insert("nodeName".to_owned(), "node".into());
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }

    /// The ReplicaSet object, for those who look up a pod's owner's owner.
    pub(crate) fn replica_set_object(&self, created: Timestamp) -> Option<Value> {
        let Shape::Deployment { replicas, .. } = self.shape else { return None };
        let name = self.replica_set()?;
        let namespace = self.id.namespace.as_deref().unwrap_or_default();
        let owner = owner_reference(&self.api_version, &self.id.kind, &self.id.name, &self.uid);
        let metadata = json!({
            "name": name, "namespace": namespace, "uid": names::derived_uid(&format!("ReplicaSet {namespace}/{name}")),
            "creationTimestamp": created.to_string(), "generation": 1,
            "labels": self.template.pointer("/metadata/labels"), "ownerReferences": [owner],
        });
        let spec = json!({"replicas": replicas, "template": self.template});
        Some(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata, "spec": spec}))
    }

    fn owner(&self) -> Option<Value> {
        let namespace = self.id.namespace.as_deref().unwrap_or_default();
        match (&self.shape, self.replica_set()) {
            (Shape::Pod, _) => None,
            (_, Some(name)) => {
                let uid = names::derived_uid(&format!("ReplicaSet {namespace}/{name}"));
                Some(owner_reference("apps/v1", "ReplicaSet", &name, &uid))
            }
            (_, None) => Some(owner_reference(&self.api_version, &self.id.kind, &self.id.name, &self.uid)),
        }
    }

    /// A name for one more pod, from something random.
    pub(crate) fn pod_name(&self, random: u64) -> String {
        let stem = self.replica_set().unwrap_or_else(|| self.id.name.clone());
        // As Kubernetes cuts it, so that the whole fits into 63 characters.
        let stem: String = stem.chars().take(57).collect();
        format!("{stem}-{}", names::letters(random.into(), 5))
    }
}

fn deployment(spec: &Value) -> Result<Shape, WorkloadError> {
    let replicas = count(spec, "replicas", "spec.replicas", 1)?;
    let kind = spec.pointer("/strategy/type").and_then(Value::as_str).unwrap_or("RollingUpdate");
    let bound = |name: &str, round_up: bool| {
        let value = spec.pointer(&format!("/strategy/rollingUpdate/{name}"));
        proportion(value, replicas, round_up)
    };
    let strategy = match kind {
        "RollingUpdate" => {
            let (surge, mut unavailable) = (bound("maxSurge", true)?, bound("maxUnavailable", false)?);
            if surge == 0 && unavailable == 0 {
                unavailable = 1;
            }
            RolloutStrategy::Rolling { surge, unavailable }
        }
        "Recreate" => RolloutStrategy::Recreate,
        _ => {
            return Err(WorkloadError::Field {
                field: "spec.strategy.type",
                expected: "RollingUpdate or Recreate",
            });
        }
    };
    Ok(Shape::Deployment { replicas, strategy })
}

fn stateful_set(spec: &Value) -> Result<Shape, WorkloadError> {
    if spec.get("volumeClaimTemplates").and_then(Value::as_array).is_some_and(|claims| !claims.is_empty()) {
        return Err(WorkloadError::VolumeClaims);
    }
    Ok(Shape::StatefulSet {
        replicas: count(spec, "replicas", "spec.replicas", 1)?,
        parallel: spec.get("podManagementPolicy").and_then(Value::as_str) == Some("Parallel"),
        service: spec.get("serviceName").and_then(Value::as_str).unwrap_or_default().to_owned(),
    })
}

fn count(spec: &Value, key: &str, field: &'static str, default: usize) -> Result<usize, WorkloadError> {
    match spec.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .ok_or(WorkloadError::Field { field, expected: "a number of 0 or more" }),
    }
}

/// A number or a percentage of the replicas; a quarter where nothing is said, as in Kubernetes.
fn proportion(value: Option<&Value>, replicas: usize, round_up: bool) -> Result<usize, WorkloadError> {
    let field = "spec.strategy.rollingUpdate";
    let error = WorkloadError::Field { field, expected: "numbers or percentages, such as 1 or \"25%\"" };
    let percent = match value {
        None | Some(Value::Null) => 25,
        Some(Value::String(text)) => {
            let number = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok());
            number.ok_or(error)?
        }
        Some(value) => return value.as_u64().and_then(|number| usize::try_from(number).ok()).ok_or(error),
    };
    let hundredths = replicas.saturating_mul(percent);
    Ok(if round_up { hundredths.div_ceil(100) } else { hundredths / 100 })
}

fn check_selector(spec: &Value, template: &Value) -> Result<(), WorkloadError> {
    let selector = spec.pointer("/selector/matchLabels").and_then(Value::as_object);
    let selector = selector.ok_or(WorkloadError::Missing("spec.selector.matchLabels"))?;
    let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
    let missing =
        selector.iter().find(|(key, value)| labels.and_then(|labels| labels.get(*key)) != Some(value));
    missing.map_or(Ok(()), |(key, _)| Err(WorkloadError::Selector { key: key.clone() }))
}

fn plural(number: usize, word: &str) -> String {
    if number == 1 { word.to_owned() } else { format!("{word}s") }
}

fn owner_reference(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true,
           "blockOwnerDeletion": true})
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;

    use super::*;

    fn read(manifest: Value) -> Result<Option<Workload>, WorkloadError> {
        let origin = Origin { file: Arc::new(PathBuf::from("test.yaml")), document: 0, line: 1 };
        Workload::read(&Object::from_value(manifest, &origin).unwrap())
    }

    fn manifest(spec: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "demo"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}},
            }
        });
        for (key, value) in spec.as_object().unwrap() {
            manifest["spec"][key] = value.clone();
        }
        manifest
    }

    #[test]
    fn bounds_of_a_rollout_are_those_of_kubernetes() {
        let strategy = |spec| match read(manifest(spec)).unwrap().unwrap().shape {
            Shape::Deployment { strategy, .. } => strategy,
            other => panic!("{other:?}"),
        };
        let rolling = |surge, unavailable| RolloutStrategy::Rolling { surge, unavailable };
        assert_eq!(strategy(json!({"replicas": 2})), rolling(1, 0));
        assert_eq!(strategy(json!({"replicas": 10})), rolling(3, 2));
        let update = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}});
        assert_eq!(strategy(json!({"replicas": 4, "strategy": update})), rolling(0, 2));
        let neither = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
        assert_eq!(strategy(json!({"replicas": 4, "strategy": neither})), rolling(0, 1));
        assert_eq!(strategy(json!({"strategy": {"type": "Recreate"}})), RolloutStrategy::Recreate);
    }

    #[test]
    fn a_workload_that_does_not_select_its_own_pods_is_refused() {
        let wrong = read(manifest(json!({"selector": {"matchLabels": {"app": "wep"}}})));
        assert_eq!(wrong, Err(WorkloadError::Selector { key: "app".into() }));
        let none = read(manifest(json!({"selector": null})));
        assert_eq!(none, Err(WorkloadError::Missing("spec.selector.matchLabels")));
    }

    #[test]
    fn kinds_that_need_a_cluster_are_refused_and_others_are_left_alone() {
        let kind = |api_version, kind| {
            read(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": {}}))
        };
        assert_eq!(kind("apps/v1", "DaemonSet"), Err(WorkloadError::Kind));
        assert_eq!(kind("v1", "Service"), Ok(None));
    }

    #[test]
    fn a_pod_belongs_to_the_replica_set_of_its_template() {
        let workload = read(manifest(json!({}))).unwrap().unwrap();
        let pod = workload.pod(&workload.pod_name(7), "u-1", Timestamp::UNIX_EPOCH);
        let replica_set = workload.replica_set_object(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], replica_set["metadata"]["uid"]);
        let name = pod["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with(replica_set["metadata"]["name"].as_str().unwrap()), "{name}");
        assert_eq!(pod["metadata"]["labels"]["pod-template-hash"], workload.hash.as_str());
        assert_eq!(replica_set["metadata"]["ownerReferences"][0]["name"], "web");
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
    }

    #[test]
    fn only_another_template_is_another_hash() {
        let hash = |spec| read(manifest(spec)).unwrap().unwrap().hash;
        assert_eq!(hash(json!({"replicas": 1})), hash(json!({"replicas": 5})));
        let template = json!({"spec": {"containers": []}, "metadata": {"labels": {"app": "web"}}});
        assert_eq!(hash(json!({})), hash(json!({"template": template})), "another order");
        let template = json!({"spec": {"containers": [1]}, "metadata": {"labels": {"app": "web"}}});
        assert_ne!(hash(json!({})), hash(json!({"template": template})));
    }

    #[test]
    fn what_is_missing_is_told_in_numbers() {
        let workload = read(manifest(json!({"replicas": 2}))).unwrap().unwrap();
        let member = |current, ready| Member {
            uid: String::new(),
            name: String::new(),
            current,
            ready,
            terminating: false,
            outcome: None,
        };
        assert_eq!(workload.missing(&[]).as_deref(), Some("Deployment demo/web (0 of 2 pods ready)"));
        assert_eq!(workload.missing(&[member(true, true), member(true, true)]), None);
        let rolled = [member(true, true), member(true, true), member(false, true)];
        assert_eq!(workload.missing(&rolled).as_deref(), Some("Deployment demo/web (1 old pod to end)"));
    }
}
