//! The API server and the nodes: whether they are new enough, and whether we may.

use gamut_kubernetes::{Cluster, Created, Resource};
use serde_json::{Value, json};

use super::{
    Facts, Finding, count,
    facts::{name, text},
    few, unread,
};
use crate::world::{Place, SYSTEM_NAMESPACE};

/// The first version whose API server and kubelets run native sidecars without being told to (KEP-753).
const OLDEST: (u32, u32) = (1, 29);

const REVIEW: Resource =
    Resource::cluster("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews");

/// What installing takes, and the uninstallation's Job: verb, group, resource, and whether it is in our namespace. A test holds it to what the chart renders.
const NEEDED: &[(&str, &str, &str, bool)] = &[
    ("create", "", "namespaces", false),
    // By this the chart finds out whether it is rendered for a cluster (`lookup`).
    ("get", "", "namespaces", false),
    ("create", "rbac.authorization.k8s.io", "clusterroles", false),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies", false),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicybindings", false),
    ("create", "rbac.authorization.k8s.io", "roles", true),
    ("create", "rbac.authorization.k8s.io", "rolebindings", true),
    ("create", "", "serviceaccounts", true),
    ("create", "", "services", true),
    ("create", "", "secrets", true),
    ("create", "", "configmaps", true),
    ("create", "apps", "deployments", true),
    ("create", "batch", "jobs", true),
    ("create", "policy", "poddisruptionbudgets", true),
    ("create", "networking.k8s.io", "networkpolicies", true),
];

/// The versions of the API server and of the nodes.
pub(super) fn version(world: &Place, facts: &Facts) -> Vec<Finding> {
    const WHAT: &str = "Kubernetes";
    const REMEDY: &str =
        "sidecars are init containers that stay (native sidecars), which need Kubernetes 1.29: upgrade";
    let Place::Cluster { version, .. } = world else { return Vec::new() };
    let server = match minor(version) {
        Some(number) if number < OLDEST => {
            Finding::failed(WHAT, format!("{version} has no native sidecars"), REMEDY)
        }
        Some(_) => Finding::ok(WHAT, format!("{version}, with native sidecars")),
        None => Finding::warning(WHAT, format!("{version} is no version"), REMEDY),
    };
    let nodes = match &facts.nodes {
        Err(_) => unread("nodes", &facts.nodes),
        Ok(nodes) => {
            let old = nodes.iter().filter_map(|node| {
                let version = text(node, "/status/nodeInfo/kubeletVersion");
                (minor(version)? < OLDEST).then(|| format!("{} ({version})", name(node)))
            });
            let old: Vec<String> = old.collect();
            Some(match old.is_empty() {
                true => Finding::ok("nodes", count(nodes.len(), "node")),
                false => Finding::failed("nodes", format!("without native sidecars: {}", few(&old)), REMEDY),
            })
        }
    };
    std::iter::once(server).chain(nodes).collect()
}

/// Major and minor of `v1.34.4`, `v1.29.3-gke.1` or `v1.33+`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether whoever asks may install.
pub(super) async fn permissions(cluster: &Cluster) -> Finding {
    const WHAT: &str = "permissions";
    let mut refused = Vec::new();
    for (verb, group, resource, own) in NEEDED {
        let mut attributes = json!({"verb": verb, "group": group, "resource": resource});
        if *own {
            attributes["namespace"] = SYSTEM_NAMESPACE.into();
        }
        let review = json!({
            "apiVersion": REVIEW.api_version(),
            "kind": REVIEW.kind,
            "spec": {"resourceAttributes": attributes},
        });
        match cluster.create(&REVIEW, &review).await {
            Ok(Created::New(answer))
                if answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true) => {}
            Ok(_) => refused.push(format!("{verb} {resource}")),
            Err(error) => {
                return Finding::unknown(
                    WHAT,
                    format!("can't be examined: {error}"),
                    "try again; `helm install` will say what is missing",
                );
            }
        }
    }
    match refused.is_empty() {
        true => Finding::ok(WHAT, format!("all {} that installing takes", NEEDED.len())),
        false => Finding::failed(
            WHAT,
            format!("you may not {}", few(&refused)),
            "install as somebody who has the role cluster-admin, or these permissions",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    /// What Helm keeps its own notes in, and what a namespace is made with.
    const NOT_IN_TEMPLATES: [&str; 2] = ["namespaces", "secrets"];
    /// What only comes where somebody else's definitions are.
    const OF_THE_PROMETHEUS_OPERATOR: [&str; 3] = ["podmonitors", "prometheusrules", "servicemonitors"];

    #[test]
    fn what_is_asked_for_is_what_the_chart_creates() {
        let templates = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/gamut/templates");
        let mut created: BTreeSet<String> = NOT_IN_TEMPLATES.map(str::to_owned).into();
        for file in fs::read_dir(templates).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            let kinds = text.lines().filter_map(|line| line.strip_prefix("kind: "));
            created.extend(kinds.map(|kind| match kind.to_lowercase() {
                kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
                kind => kind + "s",
            }));
        }
        created.retain(|resource| !OF_THE_PROMETHEUS_OPERATOR.contains(&resource.as_str()));
        let needed = NEEDED.iter().map(|(_, _, resource, _)| (*resource).to_owned());
        assert_eq!(needed.collect::<BTreeSet<_>>(), created);
    }

    #[test]
    fn versions_of_distributions_are_read() {
        assert_eq!(minor("v1.34.4"), Some((1, 34)));
        assert_eq!(minor("v1.29.3-gke.1282000"), Some((1, 29)));
        assert_eq!(minor("v1.33+"), Some((1, 33)));
        assert_eq!(minor("unknown"), None);
    }
}
