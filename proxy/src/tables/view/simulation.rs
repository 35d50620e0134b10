//! A mesh without sockets: a world that changes, controllers that lag behind it, a connection that delays, repeats and
//! breaks, and one sidecar's view, whose app must never notice.
//!
//! In every state of the world the table for `web` names only backends that have endpoints. So whatever the sidecar is
//! told, how late and by whom, its table in force must never lead to a backend without endpoints, and an address that
//! could be used must stay usable. When the noise ends it must have what the world has.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gamut_controller_api::{Body, Key, Resource, Version};
use gamut_route::{BackendId, RouteTable};
use proptest::{prelude::*, sample::Index};

use super::{
    Changes, Delivery, View,
    fixture::{address, delivery, endpoints, leads_to, policy, split, table, view},
};
use crate::tables::Destination;

const WEB: &str = "10.96.0.1:80";
const SERVICES: [&str; 4] = ["web-v0", "web-v1", "web-v2", "web-v3"];

// ---- The world

/// What is true at one moment.
#[derive(Clone, Debug, PartialEq)]
struct State {
    split: Vec<(&'static str, u32)>,
    pods: BTreeMap<&'static str, Vec<u8>>,
}

/// What a person or the cluster does to it.
#[derive(Clone, Debug)]
enum Step {
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
    fn first() -> Self {
        Self { split: vec![("web-v0", 1)], pods: BTreeMap::from([("web-v0", vec![1])]) }
    }

    /// The state after a step; the same where the step would be a mistake.
    fn after(&self, step: &Step) -> Self {
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

    fn table(&self) -> RouteTable {
        split("web", &self.split)
    }

    fn resource(&self, key: &Key) -> Option<Resource> {
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

fn step() -> impl Strategy<Value = Step> {
    let service = || prop::sample::select(SERVICES.to_vec());
    let pods = prop::collection::btree_set(1..9_u8, 1..4).prop_map(|pods| pods.into_iter().collect());
    prop_oneof![
        3 => (service(), pods).prop_map(|(name, pods)| Step::Scale(name, pods)),
        2 => service().prop_map(Step::Shift),
        2 => (service(), service(), 1..100_u32).prop_map(|(a, b, weight)| Step::Split(a, b, weight)),
        2 => service().prop_map(Step::Retire),
    ]
}

fn history() -> impl Strategy<Value = Vec<State>> {
    prop::collection::vec(step(), 1..25).prop_map(|steps| {
        let mut states = vec![State::first()];
        for step in &steps {
            let next = states[states.len() - 1].after(step);
            states.push(next);
        }
        states
    })
}

// ---- A controller's end of one connection

/// What the controller knows of its subscriber; the rules are those of its board.
struct Session {
    replica: usize,
    sent: BTreeMap<Key, Option<Version>>,
    interest: u64,
    deliveries: u64,
}

/// What the sidecar says.
enum Said {
    Hello(Vec<(Key, Version)>),
    Interest(Changes),
}

impl Session {
    fn hear(&mut self, said: Said, state: &State) -> Option<Delivery> {
        let confirm = match said {
            Said::Hello(held) => {
                self.sent = held.into_iter().map(|(key, version)| (key, Some(version))).collect();
                true
            }
            Said::Interest(changes) => {
                self.interest = changes.interest;
                changes.unsubscribe.iter().for_each(|key| drop(self.sent.remove(key)));
                for key in changes.subscribe {
                    self.sent.entry(key).or_insert(None);
                }
                !changes.unsubscribe.is_empty()
            }
        };
        self.catch_up(state, confirm)
    }

    /// Sends what differs, and what that leads to.
    fn catch_up(&mut self, state: &State, even_if_empty: bool) -> Option<Delivery> {
        let mut resources = Vec::new();
        let mut keys: VecDeque<Key> = self.sent.keys().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(key) = keys.pop_front() {
            let Some(resource) = state.resource(&key).filter(|_| seen.insert(key.clone())) else { continue };
            match &resource.body {
                Body::Address(_) => keys.push_back(super::fixture::table_key("web")),
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
        Some(Delivery {
            number: self.deliveries,
            interest: self.interest,
            resources,
            ..Delivery::default()
        })
    }
}

// ---- The whole

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    /// A replica sees the world's next states.
    Advance { replica: usize, by: usize },
    /// The oldest delivery arrives, its resources in any order, perhaps twice.
    Deliver { order: Vec<Index>, twice: bool },
    /// The controller hears the oldest thing that was said.
    Hear,
    /// The connection breaks, everything on its way is lost, and the sidecar finds this replica.
    Reconnect { replica: usize },
    /// The app uses the address.
    Use,
    /// Minutes pass.
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..2_usize, 1..4_usize).prop_map(|(replica, by)| Event::Advance { replica, by }),
        6 => (prop::collection::vec(any::<Index>(), 8), any::<bool>())
            .prop_map(|(order, twice)| Event::Deliver { order, twice }),
        4 => Just(Event::Hear),
        1 => (0..2_usize).prop_map(|replica| Event::Reconnect { replica }),
        1 => Just(Event::Use),
        1 => Just(Event::Sweep),
    ]
}

struct Mesh {
    history: Vec<State>,
    /// How far each replica has seen.
    seen: [usize; 2],
    session: Session,
    to_sidecar: VecDeque<Delivery>,
    to_controller: VecDeque<Said>,
    view: View,
    now: Instant,
    was_usable: bool,
}

impl Mesh {
    fn new(history: Vec<State>) -> Self {
        let session = Session { replica: 0, sent: BTreeMap::new(), interest: 0, deliveries: 0 };
        let mut mesh = Self {
            history,
            seen: [0, 0],
            session,
            to_sidecar: VecDeque::new(),
            to_controller: VecDeque::new(),
            view: view(),
            now: Instant::now(),
            was_usable: false,
        };
        mesh.happen(Event::Reconnect { replica: 0 });
        mesh.happen(Event::Use);
        mesh
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Advance { replica, by } => {
                self.seen[replica] = (self.seen[replica] + by).min(self.history.len() - 1);
                let said_hello = self.session.deliveries > 0;
                if replica == self.session.replica && said_hello {
                    let delivery = self.session.catch_up(&self.history[self.seen[replica]], false);
                    self.to_sidecar.extend(delivery);
                }
            }
            Event::Deliver { order, twice } => {
                let Some(mut delivery) = self.to_sidecar.pop_front() else { return };
                for (i, to) in order.iter().enumerate() {
                    if i < delivery.resources.len() {
                        let to = to.index(delivery.resources.len());
                        delivery.resources.swap(i, to);
                    }
                }
                for _ in 0..=usize::from(twice) {
                    let changes = self.view.deliver(delivery.clone(), self.now);
                    self.say(changes);
                }
            }
            Event::Hear => {
                let Some(said) = self.to_controller.pop_front() else { return };
                let state = &self.history[self.seen[self.session.replica]];
                self.to_sidecar.extend(self.session.hear(said, state));
            }
            Event::Reconnect { replica } => {
                self.to_sidecar.clear();
                self.to_controller.clear();
                self.session = Session { replica, sent: BTreeMap::new(), interest: 0, deliveries: 0 };
                let (held, changes) = self.view.connect();
                self.to_controller.push_back(Said::Hello(held));
                self.say(changes);
            }
            Event::Use => {
                let changes = self.view.ask(address(WEB), self.now).unwrap();
                self.say(changes);
            }
            Event::Sweep => {
                self.now += Duration::from_secs(300);
                let changes = self.view.sweep(self.now);
                self.say(changes);
            }
        }
    }

    fn say(&mut self, changes: Changes) {
        assert!(changes.refusals.is_empty(), "{:?}", changes.refusals);
        if !changes.subscribe.is_empty() || !changes.unsubscribe.is_empty() {
            self.to_controller.push_back(Said::Interest(changes));
        }
    }

    /// The noise ends: the replica sees everything, and everything that is said arrives.
    fn calm_down(&mut self) {
        let replica = self.session.replica;
        // An address that was never answered may have left.
        self.happen(Event::Use);
        self.happen(Event::Advance { replica, by: self.history.len() });
        while !self.to_sidecar.is_empty() || !self.to_controller.is_empty() {
            self.happen(Event::Hear);
            self.happen(Event::Deliver { order: Vec::new(), twice: false });
        }
    }

    fn table_in_force(&self) -> Option<RouteTable> {
        match self.view.destination(address(WEB))? {
            Destination::Service(handle) => Some(handle.load().table().as_ref().clone()),
            other => panic!("{other:?}"),
        }
    }

    /// What the app would notice.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let in_force = self.table_in_force();
        prop_assert!(in_force.is_some() || !self.was_usable, "the address can't be used any more");
        self.was_usable |= in_force.is_some();
        for backend in in_force.iter().flat_map(RouteTable::backends) {
            let ready = self.view.clusters.get(backend).map_or(0, |cluster| cluster.ready());
            prop_assert!(ready > 0, "the table in force leads to {}, which has no endpoints", backend);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_app_never_notices_late_repeated_and_lagging_deliveries(
        history in history(),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut mesh = Mesh::new(history);
        for event in events {
            mesh.happen(event);
            mesh.check()?;
        }
        mesh.calm_down();
        mesh.check()?;
        let last = mesh.history[mesh.history.len() - 1].clone();
        prop_assert_eq!(mesh.table_in_force(), Some(last.table()));
        for (name, _) in &last.split {
            let backend = super::fixture::backend(name);
            let ready = mesh.view.clusters.get(&backend).map(|cluster| cluster.ready());
            prop_assert_eq!(ready, last.pods.get(name).map(Vec::len));
        }
        prop_assert_eq!(mesh.view.clusters.len(), last.split.len(), "what nothing leads to is gone");
    }

    /// Every resource alone, in any order, of any moment, any number of times: then nobody can promise that a backend
    /// has endpoints, but still no table is in force whose parts haven't arrived, and nothing usable is taken away.
    #[test]
    fn no_table_is_in_force_before_its_parts_whatever_comes_in_whatever_order(
        history in history(),
        chaos in prop::collection::vec((any::<Index>(), any::<Index>()), 1..80),
    ) {
        let mut view = view();
        view.connect();
        view.ask(address(WEB), Instant::now()).unwrap();
        let mut was_usable = false;
        for (state, which) in chaos {
            let state = state.get(&history);
            let mut keys = vec![Key::Address(address(WEB)), super::fixture::table_key("web")];
            keys.extend(SERVICES.map(|name| Key::EndpointSet(super::fixture::backend(name))));
            let resource = state.resource(which.get(&keys)).unwrap();
            let mut alone = delivery([resource]);
            alone.interest = 0;
            view.deliver(alone, Instant::now());

            let destination = view.destination(address(WEB));
            prop_assert!(destination.is_some() || !was_usable);
            was_usable |= destination.is_some();
            if let Some(Destination::Service(handle)) = destination {
                let service = handle.load();
                for backend in service.table().backends() {
                    prop_assert!(view.clusters.contains_key(backend) && view.sets.contains_key(backend));
                }
            }
        }
    }
}

/// Blue to green and back in one delivery each, while another thread looks: no moment in between shows a table with the
/// endpoints of another.
#[test]
fn a_delivery_is_applied_in_an_order_that_nobody_can_see_between() {
    let state = |to: &'static str, from: &'static str| {
        let pods = BTreeMap::from([(to, vec![1]), (from, Vec::new())]);
        // Both are named, so that both stay subscribed.
        State { split: vec![(to, 1), (from, 0)], pods }
    };
    let (blue, green) = (state("web-v0", "web-v1"), state("web-v1", "web-v0"));
    let resources = |state: &State| -> Vec<Resource> {
        let keys = ["web-v0", "web-v1"].map(|name| Key::EndpointSet(super::fixture::backend(name)));
        keys.iter().chain([&super::fixture::table_key("web")]).filter_map(|key| state.resource(key)).collect()
    };
    let mut view = view();
    view.connect();
    view.ask(address(WEB), Instant::now()).unwrap();
    view.deliver(delivery([leads_to(WEB, "web")]), Instant::now());
    view.deliver(delivery(resources(&blue)), Instant::now());
    let Some(Destination::Service(handle)) = view.destination(address(WEB)) else { panic!() };
    let clusters = view.clusters.clone();

    let done = Arc::new(AtomicBool::new(false));
    let app = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut flashes = 0;
            while !done.load(Ordering::Relaxed) {
                let service = handle.load_full();
                let to = service.table().tcp.backends.iter().find(|backend| backend.weight > 0).unwrap();
                let gamut_route::table::BackendTarget::Endpoints { id, .. } = &to.target else { panic!() };
                let is_empty = clusters[id].ready() == 0;
                // Whoever loaded a table just before it was replaced loads again.
                if is_empty && Arc::ptr_eq(&service, &handle.load_full()) {
                    flashes += 1;
                }
            }
            flashes
        }
    });
    for state in [&green, &blue].into_iter().cycle().take(4000) {
        view.deliver(delivery(resources(state)), Instant::now());
    }
    done.store(true, Ordering::Relaxed);
    assert_eq!(app.join().unwrap(), 0);
}
