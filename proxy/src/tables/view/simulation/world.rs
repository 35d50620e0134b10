//! The world: what is true, one state after the other.

use std::collections::BTreeMap;

use gamut_controller_api::{Key, Resource};
use gamut_route::{BackendId, RouteTable};
use proptest::prelude::*;

use crate::tables::view::fixture::{endpoints, leads_to, policy, split, table};

/// The cluster IP of `web`.
pub(super) const WEB: &str = "10.96.0.1:80";

/// The Services that the route for `web` may lead to.
pub(super) const SERVICES: [&str; 4] = ["web-v0", "web-v1", "web-v2", "web-v3"];

/// What is true at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) split: Vec<(&'static str, u32)>,
    pub(super) pods: BTreeMap<&'static str, Vec<u8>>,
}

/// What a person or the cluster does to it.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A Deployment gets these pods, none of which it had.
    Scale(&'static str, Vec<u8>),
    /// The route sends everything there.
    Shift(&'static str),
    /// The route splits.
    Split(&'static str, &'static str, u32),
    /// A Deployment is taken down.
    Retire(&'static str),
}

impl State {
    pub(super) fn first() -> Self {
        Self { split: vec![("web-v0", 1)], pods: BTreeMap::from([("web-v0", vec![1])]) }
    }

    /// The state after a step; the same where the step would be a mistake.
    pub(super) fn after(&self, step: &Step) -> Self {
        let mut next = self.clone();
        let runs = |name: &str| self.pods.get(name).is_some_and(|pods| !pods.is_empty());
        let is_named = |name: &str| self.split.iter().any(|(named, _)| *named == name);
        match step {
            Step::Scale(name, pods) => drop(next.pods.insert(name, pods.clone())),
            Step::Shift(to) if runs(to) => next.split = vec![(*to, 1)],
            Step::Split(a, b, weight) if a != b && runs(a) && runs(b) => {
                next.split = vec![(*a, *weight), (*b, 100 - weight)];
            }
            Step::Retire(name) if !is_named(name) => drop(next.pods.insert(name, Vec::new())),
            Step::Shift(_) | Step::Split(..) | Step::Retire(_) => {}
        }
        next
    }

    pub(super) fn table(&self) -> RouteTable {
        split("web", &self.split)
    }

    pub(super) fn resource(&self, key: &Key) -> Option<Resource> {
        match key {
            Key::Address(_) => Some(leads_to(WEB, "web")),
            Key::RouteTable { .. } => Some(table(self.table())),
            Key::EndpointSet(BackendId::Service(port)) => {
                let name = SERVICES.into_iter().find(|name| *name == port.service.name)?;
                Some(endpoints(name, self.pods.get(name).map_or(&[], Vec::as_slice)))
            }
            Key::InboundPolicy(_) => Some(policy()),
            _ => None,
        }
    }
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let service = || prop::sample::select(SERVICES.to_vec());
    let pods = prop::collection::btree_set(1..9_u8, 1..4).prop_map(|pods| pods.into_iter().collect());
    prop_oneof![
        3 => (service(), pods).prop_map(|(name, pods)| Step::Scale(name, pods)),
        2 => service().prop_map(Step::Shift),
        2 => (service(), service(), 1..100_u32).prop_map(|(a, b, weight)| Step::Split(a, b, weight)),
        2 => service().prop_map(Step::Retire),
    ]
}

pub(super) fn history() -> impl Strategy<Value = Vec<State>> {
    prop::collection::vec(step(), 1..25).prop_map(|steps| {
        let mut states = vec![State::first()];
        for step in &steps {
            let next = states[states.len() - 1].after(step);
            states.push(next);
        }
        states
    })
}

/// A history with shifts to Services that were made in the same moment: the table of one state leads to a Service that nobody
/// has heard of before, and that has its endpoints in the next.
pub(super) fn hasty_history() -> impl Strategy<Value = Vec<State>> {
    let service = || prop::sample::select(SERVICES.to_vec());
    let steps =
        prop_oneof![2 => service().prop_map(|to| (to, true)), 1 => service().prop_map(|to| (to, false))];
    prop::collection::vec((steps, 1..9_u8), 1..15).prop_map(|steps| {
        let mut states = vec![State::first()];
        for ((to, hasty), pod) in steps {
            let before = &states[states.len() - 1];
            let is_new = states.iter().all(|state| !state.pods.contains_key(to));
            let steps = if hasty && is_new {
                let early = State { split: vec![(to, 1)], ..before.clone() };
                vec![early.clone(), early.after(&Step::Scale(to, vec![pod]))]
            } else {
                vec![before.after(&Step::Scale(to, vec![pod]))]
            };
            states.extend(steps);
        }
        states
    })
}
