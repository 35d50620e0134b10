//! Probes and lifecycle hooks, rewritten so that they work under strict mTLS.
//!
//! The kubelet speaks no mTLS. So its HTTP, TCP and gRPC probes and HTTP hooks are pointed at the sidecar's probe port, at
//! `/app/<container>/<readiness|liveness|startup|poststart|prestop>`, and the sidecar does the original to the app: from
//! inside the pod, to the pod's own address. Originals go to the sidecar in `GAMUT_PROBES`, a JSON object from that path to
//! the original as the pod had it, with its named port resolved and with `timeoutSeconds` for probes:
//!
//! ```json
//! {"/app/web/readiness": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1}}
//! ```
//! Left alone: `exec` and `sleep`, which happen inside the container; probes of another `host`; `tcpSocket` hooks, which
//! Kubernetes never does.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Container, apimachinery::pkg::util::intstr::IntOrString};
use serde_json::{Map, Value, json};

use crate::{names::PROBE_PORT, settings::Warning};

/// Where each probe was before: path on the probe port to original.
pub(crate) type Originals = BTreeMap<String, Value>;

/// The fields of a container that hold probes, and the last segment of their paths.
const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readiness"), ("livenessProbe", "liveness"), ("startupProbe", "startup")];
/// The fields of a container's `lifecycle` that hold hooks.
const HOOKS: [(&str, &str); 2] = [("postStart", "poststart"), ("preStop", "prestop")];
/// The handlers of probes and hooks that go over the network. Of these, hooks have only the first.
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// What Kubernetes takes if a probe doesn't say, in seconds.
const TIMEOUT: i64 = 1;

/// Rewrites what one container has. `known` are the originals of an earlier injection.
pub(crate) fn rewrite(
    container: &mut Value,
    view: &Container,
    known: &Originals,
    originals: &mut Originals,
    warnings: &mut Vec<Warning>,
) {
    let mut rewriting = Rewriting { view, known, originals, warnings };
    for (field, kind) in PROBES {
        if let Some(probe) = container.get_mut(field).and_then(Value::as_object_mut) {
            let timeout = probe.get("timeoutSeconds").cloned().unwrap_or_else(|| TIMEOUT.into());
            rewriting.handler(probe, field, kind, &HANDLERS, Some(timeout));
        }
    }
    let Some(lifecycle) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { return };
    for (field, kind) in HOOKS {
        if let Some(hook) = lifecycle.get_mut(field).and_then(Value::as_object_mut) {
            rewriting.handler(hook, field, kind, &HANDLERS[..1], None);
        }
    }
}

struct Rewriting<'a> {
    view: &'a Container,
    known: &'a Originals,
    originals: &'a mut Originals,
    warnings: &'a mut Vec<Warning>,
}

impl Rewriting<'_> {
    /// Replaces the handler of one probe or hook; its other fields (periods, thresholds) stay as they are.
    fn handler(
        &mut self,
        holder: &mut Map<String, Value>,
        field: &'static str,
        kind: &str,
        handlers: &[&str],
        timeout: Option<Value>,
    ) {
        let path = format!("/app/{}/{kind}", self.view.name);
        let is_ours = |get: &Value| get["path"] == path.as_str() && get["port"] == PROBE_PORT;
        if holder.get("httpGet").is_some_and(is_ours) {
            // By an earlier injection. Without its original it stays as it is, and fails: there is nothing to probe.
            if let Some(original) = self.known.get(&path) {
                self.originals.insert(path, original.clone());
            }
            return;
        }
        let Some(name) = handlers.iter().find(|name| holder.contains_key(**name)) else { return };
        let Some(handler) = holder.get(*name).and_then(Value::as_object) else { return };
        if handler.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
            return;
        }
        let mut handler = handler.clone();
        match self.port(handler.get("port")) {
            Ok(port) => handler.insert("port".to_owned(), port.into()),
            Err(port) => {
                let container = self.view.name.clone();
                self.warnings.push(Warning::UnknownPort { container, field, port });
                return;
            }
        };
        let mut original = Map::new();
        original.insert((*name).to_owned(), handler.into());
        if let Some(timeout) = timeout {
            original.insert("timeoutSeconds".to_owned(), timeout);
        }
        if *name != "httpGet" {
            holder.shift_remove(*name);
        }
        holder.insert("httpGet".to_owned(), json!({"path": path, "port": PROBE_PORT}));
        self.originals.insert(path, original.into());
    }

    /// A port's number, as the kubelet resolves it: by name in the container itself, else as digits.
    fn port(&self, port: Option<&Value>) -> Result<u16, String> {
        let port = port.and_then(|port| serde_json::from_value(port.clone()).ok());
        match port {
            Some(IntOrString::Int(number)) => u16::try_from(number).map_err(|_| number.to_string()),
            Some(IntOrString::String(name)) => {
                let declared = self.view.ports.iter().flatten();
                let mut named = declared.filter(|port| port.name.as_deref() == Some(&name));
                match named.next() {
                    Some(port) => u16::try_from(port.container_port).map_err(|_| name),
                    None => name.parse().map_err(|_| name),
                }
            }
            None => Err(String::new()),
        }
    }
}
