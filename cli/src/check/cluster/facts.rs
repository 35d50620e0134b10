//! What is read of a cluster before anything is judged.

use std::collections::BTreeMap;

use gamut_controller::source;
use gamut_injector::ROOTS_CONFIG_MAP;
use gamut_kubernetes::{ApiError, Cluster, Resource, Selection, core};
use gamut_manifest::Object;
use gamut_route::RouteKind;
use jiff::Timestamp;
use serde_json::Value;

use crate::world::SYSTEM_NAMESPACE;

/// What was read, or why it wasn't, in one line.
pub(super) type Read<T> = Result<T, String>;

/// A cluster at one moment. Lists are `Err` if they can't be read, and empty if the kind isn't served.
#[derive(Debug)]
pub(super) struct Facts {
    /// What time it is here.
    pub(super) time: Timestamp,
    /// What time it was for the API server at the same moment, to the second.
    pub(super) server_time: Read<Option<Timestamp>>,
    /// Nodes.
    pub(super) nodes: Read<Vec<Value>>,
    /// Namespaces.
    pub(super) namespaces: Read<Vec<Value>>,
    /// Pods of all namespaces.
    pub(super) pods: Read<Vec<Value>>,
    /// The CustomResourceDefinitions in [`DEFINITIONS`].
    pub(super) definitions: Read<Vec<Value>>,
    /// MutatingWebhookConfigurations.
    pub(super) webhooks: Read<Vec<Value>>,
    /// Services (their metadata) and workloads of all namespaces: what carries our annotations, beside namespaces, pods and routes.
    pub(super) carriers: Read<Vec<Value>>,
    /// Routes of all kinds.
    pub(super) routes: Read<Vec<(RouteKind, Object)>>,
    /// ValidatingAdmissionPolicies; `None` if the cluster doesn't know them.
    pub(super) policies: Read<Option<Vec<Value>>>,
    /// Their bindings; `None` if the cluster doesn't know them.
    pub(super) bindings: Read<Option<Vec<Value>>>,
    /// Services of the mesh's own namespace.
    pub(super) services: Read<Vec<Value>>,
    /// EndpointSlices of the mesh's own namespace.
    pub(super) endpoint_slices: Read<Vec<Value>>,
    /// The Lease of the controller that writes statuses.
    pub(super) lease: Read<Option<Value>>,
    /// The published roots, by namespace.
    pub(super) roots: Read<BTreeMap<String, Value>>,
    /// XMeshes; `None` if the cluster doesn't know them.
    pub(super) meshes: Read<Option<Vec<Value>>>,
}

const NODE: Resource = Resource::cluster("", "v1", "Node", "nodes");
const DEFINITION: Resource =
    Resource::cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
const POLICY: Resource = Resource::cluster(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicies",
);
const BINDING: Resource = Resource::cluster(
    "admissionregistration.k8s.io",
    "v1",
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
);
const MESH: Resource = Resource::cluster("gateway.networking.x-k8s.io", "v1alpha1", "XMesh", "xmeshes");

/// The definitions that matter: without the first there are no routes, and all of them say what sessions can be written as.
/// Whole ones, of some hundred kilobytes each, so no others.
const DEFINITIONS: [&str; 4] = [
    "httproutes.gateway.networking.k8s.io",
    "grpcroutes.gateway.networking.k8s.io",
    "xbackends.gateway.networking.x-k8s.io",
    "xbackendtrafficpolicies.gateway.networking.x-k8s.io",
];

/// The name of the controller's Lease.
const LEASE: &str = "gamut-controller";

impl Facts {
    /// Reads all of it. What fails is noted in its place.
    pub(super) async fn read(cluster: &Cluster) -> Self {
        let list = async |resource: Resource, selection: Selection| {
            let listed = cluster.list(&resource, &selection).await.map_err(said)?;
            Ok(listed.unwrap_or_default())
        };
        let own = || Selection { namespace: Some(SYSTEM_NAMESPACE.to_owned()), ..Selection::default() };
        // Side by side, so that their ages can be compared.
        let lease = cluster.get(&core::LEASE, Some(SYSTEM_NAMESPACE), LEASE).await.map_err(said);
        let server_time = cluster.time().await.map_err(said);
        let time = Timestamp::now();
        Self {
            time,
            server_time,
            lease,
            nodes: list(NODE, Selection::default()).await,
            namespaces: list(core::NAMESPACE, Selection::default()).await,
            pods: list(core::POD, Selection::default()).await,
            definitions: definitions(cluster).await,
            webhooks: list(core::MUTATING_WEBHOOK_CONFIGURATION, Selection::default()).await,
            carriers: carriers(cluster).await,
            routes: routes(cluster).await,
            policies: cluster.list(&POLICY, &Selection::default()).await.map_err(said),
            bindings: cluster.list(&BINDING, &Selection::default()).await.map_err(said),
            services: list(core::SERVICE, own()).await,
            endpoint_slices: list(core::ENDPOINT_SLICE, own()).await,
            roots: list(core::CONFIG_MAP, Selection::named(None, ROOTS_CONFIG_MAP)).await.map(by_namespace),
            meshes: cluster.list(&MESH, &Selection::default()).await.map_err(said),
        }
    }

    /// A namespace's labels; none if it isn't known.
    pub(super) fn labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let mut namespaces = self.namespaces.iter().flatten();
        namespaces.find(|object| name(object) == namespace).map(labels).unwrap_or_default()
    }
}

async fn carriers(cluster: &Cluster) -> Read<Vec<Value>> {
    let services = (core::SERVICE, Selection::default().metadata_only());
    let workloads = [core::DEPLOYMENT, core::STATEFUL_SET, core::DAEMON_SET, core::JOB, core::CRON_JOB];
    let workloads = workloads.map(|resource| (resource, Selection::default()));
    let mut carriers = Vec::new();
    for (resource, selection) in std::iter::once(services).chain(workloads) {
        let listed = cluster.list(&resource, &selection).await.map_err(said)?;
        carriers.extend(listed.unwrap_or_default());
    }
    Ok(carriers)
}

async fn routes(cluster: &Cluster) -> Read<Vec<(RouteKind, Object)>> {
    let mut routes = Vec::new();
    for kind in [RouteKind::Http, RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp] {
        let listed = source::read(cluster, kind.as_str()).await.map_err(said)?;
        routes.extend(listed.unwrap_or_default().into_iter().map(|object| (kind, object)));
    }
    Ok(routes)
}

async fn definitions(cluster: &Cluster) -> Read<Vec<Value>> {
    let mut definitions = Vec::new();
    for name in DEFINITIONS {
        let listed = cluster.list(&DEFINITION, &Selection::named(None, name)).await.map_err(said)?;
        definitions.extend(listed.unwrap_or_default());
    }
    Ok(definitions)
}

/// `metadata.name`.
pub(super) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`.
pub(super) fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.labels`.
pub(super) fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The text at a place; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the list at a place; none if there is none.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn by_namespace(objects: Vec<Value>) -> BTreeMap<String, Value> {
    objects.into_iter().map(|object| (namespace(&object).to_owned(), object)).collect()
}

fn said(error: ApiError) -> String {
    error.to_string()
}
