//! A mesh without sockets: a world that changes, controllers that lag behind it, a connection that delays, repeats and
//! breaks, and one sidecar's view, whose app must never notice.
//!
//! In every state of the world the table for `web` names only backends that have endpoints, or (in a hasty one) that have
//! some in the next. So whatever the sidecar is
//! told, how late and by whom, its table in force must never lead to a backend without endpoints, and an address that
//! could be used must stay usable. When the noise ends it must have what the world has.

mod session;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gamut_controller_api::{Key, Resource};
use gamut_route::{RouteTable, table::BackendTarget};
use proptest::{prelude::*, sample::Index};

use self::{
    session::{Said, Session},
    world::{SERVICES, State, WEB, hasty_history, history},
};
use super::{
    Changes, Delivery, View,
    fixture::{address, backend, delivery, leads_to, table_key, view},
};
use crate::tables::Destination;

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
        self.all_arrives();
    }

    /// Everything that is said arrives.
    fn all_arrives(&mut self) {
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
            let ready = mesh.view.clusters.get(&backend(name)).map(|cluster| cluster.ready());
            prop_assert_eq!(ready, last.pods.get(name).map(Vec::len));
        }
        prop_assert_eq!(mesh.view.clusters.len(), last.split.len(), "what nothing leads to is gone");
    }

    /// The same where the route is shifted to Services that were made in the same moment, whose endpoints come later than
    /// they do. (From one replica: another that lags behind may say of any Service that it has no endpoints yet.)
    #[test]
    fn a_shift_to_a_service_that_gets_its_endpoints_in_time_never_leads_nowhere(
        history in hasty_history(),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut mesh = Mesh::new(history);
        // A first table waits for nobody: this one leads somewhere.
        mesh.all_arrives();
        for event in events {
            match event {
                Event::Advance { by, .. } => mesh.happen(Event::Advance { replica: 0, by }),
                Event::Reconnect { .. } => mesh.happen(Event::Reconnect { replica: 0 }),
                // No minutes pass: the endpoints are in time.
                Event::Sweep => {}
                event => mesh.happen(event),
            }
            mesh.check()?;
        }
        mesh.calm_down();
        mesh.check()?;
        prop_assert_eq!(mesh.table_in_force(), Some(mesh.history[mesh.history.len() - 1].table()));
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
            let mut keys = vec![Key::Address(address(WEB)), table_key("web")];
            keys.extend(SERVICES.map(|name| Key::EndpointSet(backend(name))));
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
        let keys = ["web-v0", "web-v1"].map(|name| Key::EndpointSet(backend(name)));
        keys.iter().chain([&table_key("web")]).filter_map(|key| state.resource(key)).collect()
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
                let BackendTarget::Endpoints { id, .. } = &to.target else { panic!() };
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
