//! What is watched, and how much of each object is kept.

use gamut_kubernetes::{Resource, Selection, core, routes};
use serde_json::{Map, Value};

use crate::{
    gateway::{EXPERIMENTAL_GROUP, GROUP},
    index::keys::{SESSION_KEYS, TRUST_BUNDLE},
};

/// A kind of objects that the index reads.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    /// The versions that it can read, the preferred one first.
    pub(super) versions: Vec<Resource>,
    /// Which objects of it.
    pub(super) selection: Selection,
}

/// Ours; all others belong to programs that we know nothing of, and may be large.
const OUR_ANNOTATIONS: &str = "gamut.mesh/";

/// Every kind that the index reads. The Gateway API's may be there or not, and come later.
pub(super) fn watched(system_namespace: &str) -> Vec<Kind> {
    let any = |versions: &[Resource]| Kind { versions: versions.to_vec(), selection: Selection::default() };
    let all = |resource: Resource| any(&[resource]);
    let one = |resource: Resource, name: &str| Kind {
        versions: vec![resource],
        selection: Selection::named(Some(system_namespace), name),
    };
    let gateway = |group, kind, plural, versions: &[&'static str]| Kind {
        versions: versions.iter().map(|version| Resource::namespaced(group, version, kind, plural)).collect(),
        selection: Selection::default(),
    };
    vec![
        all(core::NAMESPACE),
        all(core::SERVICE),
        all(core::POD),
        all(core::ENDPOINT_SLICE),
        one(core::CONFIG_MAP, TRUST_BUNDLE),
        one(core::SECRET, SESSION_KEYS),
        any(&routes::HTTP),
        any(&routes::GRPC),
        any(&routes::TLS),
        any(&routes::TCP),
        gateway(GROUP, "ReferenceGrant", "referencegrants", &["v1", "v1beta1"]),
        gateway(EXPERIMENTAL_GROUP, "XBackend", "xbackends", &["v1alpha1"]),
        gateway(EXPERIMENTAL_GROUP, "XBackendTrafficPolicy", "xbackendtrafficpolicies", &["v1alpha1"]),
    ]
}

/// XMeshes, which no reader of the index needs.
pub(super) const MESH: Resource = Resource::cluster(EXPERIMENTAL_GROUP, "v1alpha1", "XMesh", "xmeshes");

/// Takes away what the index doesn't read, so that a page of pods isn't megabytes on its way there.
pub(super) fn trim(object: &mut Value) {
    if let Some(annotations) = map_at(object, "/metadata/annotations") {
        annotations.retain(|name, _| name.starts_with(OUR_ANNOTATIONS));
    }
    if object.get("kind").and_then(Value::as_str) != Some("Pod") {
        return;
    }
    if let Some(spec) = map_at(object, "/spec") {
        let read = ["hostNetwork", "serviceAccountName", "containers", "initContainers"];
        spec.retain(|name, _| read.contains(&name.as_str()));
    }
    for containers in ["/spec/containers", "/spec/initContainers"] {
        let containers = object.pointer_mut(containers).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.retain(|name, _| ["name", "ports", "restartPolicy"].contains(&name.as_str()));
        }
    }
    for statuses in ["/status/containerStatuses", "/status/initContainerStatuses"] {
        let statuses = object.pointer_mut(statuses).and_then(Value::as_array_mut);
        for status in statuses.into_iter().flatten().filter_map(Value::as_object_mut) {
            // Fields without which Kubernetes' own type can't be read stay.
            let read = ["name", "ready", "started", "image", "imageID", "restartCount"];
            status.retain(|name, _| read.contains(&name.as_str()));
        }
    }
}

fn map_at<'a>(object: &'a mut Value, pointer: &str) -> Option<&'a mut Map<String, Value>> {
    object.pointer_mut(pointer).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_pod_only_what_the_index_reads_is_kept() {
        let container = json!({"name": "app", "ports": [{"containerPort": 80}], "env": [{"name": "A"}]});
        let mut pod = json!({
            "kind": "Pod",
            "metadata": {"name": "web", "annotations": {"gamut.mesh/mtls": "strict", "other/thing": "x"}},
            "spec": {"containers": [container], "volumes": [{}], "serviceAccountName": "web"},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [{"name": "app", "ready": true, "state": {}}]},
        });
        trim(&mut pod);
        assert_eq!(pod["metadata"]["annotations"], json!({"gamut.mesh/mtls": "strict"}));
        assert_eq!(
            pod["spec"],
            json!({"containers": [{"name": "app", "ports": [{"containerPort": 80}]}], "serviceAccountName": "web"})
        );
        assert_eq!(pod["status"]["podIP"], "10.0.0.1");
        assert_eq!(pod["status"]["containerStatuses"], json!([{"name": "app", "ready": true}]));
    }

    #[test]
    fn of_other_kinds_all_but_others_annotations_is_kept() {
        let mut route =
            json!({"kind": "HTTPRoute", "metadata": {"annotations": {"a": "b"}}, "spec": {"volumes": 1}});
        trim(&mut route);
        assert_eq!(
            route,
            json!({"kind": "HTTPRoute", "metadata": {"annotations": {}}, "spec": {"volumes": 1}})
        );
    }

    #[test]
    fn secrets_and_config_maps_are_watched_by_name_only() {
        for kind in watched("gamut-system") {
            if ["Secret", "ConfigMap"].contains(&kind.versions[0].kind) {
                assert_eq!(kind.selection.namespace.as_deref(), Some("gamut-system"));
                assert!(kind.selection.fields.is_some());
            }
        }
    }
}
