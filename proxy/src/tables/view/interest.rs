//! What is wanted, and what leaves.
//!
//! Interest is recomputed from what leads where whenever that changes, and never counted: there is nothing to leak. What
//! isn't wanted any more is unsubscribed, and dropped when the controller has seen that. An
//! address that nobody has used for [`Limits::idle`](super::Limits::idle) leaves, with all that only it led to, unless
//! a connection holds on to it. Those of our own namespace's Services stay. Nothing leaves while the controller is
//! away: it couldn't be asked again.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use gamut_controller_api::{AddressAnswer, Key};
use gamut_route::{RouteTable, ServicePort};

use super::{Address, Changes, LeadsTo, Table, View};
use crate::tables::{Destination, Entry};

impl View {
    /// Lets addresses go that nobody uses any more. Not to be called while the controller is away.
    pub fn sweep(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        self.note_use(now);
        let idle = |address: &Address| now.saturating_duration_since(address.last_used) >= self.limits.idle;
        let idle = self.addresses.iter().filter(|(_, address)| idle(address) && self.may_leave(address));
        let idle: Vec<SocketAddr> = idle.map(|(address, _)| *address).collect();
        for address in &idle {
            self.addresses.remove(address);
        }
        self.settle(&mut changes);
        changes
    }

    /// Lets the address go that has been idle for longest; false when none may leave.
    pub(super) fn make_room(&mut self, now: Instant) -> bool {
        self.note_use(now);
        let candidates = self.addresses.iter().filter(|(_, address)| self.may_leave(address));
        let oldest = candidates.min_by_key(|(_, address)| address.last_used).map(|(address, _)| *address);
        oldest.is_some_and(|oldest| self.addresses.remove(&oldest).is_some())
    }

    fn note_use(&mut self, now: Instant) {
        for address in self.addresses.values_mut() {
            if address.used.swap(false, Ordering::Relaxed) {
                address.last_used = now;
            }
        }
    }

    fn may_leave(&self, address: &Address) -> bool {
        match &address.leads_to {
            None | Some(LeadsTo::NotOurs) => true,
            // One is ours, one is the published map's.
            Some(LeadsTo::Pod(pod)) => Arc::strong_count(pod) <= 2,
            Some(LeadsTo::Service(service)) => {
                let held = self.tables.get(service).is_some_and(Table::is_held_by_connections);
                !held && service.service.namespace != self.namespace
            }
        }
    }

    /// After an event: addresses lead where they can, what is wanted is subscribed, what isn't is dropped.
    pub(super) fn settle(&mut self, changes: &mut Changes) {
        for address in self.addresses.values_mut() {
            if let Some(AddressAnswer::Service(service)) = &address.answer
                && self.tables.get(service).is_some_and(|table| table.handle.is_some())
            {
                address.leads_to = Some(LeadsTo::Service(service.clone()));
            }
        }

        let wanted = self.wanted();
        changes.unsubscribe = self.subscribed.difference(&wanted).cloned().collect();
        changes.subscribe = wanted.difference(&self.subscribed).cloned().collect();
        if !changes.unsubscribe.is_empty() || !changes.subscribe.is_empty() {
            self.interest += 1;
            changes.interest = self.interest;
        }
        self.leaving.retain(|key, _| !wanted.contains(key));
        self.leaving.extend(changes.unsubscribe.iter().map(|key| (key.clone(), self.interest)));
        self.subscribed = wanted;
        self.drop_unwanted();
        changes.addresses = Some(self.publish());
    }

    /// Drops what is neither wanted nor counted on.
    fn drop_unwanted(&mut self) {
        let stays = |key: &Key| match key {
            Key::Address(address) => self.addresses.contains_key(address),
            _ => self.subscribed.contains(key) || self.leaving.contains_key(key),
        };
        let namespace = &self.namespace;
        self.tables.retain(|service, _| stays(&table_key(namespace, service)));
        self.clusters.retain(|id, _| stays(&Key::EndpointSet(id.clone())));
        self.sets.retain(|id, _| stays(&Key::EndpointSet(id.clone())));
        self.session_keys.retain(|scope, _| stays(&session_key(namespace, scope)));
        self.held.retain(|key, _| stays(key));
        self.refused.retain(|key, _| stays(key));
    }

    /// Every key that something leads to.
    pub(super) fn wanted(&self) -> HashSet<Key> {
        let mut wanted = HashSet::from([Key::InboundPolicy(self.pod), Key::TrustBundle]);
        let mut services: HashSet<&ServicePort> = HashSet::new();
        for (address, known) in &self.addresses {
            wanted.insert(Key::Address(*address));
            if let Some(AddressAnswer::Service(service)) = &known.answer {
                services.insert(service);
            }
            // Until the new answer can be used, the old one must stay whole.
            if let Some(LeadsTo::Service(service)) = &known.leads_to {
                services.insert(service);
            }
        }
        let held = self.tables.iter().filter(|(_, table)| table.is_held_by_connections());
        services.extend(held.map(|(service, _)| service));

        for service in services {
            wanted.insert(self.key_of(service));
            if let Some(table) = self.tables.get(service) {
                let active = table.active.as_ref().map(|(active, _)| active);
                wanted
                    .extend(active.into_iter().chain(&table.pending).flat_map(|table| self.parts_of(table)));
            }
        }
        wanted
    }

    /// The map for the data path.
    fn publish(&mut self) -> HashMap<SocketAddr, Entry> {
        self.tables.values_mut().for_each(|table| table.shown = 0);
        let mut published = HashMap::with_capacity(self.addresses.len());
        for (address, known) in &self.addresses {
            let Some(destination) = known.leads_to.as_ref().and_then(|way| self.destination_of(way)) else {
                continue;
            };
            if let Some(LeadsTo::Service(service)) = &known.leads_to
                && let Some(table) = self.tables.get_mut(service)
            {
                table.shown += 1;
            }
            published.insert(*address, Entry { destination, used: known.used.clone() });
        }
        published
    }

    pub(super) fn destination_of(&self, way: &LeadsTo) -> Option<Destination> {
        Some(match way {
            LeadsTo::NotOurs => Destination::NotOurs,
            LeadsTo::Pod(pod) => Destination::Pod(pod.clone()),
            LeadsTo::Service(service) => Destination::Service(self.tables.get(service)?.handle.clone()?),
        })
    }

    pub(super) fn key_of(&self, service: &ServicePort) -> Key {
        table_key(&self.namespace, service)
    }

    /// The keys of what a table names.
    fn parts_of(&self, table: &RouteTable) -> Vec<Key> {
        let sets = table.backends().into_iter().cloned().map(Key::EndpointSet);
        let session_keys = table.scopes().into_iter().map(|scope| session_key(&self.namespace, scope));
        sets.chain(session_keys).collect()
    }

    /// Those of them that haven't arrived. A scope without a single key has: its sessions begin when there is one, and no
    /// pod waits for a Secret that somebody has to mend.
    pub(super) fn missing_parts(&self, table: &RouteTable) -> impl Iterator<Item = Key> {
        self.parts_of(table).into_iter().filter(|key| match key {
            Key::EndpointSet(id) => !self.clusters.contains_key(id),
            Key::SessionKeys { scope, .. } => !self.session_keys.contains_key(scope),
            _ => false,
        })
    }
}

impl Table {
    /// Whether somebody holds the handle besides us and the published map. Somebody who is just reading the map
    /// counts too: then we look again at the next sweep.
    fn is_held_by_connections(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| Arc::strong_count(handle) > 1 + self.shown)
    }
}

fn table_key(namespace: &str, service: &ServicePort) -> Key {
    Key::RouteTable { client_namespace: namespace.to_owned(), service: service.clone() }
}

fn session_key(namespace: &str, scope: &str) -> Key {
    Key::SessionKeys { client_namespace: namespace.to_owned(), scope: scope.to_owned() }
}
