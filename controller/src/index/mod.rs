//! The index: every object that matters, joined, and changed in place.
//!
//! ```text
//! HTTPRoute GRPCRoute TLSRoute TCPRoute ─parentRefs→ Service ─ports→ tables
//!        └──────backendRefs──→ Service ←─label── EndpointSlice ─targetRef→ Pod ─→ endpoints, addresses
//!        └──────backendRefs──→ XBackend ─endpointSelector─→ Pod
//! ReferenceGrant ─→ backendRefs   XBackendTrafficPolicy ─targetRefs→ Service
//! Namespace ─annotations→ Pod ─→ inbound policies      Service ─selector→ Pod
//! ConfigMap gamut-trust-bundle ─→ roots                Secret gamut-session-keys ─→ session keys
//! ```
//!
//! The scoping rule: a route's parents and backends are in its own namespace unless it says otherwise;
//! everything else refers only inside its own namespace. A table belongs to a Service's port *and* the
//! namespace of the clients.
//!
//! [`Index::apply`] takes events in and answers with [`Topic`]s: what may have changed, never less.
//! [`Index::body`] then compiles a key's content; there is one for every key, whether what it names exists or
//! not. Routes are compiled when they, or anything that their compilation looked at, change; conditions come
//! from the same compilation.

mod change;
mod endpoints;
mod inbound;
pub(crate) mod keys;
mod pod;
mod pods;
mod routes;
mod slice;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gamut_controller_api::{AddressAnswer, Body, InboundPolicy, Key, MtlsMode, SessionKeys, TrustBundle};
use gamut_manifest::ObjectId;
use gamut_route::{BackendId, NamespacedName, RouteRef, Uid};

use self::{
    change::Touched,
    keys::{MasterKeys, SessionSecret},
    pods::Pods,
    routes::Routes,
    slice::Slices,
};
use crate::{
    compile::{self, CompiledRoute, Dependency, ParentConditions, Service, World},
    source::SourceEvent,
};

/// What a change may have touched. Every [`Key`] belongs to exactly one topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// The answers about an address, whatever the port.
    Address(IpAddr),
    /// The route tables of a Service: all ports, all client namespaces.
    Tables(NamespacedName),
    /// The endpoints of a Service: all ports.
    Endpoints(NamespacedName),
    /// The endpoints of an XBackend.
    XBackend(NamespacedName),
    /// The inbound policy of a pod.
    Policy(Uid),
    /// The roots.
    Trust,
    /// All session keys.
    Sessions,
}

/// Settings of an installation that change what is compiled.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `cluster.local` by default.
    pub trust_domain: String,
    /// Where the CA's and the controller's own objects are; `gamut-system` by default.
    pub system_namespace: String,
    /// The mode of pods and namespaces that don't say. Permissive by default: labelling a namespace must not
    /// cut off callers outside of the mesh.
    pub mtls: MtlsMode,
    /// True: a backendRef to another namespace needs a ReferenceGrant there. False by default (GEP-1294).
    pub require_reference_grant: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            system_namespace: "gamut-system".to_owned(),
            mtls: MtlsMode::Permissive,
            require_reference_grant: false,
        }
    }
}

/// Everything the controller knows, joined.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    world: World,
    routes: Routes,
    /// Services by their cluster IPs. More than one only while an address moves.
    service_addresses: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
    slices: Slices,
    pods: Pods,
    /// The annotations of namespaces.
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    trust: Option<TrustBundle>,
    session_keys: Option<MasterKeys>,
    /// Objects that can't be read, and why. They count as absent.
    broken: BTreeMap<ObjectId, String>,
    /// Objects whose conditions may differ since [`Index::take_stale_statuses`] was last called.
    stale: BTreeSet<ObjectId>,
    synced: bool,
}

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        let require_reference_grant = settings.require_reference_grant;
        Self {
            settings,
            world: World { require_reference_grant, ..World::default() },
            routes: Routes::default(),
            service_addresses: BTreeMap::new(),
            slices: Slices::default(),
            pods: Pods::default(),
            namespaces: BTreeMap::new(),
            trust: None,
            session_keys: None,
            broken: BTreeMap::new(),
            stale: BTreeSet::new(),
            synced: false,
        }
    }

    /// Takes events in and says which keys may have other bodies now.
    pub fn apply(&mut self, events: Vec<SourceEvent>) -> BTreeSet<Topic> {
        let mut touched = Touched::default();
        for event in events {
            match event {
                SourceEvent::Applied(object) => self.replace(&object.id(), Some(&object), &mut touched),
                SourceEvent::Deleted(id) => self.replace(&id, None, &mut touched),
                SourceEvent::Synced => self.synced = true,
                // Who writes is nothing to what is known.
                SourceEvent::Leads(_) => {}
            }
        }
        self.compile_routes(&mut touched);
        touched.topics
    }

    /// True once the source has told everything that existed at the start: bodies are answers from here on.
    pub fn synced(&self) -> bool {
        self.synced
    }

    /// The topic that a key belongs to.
    pub fn topic(key: &Key) -> Topic {
        match key {
            Key::Address(address) => Topic::Address(address.ip()),
            Key::RouteTable { service, .. } => Topic::Tables(service.service.clone()),
            Key::EndpointSet(BackendId::Service(port)) => Topic::Endpoints(port.service.clone()),
            Key::EndpointSet(BackendId::XBackend(name)) => Topic::XBackend(name.clone()),
            Key::InboundPolicy(uid) => Topic::Policy(*uid),
            Key::TrustBundle => Topic::Trust,
            Key::SessionKeys { .. } => Topic::Sessions,
        }
    }

    /// A key's content now; there is one for every key.
    pub fn body(&self, key: &Key) -> Body {
        match key {
            Key::Address(address) => Body::Address(self.address(*address)),
            Key::RouteTable { client_namespace, service } => {
                let routes = self.routes.attached(&service.service);
                Body::RouteTable(Arc::new(compile::compile_table(
                    &self.world,
                    &routes,
                    service,
                    client_namespace,
                )))
            }
            Key::EndpointSet(id) => {
                let set = endpoints::endpoint_set(&self.settings, &self.world, &self.pods, &self.slices, id);
                Body::EndpointSet(Arc::new(set))
            }
            Key::InboundPolicy(uid) => Body::InboundPolicy(Arc::new(self.inbound_policy(*uid))),
            Key::TrustBundle => {
                let bundle = self.trust.clone().unwrap_or_else(|| TrustBundle { roots: Vec::new() });
                Body::TrustBundle(Arc::new(bundle))
            }
            Key::SessionKeys { client_namespace, scope } => {
                Body::SessionKeys(Arc::new(self.session_keys(client_namespace, scope)))
            }
        }
    }

    /// The addresses that clients in a namespace are likely to want: the cluster IPs and ports of its own Services.
    pub fn suggestions(&self, namespace: &str) -> Vec<SocketAddr> {
        let of_service = |service: &Service| -> Vec<SocketAddr> {
            let addresses = service.cluster_ips().iter();
            addresses
                .flat_map(|ip| service.ports.iter().map(|port| SocketAddr::new(*ip, port.number)))
                .collect()
        };
        self.services_in(namespace).flat_map(of_service).collect()
    }

    /// The conditions of every route for each parent that is a Service.
    pub fn statuses(&self) -> impl Iterator<Item = (&CompiledRoute, Vec<ParentConditions>)> {
        self.routes.all().map(|route| (route, self.conditions(route)))
    }

    /// A route as it was compiled.
    pub fn route(&self, reference: &RouteRef) -> Option<&CompiledRoute> {
        self.routes.get(reference)
    }

    /// The conditions of one route.
    pub fn conditions(&self, route: &CompiledRoute) -> Vec<ParentConditions> {
        compile::conditions(&self.world, route, |service| self.routes.attached(service))
    }

    /// The Services that routes which refer to an XBackend are attached to, or would be: its ancestors.
    pub fn ancestors(&self, xbackend: &NamespacedName) -> BTreeSet<NamespacedName> {
        let dependency = Dependency::XBackend(xbackend.clone());
        let routes = self.routes.dependents(&dependency);
        let routes = routes.filter_map(|reference| self.routes.get(reference));
        let parents = routes
            .flat_map(|route| route.parents().into_iter().map(|parent| parent.target(route.namespace())));
        parents.collect()
    }

    /// How many pods a Service selects, whatever their state.
    pub fn selected(&self, service: &Service) -> usize {
        let pods = self.pods.in_namespace(&service.name.namespace);
        pods.filter(|pod| service.selects(&pod.labels) && !pod.finished).count()
    }

    /// What routes are compiled against.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Objects that can't be read, and why. They count as absent, except where what they said last stays in force: roots
    /// and session keys.
    pub fn broken(&self) -> &BTreeMap<ObjectId, String> {
        &self.broken
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// True if there are keys to seal sessions with.
    pub fn has_session_keys(&self) -> bool {
        self.session_keys.is_some()
    }

    /// How it stands with the Secret that session keys are read from.
    pub(crate) fn session_secret(&self) -> SessionSecret<'_> {
        let id = ObjectId {
            kind: "Secret".to_owned(),
            namespace: Some(self.settings.system_namespace.clone()),
            name: keys::SESSION_KEYS.to_owned(),
        };
        match &self.session_keys {
            _ if self.broken.contains_key(&id) => SessionSecret::Unreadable,
            Some(keys) => SessionSecret::Good(keys.secret()),
            None => SessionSecret::Missing,
        }
    }

    /// The objects whose conditions may have changed since the last call, gone ones included.
    pub fn take_stale_statuses(&mut self) -> BTreeSet<ObjectId> {
        std::mem::take(&mut self.stale)
    }

    fn address(&self, address: SocketAddr) -> AddressAnswer {
        let services = self.service_addresses.get(&address.ip()).into_iter().flatten();
        let mut services = services.filter_map(|name| self.world.services.get(name));
        if let Some(service) = services.next() {
            return match service.port(address.port()) {
                Some(port) => AddressAnswer::Service(service.service_port(port.number)),
                None => AddressAnswer::NotOurs,
            };
        }
        match self.pods.by_address(address.ip()) {
            Some(pod) if !pod.is_own_port(address.port()) => {
                AddressAnswer::Pod(endpoints::own_endpoint(&self.settings, pod, address))
            }
            _ => AddressAnswer::NotOurs,
        }
    }

    fn inbound_policy(&self, uid: Uid) -> InboundPolicy {
        let Some(pod) = self.pods.by_uid(uid) else { return inbound::closed() };
        let none = BTreeMap::new();
        let namespace = self.namespaces.get(&pod.name.namespace).unwrap_or(&none);
        let services = self.services_in(&pod.name.namespace).filter(|service| service.selects(&pod.labels));
        inbound::inbound_policy(&self.settings, pod, namespace, services)
    }

    /// The keys of a scope, for those who meet it in one of their tables; nobody else gets any, and nobody does while
    /// there is no Secret that could ever be read: then tables work without sessions.
    fn session_keys(&self, client_namespace: &str, scope: &str) -> SessionKeys {
        let named = self.routes.names_scope(scope, client_namespace) || self.is_service_scope(scope);
        let keys = self.session_keys.as_ref().filter(|_| named).map(|keys| keys.derive(scope));
        SessionKeys { scope: scope.to_owned(), keys: keys.unwrap_or_default() }
    }

    /// Whether a scope is that of a Service without routes, which a policy gives a session to.
    fn is_service_scope(&self, scope: &str) -> bool {
        let policies = self.world.policies.values();
        policies.filter_map(|policy| Some((policy, policy.spec.ok()?))).any(|(policy, spec)| {
            spec.session_persistence.is_some()
                && spec.target_refs.iter().any(|target| {
                    let name = NamespacedName::new(policy.name.namespace.as_str(), target.name.as_str());
                    self.world
                        .services
                        .get(&name)
                        .is_some_and(|service| scope == format!("backend/{}", service.uid))
                })
        })
    }

    fn services_in(&self, namespace: &str) -> impl Iterator<Item = &Service> {
        let from = NamespacedName::new(namespace, "");
        let services = self.world.services.range(from..);
        services.take_while(move |(name, _)| name.namespace == namespace).map(|(_, service)| service)
    }
}
