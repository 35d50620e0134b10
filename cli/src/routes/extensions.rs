//! XBackendTrafficPolicies and XBackends: what they say, and what became of it.

use gamut_controller::{
    compile::World,
    gateway::{RetryConstraint, SessionPersistence, TargetRef, TrafficPolicy, XBackend},
};
use gamut_route::NamespacedName;
use serde_json::Value;

use super::{Ancestor, Extension, gather::conditions};

/// Those of the namespaces that are to be shown.
pub(super) fn of(world: &World, shown: impl Fn(&str) -> bool) -> Vec<Extension> {
    let policies = world.policies.values().map(policy);
    let mut extensions: Vec<Extension> = world.xbackends.values().map(backend).chain(policies).collect();
    extensions.retain(|extension| shown(&extension.namespace));
    extensions.sort_by(|a, b| (&a.namespace, a.kind, &a.name).cmp(&(&b.namespace, b.kind, &b.name)));
    extensions
}

fn policy(policy: &TrafficPolicy) -> Extension {
    let spec = policy.spec.ok().cloned().unwrap_or_default();
    let session = spec.session_persistence.as_ref().map(session);
    let budget = spec.retry_constraint.as_ref().map(budget);
    let ancestor = |target: &TargetRef| {
        let TargetRef { kind, name, .. } = target;
        let is = |reference: &Value, field: &str, wanted: &str| {
            reference.get(field).and_then(Value::as_str) == Some(wanted)
        };
        let is_about = |reference: &Value| is(reference, "name", name) && is(reference, "kind", kind);
        Ancestor {
            reference: format!(
                "{kind} {}",
                NamespacedName::new(policy.name.namespace.as_str(), name.as_str())
            ),
            conditions: conditions(&policy.status, ["ancestors", "ancestorRef"], is_about),
        }
    };
    Extension {
        kind: "XBackendTrafficPolicy",
        namespace: policy.name.namespace.clone(),
        name: policy.name.name.clone(),
        settings: session.into_iter().chain(budget).collect(),
        ancestors: spec.target_refs.iter().map(ancestor).collect(),
    }
}

fn backend(backend: &XBackend) -> Extension {
    let spec = backend.spec.ok().cloned().unwrap_or_default();
    let labels = spec.endpoint_selector.map(|selector| {
        let labels: Vec<String> =
            selector.match_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("pods with {}, port {}", labels.join(","), spec.port.number)
    });
    let session = spec.session_persistence.as_ref().map(session);
    let entries = backend.status.get("ancestors").and_then(Value::as_array).into_iter().flatten();
    let mut ancestors: Vec<Ancestor> = Vec::new();
    for reference in entries.filter_map(|entry| entry.get("ancestorRef")) {
        let text = |field: &str| reference.get(field).and_then(Value::as_str);
        let namespace = text("namespace").unwrap_or(&backend.name.namespace);
        let kind = text("kind").unwrap_or_default();
        let conditions =
            conditions(&backend.status, ["ancestors", "ancestorRef"], |other| other == reference);
        let reference = format!("{kind} {namespace}/{}", text("name").unwrap_or_default());
        // Another controller may have an entry about the same.
        if !conditions.is_empty() && ancestors.iter().all(|known| known.reference != reference) {
            ancestors.push(Ancestor { reference, conditions });
        }
    }
    Extension {
        kind: "XBackend",
        namespace: backend.name.namespace.clone(),
        name: backend.name.name.clone(),
        settings: labels.into_iter().chain(session).collect(),
        ancestors,
    }
}

/// As it is set; what is in force stands with the rules.
fn session(session: &SessionPersistence) -> String {
    let named = |kind: &str, name: Option<&String>| {
        name.or(session.session_name.as_ref()).map_or(format!("a {kind}"), |name| format!("{kind} {name}"))
    };
    let carrier = match session.kind.as_deref() {
        None | Some("Cookie") => {
            named("cookie", session.cookie.as_ref().and_then(|cookie| cookie.name.as_ref()))
        }
        Some("Header") => named("header", session.header.as_ref().map(|header| &header.name)),
        Some(other) => format!("a {other}"),
    };
    let limit = session.absolute_timeout.as_ref().map(|limit| format!(" for {limit}")).unwrap_or_default();
    format!("session in {carrier}{limit}")
}

fn budget(constraint: &RetryConstraint) -> String {
    let percent = constraint.budget.as_ref().and_then(|budget| budget.percent).unwrap_or(20);
    format!("at most {percent}% of the requests are retries")
}
