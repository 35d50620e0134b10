//! Labels and annotations of ours that do nothing, or not what they say: names that nobody knows, names in the wrong place,
//! values that nobody understands, drain times that outlive their pods.
//!
//! Whoever writes `gamut.mesh/mtsl: strict` believes to be safe, so it is said of every object that people write: by `gamut up`, by
//! `gamut check` and by an Event. All that is wrong with an object is told, not the first alone. What a route's values should be, its
//! conditions say: the compiler reads them.

use std::{collections::BTreeMap, fmt};

use gamut_manifest::nearest;
use serde_json::Value;
use thiserror::Error;

use crate::{
    names::{
        INJECT, MTLS, NAMESPACE_ANNOTATIONS, NAMESPACE_LABELS, POD_ANNOTATIONS, POD_LABELS, PREFIX,
        ROUTE_ANNOTATIONS, SERVICE_ANNOTATIONS,
    },
    settings::{LongDrain, SettingError, check_namespace, check_pod, check_service},
};

/// How many known names are listed for somebody who has written none of them.
const LISTED: usize = 5;

/// What is wrong with one label or annotation of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The metadata of the template that it is in, such as `spec.template.metadata`; `None`: the object's own.
    pub template: Option<&'static str>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a label or annotation. The text is without the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// A name that nobody knows.
    #[error(transparent)]
    Unknown(Unknown),
    /// A name that is for the pods of a workload, at the workload.
    #[error("{sort} {name} does nothing at a {kind} itself")]
    Misplaced {
        /// Label or annotation.
        sort: Sort,
        /// Its name.
        name: String,
        /// What carries it.
        kind: String,
        /// The metadata where it belongs.
        template: &'static str,
    },
    /// An annotation's value.
    #[error("{error}")]
    Setting {
        /// What it should be.
        error: SettingError,
        /// What happens until it is mended.
        meanwhile: &'static str,
    },
    /// A pod ends before its requests may.
    #[error(transparent)]
    Drain(LongDrain),
    /// The value of the label that asks for sidecars.
    #[error("label {INJECT}: {0:?} says neither yes nor no")]
    Choice(String),
}

/// A name of ours that nobody knows where it is. The text is without the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{sort} {name} is unknown and does nothing")]
pub struct Unknown {
    /// Label or annotation.
    pub sort: Sort,
    /// The name.
    pub name: String,
    /// What to do.
    pub remedy: String,
}

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A label.
    Label,
    /// An annotation.
    Annotation,
}

/// Everything that is wrong with our labels and annotations of an object, and of the template of its pods: of Namespaces,
/// Services, routes, pods and the workloads that make them.
pub fn faults(object: &Value) -> Vec<Fault> {
    const UNREAD: &str = "until it is mended, what can't be read of it does nothing";
    let (kind, metadata) = (text(object, "/kind"), Metadata::of(object, "/metadata"));
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let own = |problem| Fault { template: None, problem };
    match (group, kind) {
        ("", "Namespace") => {
            let meanwhile = |error: &SettingError| match error.annotation {
                MTLS => "until it is mended, strict is in force",
                _ => UNREAD,
            };
            let mut problems = metadata.unknown(NAMESPACE_LABELS, NAMESPACE_ANNOTATIONS);
            problems.extend(metadata.choice());
            problems.extend(settings(check_namespace(&metadata.annotations), meanwhile));
            problems.into_iter().map(own).collect()
        }
        ("", "Service") => {
            let mut problems = metadata.unknown(&[], SERVICE_ANNOTATIONS);
            problems.extend(settings(check_service(&metadata.annotations), |_| UNREAD));
            problems.into_iter().map(own).collect()
        }
        ("", "Pod") => metadata.of_pod(object.get("spec")).into_iter().map(own).collect(),
        ("apps" | "batch", _) => {
            let (template, pointer) = match kind {
                "CronJob" => ("spec.jobTemplate.spec.template.metadata", "/spec/jobTemplate/spec/template"),
                _ => ("spec.template.metadata", "/spec/template"),
            };
            let pods = Metadata::of(object, &format!("{pointer}/metadata"));
            let of_pods = pods.of_pod(object.pointer(&format!("{pointer}/spec"))).into_iter();
            let of_pods = of_pods.map(|problem| Fault { template: Some(template), problem });
            metadata.misplaced(kind, &pods, template).into_iter().map(own).chain(of_pods).collect()
        }
        (_, kind) if kind.ends_with("Route") => {
            metadata.unknown(&[], ROUTE_ANNOTATIONS).into_iter().map(own).collect()
        }
        _ => Vec::new(),
    }
}

impl Fault {
    /// What is wrong and where, without the remedy.
    pub fn found(&self) -> String {
        match self.template {
            Some(template) => format!("{template}: {}", self.problem),
            None => self.problem.to_string(),
        }
    }

    /// What to do about it, or what happens until somebody does.
    pub fn remedy(&self) -> String {
        match &self.problem {
            Problem::Unknown(unknown) => unknown.remedy.clone(),
            Problem::Misplaced { template, .. } => format!("it is for its pods: write it into {template}"),
            Problem::Setting { meanwhile, .. } => (*meanwhile).to_owned(),
            Problem::Drain(_) => LongDrain::REMEDY.to_owned(),
            Problem::Choice(_) => "write enabled or disabled: until then pods are refused".to_owned(),
        }
    }

    /// Whether a value can't be read, so that something else is in force; else something does nothing, or too little.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.problem, Problem::Setting { .. } | Problem::Choice(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.found(), self.remedy())
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Label => "label",
            Self::Annotation => "annotation",
        })
    }
}

impl Unknown {
    /// About a name of ours that isn't among those that are known where it is. `elsewhere`: the names of the other sort, for
    /// who has taken a label for an annotation.
    pub(crate) fn among<'a>(
        sort: Sort,
        name: &'a str,
        known: &[&'a str],
        elsewhere: &[&str],
    ) -> Option<Self> {
        if !name.starts_with(PREFIX) || known.contains(&name) {
            return None;
        }
        let other = match sort {
            Sort::Label => "an annotation",
            Sort::Annotation => "a label",
        };
        // What all of them begin with would make any two alike.
        let own = |name: &'a str| name.strip_prefix(PREFIX).unwrap_or(name);
        let remedy = match nearest(own(name), known.iter().copied().map(own)) {
            _ if elsewhere.contains(&name) => format!("it is {other}: write it there"),
            Some(meant) => format!("write {PREFIX}{meant}, if that was meant"),
            None if known.is_empty() => "this kind of object has none of that name".to_owned(),
            None if known.len() > LISTED => "the known ones are in docs/reference/annotations.md".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        Some(Self { sort, name: name.to_owned(), remedy })
    }
}

/// The labels and annotations of an object or a template.
struct Metadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    fn of(object: &Value, pointer: &str) -> Self {
        let texts = |field: &str| {
            let texts = object.pointer(&format!("{pointer}/{field}")).and_then(Value::as_object);
            let texts = texts.into_iter().flatten();
            texts.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        };
        Self { labels: texts("labels"), annotations: texts("annotations") }
    }

    fn names(&self) -> impl Iterator<Item = (Sort, &str)> {
        let labels = self.labels.keys().map(|name| (Sort::Label, name.as_str()));
        labels.chain(self.annotations.keys().map(|name| (Sort::Annotation, name.as_str())))
    }

    fn unknown(&self, labels: &[&str], annotations: &[&str]) -> Vec<Problem> {
        let unknown = self.names().filter_map(|(sort, name)| match sort {
            Sort::Label => Unknown::among(sort, name, labels, annotations),
            Sort::Annotation => Unknown::among(sort, name, annotations, labels),
        });
        unknown.map(Problem::Unknown).collect()
    }

    fn choice(&self) -> Option<Problem> {
        let value = self.labels.get(INJECT)?;
        (!["enabled", "disabled"].contains(&value.as_str())).then(|| Problem::Choice(value.clone()))
    }

    fn of_pod(&self, spec: Option<&Value>) -> Vec<Problem> {
        const REFUSED: &str = "until it is mended, pods that should have a sidecar are refused";
        let grace = spec.and_then(|spec| spec.get("terminationGracePeriodSeconds")?.as_i64());
        let mut problems = self.unknown(POD_LABELS, POD_ANNOTATIONS);
        problems.extend(self.choice());
        let (errors, long_drain) = check_pod(&self.annotations, grace);
        problems.extend(settings(errors, |_| REFUSED));
        problems.extend(long_drain.map(Problem::Drain));
        problems
    }

    /// Of a workload's own metadata: what is for its pods, or for nobody. What its pods have too, as some tools write it, is
    /// in force.
    fn misplaced(&self, kind: &str, pods: &Self, template: &'static str) -> Vec<Problem> {
        let is_of_pods = |(sort, name): &(Sort, &str)| match sort {
            Sort::Label => pods.labels.contains_key(*name),
            Sort::Annotation => pods.annotations.contains_key(*name),
        };
        let problem = |(sort, name): (Sort, &str)| {
            let (known, elsewhere) = match sort {
                Sort::Label => (POD_LABELS, POD_ANNOTATIONS),
                Sort::Annotation => (POD_ANNOTATIONS, POD_LABELS),
            };
            if known.contains(&name) {
                let (name, kind) = (name.to_owned(), kind.to_owned());
                return Some(Problem::Misplaced { sort, name, kind, template });
            }
            Unknown::among(sort, name, known, elsewhere).map(Problem::Unknown)
        };
        self.names().filter(|name| !is_of_pods(name)).filter_map(problem).collect()
    }
}

fn settings(
    errors: Vec<SettingError>,
    meanwhile: impl Fn(&SettingError) -> &'static str,
) -> impl Iterator<Item = Problem> {
    errors.into_iter().map(move |error| Problem::Setting { meanwhile: meanwhile(&error), error })
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(object: &Value) -> Vec<String> {
        faults(object).iter().map(ToString::to_string).collect()
    }

    fn object(api_version: &str, kind: &str, labels: Value, annotations: Value) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "labels": labels, "annotations": annotations}})
    }

    fn namespace(labels: Value, annotations: Value) -> Value {
        object("v1", "Namespace", labels, annotations)
    }

    fn deployment(metadata: Value, template: Value) -> Value {
        let spec = json!({"template": {"metadata": template, "spec": {"containers": []}}});
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    }

    #[test]
    fn a_misspelt_name_is_told_with_the_one_that_was_meant() {
        let shop = namespace(
            json!({"gamut.mesh/injct": "enabled", "team": "a"}),
            json!({"gamut.mesh/mtsl": "strict", "other/thing": "x"}),
        );
        assert_eq!(
            told(&shop),
            [
                "label gamut.mesh/injct is unknown and does nothing; write gamut.mesh/inject, if that was meant",
                "annotation gamut.mesh/mtsl is unknown and does nothing; write gamut.mesh/mtls, if that was meant",
            ]
        );
    }

    #[test]
    fn a_label_that_was_written_as_an_annotation_and_the_other_way_round_is_told_where_it_belongs() {
        let shop = namespace(json!({"gamut.mesh/mtls": "strict"}), json!({"gamut.mesh/inject": "enabled"}));
        assert_eq!(
            told(&shop),
            [
                "label gamut.mesh/mtls is unknown and does nothing; it is an annotation: write it there",
                "annotation gamut.mesh/inject is unknown and does nothing; it is a label: write it there",
            ]
        );
    }

    #[test]
    fn every_kind_has_its_own_names() {
        let count = |api_version: &str, kind: &str, name: &str| {
            faults(&object(api_version, kind, json!({}), json!({name: "1"}))).len()
        };
        let service = |name| count("v1", "Service", name);
        assert_eq!((service("gamut.mesh/opaque-ports"), service("gamut.mesh/mtls")), (0, 1));
        let route = |name| count("gateway.networking.k8s.io/v1", "HTTPRoute", name);
        assert_eq!((route("gamut.mesh/session-scope"), route("gamut.mesh/sesion-scope")), (0, 1));
        assert_eq!(count("v1", "ConfigMap", "gamut.mesh/mtsl"), 0, "it is nobody's business");
    }

    #[test]
    fn of_the_pods_that_a_workload_makes_all_that_is_wrong_is_told_with_its_place() {
        let annotations =
            json!({"gamut.mesh/mtsl": "strict", "gamut.mesh/drain-time": "30", "gamut.mesh/mtls": "stirct"});
        let template = json!({"labels": {"gamut.mesh/inject": "yes"}, "annotations": annotations});
        let refused = "until it is mended, pods that should have a sidecar are refused";
        assert_eq!(
            told(&deployment(json!({}), template.clone())),
            [
                "spec.template.metadata: annotation gamut.mesh/mtsl is unknown and does nothing; write gamut.mesh/mtls, if that was meant"
                    .to_owned(),
                "spec.template.metadata: label gamut.mesh/inject: \"yes\" says neither yes nor no; write enabled or disabled: until \
                 then pods are refused"
                    .to_owned(),
                format!("spec.template.metadata: annotation gamut.mesh/drain-time: \"30\" is not a duration such as 30s or 1m30s; {refused}"),
                format!("spec.template.metadata: annotation gamut.mesh/mtls: \"stirct\" is not strict or permissive; {refused}"),
            ]
        );
        let job = json!({"spec": {"template": {"metadata": template}}});
        let cron_job = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {}, "spec": {"jobTemplate": job}});
        assert_eq!(faults(&cron_job).len(), 4);
        assert!(told(&cron_job)[0].starts_with("spec.jobTemplate.spec.template.metadata: annotation"));
    }

    #[test]
    fn pods_that_end_before_their_requests_may_are_told_of_at_their_workload() {
        let drain = |drain: &str, mtls: &str, spec: Value| {
            let annotations = json!({"gamut.mesh/drain-time": drain, "gamut.mesh/mtls": mtls});
            let mut web = deployment(json!({}), json!({"annotations": annotations}));
            web["spec"]["template"]["spec"] = spec;
            told(&web)
        };
        let said = "spec.template.metadata: annotation gamut.mesh/drain-time: 45s is not shorter than the pod's \
                    terminationGracePeriodSeconds, 30: what is in flight then is cut off; make one shorter or the other longer";
        assert_eq!(drain("45s", "strict", json!({})), [said]);
        assert_eq!(drain("45s", "strict", json!({"terminationGracePeriodSeconds": 60})), [""; 0]);
        let both = drain("45s", "stirct", json!({"terminationGracePeriodSeconds": 30}));
        assert!(both.len() == 2 && both[1] == said, "{both:?}");
    }

    #[test]
    fn what_is_for_pods_does_nothing_at_their_workload_unless_they_have_it_too() {
        let labels = json!({"gamut.mesh/inject": "enabled"});
        let metadata = json!({"labels": labels, "annotations": {"gamut.mesh/mtls": "strict"}});
        assert_eq!(
            told(&deployment(metadata, json!({"labels": labels}))),
            [
                "annotation gamut.mesh/mtls does nothing at a Deployment itself; it is for its pods: write it into spec.template.metadata"
            ]
        );
    }

    #[test]
    fn a_value_that_cannot_be_read_is_told_with_what_is_in_force_meanwhile() {
        let bad = json!({"gamut.mesh/mtls": "stritc", "gamut.mesh/plaintext-ports": "http"});
        assert_eq!(
            told(&namespace(json!({"gamut.mesh/inject": "yes"}), bad)),
            [
                "label gamut.mesh/inject: \"yes\" says neither yes nor no; write enabled or disabled: until then pods are refused",
                "annotation gamut.mesh/mtls: \"stritc\" is not strict or permissive; until it is mended, strict is in force",
                "annotation gamut.mesh/plaintext-ports: \"http\" is not a list of ports and ranges such as 3306,9000-9010; until it is \
                 mended, what can't be read of it does nothing",
            ]
        );
        let service = object("v1", "Service", json!({}), json!({"gamut.mesh/opaque-ports": "http"}));
        assert!(faults(&service).iter().all(Fault::is_unreadable), "{:?}", told(&service));
        assert_eq!(faults(&service).len(), 1);
        assert_eq!(told(&namespace(json!({}), json!({"gamut.mesh/mtls": "permissive"}))), [""; 0]);
    }
}
