//! Changes: an event put into the maps, and everything that it touches.
//!
//! Each kind has one function that replaces an object by its new self (or by nothing), and notes what
//! depended on the old and on the new one. Routes come last: one that several changes touch is compiled once.

use std::collections::BTreeSet;

use gamut_manifest::{Object, ObjectId};
use gamut_route::{NamespacedName, RouteKind, RouteRef};

use super::{
    Index, Topic, endpoints,
    keys::{self, MasterKeys},
    pod::Pod,
    slice::{Slice, remove},
};
use crate::{
    compile::{CompiledRoute, Dependency, Service},
    gateway::{Lenient, ReferenceGrant, Route, TrafficPolicy, XBackend},
};

/// What the events of one batch touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) topics: BTreeSet<Topic>,
    dependencies: BTreeSet<Dependency>,
    routes: BTreeSet<RouteRef>,
    /// Services whose attached routes may have other conditions.
    parents: BTreeSet<NamespacedName>,
}

impl Index {
    /// Puts an object in place of its former self, or takes it away.
    pub(super) fn replace(&mut self, id: &ObjectId, object: Option<&Object>, touched: &mut Touched) {
        let known = self.broken.remove(id);
        let name = NamespacedName::new(id.namespace.clone().unwrap_or_default(), id.name.as_str());
        match id.kind.as_str() {
            "HTTPRoute" => self.replace_route(RouteKind::Http, id, object, touched),
            "GRPCRoute" => self.replace_route(RouteKind::Grpc, id, object, touched),
            "TLSRoute" => self.replace_route(RouteKind::Tls, id, object, touched),
            "TCPRoute" => self.replace_route(RouteKind::Tcp, id, object, touched),
            "Service" => {
                let service = self.read(id, object, Service::read);
                self.replace_service(&name, service, touched);
            }
            "EndpointSlice" => {
                let slice = self.read(id, object, Slice::read);
                let services = self.slices.replace(name, slice);
                touched.topics.extend(services.into_iter().map(Topic::Endpoints));
            }
            "Pod" => {
                let pod = self.read(id, object, Pod::read);
                self.replace_pod(&name, pod, touched);
            }
            "Namespace" => self.replace_namespace(&id.name, object, touched),
            "ConfigMap" if self.is_system(&name, keys::TRUST_BUNDLE) => {
                // A bundle that can't be read, or is gone, leaves the last one in force: without roots nobody
                // could talk to anybody.
                if let Some(bundle) = self.read(id, object, keys::read_roots) {
                    self.trust = Some(bundle);
                    touched.topics.insert(Topic::Trust);
                }
            }
            "Secret" if self.is_system(&name, keys::SESSION_KEYS) => {
                self.replace_session_keys(id, object, known);
                touched.topics.insert(Topic::Sessions);
            }
            "XBackend" => self.replace_xbackend(name, object.map(XBackend::read), touched),
            "XBackendTrafficPolicy" => {
                let policy = object.map(TrafficPolicy::read);
                // Without targets there is no condition to say it in.
                if let (Some(object), Some(Err(error))) =
                    (object, policy.as_ref().map(|policy| &policy.spec.value))
                {
                    self.report(object, format!("{}; correct the field", error.below("spec")));
                }
                self.replace_policy(name, policy, touched);
            }
            "ReferenceGrant" => {
                touched.dependencies.insert(Dependency::Grants(name.namespace.clone()));
                let grant = object.map(ReferenceGrant::read);
                if let (Some(object), Some(grant)) = (object, &grant) {
                    self.report_grant(object, grant);
                }
                let grants = self.world.grants.entry(name.namespace).or_default();
                match grant {
                    Some(grant) => grants.insert(name.name, grant),
                    None => grants.remove(&name.name),
                };
            }
            _ => {}
        }
    }

    /// Reads an object; one that can't be read is reported and counts as absent.
    fn read<T>(
        &mut self,
        id: &ObjectId,
        object: Option<&Object>,
        read: impl FnOnce(&Object) -> Result<T, String>,
    ) -> Option<T> {
        let object = object?;
        match read(object) {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(
                    "{}: {id}: {error}; the object is left out until it is corrected",
                    object.origin
                );
                self.broken.insert(id.clone(), error);
                None
            }
        }
    }

    /// A Secret that can't be read leaves the last good keys in force: sessions stay, and new sidecars get them too.
    /// One that is gone takes them away, so that new ones are made. `known` is what was wrong with it before, which is
    /// said only once.
    fn replace_session_keys(&mut self, id: &ObjectId, object: Option<&Object>, known: Option<String>) {
        match object.map(MasterKeys::read) {
            None => self.session_keys = None,
            Some(Ok(keys)) => self.session_keys = Some(keys),
            Some(Err(error)) => {
                let problem = format!(
                    "{error}; correct it, or delete the Secret to have new keys made (all sessions begin anew). \
                     Until then the last good keys stay in force, and where there are none there are no sessions"
                );
                if known.as_ref() != Some(&problem) {
                    tracing::error!("{id}: {problem}");
                }
                self.broken.insert(id.clone(), problem);
            }
        }
    }

    fn is_system(&self, name: &NamespacedName, wanted: &str) -> bool {
        name.namespace == self.settings.system_namespace && name.name == wanted
    }

    /// A grant that can't be read grants nothing, and neither does one with a field that may restrict it.
    fn report_grant(&mut self, object: &Object, grant: &Lenient<ReferenceGrant>) {
        match (&grant.value, grant.unknown.first()) {
            (Err(error), _) => self.report(object, format!("{}; correct the field", error.below("spec"))),
            (Ok(_), Some(field)) => {
                self.report(object, format!("spec.{field} isn't known to this mesh; remove it"))
            }
            (Ok(_), None) => {}
        }
    }

    /// Reports an object that has no condition to be reported in.
    fn report(&mut self, object: &Object, problem: String) {
        tracing::error!("{}: {}: {problem}", object.origin, object.id());
        self.broken.insert(object.id(), problem);
    }

    fn replace_route(
        &mut self,
        kind: RouteKind,
        id: &ObjectId,
        object: Option<&Object>,
        touched: &mut Touched,
    ) {
        let name = NamespacedName::new(id.namespace.clone().unwrap_or_default(), id.name.as_str());
        let reference = RouteRef { kind, name };
        let route = object.map(|object| Route::read(kind, object));
        // A route whose parents can't be read belongs to nobody: no list of conditions would show it.
        if let (Some(object), Some(Route { parents, .. })) = (object, &route)
            && let Err(error) = &parents.value
        {
            self.report(object, format!("{}; correct the field", error.below("spec.parentRefs")));
        }
        self.routes.replace(&reference, route);
        touched.routes.insert(reference);
    }

    fn replace_service(&mut self, name: &NamespacedName, service: Option<Service>, touched: &mut Touched) {
        let before = self.world.services.remove(name);
        if before == service {
            self.world.services.extend(service.map(|service| (name.clone(), service)));
            return;
        }
        for address in before.iter().flat_map(Service::cluster_ips) {
            remove(&mut self.service_addresses, address, name);
        }
        for side in before.iter().chain(&service) {
            touched.topics.extend(side.cluster_ips().iter().copied().map(Topic::Address));
            let selected = self.pods.in_namespace(&name.namespace).filter(|pod| side.selects(&pod.labels));
            touched.topics.extend(selected.map(|pod| Topic::Policy(pod.uid)));
        }
        touched.topics.extend([Topic::Tables(name.clone()), Topic::Endpoints(name.clone())]);
        // A policy may give the Service sessions of its own, whose scope has its UID.
        if before.as_ref().map(|service| service.uid) != service.as_ref().map(|service| service.uid) {
            touched.topics.insert(Topic::Sessions);
        }
        touched.dependencies.insert(Dependency::Service(name.clone()));
        touched.parents.insert(name.clone());
        self.mark_policies(&name.namespace);
        if let Some(service) = service {
            for address in service.cluster_ips() {
                self.service_addresses.entry(*address).or_default().insert(name.clone());
            }
            self.world.services.insert(name.clone(), service);
        }
    }

    fn replace_pod(&mut self, name: &NamespacedName, pod: Option<Pod>, touched: &mut Touched) {
        if self.pods.get(name) == pod.as_ref() {
            return;
        }
        let before = self.pods.replace(name, pod);
        let after = self.pods.get(name);
        for side in before.iter().chain(after) {
            touched.topics.insert(Topic::Policy(side.uid));
            for address in &side.ips {
                touched.topics.insert(Topic::Address(*address));
                touched
                    .topics
                    .extend(self.slices.services_with_address(*address).into_iter().map(Topic::Endpoints));
            }
            let backends = self.world.xbackends.values().filter(|backend| {
                backend.name.namespace == name.namespace && endpoints::selects(backend, side)
            });
            touched.topics.extend(backends.map(|backend| Topic::XBackend(backend.name.clone())));
        }
        touched.topics.extend(self.slices.services_with_pod(name).into_iter().map(Topic::Endpoints));
    }

    fn replace_namespace(&mut self, name: &str, object: Option<&Object>, touched: &mut Touched) {
        let before = self.namespaces.remove(name);
        let after = object.map(|object| object.annotations.clone());
        if before != after {
            touched.topics.extend(self.pods.in_namespace(name).map(|pod| Topic::Policy(pod.uid)));
        }
        self.namespaces.extend(after.map(|annotations| (name.to_owned(), annotations)));
    }

    fn replace_xbackend(&mut self, name: NamespacedName, backend: Option<XBackend>, touched: &mut Touched) {
        touched.topics.insert(Topic::XBackend(name.clone()));
        touched.dependencies.insert(Dependency::XBackend(name.clone()));
        self.stale.insert(id_of("XBackend", &name));
        match backend {
            Some(backend) => self.world.xbackends.insert(name, backend),
            None => self.world.xbackends.remove(&name),
        };
    }

    fn replace_policy(&mut self, name: NamespacedName, policy: Option<TrafficPolicy>, touched: &mut Touched) {
        let before = match &policy {
            Some(policy) => self.world.policies.insert(name.clone(), policy.clone()),
            None => self.world.policies.remove(&name),
        };
        let targets = before
            .iter()
            .chain(&policy)
            .filter_map(|policy| policy.spec.ok())
            .flat_map(|spec| &spec.target_refs);
        for target in targets {
            let service = NamespacedName::new(name.namespace.as_str(), target.name.as_str());
            touched.topics.extend([Topic::Tables(service.clone()), Topic::Endpoints(service)]);
        }
        touched.topics.insert(Topic::Sessions);
        touched.dependencies.insert(Dependency::Policies(name.namespace.clone()));
        self.stale.insert(id_of("XBackendTrafficPolicy", &name));
        self.mark_policies(&name.namespace);
    }

    /// Policies of a namespace compete for its Services: a change of one may change the conditions of the others.
    fn mark_policies(&mut self, namespace: &str) {
        let policies = self.world.policies.keys().filter(|name| name.namespace == namespace);
        self.stale.extend(policies.map(|name| id_of("XBackendTrafficPolicy", name)));
    }

    /// Compiles every route that changed or depends on what did, and finds the routes whose conditions that touches.
    pub(super) fn compile_routes(&mut self, touched: &mut Touched) {
        for dependency in &touched.dependencies {
            touched.routes.extend(self.routes.dependents(dependency).cloned());
        }
        for reference in &touched.routes {
            let changed = self.routes.compile(&self.world, reference);
            self.stale.insert(id_of(reference.kind.as_str(), &reference.name));
            // Routes of other kinds on the same Service win or lose against this one, or did so against what it was.
            for service in &changed.tables {
                let rivals = |route: &&CompiledRoute| {
                    route.kind() != reference.kind || reference.kind == RouteKind::Tcp
                };
                if self.routes.attached(service).iter().any(rivals) {
                    touched.parents.insert(service.clone());
                }
            }
            touched.topics.extend(changed.tables.into_iter().map(Topic::Tables));
            if changed.scopes {
                touched.topics.insert(Topic::Sessions);
            }
            self.stale.extend(changed.xbackends.iter().map(|name| id_of("XBackend", name)));
        }
        for service in &touched.parents {
            let attached = self.routes.attached(service);
            let ids = attached.iter().map(|route| id_of(route.kind().as_str(), &route.route.reference.name));
            self.stale.extend(ids);
        }
    }
}

fn id_of(kind: &str, name: &NamespacedName) -> ObjectId {
    ObjectId { kind: kind.to_owned(), namespace: Some(name.namespace.clone()), name: name.name.clone() }
}
