//! A cluster's pod as `gamut up` reports its own.

use gamut_injector::PROXY_CONTAINER;
use gamut_local::control::{ContainerReport, PodReport};
use serde::Serialize;
use serde_json::Value;

/// Reads a pod object. What its sidecar says is left to whoever asks it.
pub(crate) fn report(pod: &Value) -> PodReport {
    let text = |pointer: &str| text(pod, pointer).unwrap_or_default().to_owned();
    let containers = containers(pod);
    PodReport {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        uid: text("/metadata/uid"),
        workload: owner(pod),
        ips: list(pod, "/status/podIPs").filter_map(|ip| self::text(ip, "/ip").map(str::to_owned)).collect(),
        phase: text("/status/phase"),
        ready: list(pod, "/status/conditions").any(|condition| {
            (self::text(condition, "/type"), self::text(condition, "/status"))
                == (Some("Ready"), Some("True"))
        }),
        terminating: pod.pointer("/metadata/deletionTimestamp").is_some(),
        meshed: containers.iter().any(|container| container.name == PROXY_CONTAINER),
        containers,
        proxy: None,
        proxy_error: None,
    }
}

/// Whether a pod has ended for good: what was its sidecar's is over.
pub(crate) fn is_over(pod: &PodReport) -> bool {
    matches!(pod.phase.as_str(), "Succeeded" | "Failed")
}

/// Whether a pod, or a template of pods, has a sidecar.
pub(crate) fn has_sidecar(pod: &Value) -> bool {
    list(pod, "/spec/initContainers").any(|container| text(container, "/name") == Some(PROXY_CONTAINER))
}

/// Whether the sidecar's container runs, so that it can be asked.
pub(super) fn sidecar_runs(pod: &PodReport) -> bool {
    pod.containers.iter().any(|container| container.name == PROXY_CONTAINER && container.state == "running")
}

/// What a pod that should be ready waits for, in one line; `object`: the same pod, as the API server has it.
pub(super) fn waiting_for(pod: &PodReport, object: &Value) -> Option<String> {
    if pod.ready || pod.terminating || is_over(pod) {
        return None;
    }
    let name = format!("pod {}/{}", pod.namespace, pod.name);
    // All that come after a container that waits or runs say `PodInitializing`, which is nobody's fault.
    let at_fault = |container: &&ContainerReport| match container.state.split_once(": ") {
        Some(("waiting", reason)) => reason != "PodInitializing",
        // Between two tries.
        Some((_, reason)) if container.role == "init" => reason != "Completed",
        _ => container.role != "init" && !container.ready,
    };
    match pod.containers.iter().find(at_fault) {
        Some(container) if container.state == "running" => {
            Some(format!("{name}: container {} isn't ready", container.name))
        }
        Some(ContainerReport { name: container, state, .. }) => {
            let words = words_of(object, container).map(|words| format!("; its last words: {words}"));
            Some(format!("{name}: container {container}: {state}{}", words.unwrap_or_default()))
        }
        None => Some(format!("{name}: starting")),
    }
}

/// What keeps a pod from starting, in the words of who can't start it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Trouble {
    /// `Unschedulable`, `ErrImagePull`, `CrashLoopBackOff` and the like.
    pub(crate) reason: String,
    /// What is said about it; may be empty.
    pub(crate) message: String,
}

/// What keeps a pod from starting: that no node takes it, or what its first container waits for.
pub(super) fn trouble(pod: &Value) -> Option<Trouble> {
    let told = |said: &Value, reason: &str| Trouble {
        reason: reason.to_owned(),
        message: one_line(text(said, "/message").unwrap_or_default()),
    };
    let mut conditions = list(pod, "/status/conditions");
    let unscheduled = conditions.find(|condition| {
        (text(condition, "/type"), text(condition, "/status")) == (Some("PodScheduled"), Some("False"))
    });
    if let Some(condition) = unscheduled {
        return Some(told(condition, text(condition, "/reason").unwrap_or("Unschedulable")));
    }
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let waiting = lists.into_iter().flat_map(|statuses| list(pod, statuses)).find_map(|status| {
        let waiting = status.pointer("/state/waiting")?;
        Some((waiting, text(waiting, "/reason").filter(|reason| *reason != "PodInitializing")?))
    });
    waiting.map(|(waiting, reason)| told(waiting, reason))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What one of a pod's containers printed last before it ended and was started again, on one line. Kubernetes keeps that of
/// containers with `terminationMessagePolicy: FallbackToLogsOnError`.
pub(super) fn last_words(pod: &Value) -> Option<String> {
    list(pod, "/status/containerStatuses").find_map(words)
}

/// The same of the container of this name, which may be an init container.
fn words_of(pod: &Value, container: &str) -> Option<String> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let mut statuses = lists.into_iter().flat_map(|statuses| list(pod, statuses));
    statuses.find(|status| text(status, "/name") == Some(container)).and_then(words)
}

fn words(status: &Value) -> Option<String> {
    let now = text(status, "/state/terminated/message");
    let words = now.or_else(|| text(status, "/lastState/terminated/message"))?;
    words.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

fn containers(pod: &Value) -> Vec<ContainerReport> {
    let of = |spec: &'static str, status: &'static str| {
        list(pod, spec).filter_map(move |container| {
            let name = text(container, "/name")?;
            let status = list(pod, status).find(|status| text(status, "/name") == Some(name));
            let role = match (spec, text(container, "/restartPolicy")) {
                ("/spec/containers", _) => "app",
                (_, Some("Always")) => "sidecar",
                _ => "init",
            };
            let number = |pointer: &str| status?.pointer(pointer)?.as_u64();
            Some(ContainerReport {
                name: name.to_owned(),
                role: role.to_owned(),
                state: status.map_or_else(|| "waiting: not started".to_owned(), state),
                pid: None,
                restarts: number("/restartCount").and_then(|count| count.try_into().ok()).unwrap_or(0),
                ready: status.and_then(|status| status.get("ready")?.as_bool()).unwrap_or(false),
            })
        })
    };
    let init = of("/spec/initContainers", "/status/initContainerStatuses");
    init.chain(of("/spec/containers", "/status/containerStatuses")).collect()
}

fn state(status: &Value) -> String {
    if status.pointer("/state/running").is_some() {
        return "running".to_owned();
    }
    match (text(status, "/state/terminated/reason"), text(status, "/state/waiting/reason")) {
        (Some(reason), _) => format!("exited: {reason}"),
        (None, reason) => format!("waiting: {}", reason.unwrap_or("no reason given")),
    }
}

/// `Deployment web` for a pod of its ReplicaSet: the name without the hash that the Deployment's controller added.
fn owner(pod: &Value) -> Option<String> {
    let owner = list(pod, "/metadata/ownerReferences").next()?;
    let (kind, name) = (text(owner, "/kind")?, text(owner, "/name")?);
    let hash = text(pod, "/metadata/labels/pod-template-hash");
    match hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-')) {
        Some(deployment) if kind == "ReplicaSet" => Some(format!("Deployment {deployment}")),
        _ => Some(format!("{kind} {name}")),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(sidecar: Value, app: Value) -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": "web-5d4f-x", "uid": "1", "labels": {"pod-template-hash": "5d4f"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d4f"}],
            },
            "spec": {
                "initContainers": [{"name": "gamut-init"}, {"name": "gamut-proxy", "restartPolicy": "Always"}],
                "containers": [{"name": "app"}],
            },
            "status": {
                "phase": "Running", "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}],
                "conditions": [{"type": "Ready", "status": "False"}],
                "initContainerStatuses": [
                    {"name": "gamut-init", "ready": true, "state": {"terminated": {"reason": "Completed"}}},
                    {"name": "gamut-proxy", "restartCount": 2, "ready": true, "state": sidecar},
                ],
                "containerStatuses": [{"name": "app", "ready": false, "state": app}],
            },
        })
    }

    #[test]
    fn a_pod_is_reported_with_its_workload_its_containers_and_whether_it_is_meshed() {
        let report = report(&pod(json!({"running": {}}), json!({"running": {}})));
        assert_eq!(report.workload.as_deref(), Some("Deployment web"));
        assert_eq!(report.ips, ["10.244.0.7", "fd00::7"]);
        assert!(report.meshed && !report.ready && sidecar_runs(&report));
        let containers: Vec<_> =
            report.containers.iter().map(|c| (c.role.as_str(), c.state.as_str(), c.restarts)).collect();
        assert_eq!(
            containers,
            [("init", "exited: Completed", 0), ("sidecar", "running", 2), ("app", "running", 0)]
        );
    }

    #[test]
    fn what_a_pod_waits_for_is_the_first_container_at_fault() {
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let cases = [
            (json!({"running": {}}), waiting("CrashLoopBackOff"), "container app: waiting: CrashLoopBackOff"),
            (
                waiting("ErrImagePull"),
                waiting("PodInitializing"),
                "container gamut-proxy: waiting: ErrImagePull",
            ),
            (json!({"running": {}}), json!({"running": {}}), "container app isn't ready"),
            // What its init containers are at is nobody's fault.
            (json!({"running": {}}), waiting("PodInitializing"), "starting"),
        ];
        for (sidecar, app, expected) in cases {
            let pod = pod(sidecar, app);
            let line = waiting_for(&report(&pod), &pod).unwrap();
            assert_eq!(line, format!("pod shop/web-5d4f-x: {expected}"));
        }
    }

    #[test]
    fn what_keeps_a_pod_from_starting_is_told_in_the_words_of_who_cannot_start_it() {
        let mut pending = pod(json!({}), json!({}));
        let no_room = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"});
        pending["status"]["conditions"] = json!([no_room]);
        let told = |pod: &Value| trouble(pod).map(|trouble| (trouble.reason, trouble.message));
        let expected = ("Unschedulable".to_owned(), "0/3 nodes are available".to_owned());
        assert_eq!(told(&pending), Some(expected));

        let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "not found:\n  gamut:9"}});
        let no_image = pod(waiting, json!({"waiting": {"reason": "PodInitializing"}}));
        assert_eq!(told(&no_image), Some(("ErrImagePull".to_owned(), "not found: gamut:9".to_owned())));
        assert_eq!(told(&pod(json!({"running": {}}), json!({"running": {}}))), None);
    }

    #[test]
    fn the_last_words_of_what_died_are_its_last_line() {
        let mut crashed = pod(json!({}), json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        assert_eq!(last_words(&crashed), None);
        let died =
            json!({"terminated": {"reason": "Error", "message": "INFO listening\ngamut: no token\n\n"}});
        crashed["status"]["containerStatuses"][0]["lastState"] = died;
        assert_eq!(last_words(&crashed).as_deref(), Some("gamut: no token"));
    }

    #[test]
    fn an_init_container_that_dies_is_at_fault_between_its_tries_too_and_has_its_last_words() {
        let not_yet = || json!({"waiting": {"reason": "PodInitializing"}});
        let mut pod = pod(not_yet(), not_yet());
        let died = json!({"reason": "Error", "message": "INFO starting\ngamut: no NET_ADMIN\n"});
        for (now, last, said) in [
            (json!({"terminated": died}), json!({}), "exited: Error"),
            (
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                json!({"terminated": died}),
                "waiting: CrashLoopBackOff",
            ),
        ] {
            pod["status"]["initContainerStatuses"][0] =
                json!({"name": "gamut-init", "state": now, "lastState": last});
            assert_eq!(
                waiting_for(&report(&pod), &pod).unwrap(),
                format!(
                    "pod shop/web-5d4f-x: container gamut-init: {said}; its last words: gamut: no NET_ADMIN"
                )
            );
        }
    }

    #[test]
    fn a_pod_that_is_over_or_going_waits_for_nothing() {
        let mut over = report(&pod(json!({}), json!({})));
        over.phase = "Succeeded".to_owned();
        assert_eq!(waiting_for(&over, &Value::Null), None);
        let mut going = report(&pod(json!({}), json!({})));
        going.terminating = true;
        assert_eq!(waiting_for(&going, &Value::Null), None);
    }
}
