//! What may be used, and when: a state machine without sockets and without a clock of its own.
//!
//! ```text
//! an address is used ──► Address ──► RouteTable ──► EndpointSets, SessionKeys      (each key leads to the next)
//! deliveries ──► held ──► in force: a table when everything that it names is here; all else at once
//! ```
//!
//! **Make before break.** A table that names something which hasn't arrived waits; the one before it stays in force, and
//! an address keeps leading where it led until the place that it leads to now can be used. A delivery is applied as
//! one: endpoints that it adds are there before its tables are, endpoints that it takes away go right after. Nothing
//! else delays a removal. A Service's endpoints may also come later than the Service: a table that newly leads to a backend
//! without any waits for them, but not for ever.
//!
//! **Refusals.** What can't be used is refused with a reason; the last good one stays in force and stays what we claim
//! to hold.
//!
//! How things come into force is in `activate`; what is wanted, and what leaves, in `interest`; what people are told, in `report`.

mod activate;
mod bridge;
#[cfg(test)]
mod fixture;
mod interest;
mod report;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use gamut_controller_api::{
    AddressAnswer, Body, EndpointSet, InboundPolicy, Key, Resource, SessionKeys, TrustBundle, Version,
};
use gamut_identity::Roots;
use gamut_route::{BackendId, RouteTable, ServicePort, Uid};

use super::{Destination, Entry, NoAnswer, Refusal, ServiceHandle};
use crate::{
    balance::{self, Cluster, PodTarget},
    telemetry::Telemetry,
};

/// How much a view holds, and how its endpoints are chosen among.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many addresses, those that aren't the mesh's included.
    pub addresses: usize,
    /// How long an address may go unused before it leaves.
    pub idle: Duration,
    /// How long a table that newly leads to a backend without endpoints waits for them, while the one that it replaces leads
    /// somewhere.
    pub make_before_break: Duration,
    /// What all clusters are told.
    pub balance: balance::Settings,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            addresses: 4096,
            idle: Duration::from_secs(600),
            make_before_break: Duration::from_secs(5),
            balance: balance::Settings::default(),
        }
    }
}

/// One delivery, opened.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Its number on the connection that brought it.
    pub number: u64,
    /// The number of the last interest that it takes into account.
    pub interest: u64,
    /// What could be opened.
    pub resources: Vec<Resource>,
    /// What couldn't, and why.
    pub unreadable: Vec<(Key, String)>,
    /// Addresses that will probably be used.
    pub suggested: Vec<SocketAddr>,
}

/// What the view wants done after an event.
#[derive(Default)]
pub struct Changes {
    /// The number of the interest that the next two make, unless both are empty.
    pub interest: u64,
    /// Tell the controller that we want these.
    pub subscribe: Vec<Key>,
    /// Tell the controller that we don't want these any more.
    pub unsubscribe: Vec<Key>,
    /// Tell the controller that these can't be used, and why. The number is that of the delivery that brought it.
    pub refusals: Vec<(u64, Key, String)>,
    /// Let traffic in as this says.
    pub policy: Option<Arc<InboundPolicy>>,
    /// Trust these.
    pub roots: Option<Roots>,
    /// Show the data path this map.
    pub(crate) addresses: Option<HashMap<SocketAddr, Entry>>,
}

/// Everything that the subscriber holds.
pub struct View {
    namespace: String,
    pod: Uid,
    limits: Limits,
    telemetry: Telemetry,

    addresses: HashMap<SocketAddr, Address>,
    tables: HashMap<ServicePort, Table>,
    sets: HashMap<BackendId, Arc<EndpointSet>>,
    clusters: HashMap<BackendId, Arc<Cluster>>,
    session_keys: HashMap<String, Arc<SessionKeys>>,

    /// What is held of each key: its newest good content.
    held: HashMap<Key, Held>,
    /// Why the newest content of a key can't be used.
    refused: HashMap<Key, String>,
    /// What the controller counts as subscribed, as far as we know.
    subscribed: HashSet<Key>,
    /// What we have unsubscribed, and with which interest. Kept until the controller has seen that: a table that it sent
    /// before may count on our having it.
    leaving: HashMap<Key, u64>,
    /// The number of the last interest on this connection.
    interest: u64,
    /// True once a delivery has come.
    greeted: bool,
}

#[derive(Clone, Copy)]
struct Held {
    version: Version,
    since: Instant,
    delivery: u64,
}

struct Address {
    /// What the controller says that it is.
    answer: Option<AddressAnswer>,
    /// Where connections go: the newest answer that could be used.
    leads_to: Option<LeadsTo>,
    /// Set by the data path.
    used: Arc<AtomicBool>,
    last_used: Instant,
}

enum LeadsTo {
    Service(ServicePort),
    Pod(Arc<PodTarget>),
    NotOurs,
}

#[derive(Default)]
struct Table {
    /// What connections hold; there is one from the first activation on.
    handle: Option<ServiceHandle>,
    /// How many entries of the newest published map hold the handle.
    shown: usize,
    active: Option<(Arc<RouteTable>, Held)>,
    /// Waits for what it names.
    pending: Option<Arc<RouteTable>>,
    /// When what is pending comes into force though it leads to a backend without endpoints. Set when the first one is found
    /// to do so, and not put off by those that follow it.
    due: Option<Instant>,
}

impl View {
    /// A view that holds nothing and wants what every sidecar wants.
    pub fn new(namespace: String, pod: Uid, limits: Limits, telemetry: Telemetry) -> Self {
        Self {
            namespace,
            pod,
            limits,
            telemetry,
            addresses: HashMap::new(),
            tables: HashMap::new(),
            sets: HashMap::new(),
            clusters: HashMap::new(),
            session_keys: HashMap::new(),
            held: HashMap::new(),
            refused: HashMap::new(),
            subscribed: HashSet::new(),
            leaving: HashMap::new(),
            interest: 0,
            greeted: false,
        }
    }

    /// A connection begins: what we hold, for its Hello, and what we want besides.
    pub fn connect(&mut self) -> (Vec<(Key, Version)>, Changes) {
        // Deliveries and interests are counted anew; what is held from before has the number 0.
        self.held.values_mut().for_each(|held| held.delivery = 0);
        self.leaving.clear();
        self.interest = 0;
        let wanted = self.wanted();
        let held = wanted.iter().filter_map(|key| Some((key.clone(), self.held.get(key)?.version))).collect();
        self.subscribed = wanted.into_iter().filter(|key| self.held.contains_key(key)).collect();
        let mut changes = Changes::default();
        self.settle(&mut changes);
        (held, changes)
    }

    /// An address is used for the first time.
    ///
    /// # Errors
    /// When there are too many in use.
    pub fn ask(&mut self, address: SocketAddr, now: Instant) -> Result<Changes, NoAnswer> {
        let mut changes = Changes::default();
        if let Some(known) = self.addresses.get_mut(&address) {
            known.last_used = now;
            return Ok(changes);
        }
        if self.addresses.len() >= self.limits.addresses && !self.make_room(now) {
            return Err(NoAnswer::TooMany { address, limit: self.limits.addresses });
        }
        self.addresses.insert(address, Address::unanswered(now));
        self.settle(&mut changes);
        Ok(changes)
    }

    /// A delivery arrives.
    pub fn deliver(&mut self, delivery: Delivery, now: Instant) -> Changes {
        let mut changes = Changes::default();
        let number = delivery.number;
        // Endpoints of what we have anyway change neither where addresses lead nor what is wanted.
        let mut unsettled =
            !self.greeted || !delivery.suggested.is_empty() || !delivery.unreadable.is_empty();
        self.greeted = true;
        let leaving = self.leaving.len();
        self.leaving.retain(|_, interest| *interest > delivery.interest);
        unsettled |= self.leaving.len() < leaving;
        self.suggest(&delivery.suggested, now);
        for (key, reason) in delivery.unreadable {
            self.subscribed.insert(key.clone());
            self.refuse(key, reason, number, &mut changes);
        }

        let mut sets = Vec::new();
        let mut rekeyed = Vec::new();
        for Resource { key, version, body } in delivery.resources {
            let unasked = !self.leaving.contains_key(&key) && self.subscribed.insert(key.clone());
            unsettled |= unasked || !matches!(body, Body::EndpointSet(_));
            if self.has(&key, version) {
                continue;
            }
            let held = Held { version, since: now, delivery: number };
            match body {
                Body::EndpointSet(set) => {
                    sets.push(set);
                    self.hold(key, held);
                }
                Body::SessionKeys(keys) => rekeyed.push((key, held, keys)),
                Body::RouteTable(table) => {
                    let known = self.tables.entry(table.parent.clone()).or_default();
                    known.pending = Some(table);
                    self.hold(key, held);
                }
                Body::Address(answer) => {
                    self.answer(&key, answer);
                    self.hold(key, held);
                }
                Body::InboundPolicy(policy) => {
                    changes.policy = Some(policy);
                    self.hold(key, held);
                }
                Body::TrustBundle(bundle) => match roots(&bundle) {
                    Ok(roots) => {
                        changes.roots = Some(roots);
                        self.hold(key, held);
                    }
                    Err(Refusal(reason)) => self.refuse(key, reason, number, &mut changes),
                },
            }
        }

        // The order that this whole module is about.
        let removals: Vec<Arc<EndpointSet>> =
            sets.into_iter().filter_map(|set| self.add_endpoints(set)).collect();
        self.rekey(rekeyed, &mut changes);
        self.activate(now, &mut changes);
        removals.iter().for_each(|set| self.cluster(&set.id).update(set));
        if unsettled {
            self.settle(&mut changes);
        }
        changes
    }

    /// When [`View::tick`] is to be called at the latest: a table has waited for endpoints for long enough then.
    pub fn due(&self) -> Option<Instant> {
        self.tables.values().filter_map(|table| table.due).min()
    }

    /// Time has passed: what has waited for endpoints for long enough comes into force without them.
    pub fn tick(&mut self, now: Instant) -> Changes {
        let mut changes = Changes::default();
        self.activate(now, &mut changes);
        self.settle(&mut changes);
        changes
    }

    /// Where an address leads now.
    pub fn destination(&self, address: SocketAddr) -> Option<Destination> {
        self.destination_of(self.addresses.get(&address)?.leads_to.as_ref()?)
    }

    // ---- Taking in

    /// Whether this is what we have already.
    fn has(&self, key: &Key, version: Version) -> bool {
        self.held.get(key).is_some_and(|held| held.version == version) && !self.refused.contains_key(key)
    }

    fn hold(&mut self, key: Key, held: Held) {
        self.refused.remove(&key);
        self.held.insert(key, held);
    }

    fn refuse(&mut self, key: Key, reason: String, delivery: u64, changes: &mut Changes) {
        changes.refusals.push((delivery, key.clone(), reason.clone()));
        self.refused.insert(key, reason);
    }

    fn suggest(&mut self, suggested: &[SocketAddr], now: Instant) {
        for address in suggested {
            if self.addresses.len() < self.limits.addresses {
                self.addresses.entry(*address).or_insert_with(|| Address::unanswered(now));
            }
        }
    }

    fn answer(&mut self, key: &Key, answer: AddressAnswer) {
        let Key::Address(address) = key else { return };
        // One that isn't there any more has just left; `settle` unsubscribes it.
        let Some(known) = self.addresses.get_mut(address) else { return };
        match &answer {
            AddressAnswer::NotOurs => known.leads_to = Some(LeadsTo::NotOurs),
            AddressAnswer::Pod(endpoint) => known.leads_to = Some(LeadsTo::Pod(PodTarget::new(endpoint))),
            // `settle` leads it there when there is a table to be used.
            AddressAnswer::Service(_) => {}
        }
        known.answer = Some(answer);
    }
}

impl Address {
    fn unanswered(now: Instant) -> Self {
        Self { answer: None, leads_to: None, used: Arc::default(), last_used: now }
    }
}

fn roots(bundle: &TrustBundle) -> Result<Roots, Refusal> {
    Roots::new(bundle.roots.iter().cloned()).map_err(|error| Refusal(error.to_string()))
}
