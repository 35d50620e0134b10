//! The cluster's state and the loop's one step: after anything has happened, everything is brought to follow from it.
//!
//! ```text
//! manifests ─admit→ objects, workloads ─rollout→ pods ─→ Pod objects ─→ EndpointSlices ─→ virtual addresses, names
//! ```
//!
//! Order matters where a pod goes: its endpoints say so before its worker is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use gamut_injector::{Config, NamespaceView};
use gamut_manifest::{Object, ObjectId, Origin, Reading};
use gamut_netfilter::vip::Vip;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    admission::{self, SYSTEM_NAMESPACE},
    components::TRUST_BUNDLE,
    endpoints,
    kubelet::Kubelet,
    names::derived_uid,
    objects::{self, Objects},
    services::{self, Service, ServiceAddresses},
    workloads::Workload,
};
use crate::{
    net::{self, dns::Zone},
    pod::data::Data,
};

/// The object whose `resourceVersion` is the newest of all: who has read it has read everything before it.
const REVISION: &str = "gamut-revision";

/// Everything that the node knows and decides on.
pub(crate) struct Cluster {
    pub(crate) objects: Objects,
    pub(crate) kubelet: Kubelet,
    pub(crate) workloads: Vec<Workload>,
    namespaces: BTreeMap<String, NamespaceView>,
    services: Vec<Service>,
    addresses: ServiceAddresses,
    config: Config,
    started: Timestamp,
    /// The mesh's roots, as the CA has published them.
    trust_bundle: Option<Value>,
    /// Objects of the manifests, as they were written.
    from_manifests: BTreeSet<ObjectId>,
    /// The same as they were accepted, for when the next ones are refused.
    pub(crate) accepted: BTreeMap<ObjectId, Object>,
    vips: Vec<Vip>,
    /// Services or endpoints have changed since it was updated.
    network_is_stale: bool,
    revision: u64,
    pub(crate) problems: Problems,
    data: watch::Sender<Arc<Data>>,
    zone: watch::Sender<Arc<Zone>>,
}

/// What became of a reading.
#[derive(Debug)]
pub(crate) struct Taken {
    /// A line each.
    pub(crate) notices: BTreeSet<String>,
    /// Objects that aren't in force as the files have them.
    pub(crate) refused: BTreeSet<ObjectId>,
}

/// What is wrong, by where it comes from.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) manifests: BTreeSet<String>,
    pub(crate) services: BTreeSet<String>,
    /// Of routes: what the controller has written into their statuses.
    pub(crate) routes: BTreeSet<String>,
    /// By workload, of pods that can't be made.
    pub(crate) workloads: BTreeMap<ObjectId, String>,
    /// By what was attempted, of the machine itself.
    pub(crate) node: BTreeMap<&'static str, String>,
}

impl Problems {
    /// How many of them are of the manifests themselves.
    pub(crate) fn of_manifests(&self) -> usize {
        self.manifests.len() + self.services.len()
    }

    /// All of them, a line each.
    pub(crate) fn lines(&self) -> BTreeSet<String> {
        let of_objects = self.manifests.iter().chain(&self.services).chain(&self.routes);
        let of_objects = of_objects.chain(self.workloads.values());
        of_objects.chain(self.node.values()).cloned().collect()
    }
}

impl Cluster {
    pub(crate) fn new(
        objects: Objects,
        kubelet: Kubelet,
        addresses: ServiceAddresses,
        config: Config,
        data: watch::Sender<Arc<Data>>,
        zone: watch::Sender<Arc<Zone>>,
    ) -> Self {
        Self {
            objects,
            kubelet,
            workloads: Vec::new(),
            namespaces: BTreeMap::new(),
            services: Vec::new(),
            addresses,
            config,
            started: Timestamp::now(),
            trust_bundle: None,
            from_manifests: BTreeSet::new(),
            accepted: BTreeMap::new(),
            vips: Vec::new(),
            network_is_stale: false,
            revision: 0,
            problems: Problems::default(),
            data,
            zone,
        }
    }

    /// Takes up what the files say now.
    pub(crate) fn take_reading(&mut self, reading: &Reading) -> Taken {
        let admitted = admission::admit(reading, &self.config, self.started, &self.accepted);
        self.accepted = admitted.accepted;
        self.namespaces = admitted.namespaces;
        self.workloads = admitted.workloads;
        self.problems.manifests = admitted.problems;
        self.problems.workloads.clear();
        let mut objects = admitted.objects;
        self.read_services(&mut objects);

        let present: BTreeSet<ObjectId> = objects.keys().cloned().collect();
        // The controller may read between any two files: what a route refers to is there before the route, and goes after it.
        let (routes, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(id, _)| is_route(id));
        // Pods of manifests are written as pods are, when they run.
        for (id, (mut object, _)) in others.into_iter().chain(routes).filter(|(id, _)| id.kind != "Pod") {
            // Who applies a manifest doesn't touch the status.
            let status = self.objects.get(&id).and_then(|known| known.get("status")).cloned();
            if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
                object.entry("status").or_insert(status);
            }
            let written = self.objects.put(object);
            note(&mut self.problems.node, "writing an object", written);
        }
        let (routes, others): (Vec<_>, Vec<_>) =
            self.from_manifests.difference(&present).partition(|id| is_route(id));
        for gone in routes.into_iter().chain(others) {
            let removed = self.objects.remove(gone);
            note(&mut self.problems.node, "removing an object", removed);
        }
        self.from_manifests = present;
        self.network_is_stale = true;
        self.publish_trust_bundle();
        Taken { notices: admitted.notices, refused: admitted.refused }
    }

    /// How many of the manifests' objects of a kind are in force.
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.from_manifests.iter().filter(|id| id.kind == kind).count()
    }

    /// Those that ask for an address come first: they can't take another one.
    fn read_services(&mut self, objects: &mut BTreeMap<ObjectId, (Value, Option<Origin>)>) {
        let ids: BTreeSet<ObjectId> = objects.keys().filter(|id| id.kind == "Service").cloned().collect();
        self.addresses.retain(&ids);
        self.services.clear();
        self.problems.services.clear();
        let asks = |id: &ObjectId| {
            let asked = objects.get(id).and_then(|(object, _)| object.pointer("/spec/clusterIP"));
            asked.and_then(Value::as_str).is_some_and(|ip| !ip.is_empty())
        };
        let (first, then): (Vec<ObjectId>, Vec<ObjectId>) = ids.iter().cloned().partition(asks);
        for id in first.into_iter().chain(then) {
            let Some((object, origin)) = objects.get_mut(&id) else { continue };
            match self.addresses.read(&id, object) {
                Ok(service) => {
                    *object = services::complete(object, &service);
                    self.services.push(service);
                }
                Err(error) => {
                    let line = match origin {
                        Some(origin) => admission::line(origin, &id, &error.to_string()),
                        None => format!("{id}: {error}"),
                    };
                    self.problems.services.insert(line);
                    objects.remove(&id);
                }
            }
        }
    }

    /// Takes the roots that the CA has published.
    pub(crate) fn take_trust_bundle(&mut self, bundle: &Value) {
        self.trust_bundle = bundle.get("data").cloned();
        self.publish_trust_bundle();
    }

    /// Each namespace gets the roots, because pods mount ConfigMaps of their own namespace only.
    fn publish_trust_bundle(&mut self) {
        let Some(data) = &self.trust_bundle else { return };
        for namespace in self.namespaces.keys().filter(|namespace| *namespace != SYSTEM_NAMESPACE) {
            let map = config_map(namespace, TRUST_BUNDLE, data.clone(), self.started);
            note(&mut self.problems.node, "writing the roots", self.objects.put(map));
        }
    }

    /// Brings everything to follow from what is known now.
    pub(crate) fn reconcile(&mut self) {
        self.roll_out();
        self.publish_pods();
        self.network_is_stale |= self.publish_endpoints();
        self.publish_data();
        self.publish_workloads();
        if self.network_is_stale {
            self.update_network();
        }
        self.mark_revision();
        self.kubelet.stop_deleted();
    }

    fn roll_out(&mut self) {
        let wanted: BTreeSet<&ObjectId> = self.workloads.iter().map(|workload| &workload.id).collect();
        let orphans = self.kubelet.iter().filter(|(_, pod)| !wanted.contains(&pod.workload));
        let orphans: Vec<String> = orphans.map(|(uid, _)| uid.to_owned()).collect();
        orphans.iter().for_each(|uid| self.kubelet.delete(uid));

        for workload in &self.workloads {
            let steps = workload.steps(&self.kubelet.members(&workload.id, &workload.hash));
            steps.delete.iter().for_each(|uid| self.kubelet.delete(uid));
            let namespace = workload.id.namespace.as_ref().and_then(|name| self.namespaces.get(name));
            let Some(namespace) = namespace else { continue };
            let unnamed = std::iter::repeat_n(None, steps.create);
            let mut names = unnamed.chain(steps.create_named.iter().map(|name| Some(name.as_str())));
            let made =
                names.try_for_each(|name| self.kubelet.create(workload, name, namespace, &self.config));
            match made {
                Ok(()) => drop(self.problems.workloads.remove(&workload.id)),
                Err(problem) => {
                    let line = format!("{}: a pod can't be made: {problem}", workload.id);
                    self.problems.workloads.insert(workload.id.clone(), line);
                }
            }
        }
    }

    fn publish_pods(&mut self) {
        let pods: Vec<Value> = self.kubelet.iter().map(|(_, pod)| pod.object()).collect();
        self.replace_all("Pod", pods);
    }

    fn publish_endpoints(&mut self) -> bool {
        let backends = self.kubelet.backends();
        let slices: Vec<Value> =
            self.services.iter().flat_map(|service| endpoints::slices(service, &backends)).collect();
        self.replace_all("EndpointSlice", slices)
    }

    /// Makes the objects of a kind exactly these, and those that manifests have brought; whether that has changed anything.
    fn replace_all(&mut self, kind: &str, objects: Vec<Value>) -> bool {
        let mut changed = false;
        let present: BTreeSet<ObjectId> = objects.iter().map(objects::id_of).collect();
        let gone = self.objects.of_kind(kind).map(|(id, _)| id);
        let gone: Vec<ObjectId> = gone.filter(|id| !present.contains(id)).cloned().collect();
        // A manifest's own pod is among these objects while it runs, and nowhere while it doesn't.
        for id in gone.iter().filter(|id| kind == "Pod" || !self.from_manifests.contains(id)) {
            changed |= note(&mut self.problems.node, "removing an object", self.objects.remove(id));
        }
        for object in objects {
            changed |= note(&mut self.problems.node, "writing an object", self.objects.put(object));
        }
        changed
    }

    /// ReplicaSets between Deployments and pods, and the numbers in the workloads' statuses.
    fn publish_workloads(&mut self) {
        let mut replica_sets = Vec::new();
        for workload in &self.workloads {
            let members = self.kubelet.members(&workload.id, &workload.hash);
            let live = || members.iter().filter(|pod| !pod.terminating);
            let ready = live().filter(|pod| pod.ready).count();
            let updated = live().filter(|pod| pod.current).count();
            replica_sets.extend(workload.replica_set_object(self.started));
            let Some(object) = self.objects.get(&workload.id).filter(|_| workload.id.kind != "Pod") else {
                continue;
            };
            let mut object = object.clone();
            object["status"] = json!({
                "observedGeneration": object.pointer("/metadata/generation"),
                "replicas": live().count(), "readyReplicas": ready, "availableReplicas": ready,
                "updatedReplicas": updated, "succeeded": live().filter(|pod| pod.outcome == Some(true)).count(),
            });
            note(&mut self.problems.node, "writing a status", self.objects.put(object));
        }
        self.replace_all("ReplicaSet", replica_sets);
    }

    fn publish_data(&self) {
        let mut data = Data::default();
        for kind in ["ConfigMap", "Secret", "ServiceAccount"] {
            self.objects.of_kind(kind).for_each(|(_, object)| data.add(object));
        }
        self.data.send_if_modified(|known| {
            let changed = **known != data;
            if changed {
                *known = Arc::new(data);
            }
            changed
        });
    }

    /// What callers without a sidecar see, and all names.
    fn update_network(&mut self) {
        let slices = || self.objects.of_kind("EndpointSlice").map(|(_, slice)| slice);
        let vips = endpoints::vips(&self.services, slices());
        self.zone.send_replace(Arc::new(endpoints::zone(&self.services, slices())));
        let applied = match vips == self.vips {
            true => Ok(()),
            false => net::services::apply(&vips),
        };
        self.network_is_stale = applied.is_err();
        let applied = applied.map(|()| self.vips = vips).map(|()| true).map_err(io::Error::other);
        note(&mut self.problems.node, "translating Service addresses", applied);
    }

    /// What pods read of other objects.
    pub(crate) fn data(&self) -> Arc<Data> {
        self.data.borrow().clone()
    }

    /// The revision up to which objects are written. A controller that reports it has read them all.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn mark_revision(&mut self) {
        if self.objects.version() == self.revision {
            return;
        }
        let revision = (self.objects.version() + 1).to_string();
        let map = config_map(SYSTEM_NAMESPACE, REVISION, json!({"revision": revision}), self.started);
        note(&mut self.problems.node, "writing the revision", self.objects.put(map));
        self.revision = self.objects.version();
    }
}

fn config_map(namespace: &str, name: &str, data: Value, created: Timestamp) -> Value {
    let uid = derived_uid(&format!("ConfigMap {namespace}/{name}"));
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "uid": uid, "creationTimestamp": created.to_string()},
        "data": data,
    })
}

/// Whether an object says where requests go, and so refers to others.
fn is_route(id: &ObjectId) -> bool {
    id.kind.ends_with("Route")
}

/// Keeps an error for people to see, until the same works again; whether something has changed.
fn note(
    problems: &mut BTreeMap<&'static str, String>,
    doing: &'static str,
    outcome: io::Result<bool>,
) -> bool {
    match outcome {
        Ok(changed) => {
            problems.remove(doing);
            changed
        }
        Err(error) => {
            problems.insert(doing, format!("{doing}: {error}"));
            false
        }
    }
}
