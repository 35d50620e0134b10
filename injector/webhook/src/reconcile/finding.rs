//! Why one pod has no sidecar, as the patch itself says, and the Event that tells it.

use gamut_injector::{Config, Injection, NamespaceView, Skipped, inject};
use jiff::Timestamp;
use serde_json::Value;

use super::pods::Missing;
use crate::{
    event::{self, About, Words},
    review,
    status::Cause,
};

/// Why a pod has no sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) cause: Cause,
    /// A sentence, with what to do.
    pub(super) message: String,
}

impl Finding {
    /// It hasn't been looked at yet.
    pub(super) fn unexamined() -> Self {
        let message = "it should have a sidecar and has none; why isn't known yet".to_owned();
        Self { cause: Cause::Unexamined, message }
    }

    /// Looks at the pod as if it were created now; `None` if it needs no sidecar any more, as the watch will soon say.
    pub(super) fn of(pod: &Value, namespace: &NamespaceView, config: &Config) -> Option<Self> {
        let (cause, message) = match inject(pod, namespace, config) {
            Ok(Injection::Injected(_)) => (
                Cause::NotInjected,
                "it should have a sidecar and has none: it was created before the label gamut.mesh/inject, or while the injector's webhook \
                 wasn't there; restart its workload (kubectl rollout restart), or label it gamut.mesh/inject=disabled"
                    .to_owned(),
            ),
            Ok(Injection::Skipped(reason)) => {
                let cause = match reason {
                    Skipped::HostNetwork => Cause::HostNetwork,
                    Skipped::StaticPod => Cause::StaticPod,
                    Skipped::OperatingSystem(_) => Cause::OperatingSystem,
                    Skipped::NotSelected(_)
                    | Skipped::Disabled(_)
                    | Skipped::SystemNamespace(_)
                    | Skipped::KubeSystem => {
                        return None;
                    }
                };
                (cause, format!("it gets no sidecar: {reason}; to say so yourself, label it gamut.mesh/inject=disabled"))
            }
            Err(error) => (Cause::Refused, format!("it has no sidecar, and created again it would be refused: {error}")),
        };
        Some(Self { cause, message: review::message(&message) })
    }
}

/// The Event that tells it, on the pod.
pub(super) fn event(pod: &Missing, finding: &Finding, replica: &str, now: Timestamp) -> Value {
    let (namespace, name, uid) = (pod.namespace.clone(), pod.name.clone(), pod.uid.clone());
    let about = About { api_version: "v1".to_owned(), kind: "Pod", namespace, name, uid };
    let words = Words { reason: "NoSidecar", message: &finding.message, suffix: "no-sidecar" };
    event::event(&about, words, replica, now)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn namespace() -> NamespaceView {
        let labels = BTreeMap::from([("gamut.mesh/inject".to_owned(), "enabled".to_owned())]);
        NamespaceView { name: "shop".to_owned(), labels }
    }

    fn found(pod: Value) -> Finding {
        Finding::of(&pod, &namespace(), &Config::default()).unwrap()
    }

    #[test]
    fn each_cause_is_told_apart_and_has_its_remedy() {
        let container = json!([{"name": "web"}]);
        for (pod, cause, words) in [
            (json!({"spec": {"containers": container}}), Cause::NotInjected, "kubectl rollout restart"),
            (
                json!({"spec": {"containers": container, "hostNetwork": true}}),
                Cause::HostNetwork,
                "uses the host's network",
            ),
            (
                json!({"spec": {"containers": container, "os": {"name": "windows"}}}),
                Cause::OperatingSystem,
                "sidecars run on Linux",
            ),
            (
                json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "1"}}, "spec": {"containers": container}}),
                Cause::StaticPod,
                "static pod",
            ),
            (
                json!({"metadata": {"annotations": {"gamut.mesh/mtls": "stirct"}}, "spec": {"containers": container}}),
                Cause::Refused,
                "annotation gamut.mesh/mtls",
            ),
        ] {
            let finding = found(pod);
            assert_eq!(finding.cause, cause, "{finding:?}");
            assert!(finding.message.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn of_a_pod_that_was_opted_out_meanwhile_nothing_is_told() {
        let pod =
            json!({"metadata": {"labels": {"gamut.mesh/inject": "disabled"}}, "spec": {"containers": []}});
        assert_eq!(Finding::of(&pod, &namespace(), &Config::default()), None);
    }
}
