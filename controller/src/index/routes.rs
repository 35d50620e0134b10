//! All routes, compiled, and who depends on what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gamut_route::{NamespacedName, RouteRef};

use super::slice::remove;
use crate::{
    compile::{CompiledRoute, Dependency, World, compile_route},
    gateway::Route,
};

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    read: BTreeMap<RouteRef, Arc<Route>>,
    compiled: BTreeMap<RouteRef, CompiledRoute>,
    /// Routes by what their compilation looked at.
    dependents: BTreeMap<Dependency, BTreeSet<RouteRef>>,
    /// Routes by the Services that they name as parents, whether these are there or not.
    attached: BTreeMap<NamespacedName, BTreeSet<RouteRef>>,
    /// Routes by the session scopes of their rules.
    scopes: BTreeMap<String, BTreeSet<RouteRef>>,
}

/// What compiling a route again changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recompiled {
    /// Services whose tables may differ.
    pub(super) tables: BTreeSet<NamespacedName>,
    /// Other session scopes, or other namespaces that may have them.
    pub(super) scopes: bool,
    /// XBackends that it refers to or did so before: their statuses name its parents.
    pub(super) xbackends: BTreeSet<NamespacedName>,
}

impl Routes {
    /// Takes a route in, or out; it must be compiled next.
    pub(super) fn replace(&mut self, reference: &RouteRef, route: Option<Route>) {
        match route {
            Some(route) => self.read.insert(reference.clone(), Arc::new(route)),
            None => self.read.remove(reference),
        };
    }

    /// Compiles a route against the world as it is now.
    pub(super) fn compile(&mut self, world: &World, reference: &RouteRef) -> Recompiled {
        let before = self.compiled.remove(reference);
        if let Some(before) = &before {
            self.unlink(reference, before);
        }
        let after = self.read.get(reference).map(|route| compile_route(world, route.clone()));
        let mut changed = Recompiled::default();
        if !is_same_in_tables(before.as_ref(), after.as_ref()) {
            changed.tables = before.iter().chain(&after).flat_map(parents).collect();
        }
        let scopes = |route: &Option<CompiledRoute>| route.as_ref().map(visible_scopes).unwrap_or_default();
        changed.scopes = scopes(&before) != scopes(&after);
        changed.xbackends = before.iter().chain(&after).flat_map(xbackends).collect();
        if let Some(after) = after {
            self.link(reference, &after);
            self.compiled.insert(reference.clone(), after);
        }
        changed
    }

    pub(super) fn get(&self, reference: &RouteRef) -> Option<&CompiledRoute> {
        self.compiled.get(reference)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &CompiledRoute> {
        self.compiled.values()
    }

    /// Every route whose compilation looked at this.
    pub(super) fn dependents(&self, dependency: &Dependency) -> impl Iterator<Item = &RouteRef> {
        self.dependents.get(dependency).into_iter().flatten()
    }

    /// Every route that names a Service as a parent.
    pub(super) fn attached(&self, service: &NamespacedName) -> Vec<&CompiledRoute> {
        let routes = self.attached.get(service).into_iter().flatten();
        routes.filter_map(|reference| self.compiled.get(reference)).collect()
    }

    /// Whether a table for clients of a namespace can name a scope: the scope's route is the namespace's own,
    /// or a producer route.
    pub(super) fn names_scope(&self, scope: &str, client_namespace: &str) -> bool {
        let routes = self.scopes.get(scope).into_iter().flatten();
        routes.filter_map(|reference| self.compiled.get(reference)).any(|route| {
            let own = route.namespace();
            own == client_namespace || parents(route).any(|parent| parent.namespace == own)
        })
    }

    fn link(&mut self, reference: &RouteRef, route: &CompiledRoute) {
        for dependency in &route.dependencies {
            self.dependents.entry(dependency.clone()).or_default().insert(reference.clone());
        }
        for parent in parents(route) {
            self.attached.entry(parent).or_default().insert(reference.clone());
        }
        for scope in route.scopes() {
            self.scopes.entry(scope.to_owned()).or_default().insert(reference.clone());
        }
    }

    fn unlink(&mut self, reference: &RouteRef, route: &CompiledRoute) {
        for dependency in &route.dependencies {
            remove(&mut self.dependents, dependency, reference);
        }
        for parent in parents(route) {
            remove(&mut self.attached, &parent, reference);
        }
        for scope in route.scopes() {
            remove(&mut self.scopes, &scope.to_owned(), reference);
        }
    }
}

/// Everything of a route that a table can show. Its conditions may differ all the same.
fn is_same_in_tables(before: Option<&CompiledRoute>, after: Option<&CompiledRoute>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            before.rules == after.rules
                && before.has_sessions == after.has_sessions
                && before.route.created == after.route.created
                && before.route.parents == after.route.parents
                && before.report.refusal().is_some() == after.report.refusal().is_some()
        }
        _ => false,
    }
}

fn parents(route: &CompiledRoute) -> impl Iterator<Item = NamespacedName> {
    route.parents().into_iter().map(|parent| parent.target(route.namespace()))
}

fn xbackends(route: &CompiledRoute) -> impl Iterator<Item = NamespacedName> {
    route.dependencies.iter().filter_map(|dependency| match dependency {
        Dependency::XBackend(name) => Some(name.clone()),
        _ => None,
    })
}

/// Scopes, and who may have their keys.
fn visible_scopes(route: &CompiledRoute) -> (BTreeSet<String>, BTreeSet<NamespacedName>) {
    let scopes: BTreeSet<String> = route.scopes().into_iter().map(str::to_owned).collect();
    let parents = if scopes.is_empty() { BTreeSet::new() } else { parents(route).collect() };
    (scopes, parents)
}
