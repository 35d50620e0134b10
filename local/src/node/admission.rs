//! From a reading of manifests to what the cluster shall hold: what the API server would check and fill in.
//!
//! Pure. An object that can't be had is left out with one line that names its file, itself, the field and the remedy; all
//! others are taken.

use std::collections::{BTreeMap, BTreeSet};

use gamut_injector::{Config, NamespaceView};
use gamut_manifest::{Object, ObjectId, Origin, Reading, Severity};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{injection, names::derived_uid, objects, workloads::Workload};

/// Namespaces that are there without being asked for.
const BUILT_IN: [&str; 2] = ["default", SYSTEM_NAMESPACE];
/// The mesh's own namespace.
pub(crate) const SYSTEM_NAMESPACE: &str = "gamut-system";
/// The label that the API server puts on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What the cluster shall hold.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// Objects as they are to be written, Services and workloads included.
    pub(crate) objects: BTreeMap<ObjectId, (Value, Option<Origin>)>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) namespaces: BTreeMap<String, NamespaceView>,
    /// A line each.
    pub(crate) problems: BTreeSet<String>,
    /// A line each.
    pub(crate) notices: BTreeSet<String>,
}

/// Takes what can be taken.
pub(crate) fn admit(reading: &Reading, config: &Config, started: Timestamp) -> Admitted {
    let mut admitted = Admitted::default();
    for error in &reading.errors {
        match error.severity() {
            Severity::Error => admitted.problems.insert(error.to_string()),
            Severity::Warning => admitted.notices.insert(error.to_string()),
        };
    }
    for object in reading.objects.iter().filter(|object| is_namespace(object)) {
        admitted.take_namespace(object.raw.clone(), Some(object.origin.clone()));
    }
    for name in BUILT_IN {
        if !admitted.namespaces.contains_key(name) {
            admitted.take_namespace(built_in("Namespace", None, name, started), None);
        }
    }
    for object in reading.objects.iter().filter(|object| !is_namespace(object)) {
        match admitted.check(object, config) {
            Ok(()) => {
                admitted.objects.insert(object.id(), (object.raw.clone(), Some(object.origin.clone())));
            }
            Err(problem) => {
                admitted.problems.insert(line(&object.origin, &object.id(), &problem));
            }
        }
    }
    for namespace in admitted.namespaces.keys() {
        let account = built_in("ServiceAccount", Some(namespace), "default", started);
        let id = objects::id("ServiceAccount", namespace, "default");
        admitted.objects.entry(id).or_insert((account, None));
    }
    admitted
}

/// A problem's line.
pub(crate) fn line(origin: &Origin, id: &ObjectId, problem: &str) -> String {
    format!("{origin}: {id}: {problem}")
}

impl Admitted {
    fn take_namespace(&mut self, mut object: Value, origin: Option<Origin>) {
        let id = objects::id_of(&object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(NAME_LABEL.to_owned(), id.name.as_str().into());
            }
        }
        object["status"] = json!({"phase": "Active"});
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        let view = NamespaceView { name: id.name.clone(), labels: labels.collect() };
        self.namespaces.insert(id.name.clone(), view);
        self.objects.insert(id, (object, origin));
    }

    /// What the API server, and the webhook behind it, would say; workloads are taken in passing.
    fn check(&mut self, object: &Object, config: &Config) -> Result<(), String> {
        let Some(namespace) = &object.namespace else { return Ok(()) };
        let Some(view) = self.namespaces.get(namespace) else {
            return Err(format!(
                "metadata.namespace: there is no namespace {namespace}; add a Namespace of that name"
            ));
        };
        let Some(workload) = Workload::read(object).map_err(|error| error.to_string())? else {
            return Ok(());
        };
        // What would come of it is tried out here, so that the error names the manifest and not some pod.
        let pod = workload.pod(&workload.pod_name(0), "", Timestamp::UNIX_EPOCH);
        let prepared = injection::prepare(pod, view, config)?;
        let warnings = prepared.warnings.iter().map(|warning| line(&object.origin, &object.id(), warning));
        self.notices.extend(warnings);
        self.workloads.push(workload);
        Ok(())
    }
}

fn is_namespace(object: &Object) -> bool {
    object.kind == "Namespace" && object.namespace.is_none()
}

fn built_in(kind: &str, namespace: Option<&str>, name: &str, created: Timestamp) -> Value {
    let uid = derived_uid(&format!("{kind} {}/{name}", namespace.unwrap_or_default()));
    let mut metadata =
        json!({"name": name, "uid": uid, "creationTimestamp": created.to_string(), "generation": 1});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit_all(manifests: &str) -> Admitted {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        std::fs::write(&file, manifests).unwrap();
        let (objects, errors) = gamut_manifest::load(&[file]);
        admit(&Reading { objects, errors }, &injection::config("cluster.local"), Timestamp::UNIX_EPOCH)
    }

    fn only_problem(manifests: &str) -> String {
        let admitted = admit_all(manifests);
        assert_eq!(admitted.problems.len(), 1, "{:?}", admitted.problems);
        let problem = admitted.problems.into_iter().next().unwrap();
        problem.split_once("all.yaml:").unwrap().1.to_owned()
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: app\n";

    #[test]
    fn an_image_without_a_command_is_told_with_file_line_object_and_remedy() {
        let problem = only_problem(&format!("# a comment\n{POD}    image: nginx\n"));
        assert!(
            problem.starts_with("2: Pod default/a: container \"app\": image \"nginx\" without a command"),
            "{problem}"
        );
        assert!(problem.contains("give the container a command"), "{problem}");
    }

    #[test]
    fn what_is_valid_is_taken_although_something_else_is_not() {
        let second = POD.replace("{name: a}", "{name: b}");
        let admitted =
            admit_all(&format!("{POD}    image: nginx\n---\n{second}    image: gamut.mesh/echo\n"));
        let names: Vec<&str> = admitted.workloads.iter().map(|workload| workload.id.name.as_str()).collect();
        assert_eq!(names, ["b"]);
        assert_eq!(admitted.problems.len(), 1);
    }

    #[test]
    fn an_object_in_a_namespace_that_is_not_there_is_refused_as_a_cluster_would() {
        let pod = POD.replace("{name: a}", "{name: a, namespace: demo}") + "    image: gamut.mesh/echo\n";
        let problem = only_problem(&pod);
        assert_eq!(
            problem,
            "1: Pod demo/a: metadata.namespace: there is no namespace demo; add a Namespace of that name"
        );
        let admitted =
            admit_all(&format!("{pod}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: demo}}\n"));
        assert!(admitted.problems.is_empty(), "{:?}", admitted.problems);
        assert!(admitted.objects.contains_key(&objects::id("ServiceAccount", "demo", "default")));
    }

    #[test]
    fn a_misspelt_injection_label_is_refused_and_not_taken_for_a_no() {
        let pod = POD.replace("{name: a}", "{name: a, labels: {gamut.mesh/inject: yes-please}}");
        let problem = only_problem(&(pod + "    image: gamut.mesh/echo\n"));
        assert!(problem.contains("gamut.mesh/inject"), "{problem}");
    }
}
