//! The webhook: whether the API server would ask the injector, believe it, and reach it.
//!
//! If it isn't asked, pods silently start without a sidecar; if it can't be reached, pods of labelled namespaces can't be
//! created.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use gamut_identity::Roots;
use gamut_injector::ROOTS_KEY;
use serde_json::Value;

use super::{
    Facts, Finding, count,
    facts::{items, name, text},
    unread,
};
use crate::world::SYSTEM_NAMESPACE;

const WHAT: &str = "webhook";

const LOGS: &str = "kubectl -n gamut-system logs deployment/gamut-injector";

/// All that stands between a pod's creation and the injector.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let Ok(configurations) = &facts.webhooks else {
        return unread(WHAT, &facts.webhooks).into_iter().collect();
    };
    let ours: Vec<(&Value, &Value)> = configurations
        .iter()
        .flat_map(|object| items(object, "/webhooks").map(move |webhook| (object, webhook)))
        .filter(|(_, webhook)| text(webhook, "/clientConfig/service/namespace") == SYSTEM_NAMESPACE)
        .collect();
    if ours.is_empty() {
        return vec![Finding::failed(
            WHAT,
            "no MutatingWebhookConfiguration leads to the injector: pods start without a sidecar",
            "helm upgrade puts it back",
        )];
    }
    let mut findings = Vec::new();
    // What is true of both is said once.
    for finding in ours.iter().flat_map(|(object, webhook)| one(facts, object, webhook)) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

fn one(facts: &Facts, object: &Value, webhook: &Value) -> Vec<Finding> {
    let named = format!("{} of {}", text(webhook, "/name"), name(object));
    let mut findings = vec![trusted(facts, &named, webhook)];
    if text(webhook, "/failurePolicy") == "Ignore" {
        findings.push(Finding::warning(
            WHAT,
            format!("{named} is ignored when it fails (failurePolicy: Ignore)"),
            "pods silently start without a sidecar while the injector is away; helm upgrade sets it back to Fail",
        ));
    }
    findings.extend(reachable(facts, text(webhook, "/clientConfig/service/name")));
    findings
}

/// Whether its caBundle is what certificates of the injector lead to.
fn trusted(facts: &Facts, named: &str, webhook: &Value) -> Finding {
    let remedy =
        format!("the injector writes it: {LOGS}. Until then pods of labelled namespaces can't be created");
    let bundle = text(webhook, "/clientConfig/caBundle");
    if bundle.is_empty() {
        return Finding::failed(WHAT, format!("{named} has no caBundle yet"), remedy);
    }
    let pem = STANDARD.decode(bundle).map_err(|error| error.to_string());
    let held = pem.and_then(|pem| Roots::from_pem(&pem).map_err(|error| error.to_string()));
    let held = match held {
        Ok(held) => held,
        Err(error) => {
            return Finding::failed(WHAT, format!("{named}: caBundle can't be read: {error}"), remedy);
        }
    };
    let published = facts.roots.as_ref().ok().and_then(|roots| roots.get(SYSTEM_NAMESPACE));
    let published = published.and_then(|map| map.get("data")?.get(ROOTS_KEY)?.as_str());
    let Some(Ok(published)) = published.map(|pem| Roots::from_pem(pem.as_bytes())) else {
        return Finding::ok(WHAT, format!("{named} has {}", count(held.certificates().len(), "root")));
    };
    let holds = |root| held.certificates().contains(root);
    match published.certificates().iter().all(holds) {
        true => {
            Finding::ok(WHAT, format!("{named} has the mesh's {}", count(held.certificates().len(), "root")))
        }
        false => {
            Finding::failed(WHAT, format!("{named}: caBundle lacks a root that the CA has published"), remedy)
        }
    }
}

/// Whether its Service is there, and somebody behind it.
fn reachable(facts: &Facts, service: &str) -> Option<Finding> {
    const WHAT: &str = "webhook service";
    let Ok(services) = &facts.services else { return unread(WHAT, &facts.services) };
    if !services.iter().any(|object| name(object) == service) {
        return Some(Finding::failed(
            WHAT,
            format!(
                "there is no Service {SYSTEM_NAMESPACE}/{service}: pods of labelled namespaces can't be created"
            ),
            "helm upgrade puts it back",
        ));
    }
    let Ok(slices) = &facts.endpoint_slices else { return unread(WHAT, &facts.endpoint_slices) };
    let ready = slices
        .iter()
        .filter(|slice| text(slice, "/metadata/labels/kubernetes.io~1service-name") == service)
        .flat_map(|slice| items(slice, "/endpoints"))
        .filter(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool) != Some(false));
    let mut pods: Vec<&str> = ready.map(|endpoint| text(endpoint, "/targetRef/name")).collect();
    pods.sort_unstable();
    pods.dedup();
    Some(match pods.len() {
        0 => Finding::failed(
            WHAT,
            format!(
                "Service {SYSTEM_NAMESPACE}/{service} has no endpoints that are ready: pods of labelled namespaces can't be created"
            ),
            LOGS,
        ),
        1 => Finding::warning(
            WHAT,
            "1 endpoint",
            "while that pod is away, pods of labelled namespaces can't be created: two replicas are the default (injector.replicas)",
        ),
        pods => Finding::ok(WHAT, format!("{pods} endpoints")),
    })
}
