//! What routes are compiled against, and who asked for what.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use gamut_route::{NamespacedName, RouteKind};

use super::service::Service;
use crate::gateway::{GROUP, GrantFrom, GrantTo, Lenient, ReferenceGrant, TrafficPolicy, XBackend};

/// Everything that a route may refer to.
#[derive(Debug, Default)]
pub struct World {
    /// True: a backendRef to another namespace needs a ReferenceGrant there. GEP-1294 asks for none in a mesh.
    pub require_reference_grant: bool,
    /// Services.
    pub services: BTreeMap<NamespacedName, Service>,
    /// XBackends.
    pub xbackends: BTreeMap<NamespacedName, XBackend>,
    /// XBackendTrafficPolicies.
    pub policies: BTreeMap<NamespacedName, TrafficPolicy>,
    /// ReferenceGrants, by namespace and name.
    pub grants: BTreeMap<String, BTreeMap<String, Lenient<ReferenceGrant>>>,
}

/// Something that a compilation looked at, whether it was there or not: when it changes, the result may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependency {
    /// A Service.
    Service(NamespacedName),
    /// An XBackend.
    XBackend(NamespacedName),
    /// The traffic policies of a namespace.
    Policies(String),
    /// The ReferenceGrants of a namespace.
    Grants(String),
}

/// A [`World`] that remembers what it was asked for.
#[derive(Debug)]
pub(crate) struct Lookup<'w> {
    world: &'w World,
    asked: RefCell<BTreeSet<Dependency>>,
}

impl<'w> Lookup<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        Self { world, asked: RefCell::default() }
    }

    /// What was asked for.
    pub(crate) fn into_dependencies(self) -> BTreeSet<Dependency> {
        self.asked.into_inner()
    }

    pub(crate) fn service(&self, name: &NamespacedName) -> Option<&'w Service> {
        self.note(Dependency::Service(name.clone()));
        self.world.services.get(name)
    }

    pub(crate) fn xbackend(&self, name: &NamespacedName) -> Option<&'w XBackend> {
        self.note(Dependency::XBackend(name.clone()));
        self.world.xbackends.get(name)
    }

    /// The policy that is in force for a Service: of several the oldest, then the first by name (GEP-713).
    pub(crate) fn policy(&self, service: &NamespacedName) -> Option<&'w TrafficPolicy> {
        self.note(Dependency::Policies(service.namespace.clone()));
        policy_for(self.world, service)
    }

    /// Whether a route of this kind and namespace may refer to a Service of another namespace.
    pub(crate) fn may_refer(&self, kind: RouteKind, namespace: &str, service: &NamespacedName) -> bool {
        if !self.world.require_reference_grant || namespace == service.namespace {
            return true;
        }
        self.note(Dependency::Grants(service.namespace.clone()));
        let grants = self.world.grants.get(&service.namespace);
        // A field that isn't known may restrict what is granted.
        let readable =
            grants.into_iter().flatten().map(|(_, grant)| grant).filter(|grant| grant.unknown.is_empty());
        readable.filter_map(Lenient::ok).any(|grant| {
            let from = |from: &GrantFrom| {
                from.group == GROUP && from.kind == kind.as_str() && from.namespace == namespace
            };
            let to = |to: &GrantTo| {
                to.group.is_empty()
                    && to.kind == "Service"
                    && to.name.as_ref().is_none_or(|name| *name == service.name)
            };
            grant.from.iter().any(from) && grant.to.iter().any(to)
        })
    }

    fn note(&self, dependency: Dependency) {
        self.asked.borrow_mut().insert(dependency);
    }
}

/// The policy that is in force for a Service.
pub(crate) fn policy_for<'w>(world: &'w World, service: &NamespacedName) -> Option<&'w TrafficPolicy> {
    let from = NamespacedName::new(service.namespace.as_str(), "");
    let policies = world.policies.range(from..).map(|(_, policy)| policy);
    let in_namespace = policies.take_while(|policy| policy.name.namespace == service.namespace);
    let for_service = in_namespace.filter(|policy| {
        let targets = policy.spec.ok().map(|spec| spec.target_refs.as_slice()).unwrap_or_default();
        targets.iter().any(|target| {
            matches!(target.group.as_str(), "" | "core")
                && target.kind == "Service"
                && target.name == service.name
        })
    });
    for_service.min_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)))
}
