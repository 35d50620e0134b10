//! A Pod's status as kubelet writes it: phase, conditions, addresses, container statuses.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    lifecycle::{Container, Exit, Role, Run},
    plan::PodPlan,
};
use crate::net::addresses::{NODE_V4, NODE_V6};

/// How far a pod has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodState {
    /// The process that holds its namespaces, once they exist.
    pub(crate) sandbox: Option<i32>,
    /// In the order of the plan.
    pub(crate) containers: Vec<Container>,
    /// All init containers have been through.
    pub(crate) initialized: bool,
    /// It has ended: whether successfully.
    pub(crate) outcome: Option<bool>,
    /// Why it doesn't get on.
    pub(crate) problem: Option<String>,
}

impl PodState {
    /// It takes traffic.
    pub(crate) fn ready(&self) -> bool {
        let mut lasting = self.containers.iter().filter(|container| container.role != Role::Init);
        self.initialized && self.outcome.is_none() && lasting.all(|container| container.ready)
    }

    /// Why it isn't ready, if there is more to it than that it has just been started: what can't be done, a container that
    /// has crashed, a probe that has failed for so long.
    pub(crate) fn trouble(&self, now: Instant, patience: Duration) -> Option<String> {
        let of_container = |container: &Container| {
            let what = match (&container.run, &container.last, &container.trouble) {
                (Run::Waiting { .. } | Run::Ended(_), Some(exit), _) if exit.code != 0 => exit.in_words(),
                (Run::Running { .. }, _, Some(trouble)) if now - trouble.since >= patience => {
                    trouble.what.clone()
                }
                _ => return None,
            };
            Some(format!("container {:?}: {what}", container.name))
        };
        self.problem.clone().or_else(|| self.containers.iter().find_map(of_container))
    }

    /// Kubernetes' word for it.
    pub(crate) fn phase(&self) -> &'static str {
        match self.outcome {
            Some(true) => "Succeeded",
            Some(false) => "Failed",
            None if self.initialized => "Running",
            None => "Pending",
        }
    }
}

/// The status of a pod, given the one it had: conditions keep their time as long as they keep their value.
pub(crate) fn status(
    plan: &PodPlan,
    state: &PodState,
    addresses: &[IpAddr],
    created: Timestamp,
    before: Option<&Value>,
    now: Timestamp,
) -> Value {
    let ready = state.ready();
    let not_ready = state.problem.as_deref().unwrap_or("containers aren't ready");
    let conditions = [
        ("PodReadyToStartContainers", state.sandbox.is_some(), ""),
        ("PodScheduled", true, ""),
        ("Initialized", state.initialized, "init containers aren't through"),
        ("ContainersReady", ready, not_ready),
        ("Ready", ready, not_ready),
    ];
    let conditions = conditions.map(|(kind, holds, message)| condition(kind, holds, message, before, now));

    let mut status = Map::new();
    status.insert("phase".to_owned(), state.phase().into());
    status.insert("conditions".to_owned(), conditions.into_iter().collect());
    status.insert("startTime".to_owned(), created.to_string().into());
    status.insert("qosClass".to_owned(), "BestEffort".into());
    if let Some(problem) = &state.problem {
        status.insert("message".to_owned(), problem.clone().into());
    }
    if let (Some(_), Some(first)) = (state.sandbox, addresses.first()) {
        let hosts = addresses.iter().map(|address| match address {
            IpAddr::V4(_) => json!({"ip": NODE_V4}),
            IpAddr::V6(_) => json!({"ip": NODE_V6}),
        });
        status.insert("podIP".to_owned(), first.to_string().into());
        status.insert("podIPs".to_owned(), addresses.iter().map(|address| json!({"ip": address})).collect());
        status.insert("hostIP".to_owned(), NODE_V4.to_string().into());
        status.insert("hostIPs".to_owned(), hosts.collect());
    }
    let statuses = |init: bool| -> Value {
        let containers = state.containers.iter().zip(&plan.containers);
        containers
            .filter(|(container, _)| (container.role != Role::App) == init)
            .map(|(container, plan)| container_status(container, &plan.image, state.problem.as_deref()))
            .collect()
    };
    let init = statuses(true);
    if init.as_array().is_some_and(|init| !init.is_empty()) {
        status.insert("initContainerStatuses".to_owned(), init);
    }
    status.insert("containerStatuses".to_owned(), statuses(false));
    Value::Object(status)
}

fn condition(kind: &str, holds: bool, message: &str, before: Option<&Value>, now: Timestamp) -> Value {
    let word = if holds { "True" } else { "False" };
    let known = before.and_then(|before| before.get("conditions")?.as_array());
    let same = known.into_iter().flatten().find(|condition| {
        condition.get("type").and_then(Value::as_str) == Some(kind)
            && condition.get("status").and_then(Value::as_str) == Some(word)
    });
    let since = same.and_then(|condition| condition.get("lastTransitionTime")).cloned();
    let mut condition = json!({
        "type": kind,
        "status": word,
        "lastTransitionTime": since.unwrap_or_else(|| seconds(now)),
    });
    if !holds && !message.is_empty() {
        let reason = if kind == "Initialized" { "ContainersNotInitialized" } else { "ContainersNotReady" };
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    condition
}

fn container_status(container: &Container, image: &str, problem: Option<&str>) -> Value {
    let mut status = json!({
        "name": container.name,
        "image": image,
        "imageID": "",
        "ready": match container.role {
            // An init container is ready when it is done.
            Role::Init => matches!(&container.run, Run::Ended(exit) if exit.code == 0),
            Role::Sidecar | Role::App => container.ready,
        },
        "started": container.started,
        "restartCount": container.restarts,
        "state": match &container.run {
            Run::Waiting { .. } => json!({"waiting": waiting(container, problem)}),
            Run::Running { since, .. } => json!({"running": {"startedAt": seconds(*since)}}),
            Run::Ended(exit) => json!({"terminated": terminated(exit)}),
        },
        "lastState": {},
    });
    if let (Some(last), Run::Waiting { .. } | Run::Running { .. }) = (&container.last, &container.run) {
        status["lastState"] = json!({"terminated": terminated(last)});
    }
    if let Run::Running { process: Some(process), .. } = container.run {
        status["containerID"] = format!("gamut://{process}").into();
    }
    status
}

fn waiting(container: &Container, problem: Option<&str>) -> Value {
    match (&container.last, problem) {
        (Some(last), _) => {
            let message = last.message.clone().unwrap_or_else(|| format!("exited with {}", last.code));
            json!({"reason": "CrashLoopBackOff", "message": message})
        }
        (None, Some(problem)) => json!({"reason": "CreateContainerError", "message": problem}),
        (None, None) => json!({"reason": "PodInitializing"}),
    }
}

fn terminated(exit: &Exit) -> Value {
    let reason = match exit {
        Exit { code: 0, .. } => "Completed",
        // The container's own process has these; see `container`.
        Exit { code: 126..=128, message: Some(_), .. } => "StartError",
        _ => "Error",
    };
    let mut state = json!({
        "exitCode": exit.code,
        "reason": reason,
        "startedAt": seconds(exit.started),
        "finishedAt": seconds(exit.finished),
    });
    if let Some(message) = &exit.message {
        state["message"] = message.clone().into();
    }
    if let Some(signal) = exit.signal {
        state["signal"] = signal.into();
    }
    state
}

/// Kubernetes' times have whole seconds.
fn seconds(time: Timestamp) -> Value {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{lifecycle::RestartPolicy, plan};

    fn planned() -> PodPlan {
        plan::plan(&json!({
            "metadata": {"name": "web-1", "namespace": "demo", "uid": "u"},
            "spec": {
                "initContainers": [{"name": "proxy", "image": "gamut.mesh/gamut", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "gamut.mesh/echo"}]
            }
        }))
        .unwrap()
    }

    fn state(plan: &PodPlan) -> PodState {
        let containers = plan.containers.iter();
        let containers =
            containers.map(|container| Container::new(&container.name, container.role, Instant::now()));
        PodState { containers: containers.collect(), ..PodState::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn run(container: &mut Container) {
        container.run = Run::Running { process: Some(7), since: at(0) };
        container.started = true;
        container.ready = true;
    }

    fn find<'a>(status: &'a Value, kind: &str) -> &'a Value {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == kind).unwrap()
    }

    #[test]
    fn a_pod_is_ready_only_with_its_sidecar() {
        let plan = planned();
        let mut state = state(&plan);
        let addresses = ["10.244.0.20".parse().unwrap()];
        let pending = status(&plan, &state, &addresses, at(0), None, at(1));
        assert_eq!((&pending["phase"], &pending["podIP"]), (&json!("Pending"), &Value::Null));

        state.sandbox = Some(5);
        state.initialized = true;
        run(&mut state.containers[0]);
        run(&mut state.containers[1]);
        let running = status(&plan, &state, &addresses, at(0), Some(&pending), at(2));
        assert_eq!((&running["phase"], &running["podIP"]), (&json!("Running"), &json!("10.244.0.20")));
        assert_eq!(find(&running, "Ready")["status"], "True");
        assert_eq!(find(&running, "Ready")["lastTransitionTime"], "1970-01-01T00:00:02Z");
        assert_eq!(running["initContainerStatuses"][0]["started"], true);

        state.containers[0].ready = false;
        let unready = status(&plan, &state, &addresses, at(0), Some(&running), at(3));
        assert_eq!(find(&unready, "Ready")["status"], "False");
        assert_eq!(find(&unready, "Initialized")["lastTransitionTime"], "1970-01-01T00:00:02Z", "unchanged");
    }

    #[test]
    fn what_keeps_a_pod_from_being_ready_is_the_last_failure_that_lasts() {
        let mut state = state(&planned());
        let (now, patience) = (Instant::now(), Duration::from_secs(3));
        run(&mut state.containers[1]);
        state.containers[1].fails("readiness probe: refused".into(), now);
        state.containers[1].fails("readiness probe: 503".into(), now + Duration::from_secs(2));
        assert_eq!(state.trouble(now + Duration::from_secs(2), patience), None);
        let trouble = state.trouble(now + patience, patience);
        assert_eq!(trouble.as_deref(), Some("container \"app\": readiness probe: 503"));

        let exit = Exit { code: 3, signal: None, message: None, started: at(0), finished: at(1) };
        state.containers[1].exited(exit, RestartPolicy::Always, Duration::ZERO, now);
        let trouble = state.trouble(now, patience);
        assert_eq!(trouble.as_deref(), Some("container \"app\": exited with status 3"));
    }

    #[test]
    fn a_crash_is_told_with_its_reason() {
        let plan = planned();
        let mut state = state(&plan);
        let exit = Exit { code: 3, signal: None, message: None, started: at(0), finished: at(1) };
        state.containers[1].exited(exit, RestartPolicy::Always, Duration::ZERO, Instant::now());
        let status = status(&plan, &state, &[], at(0), None, at(2));
        let app = &status["containerStatuses"][0];
        assert_eq!(app["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(app["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(app["restartCount"], 1);
    }
}
