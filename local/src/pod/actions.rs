//! Probes and lifecycle hooks as something to do: named ports resolved, defaults filled in.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{
        Container, ExecAction, HTTPGetAction, LifecycleHandler, Probe as KubernetesProbe, TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

/// Something done to a container from outside, which succeeds or doesn't.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// A GET whose answer's status is 200 to 399.
    Http {
        /// Another address than the pod's.
        host: Option<String>,
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
    },
    /// A connection that is accepted.
    Tcp { host: Option<String>, port: u16 },
    /// A program, run inside of the container, that exits with 0.
    Exec { command: Vec<String> },
    /// `grpc.health.v1.Health/Check` that answers SERVING.
    Grpc { port: u16, service: String },
    /// Nothing, for a while.
    Sleep(Duration),
}

/// An action that is repeated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Probe {
    pub(crate) action: Action,
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    /// So many successes in a row make it a success.
    pub(crate) success_threshold: u32,
    /// So many failures in a row make it a failure.
    pub(crate) failure_threshold: u32,
}

/// A probe of this container; the error is a sentence that begins with the field.
pub(crate) fn plan_probe(
    probe: &KubernetesProbe,
    container: &Container,
    field: &str,
) -> Result<Probe, String> {
    let action = match probe {
        KubernetesProbe { exec: Some(exec), .. } => run(exec),
        KubernetesProbe { http_get: Some(get), .. } => http(get, container, field)?,
        KubernetesProbe { tcp_socket: Some(tcp), .. } => connect(tcp, container, field)?,
        KubernetesProbe { grpc: Some(grpc), .. } => Action::Grpc {
            port: u16::try_from(grpc.port)
                .map_err(|_| format!("{field}.grpc.port {} is no port", grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        },
        _ => return Err(format!("{field} has none of exec, httpGet, tcpSocket and grpc; give it one")),
    };
    let at_least_one = |value: Option<i32>, default: u32| {
        value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
    };
    let delay = probe.initial_delay_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Ok(Probe {
        action,
        initial_delay: Duration::from_secs(delay),
        period: Duration::from_secs(at_least_one(probe.period_seconds, 10).into()),
        timeout: Duration::from_secs(at_least_one(probe.timeout_seconds, 1).into()),
        success_threshold: at_least_one(probe.success_threshold, 1),
        failure_threshold: at_least_one(probe.failure_threshold, 3),
    })
}

/// A lifecycle hook of this container; the error is a sentence that begins with the field.
pub(crate) fn plan_hook(
    hook: &LifecycleHandler,
    container: &Container,
    field: &str,
) -> Result<Action, String> {
    match hook {
        LifecycleHandler { exec: Some(exec), .. } => Ok(run(exec)),
        LifecycleHandler { http_get: Some(get), .. } => http(get, container, field),
        LifecycleHandler { sleep: Some(sleep), .. } => {
            Ok(Action::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))))
        }
        LifecycleHandler { tcp_socket: Some(tcp), .. } => connect(tcp, container, field),
        _ => Err(format!("{field} has none of exec, httpGet and sleep; give it one")),
    }
}

fn run(exec: &ExecAction) -> Action {
    Action::Exec { command: exec.command.clone().unwrap_or_default() }
}

fn connect(tcp: &TCPSocketAction, container: &Container, field: &str) -> Result<Action, String> {
    Ok(Action::Tcp {
        host: tcp.host.clone(),
        port: port(&tcp.port, container, &format!("{field}.tcpSocket"))?,
    })
}

fn http(get: &HTTPGetAction, container: &Container, field: &str) -> Result<Action, String> {
    if get.scheme.as_deref().is_some_and(|scheme| scheme != "HTTP") {
        return Err(format!(
            "{field}.httpGet.scheme HTTPS is not supported by gamut up; use HTTP, tcpSocket or exec"
        ));
    }
    let path = get.path.as_deref().unwrap_or("/");
    let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    Ok(Action::Http {
        host: get.host.clone().filter(|host| !host.is_empty()),
        port: port(&get.port, container, &format!("{field}.httpGet"))?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: headers.collect(),
    })
}

fn port(port: &IntOrString, container: &Container, field: &str) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0).ok_or_else(|| {
        format!("{field}.port {port:?} is neither a port nor the name of one of the container's ports")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container() -> Container {
        serde_json::from_value(json!({"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}))
            .unwrap()
    }

    fn probe(value: Value) -> Result<Probe, String> {
        plan_probe(&serde_json::from_value(value).unwrap(), &container(), "readinessProbe")
    }

    #[test]
    fn named_ports_are_resolved_and_kubernetes_defaults_apply() {
        let planned = probe(json!({"httpGet": {"port": "web"}})).unwrap();
        let action = Action::Http { host: None, port: 8080, path: "/".into(), headers: vec![] };
        assert_eq!(planned.action, action);
        assert_eq!((planned.period, planned.timeout), (Duration::from_secs(10), Duration::from_secs(1)));
        assert_eq!((planned.success_threshold, planned.failure_threshold), (1, 3));
    }

    #[test]
    fn what_cannot_be_done_is_told_with_its_field() {
        let unknown = probe(json!({"tcpSocket": {"port": "wep"}})).unwrap_err();
        assert!(unknown.starts_with("readinessProbe.tcpSocket.port"), "{unknown}");
        let https = probe(json!({"httpGet": {"port": 1, "scheme": "HTTPS"}})).unwrap_err();
        assert!(https.starts_with("readinessProbe.httpGet.scheme HTTPS"), "{https}");
        assert!(probe(json!({"periodSeconds": 1})).unwrap_err().starts_with("readinessProbe has none"));
    }

    #[test]
    fn hooks_may_sleep_and_probes_may_not() {
        let hook =
            plan_hook(&serde_json::from_value(json!({"sleep": {"seconds": 2}})).unwrap(), &container(), "x");
        assert_eq!(hook, Ok(Action::Sleep(Duration::from_secs(2))));
    }
}
