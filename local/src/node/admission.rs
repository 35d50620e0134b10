//! From a reading of manifests to what the cluster shall hold: what the API server would check and fill in.
//!
//! Pure. An object that can't be had is refused with one line that names its file, itself, the field and the remedy; what it
//! was when it was last good stays, as it does on a cluster. All others are taken.

use std::collections::{BTreeMap, BTreeSet};

use gamut_injector::{Config, NamespaceView};
use gamut_manifest::{Object, ObjectId, Origin, Reading, Severity};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{fields, injection, limits, names::derived_uid, objects, words, workloads::Workload};

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
    /// The manifests' objects as they were taken: what is kept when a later one is refused.
    pub(crate) accepted: BTreeMap<ObjectId, Object>,
    /// Those that were refused, whether an older one stays or not.
    pub(crate) refused: BTreeSet<ObjectId>,
    /// A line each.
    pub(crate) problems: BTreeSet<String>,
    /// A line each.
    pub(crate) notices: BTreeSet<String>,
}

/// Takes what can be taken. `last`: what was accepted the last time.
pub(crate) fn admit(
    reading: &Reading,
    config: &Config,
    started: Timestamp,
    last: &BTreeMap<ObjectId, Object>,
) -> Admitted {
    let mut admitted = Admitted::default();
    for error in &reading.errors {
        match error.severity() {
            Severity::Error => admitted.problems.insert(error.to_string()),
            Severity::Warning => admitted.notices.insert(error.to_string()),
        };
    }
    // Namespaces first: all else is looked at in its own.
    let (namespaces, others): (Vec<&Object>, Vec<&Object>) =
        reading.objects.iter().partition(|object| is_namespace(object));
    for object in namespaces {
        admitted.take(object, config, last);
    }
    for name in BUILT_IN {
        if !admitted.namespaces.contains_key(name) {
            admitted.take_namespace(built_in("Namespace", None, name, started), None);
        }
    }
    for object in others {
        admitted.take(object, config, last);
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
    /// Takes an object, or what it was when it was last good.
    fn take(&mut self, object: &Object, config: &Config, last: &BTreeMap<ObjectId, Object>) {
        let id = object.id();
        let says = |problem: &String| line(&object.origin, &id, problem);
        self.notices.extend(words::warnings(object).iter().map(says));
        self.problems.extend(words::errors(object).iter().map(says));
        let mut impossible = fields::problems(object);
        impossible.extend(limits::problems(object));
        let is_possible = impossible.is_empty();
        let checked = match is_possible {
            true => self.check(object, config).map_err(|problem| vec![problem]),
            false => Err(impossible),
        };
        let Err(problems) = checked else { return self.accept(object) };
        self.problems.extend(problems.iter().map(says));
        self.refused.insert(id.clone());
        if let Some(good) = last.get(&id)
            && self.check(good, config).is_ok()
        {
            self.notices.insert(line(
                &object.origin,
                &id,
                "keeps its last good version until this is mended",
            ));
            self.accept(good);
        } else if is_namespace(object) && is_possible {
            // As on a cluster it is there, and its pods are refused; what else is in it isn't.
            self.take_namespace(object.raw.clone(), Some(object.origin.clone()));
        }
    }

    fn accept(&mut self, object: &Object) {
        match is_namespace(object) {
            true => self.take_namespace(object.raw.clone(), Some(object.origin.clone())),
            false => {
                self.objects.insert(object.id(), (object.raw.clone(), Some(object.origin.clone())));
            }
        }
        self.accepted.insert(object.id(), object.clone());
    }

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
        let Some(namespace) = &object.namespace else {
            return words::unreadable_choice(object).map_or(Ok(()), Err);
        };
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
    use crate::up::Traces;

    fn admit_all(manifests: &str) -> Admitted {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        std::fs::write(&file, manifests).unwrap();
        let (objects, errors) = gamut_manifest::load(&[file]);
        let config = injection::config("cluster.local", &Traces::default());
        admit(&Reading { objects, errors }, &config, Timestamp::UNIX_EPOCH, &BTreeMap::new())
    }

    /// What is held after one text was saved over the other.
    fn admit_one_after_the_other(before: &str, after: &str) -> Admitted {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        let mut reader = gamut_manifest::Reader::new(std::slice::from_ref(&file));
        let mut last = BTreeMap::new();
        let config = injection::config("cluster.local", &Traces::default());
        let mut admitted = [before, after].map(|text| {
            std::fs::write(&file, text).unwrap();
            let admitted = admit(&reader.read(), &config, Timestamp::UNIX_EPOCH, &last);
            last = admitted.accepted.clone();
            admitted
        });
        std::mem::take(&mut admitted[1])
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

    const SHOP: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {gamut.mesh/inject: enabled}}\n---\n";

    fn pods_of(admitted: &Admitted) -> Vec<&str> {
        admitted.workloads.iter().map(|workload| workload.id.name.as_str()).collect()
    }

    #[test]
    fn pods_run_on_as_they_are_while_the_label_of_their_namespace_or_their_own_cannot_be_read() {
        let pod = POD
            .replace("{name: a}", "{name: a, namespace: shop, labels: {gamut.mesh/inject: enabled}}")
            + "    image: gamut.mesh/echo\n";
        let both = format!("{SHOP}{pod}");
        for broken in
            [both.replacen("enabled", "\"true\"", 1), format!("{SHOP}{}", pod.replace("enabled", "enable"))]
        {
            let admitted = admit_one_after_the_other(&both, &broken);
            assert_eq!(
                (admitted.problems.len(), pods_of(&admitted)),
                (1, vec!["a"]),
                "{:?}",
                admitted.problems
            );
            assert_eq!(admitted.namespaces["shop"].labels["gamut.mesh/inject"], "enabled");
            let notice = "keeps its last good version until this is mended";
            assert!(admitted.notices.iter().any(|line| line.contains(notice)), "{:?}", admitted.notices);
        }
    }

    #[test]
    fn a_namespace_whose_label_could_never_be_read_is_there_without_pods() {
        let pod = POD.replace("{name: a}", "{name: a, namespace: shop}") + "    image: gamut.mesh/echo\n";
        let route = ROUTE.replace("{name: web}", "{name: web, namespace: shop}");
        let admitted = admit_all(&format!("{}{pod}---\n{route}", SHOP.replace("enabled", "enable")));
        assert_eq!((admitted.problems.len(), pods_of(&admitted).len()), (2, 0), "{:?}", admitted.problems);
        assert!(admitted.problems.iter().all(|problem| problem.contains("gamut.mesh/inject")));
        assert!(admitted.objects.contains_key(&objects::id("HTTPRoute", "shop", "web")));
    }

    #[test]
    fn a_weight_that_a_cluster_refuses_leaves_the_route_as_it_was() {
        let admitted = admit_one_after_the_other(ROUTE, &ROUTE.replace("weight: 90", "weight: -10"));
        let id = objects::id("HTTPRoute", "default", "web");
        assert_eq!(admitted.objects[&id].0["spec"]["rules"][0]["backendRefs"][0]["weight"], 90);
        assert!(admitted.refused.contains(&id));
    }

    const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n  rules:\n  - backendRefs: [{name: web, port: 80, weight: 90}]\n";

    #[test]
    fn a_misspelt_field_is_refused_and_what_was_there_before_stays() {
        let problem = only_problem(&ROUTE.replace("weight", "wieght"));
        assert_eq!(
            problem,
            "1: HTTPRoute default/web: spec.rules[0].backendRefs[0].wieght: there is no such field; write weight, if \
             that was meant, or remove it"
        );
        let id = objects::id("HTTPRoute", "default", "web");
        let admitted = admit_one_after_the_other(ROUTE, &ROUTE.replace("weight: 90", "wieght: 50"));
        assert_eq!(admitted.objects[&id].0["spec"]["rules"][0]["backendRefs"][0]["weight"], 90);
        assert!(admitted.refused.contains(&id));
        assert!(admitted.notices.iter().any(|notice| notice.contains("keeps its last good version")));
        let mended = admit_one_after_the_other(
            &ROUTE.replace("weight", "wieght"),
            &ROUTE.replace("weight: 90", "weight: 50"),
        );
        assert!(mended.problems.is_empty() && mended.refused.is_empty(), "{:?}", mended.problems);
    }

    #[test]
    fn what_is_kept_goes_when_its_namespace_or_it_itself_goes() {
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo}\n---\n";
        let route = ROUTE.replace("{name: web}", "{name: web, namespace: demo}");
        let bad = route.replace("weight", "wieght");
        let id = objects::id("HTTPRoute", "demo", "web");
        let all = format!("{namespace}{route}");
        assert!(admit_one_after_the_other(&all, &format!("{namespace}{bad}")).objects.contains_key(&id));
        assert!(!admit_one_after_the_other(&all, &bad).objects.contains_key(&id));
        assert!(!admit_one_after_the_other(&all, namespace).objects.contains_key(&id));
    }

    #[test]
    fn a_mode_that_cannot_be_read_is_told_and_its_namespace_is_there_all_the_same() {
        let admitted = admit_all(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo, annotations: {gamut.mesh/mtls: stritc, gamut.mesh/mtsl: strict}}\n",
        );
        assert_eq!((admitted.problems.len(), admitted.notices.len()), (1, 1), "{admitted:?}");
        assert!(admitted.namespaces.contains_key("demo"));
    }
}
