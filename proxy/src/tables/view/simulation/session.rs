//! A controller's end of one connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gamut_controller_api::{Body, Key, Version};

use super::world::State;
use crate::tables::view::{Changes, Delivery, fixture::table_key};

/// What the controller knows of its subscriber; the rules are those of its board.
pub(super) struct Session {
    pub(super) replica: usize,
    pub(super) sent: BTreeMap<Key, Option<Version>>,
    pub(super) interest: u64,
    pub(super) deliveries: u64,
}

/// What the sidecar says.
pub(super) enum Said {
    Hello(Vec<(Key, Version)>),
    Interest(Changes),
}

impl Session {
    pub(super) fn hear(&mut self, said: Said, state: &State) -> Option<Delivery> {
        let confirm = match said {
            Said::Hello(held) => {
                self.sent = held.into_iter().map(|(key, version)| (key, Some(version))).collect();
                true
            }
            Said::Interest(changes) => {
                self.interest = changes.interest;
                self.sent.retain(|key, _| !changes.unsubscribe.contains(key));
                for key in changes.subscribe {
                    self.sent.entry(key).or_insert(None);
                }
                !changes.unsubscribe.is_empty()
            }
        };
        self.catch_up(state, confirm)
    }

    /// Sends what differs, and what that leads to.
    pub(super) fn catch_up(&mut self, state: &State, even_if_empty: bool) -> Option<Delivery> {
        let mut resources = Vec::new();
        let mut keys: VecDeque<Key> = self.sent.keys().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(key) = keys.pop_front() {
            let Some(resource) = state.resource(&key).filter(|_| seen.insert(key.clone())) else { continue };
            match &resource.body {
                Body::Address(_) => keys.push_back(table_key("web")),
                Body::RouteTable(table) => {
                    keys.extend(table.backends().into_iter().cloned().map(Key::EndpointSet));
                }
                _ => {}
            }
            if self.sent.insert(key, Some(resource.version)) != Some(Some(resource.version)) {
                resources.push(resource);
            }
        }
        if resources.is_empty() && !even_if_empty {
            return None;
        }
        self.deliveries += 1;
        Some(Delivery { number: self.deliveries, interest: self.interest, resources, ..Delivery::default() })
    }
}
