//! Our own labels and annotations on what manifests hold, as far as nobody else answers for them: bad values at pods are the
//! injection's to refuse.

use gamut_injector::{Fault, Problem, faults};
use gamut_manifest::Object;

/// What does nothing, a sentence each.
pub(crate) fn warnings(object: &Object) -> Vec<String> {
    let idle = faults(&object.raw).into_iter().filter(|fault| !fault.is_unreadable());
    idle.map(|fault| fault.to_string()).collect()
}

/// Values of a Namespace or a Service that something else is in force for, because they can't be read. A sentence each.
pub(crate) fn errors(object: &Object) -> Vec<String> {
    let is_pods = |fault: &Fault| object.kind == "Pod" || fault.template.is_some();
    let faults = faults(&object.raw).into_iter();
    let unread = faults.filter(|fault| matches!(fault.problem, Problem::Setting { .. }) && !is_pods(fault));
    unread.map(|fault| fault.to_string()).collect()
}

/// Why nobody can tell whether a namespace's pods get sidecars, if that is so.
pub(crate) fn unreadable_choice(object: &Object) -> Option<String> {
    let is_choice = |fault: &Fault| object.kind == "Namespace" && matches!(fault.problem, Problem::Choice(_));
    // What a cluster does about it (no pod gets in) isn't what happens here.
    let said = |fault: Fault| format!("{}; write enabled or disabled", fault.found());
    faults(&object.raw).into_iter().find(is_choice).map(said)
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::Origin;
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: &str, metadata: Value, spec: Value) -> Object {
        let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" };
        let value = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
        let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
        Object::from_value(value, &origin).unwrap()
    }

    #[test]
    fn what_is_unknown_is_warned_of_and_what_cannot_be_read_is_an_error() {
        let annotations = json!({"gamut.mesh/mtls": "stritc", "gamut.mesh/mtsl": "strict"});
        let shop = object("Namespace", json!({"name": "shop", "annotations": annotations}), json!({}));
        let (warnings, errors) = (warnings(&shop), errors(&shop));
        assert_eq!((warnings.len(), errors.len()), (1, 1), "{warnings:?} {errors:?}");
        assert!(warnings[0].contains("write gamut.mesh/mtls, if that was meant"), "{warnings:?}");
        assert!(errors[0].contains("strict is in force"), "{errors:?}");
        assert_eq!(unreadable_choice(&shop), None);
    }

    #[test]
    fn a_bad_value_at_a_pod_is_left_to_its_injection_and_a_misspelt_name_is_not() {
        let annotations = json!({"gamut.mesh/mtls": "stritc", "gamut.mesh/mtsl": "strict"});
        let template = json!({"template": {"metadata": {"labels": {"gamut.mesh/inject": "yes"}, "annotations": annotations}}});
        let web = object("Deployment", json!({"name": "web"}), template);
        assert_eq!((warnings(&web).len(), errors(&web).len(), unreadable_choice(&web)), (1, 0, None));
    }

    #[test]
    fn a_namespace_that_says_neither_yes_nor_no_is_told_what_to_write() {
        let shop =
            object("Namespace", json!({"name": "shop", "labels": {"gamut.mesh/inject": "yes"}}), json!({}));
        assert!(unreadable_choice(&shop).unwrap().contains("write enabled or disabled"));
        assert!(errors(&shop).is_empty(), "it is told once");
    }
}
