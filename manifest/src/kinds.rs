//! The kinds that manifests may hold: their group and whether they live in a namespace.

use crate::similar::nearest;

/// Whether objects of a kind live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Namespaced,
    Cluster,
}

use Scope::{Cluster, Namespaced};

const GATEWAY: &str = "gateway.networking.k8s.io";
const GATEWAY_X: &str = "gateway.networking.x-k8s.io";

/// Kind, group, scope. Kinds that only a cluster acts on (roles, budgets, policies of others) are here as
/// well, so that files written for a cluster are read without a warning for each.
const KINDS: &[(&str, &str, Scope)] = &[
    ("ConfigMap", "", Namespaced),
    ("Namespace", "", Cluster),
    ("Node", "", Cluster),
    ("PersistentVolumeClaim", "", Namespaced),
    ("Pod", "", Namespaced),
    ("Secret", "", Namespaced),
    ("Service", "", Namespaced),
    ("ServiceAccount", "", Namespaced),
    ("CustomResourceDefinition", "apiextensions.k8s.io", Cluster),
    ("DaemonSet", "apps", Namespaced),
    ("Deployment", "apps", Namespaced),
    ("ReplicaSet", "apps", Namespaced),
    ("StatefulSet", "apps", Namespaced),
    ("HorizontalPodAutoscaler", "autoscaling", Namespaced),
    ("CronJob", "batch", Namespaced),
    ("Job", "batch", Namespaced),
    ("EndpointSlice", "discovery.k8s.io", Namespaced),
    ("NetworkPolicy", "networking.k8s.io", Namespaced),
    ("PodDisruptionBudget", "policy", Namespaced),
    ("ClusterRole", "rbac.authorization.k8s.io", Cluster),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", Cluster),
    ("Role", "rbac.authorization.k8s.io", Namespaced),
    ("RoleBinding", "rbac.authorization.k8s.io", Namespaced),
    ("GRPCRoute", GATEWAY, Namespaced),
    ("HTTPRoute", GATEWAY, Namespaced),
    ("ReferenceGrant", GATEWAY, Namespaced),
    ("TCPRoute", GATEWAY, Namespaced),
    ("TLSRoute", GATEWAY, Namespaced),
    ("XBackend", GATEWAY_X, Namespaced),
    ("XBackendTrafficPolicy", GATEWAY_X, Namespaced),
    ("XMesh", GATEWAY_X, Cluster),
];

/// The scope of a kind, or `None` for a kind not known here. Versions don't count: readers are lenient about shapes.
pub(crate) fn scope(group: &str, kind: &str) -> Option<Scope> {
    KINDS.iter().find(|known| known.0 == kind && known.1 == group).map(|known| known.2)
}

/// A known kind that somebody who wrote `kind` may have meant, or the same kind of another group.
pub(crate) fn similar(kind: &str) -> Option<String> {
    match KINDS.iter().find(|known| known.0 == kind) {
        Some((_, "", _)) => Some(format!("{kind} of v1")),
        Some((_, group, _)) => Some(format!("{kind} of group {group}")),
        None => nearest(kind, KINDS.iter().map(|known| known.0)).map(str::to_owned),
    }
}

/// RBAC allows any path segment as a name (`system:node`), all else wants DNS names.
pub(crate) fn has_dns_name(group: &str) -> bool {
    group != "rbac.authorization.k8s.io"
}
