//! Why one pod has no sidecar, as the patch itself says, and the Event that tells it.

use gamut_injector::{Config, Injection, NamespaceView, Skipped, inject};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::pods::Missing;
use crate::{review, status::Cause};

/// The longest part of a pod's name that an Event's name begins with: that may have 253 characters.
const LONGEST_PREFIX: usize = 200;

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

/// The Event that tells it, on the pod. Its name is made from the pod's UID, so that there is one.
pub(super) fn event(pod: &Missing, finding: &Finding, replica: &str, now: Timestamp) -> Value {
    let prefix = pod.name.get(..LONGEST_PREFIX).unwrap_or(&pod.name).trim_end_matches(['.', '-']);
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": pod.namespace, "name": format!("{prefix}.{}.no-sidecar", pod.uid)},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        },
        "type": "Warning",
        "reason": "NoSidecar",
        "message": finding.message,
        "source": {"component": "gamut-injector"},
        "reportingComponent": "gamut.mesh/injector",
        "reportingInstance": replica,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    #[test]
    fn there_is_one_event_for_a_pod_whoever_writes_it_and_however_long_its_name_is() {
        let name = format!("{}-{}", "a".repeat(199), "b".repeat(53));
        let missing = Missing {
            namespace: "shop".into(),
            name: name.into(),
            uid: "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10".into(),
            owner: None,
            view: namespace(),
        };
        let finding = Finding::unexamined();
        let one = event(&missing, &finding, "gamut-injector-a", "2026-01-01T00:00:00.5Z".parse().unwrap());
        let other = event(&missing, &finding, "gamut-injector-b", "2026-01-02T00:00:00Z".parse().unwrap());
        assert_eq!(one["metadata"], other["metadata"]);
        let name = one["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 253 && name.contains("aa.0b8f6f3e"), "{name}");
        assert_eq!(one["firstTimestamp"], "2026-01-01T00:00:00Z");
    }
}
