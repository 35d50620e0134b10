//! Bringing into force: endpoints at once, session keys with all tables that use them, a table when it has all its parts.
//!
//! A part that has arrived may be empty: a Service that was made a moment ago has no EndpointSlice yet. A table that newly
//! leads there waits for endpoints, for [`Limits::make_before_break`](super::Limits::make_before_break) at most, unless the one
//! that it replaces leads nowhere either, or there is none: a Service that stays empty is answered 503 in the end, as the
//! specification has it.

use std::{sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use gamut_controller_api::{Endpoint, EndpointSet, Key, SessionKeys};
use gamut_route::{BackendId, ServicePort};

use super::{Changes, Held, Table, View, bridge::bridge};
use crate::{
    balance::Cluster,
    outbound::service::Service,
    tables::{Parts, Refusal},
};

impl View {
    /// Brings a set into force; if tables wait, without what it takes away. Then it is returned, to be finished.
    pub(super) fn add_endpoints(&mut self, set: Arc<EndpointSet>) -> Option<Arc<EndpointSet>> {
        let waiting = self.tables.values().any(|table| table.pending.is_some());
        let bridge = self.sets.get(&set.id).filter(|_| waiting).and_then(|old| bridge(old, &set));
        self.cluster(&set.id).update(bridge.as_ref().unwrap_or(&set));
        self.sets.insert(set.id.clone(), set.clone());
        bridge.map(|_| set)
    }

    pub(super) fn cluster(&mut self, id: &BackendId) -> &Arc<Cluster> {
        let Self { clusters, limits, telemetry, .. } = self;
        clusters
            .entry(id.clone())
            .or_insert_with(|| Cluster::with(id.clone(), limits.balance, telemetry.endpoints(id)))
    }

    /// Takes new session keys in and rebuilds what uses them.
    pub(super) fn rekey(&mut self, rekeyed: Vec<(Key, Held, Arc<SessionKeys>)>, changes: &mut Changes) {
        for (key, held, keys) in rekeyed {
            let scope = keys.scope.clone();
            // A scope that has lost its keys is going: the tables that still use it are about to follow, and until then their
            // sessions open with what there was.
            if keys.keys.is_empty() && self.session_keys.contains_key(&scope) {
                self.hold(key, held);
                continue;
            }
            let before = self.session_keys.insert(scope.clone(), keys);
            let users = self.tables.values().filter_map(|table| {
                let (active, _) = table.active.as_ref()?;
                active.scopes().contains(&scope.as_str()).then_some((table.handle.as_ref()?, active))
            });
            let parts = Parts::new(&self.clusters, &self.session_keys, &self.telemetry);
            let rebuilt: Result<Vec<_>, Refusal> = users
                .map(|(handle, table)| Ok((handle.clone(), Service::new(table.clone(), &parts)?)))
                .collect();
            match rebuilt {
                Ok(rebuilt) => {
                    rebuilt.into_iter().for_each(|(handle, service)| handle.store(Arc::new(service)));
                    self.hold(key, held);
                }
                Err(Refusal(reason)) => {
                    match before {
                        Some(before) => self.session_keys.insert(scope, before),
                        None => self.session_keys.remove(&scope),
                    };
                    self.refuse(key, reason, held.delivery, changes);
                }
            }
        }
    }

    /// Brings every pending table into force that has all its parts and waits for no endpoints.
    pub(super) fn activate(&mut self, now: Instant, changes: &mut Changes) {
        let pending = self.tables.iter().filter(|(_, table)| table.pending.is_some());
        let when: Vec<(ServicePort, Option<Instant>)> =
            pending.map(|(service, table)| (service.clone(), self.ready(table, now))).collect();
        for (service, when) in when {
            let is_due = when.is_some_and(|when| when <= now);
            if let Some(table) = self.tables.get_mut(&service) {
                table.due = when.filter(|_| !is_due);
            }
            if !is_due {
                continue;
            }
            let key = self.key_of(&service);
            let (Some(table), Some(held)) = (self.tables.get_mut(&service), self.held.get(&key).copied())
            else {
                continue;
            };
            let Some(pending) = table.pending.take() else { continue };
            let parts = Parts::new(&self.clusters, &self.session_keys, &self.telemetry);
            match Service::new(pending.clone(), &parts) {
                Ok(built) => {
                    match &table.handle {
                        Some(handle) => handle.store(Arc::new(built)),
                        None => table.handle = Some(Arc::new(ArcSwap::from_pointee(built))),
                    }
                    table.active = Some((pending, held));
                }
                Err(Refusal(reason)) => {
                    // What we hold is the last good one again.
                    match &table.active {
                        Some((_, good)) => self.held.insert(key.clone(), *good),
                        None => self.held.remove(&key),
                    };
                    self.refuse(key, reason, held.delivery, changes);
                }
            }
        }
    }

    /// When a table comes into force that isn't yet: at once, or when it has waited for endpoints for long enough; `None`
    /// while it lacks a part.
    fn ready(&self, table: &Table, now: Instant) -> Option<Instant> {
        let pending = table.pending.as_ref()?;
        let is_complete = self.missing_parts(pending).next().is_none();
        let waited = table.due.unwrap_or(now + self.limits.make_before_break);
        is_complete.then(|| if self.lacking(table).is_empty() { now } else { waited })
    }

    /// The backends without endpoints that what is pending newly leads to, while what is in force leads somewhere.
    pub(super) fn lacking<'a>(&self, table: &'a Table) -> Vec<&'a BackendId> {
        let (Some((active, _)), Some(pending)) = (&table.active, &table.pending) else { return Vec::new() };
        // By what was said last: removals of the delivery that is being applied count already. A name outside the mesh is looked
        // up, and nobody can say beforehand what it leads to.
        let takes_traffic = |endpoint: &Endpoint| endpoint.ready || endpoint.serving && endpoint.terminating;
        let is_empty = |id: &BackendId| {
            let set = self.sets.get(id).filter(|set| set.external.is_none());
            set.is_some_and(|set| !set.endpoints.iter().any(takes_traffic))
        };
        let before = active.destinations();
        if before.iter().all(|id| is_empty(id)) {
            return Vec::new();
        }
        let newly = pending.destinations().into_iter().filter(|id| !before.contains(id));
        newly.filter(|id| is_empty(id)).collect()
    }
}
