//! Which ways to set session persistence work here.
//!
//! Files are read as they are: all of them. An API server drops the fields that its CRDs don't have before anybody sees
//! them, without a word, so it is the CRDs' schema that decides.

use std::fmt;

use gamut_controller::compile::SESSION_ANNOTATION;
use serde_json::Value;

use super::finding::Finding;

const WHAT: &str = "sessions";

/// A way to set session persistence, as far as CRDs matter to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The annotation on HTTPRoutes and GRPCRoutes, which needs no field.
    Annotation,
    /// `rules[].sessionPersistence` of a kind, in the shape of v1.7 or in that of v1.4 to v1.6.
    Rule { kind: &'static str, newest: bool },
    /// `XBackend.spec.sessionPersistence`.
    Backend,
    /// `XBackendTrafficPolicy.spec.sessionPersistence`.
    Policy,
}

/// On this machine, where manifests are files.
pub(super) fn of_files() -> Finding {
    Finding::ok(
        WHAT,
        format!(
            "annotation {SESSION_ANNOTATION}, HTTPRoute and GRPCRoute (v1.4 to v1.7), XBackend, XBackendTrafficPolicy"
        ),
    )
}

/// On a cluster with these CustomResourceDefinitions.
pub(super) fn of_crds<'c>(definitions: impl Iterator<Item = &'c Value>) -> Finding {
    let ways = ways(&definitions.collect::<Vec<_>>());
    let words = || ways.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match ways.as_slice() {
        [] => Finding::failed(
            WHAT,
            "no HTTPRoute or GRPCRoute is served",
            "install the CRDs of the Gateway API: sessions are set on its routes",
        ),
        [Way::Annotation] => Finding::ok(WHAT, format!("{}; the CRDs have no field for them", words())),
        _ => Finding::ok(WHAT, words()),
    }
}

fn ways(definitions: &[&Value]) -> Vec<Way> {
    let crd = |kind: &'static str| {
        let is = |crd: &&Value| crd.pointer("/spec/names/kind").and_then(Value::as_str) == Some(kind);
        definitions.iter().copied().find(is)
    };
    let routes = ["HTTPRoute", "GRPCRoute"].map(|kind| (kind, crd(kind)));
    let annotation = routes.iter().any(|(_, crd)| crd.is_some()).then_some(Way::Annotation);
    let of_rules = routes.iter().filter_map(|(kind, crd)| {
        let settings = settings((*crd)?, "/properties/rules/items/properties/sessionPersistence")?;
        let newest = settings.pointer("/properties/cookie").is_some();
        Some(Way::Rule { kind, newest })
    });
    let of_spec = |kind| settings(crd(kind)?, "/properties/sessionPersistence");
    let backend = of_spec("XBackend").map(|_| Way::Backend);
    let policy = of_spec("XBackendTrafficPolicy").map(|_| Way::Policy);
    annotation.into_iter().chain(of_rules).chain(backend).chain(policy).collect()
}

/// The schema of a field below `spec`, in a version that is served.
fn settings<'c>(crd: &'c Value, field: &str) -> Option<&'c Value> {
    let versions = crd.pointer("/spec/versions")?.as_array()?;
    let served = versions.iter().filter(|version| version.get("served") == Some(&Value::Bool(true)));
    let pointer = format!("/schema/openAPIV3Schema/properties/spec{field}");
    served.filter_map(|version| version.pointer(&pointer)).next()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation => write!(f, "annotation {SESSION_ANNOTATION}"),
            Self::Rule { kind, newest: true } => write!(f, "{kind} (v1.7)"),
            Self::Rule { kind, newest: false } => write!(f, "{kind} (v1.4 to v1.6: sessionName)"),
            Self::Backend => f.write_str("XBackend"),
            Self::Policy => f.write_str("XBackendTrafficPolicy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd(kind: &str, served: bool, spec: Value) -> Value {
        json!({
            "spec": {"names": {"kind": kind}, "versions": [
                {"name": "v1beta1", "served": false, "schema": {}},
                {"name": "v1", "served": served, "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": spec}}}}},
            ]},
        })
    }

    fn rules(session: Option<Value>) -> Value {
        let fields =
            session.map_or(json!({}), |session| json!({"sessionPersistence": {"properties": session}}));
        json!({"rules": {"items": {"properties": fields}}})
    }

    #[test]
    fn a_standard_channel_has_the_annotation_alone() {
        let finding =
            of_crds([crd("HTTPRoute", true, rules(None)), crd("GRPCRoute", true, rules(None))].iter());
        assert_eq!(
            finding,
            Finding::ok(
                "sessions",
                "annotation gamut.mesh/session-persistence; the CRDs have no field for them"
            )
        );
    }

    #[test]
    fn an_experimental_channel_has_every_way_in_its_own_shape() {
        let settings = json!({"sessionPersistence": {"properties": {"cookie": {}}}});
        let crds = [
            crd("HTTPRoute", true, rules(Some(json!({"cookie": {}, "header": {}})))),
            crd("GRPCRoute", true, rules(Some(json!({"sessionName": {}, "cookieConfig": {}})))),
            crd("XBackend", true, settings.clone()),
            crd("XBackendTrafficPolicy", true, settings),
        ];
        assert_eq!(
            of_crds(crds.iter()).detail,
            "annotation gamut.mesh/session-persistence, HTTPRoute (v1.7), GRPCRoute (v1.4 to v1.6: sessionName), XBackend, XBackendTrafficPolicy"
        );
    }

    #[test]
    fn what_is_not_served_does_not_count_and_without_routes_there_is_nothing() {
        let settings = json!({"sessionPersistence": {"properties": {"cookie": {}}}});
        assert_eq!(
            ways(&[&crd("HTTPRoute", true, rules(None)), &crd("XBackend", false, settings)]),
            [Way::Annotation]
        );
        assert_eq!(of_crds([].iter()).result, crate::check::finding::Outcome::Failed);
    }
}
