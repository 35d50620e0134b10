//! The kinds that manifests may hold: their group, the versions that can be read, and whether they live in a namespace.

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

/// What there is to know of a kind: name, group, versions, scope.
type Kind = (&'static str, &'static str, &'static [&'static str], Scope);

/// The only version of what Gamut reads itself.
const V1: &[&str] = &["v1"];
/// Of kinds that only a cluster acts on: whatever it takes.
const ANY: &[&str] = &[];

/// The newest version first. Kinds that only a cluster acts on (roles, budgets, policies of others) are here as
/// well, so that files written for a cluster are read without a warning for each.
const KINDS: &[Kind] = &[
    ("ConfigMap", "", V1, Namespaced),
    ("Namespace", "", V1, Cluster),
    ("Node", "", ANY, Cluster),
    ("PersistentVolumeClaim", "", ANY, Namespaced),
    ("Pod", "", V1, Namespaced),
    ("Secret", "", V1, Namespaced),
    ("Service", "", V1, Namespaced),
    ("ServiceAccount", "", V1, Namespaced),
    ("CustomResourceDefinition", "apiextensions.k8s.io", ANY, Cluster),
    ("DaemonSet", "apps", ANY, Namespaced),
    ("Deployment", "apps", V1, Namespaced),
    ("ReplicaSet", "apps", ANY, Namespaced),
    ("StatefulSet", "apps", V1, Namespaced),
    ("HorizontalPodAutoscaler", "autoscaling", ANY, Namespaced),
    ("CronJob", "batch", ANY, Namespaced),
    ("Job", "batch", V1, Namespaced),
    ("EndpointSlice", "discovery.k8s.io", V1, Namespaced),
    ("NetworkPolicy", "networking.k8s.io", ANY, Namespaced),
    ("PodDisruptionBudget", "policy", ANY, Namespaced),
    ("ClusterRole", "rbac.authorization.k8s.io", ANY, Cluster),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", ANY, Cluster),
    ("Role", "rbac.authorization.k8s.io", ANY, Namespaced),
    ("RoleBinding", "rbac.authorization.k8s.io", ANY, Namespaced),
    ("GRPCRoute", GATEWAY, &["v1", "v1alpha2"], Namespaced),
    ("HTTPRoute", GATEWAY, &["v1", "v1beta1"], Namespaced),
    ("ReferenceGrant", GATEWAY, &["v1", "v1beta1"], Namespaced),
    ("TCPRoute", GATEWAY, &["v1", "v1alpha2"], Namespaced),
    ("TLSRoute", GATEWAY, &["v1", "v1alpha3", "v1alpha2"], Namespaced),
    ("XBackend", GATEWAY_X, &["v1alpha1"], Namespaced),
    ("XBackendTrafficPolicy", GATEWAY_X, &["v1alpha1"], Namespaced),
    ("XMesh", GATEWAY_X, &["v1alpha1"], Cluster),
];

/// The scope of a kind and the versions of it that can be read, the newest first, none where any will do. `None` for a kind
/// not known here.
pub(crate) fn known(group: &str, kind: &str) -> Option<(Scope, &'static [&'static str])> {
    KINDS.iter().find(|known| known.0 == kind && known.1 == group).map(|known| (known.3, known.2))
}

/// A known kind that somebody who wrote `kind` may have meant, or the same kind of another group.
pub(crate) fn similar(kind: &str) -> Option<String> {
    match KINDS.iter().find(|known| known.0 == kind) {
        Some((_, "", ..)) => Some(format!("{kind} of v1")),
        Some((_, group, ..)) => Some(format!("{kind} of group {group}")),
        None => nearest(kind, KINDS.iter().map(|known| known.0)).map(str::to_owned),
    }
}

/// RBAC allows any path segment as a name (`system:node`), all else wants DNS names.
pub(crate) fn has_dns_name(group: &str) -> bool {
    group != "rbac.authorization.k8s.io"
}
