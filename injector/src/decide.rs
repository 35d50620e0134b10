//! Whether a pod gets a sidecar.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use thiserror::Error;

use crate::{
    config::{Config, NamespaceView},
    inject::InjectError,
    names::{INJECT, KUBE_SYSTEM},
};

/// Kubelets put it on the likenesses of their static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Why a pod gets no sidecar. Its text is for people: `gamut check` and events show it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Skipped {
    /// Nobody asked for one.
    #[error("neither the pod nor namespace {0} has the label gamut.mesh/inject=enabled")]
    NotSelected(String),
    /// Somebody asked for none.
    #[error("the {0} has the label gamut.mesh/inject=disabled")]
    Disabled(&'static str),
    /// It is one of ours.
    #[error("namespace {0} is the mesh's own; its pods start what sidecars need")]
    SystemNamespace(String),
    /// It is one of Kubernetes' own.
    #[error("namespace {KUBE_SYSTEM} is Kubernetes' own; its pods start what everything else needs")]
    KubeSystem,
    /// It has no network of its own.
    #[error(
        "the pod uses the host's network (hostNetwork: true): redirecting its traffic would redirect the whole node's"
    )]
    HostNetwork,
    /// A node's own, of which the API server holds only a likeness.
    #[error("it is a static pod: its node runs what its own manifest says, whatever is changed here")]
    StaticPod,
    /// Not Linux.
    #[error("the pod is for {0}; sidecars run on Linux")]
    OperatingSystem(String),
}

/// Decides by the pod's label, else by the namespace's; then by what can be done at all.
pub(crate) fn decide(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    namespace: &NamespaceView,
    config: &Config,
) -> Result<Option<Skipped>, InjectError> {
    let selected = match (selection(labels, "pod")?, selection(&namespace.labels, "namespace")?) {
        (Some(true), _) | (None, Some(true)) => None,
        (Some(false), _) => Some(Skipped::Disabled("pod")),
        (None, Some(false)) => Some(Skipped::Disabled("namespace")),
        (None, None) => Some(Skipped::NotSelected(namespace.name.clone())),
    };
    if selected.is_some() {
        return Ok(selected);
    }
    if namespace.name == config.system_namespace {
        return Ok(Some(Skipped::SystemNamespace(namespace.name.clone())));
    }
    if namespace.name == KUBE_SYSTEM {
        return Ok(Some(Skipped::KubeSystem));
    }
    if annotations.contains_key(MIRROR) {
        return Ok(Some(Skipped::StaticPod));
    }
    if spec.host_network == Some(true) {
        return Ok(Some(Skipped::HostNetwork));
    }
    let system = spec.os.as_ref().map(|os| os.name.as_str()).filter(|name| *name != "linux");
    Ok(system.map(|name| Skipped::OperatingSystem(name.to_owned())))
}

/// A misspelt value is an error, not a "no": whoever wrote it means something by it.
fn selection(labels: &BTreeMap<String, String>, object: &'static str) -> Result<Option<bool>, InjectError> {
    match labels.get(INJECT).map(String::as_str) {
        None => Ok(None),
        Some("enabled") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(value) => Err(InjectError::Label { object, value: value.to_owned() }),
    }
}
