//! What a view tells about itself.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use gamut_controller_api::{AddressAnswer, Key};

use super::{Address, View};
use crate::tables::{Dump, NoAnswer, TableState, TableStatus};

impl View {
    /// True once everything that was wanted at the start has arrived or was refused.
    pub fn loaded(&self) -> bool {
        let arrived = |key: &Key| self.held.contains_key(key) || self.refused.contains_key(key);
        self.greeted
            && self.wanted().iter().all(arrived)
            && self.tables.values().all(|table| table.pending.is_none())
    }

    /// Why waiting for an address is in vain: there is nothing good to use, and what came was refused.
    pub fn hopeless(&self, address: SocketAddr) -> Option<NoAnswer> {
        let keys = [Some(Key::Address(address)), self.table_key(address)];
        let reason = keys.iter().flatten().find_map(|key| self.refused.get(key))?;
        Some(NoAnswer::Refused { address, reason: reason.clone() })
    }

    /// What has to arrive before an address can be used.
    pub fn missing(&self, address: SocketAddr) -> Vec<Key> {
        let Some(table_key) = self.table_key(address) else { return vec![Key::Address(address)] };
        let Key::RouteTable { service, .. } = &table_key else { return Vec::new() };
        match self.tables.get(service).and_then(|table| table.pending.as_ref()) {
            Some(pending) => self.missing_parts(pending).collect(),
            None => vec![table_key],
        }
    }

    /// Every subscribed key and how it stands with it, by key.
    pub fn status(&self, now: Instant) -> Vec<TableStatus> {
        let keys: BTreeSet<&Key> = self.subscribed.iter().collect();
        keys.into_iter().map(|key| self.status_of(key, now)).collect()
    }

    /// Everything in force except the policy, which isn't kept here.
    pub fn dump(&self) -> Dump {
        let answer = |(address, known): (&SocketAddr, &Address)| Some((*address, known.answer.clone()?));
        let mut tables: Vec<_> =
            self.tables.values().filter_map(|table| Some(table.active.as_ref()?.0.clone())).collect();
        tables.sort_by(|a, b| a.parent.cmp(&b.parent));
        let mut endpoints: Vec<_> = self.sets.values().cloned().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        Dump {
            inbound_policy: None,
            addresses: self.addresses.iter().filter_map(answer).collect(),
            tables,
            endpoints,
        }
    }

    fn status_of(&self, key: &Key, now: Instant) -> TableStatus {
        let held = self.held.get(key);
        let pending = match key {
            Key::RouteTable { service, .. } => {
                self.tables.get(service).filter(|table| table.pending.is_some())
            }
            _ => None,
        };
        let state = match (self.refused.get(key), pending) {
            (Some(reason), _) => TableState::Refused { reason: reason.clone() },
            (None, Some(table)) => {
                let parts = table.pending.iter().flat_map(|pending| self.missing_parts(pending));
                let endpoints = self.lacking(table).into_iter().map(|id| format!("an endpoint of {id}"));
                TableState::Pending { missing: parts.map(|key| key.to_string()).chain(endpoints).collect() }
            }
            (None, None) if held.is_some() => TableState::Active,
            (None, None) => TableState::Pending { missing: vec![key.to_string()] },
        };
        TableStatus {
            key: key.to_string(),
            version: held.map(|held| held.version.to_string()),
            age_seconds: held.map_or(0, |held| now.saturating_duration_since(held.since).as_secs()),
            state,
        }
    }

    fn table_key(&self, address: SocketAddr) -> Option<Key> {
        match self.addresses.get(&address)?.answer.as_ref()? {
            AddressAnswer::Service(service) => Some(self.key_of(service)),
            AddressAnswer::Pod(_) | AddressAnswer::NotOurs => None,
        }
    }
}
