//! What a namespace's Pod Security level says about `gamut-init`, which needs `NET_ADMIN` and is refused by *baseline* and
//! *restricted*. The API server decides that after us, in words that don't name the mesh; so it is said here, with what to do.
//!
//! A level that a cluster sets for all namespaces in the API server's own configuration can't be seen from here.

use std::collections::BTreeMap;

use gamut_injector::{INIT_CONTAINER, INJECT};

/// What the names of Pod Security's labels begin with.
pub(crate) const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods that violate this level are refused.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
/// Pods that violate this level are warned about.
const WARN: &str = "pod-security.kubernetes.io/warn";

/// The level that a namespace's pods with sidecars are refused by.
pub(crate) fn forbidding(labels: &BTreeMap<String, String>) -> Option<&str> {
    level(labels, ENFORCE)
}

/// What to tell who creates a pod with a sidecar.
pub(crate) fn warning(namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    if let Some(level) = forbidding(labels) {
        return Some(format!(
            "namespace {namespace} enforces Pod Security level {level}, which forbids NET_ADMIN of container {INIT_CONTAINER}: \
             the API server refuses this pod; label the namespace {ENFORCE}=privileged, or the pod gamut.mesh/inject=disabled"
        ));
    }
    let level = level(labels, WARN)?;
    Some(format!(
        "namespace {namespace} warns by Pod Security level {level}: what it says of container {INIT_CONTAINER} is expected, \
         because that needs NET_ADMIN; the rest of the sidecar is restricted"
    ))
}

/// What to tell of a namespace whose label asks for sidecars and whose level refuses them.
pub(crate) fn refusal(labels: &BTreeMap<String, String>) -> Option<String> {
    let level = forbidding(labels).filter(|_| labels.get(INJECT).is_some_and(|value| value == "enabled"))?;
    Some(format!(
        "no pod with a sidecar can be created here: Pod Security level {level} forbids NET_ADMIN of container {INIT_CONTAINER}; label \
         the namespace {ENFORCE}=privileged, or pods {INJECT}=disabled"
    ))
}

fn level<'a>(labels: &'a BTreeMap<String, String>, label: &str) -> Option<&'a str> {
    labels.get(label).map(String::as_str).filter(|level| matches!(*level, "baseline" | "restricted"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_level_that_refuses_the_sidecar_is_named_with_its_remedy() {
        for level in ["baseline", "restricted"] {
            let warning = warning("shop", &labels(&[(ENFORCE, level), (WARN, "restricted")])).unwrap();
            assert!(warning.contains(&format!("namespace shop enforces Pod Security level {level}")));
            assert!(warning.contains("pod-security.kubernetes.io/enforce=privileged"), "{warning}");
        }
    }

    #[test]
    fn a_level_that_only_warns_is_explained() {
        let warning = warning("shop", &labels(&[(ENFORCE, "privileged"), (WARN, "restricted")])).unwrap();
        assert!(warning.contains("gamut-init is expected"), "{warning}");
    }

    #[test]
    fn other_levels_are_nobodys_business() {
        assert_eq!(warning("shop", &labels(&[(ENFORCE, "privileged"), (WARN, "privileged")])), None);
        assert_eq!(warning("shop", &labels(&[("pod-security.kubernetes.io/audit", "restricted")])), None);
    }
}
