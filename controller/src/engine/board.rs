//! Who subscribes to what: changes in, deliveries out. Without clocks, tasks or sockets.
//!
//! Each subscribed key is compiled once per change, whoever many subscribe to it, and its wire form is shared.
//!
//! A subscription leads to others: with an address goes the table of its Service, with a table go the endpoints and
//! session keys that it names, all in one delivery. So a sidecar that applies a delivery as one never has half of what a
//! change needs, and a first use costs one round trip. The sidecar remains the one who decides: what it doesn't want it
//! unsubscribes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use gamut_controller_api::{
    AddressAnswer, Body, Key, Packed, Version,
    wire::{MAX_BODY, MAX_KEYS},
};
use tracing::{debug, warn};

use super::{CutOff, Subscribed, SubscriberId, Who, status::SubscriberStatus, subscriber::Subscriber};
use crate::index::{Index, Topic};

/// What a subscriber is sent at once, and is to apply as one.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Counted from 1 on each connection.
    pub number: u64,
    /// The number of the last interest that it takes into account.
    pub interest: u64,
    /// The resources.
    pub resources: Vec<Arc<Packed>>,
    /// Addresses that it will probably use.
    pub suggested: Vec<SocketAddr>,
}

/// What a subscriber wants from now on, and what it doesn't want any more.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// Counted from 1 on each connection.
    pub number: u64,
    /// Keys that it may read.
    pub subscribe: Vec<Key>,
    /// Keys that it does without.
    pub unsubscribe: Vec<Key>,
}

/// How many subscribers are sent a change at once. A Service that everybody uses changes for thousands, and a change for
/// twenty that comes a moment later must not wait for all of them.
const AT_ONCE: usize = 64;

/// All subscribers and all that they subscribe to.
#[derive(Default)]
pub(super) struct Board {
    subscribers: BTreeMap<SubscriberId, Subscriber>,
    posted: HashMap<Key, Posted>,
    by_topic: HashMap<Topic, BTreeSet<Key>>,
    /// Who is still to be sent a change, in the order of coming, and what: its newest content then.
    waiting: VecDeque<(SubscriberId, Vec<Key>)>,
    last_id: u64,
}

/// A key that somebody subscribes to.
struct Posted {
    packed: Arc<Packed>,
    leads_to: Vec<Leads>,
    subscribers: BTreeSet<SubscriberId>,
    refusal_logged: bool,
}

/// Where a resource leads whoever gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leads {
    /// To the route table for the subscriber's namespace.
    Table(gamut_route::ServicePort),
    /// To the endpoints of a backend.
    Endpoints(gamut_route::BackendId),
    /// To the keys of a session scope.
    Sessions(String),
}

/// What one subscriber is about to be sent.
#[derive(Default)]
struct Draft(Vec<Arc<Packed>>);

impl Board {
    /// Adds a subscriber and sends it what differs from what it holds.
    pub(super) fn join(
        &mut self,
        index: &Index,
        who: Who,
        held: HashMap<Key, Version>,
        suggested: Vec<SocketAddr>,
    ) -> Subscribed {
        self.last_id += 1;
        let id = SubscriberId(self.last_id);
        debug!(namespace = who.namespace, pod = who.pod, held = held.len(), "a sidecar subscribes");
        let (subscriber, deliveries, cut_off) = Subscriber::new(who);
        self.subscribers.insert(id, subscriber);
        let mut draft = Draft::default();
        let keys = held.keys().cloned().collect();
        self.follow(index, id, keys, &held, &mut draft);
        // Sent even when it is empty: it says that we are here and that nothing has changed.
        self.send(id, draft, suggested, true);
        Subscribed { id, deliveries, cut_off }
    }

    /// Takes in what a subscriber wants and doesn't want.
    pub(super) fn interest(&mut self, index: &Index, id: SubscriberId, interest: Interest) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.interest = interest.number;
        for key in &interest.unsubscribe {
            self.unsubscribe(id, key);
        }
        let mut draft = Draft::default();
        self.follow(index, id, interest.subscribe, &HashMap::new(), &mut draft);
        // An unsubscription is confirmed even where there is nothing to send.
        self.send(id, draft, Vec::new(), !interest.unsubscribe.is_empty());
    }

    /// After a change: compiles what is subscribed of these topics and sends what has become other, to many subscribers only
    /// in part: [`Board::send_more`] goes on with that.
    pub(super) fn refresh(&mut self, index: &Index, topics: &BTreeSet<Topic>) {
        let mut changed: BTreeMap<SubscriberId, Vec<Key>> = BTreeMap::new();
        let keys: Vec<Key> =
            topics.iter().filter_map(|topic| self.by_topic.get(topic)).flatten().cloned().collect();
        for key in keys {
            let Some(posted) = self.posted.get_mut(&key) else { continue };
            let body = index.body(&key);
            let packed = Packed::new(key.clone(), &body);
            if packed.version == posted.packed.version {
                continue;
            }
            posted.packed = Arc::new(packed);
            posted.leads_to = leads_to(&body);
            posted.refusal_logged = false;
            for id in &posted.subscribers {
                changed.entry(*id).or_default().push(key.clone());
            }
        }
        // A narrow change overtakes what is left of a wide one; who is concerned by both gets the newest of both.
        let wide = changed.len() > AT_ONCE;
        for (id, keys) in changed {
            match wide {
                true => self.waiting.push_back((id, keys)),
                false => self.send_changed(index, id, &keys),
            }
        }
        if wide {
            self.send_more(index);
        }
    }

    /// Whether somebody is still to be sent a change.
    pub(super) fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a change to some more of those who wait for it.
    pub(super) fn send_more(&mut self, index: &Index) {
        for _ in 0..AT_ONCE {
            let Some((id, keys)) = self.waiting.pop_front() else { return };
            self.send_changed(index, id, &keys);
        }
    }

    /// Sends a subscriber what it doesn't have of these keys, as they are now, and all that they lead to.
    fn send_changed(&mut self, index: &Index, id: SubscriberId, keys: &[Key]) {
        let mut draft = Draft::default();
        for key in keys.iter().filter(|key| self.lacks(id, key)).cloned().collect::<Vec<_>>() {
            self.put(id, &key, &mut draft);
        }
        let next = draft.0.iter().flat_map(|packed| self.next(id, &packed.key)).collect();
        self.follow(index, id, next, &HashMap::new(), &mut draft);
        self.send(id, draft, Vec::new(), false);
    }

    /// Whether a subscriber still wants a key and was sent another version of it last.
    fn lacks(&self, id: SubscriberId, key: &Key) -> bool {
        let sent = self.subscribers.get(&id).and_then(|subscriber| subscriber.keys.get(key));
        let newest = self.posted.get(key).map(|posted| posted.packed.version);
        sent.is_some_and(|sent| Some(sent.version) != newest)
    }

    /// A subscriber holds a delivery and those before it.
    pub(super) fn acknowledged(&mut self, id: SubscriberId, delivery: u64) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            subscriber.acknowledged(delivery);
        }
    }

    /// A subscriber can't use something. Logged once for each version, however many say it.
    pub(super) fn refused(&mut self, id: SubscriberId, delivery: u64, key: &Key, reason: String) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let Some(version) = subscriber.refused(delivery, key, reason.clone()) else { return };
        if let Some(posted) = self.posted.get_mut(key).filter(|posted| posted.packed.version == version)
            && !std::mem::replace(&mut posted.refusal_logged, true)
        {
            let Who { namespace, pod, proxy_version, .. } = &subscriber.who;
            warn!(%version, proxy_version, "{key} was refused by {namespace}/{pod}: {reason}");
        }
    }

    /// A subscriber has gone.
    pub(super) fn leave(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.remove(&id) else { return };
        for key in subscriber.keys.keys() {
            self.forget(id, key);
        }
    }

    /// Ends every subscription.
    pub(super) fn cut_off_all(&mut self) {
        for id in self.subscribers.keys().copied().collect::<Vec<_>>() {
            self.cut_off(id, CutOff::ShuttingDown);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.posted.is_empty() && self.by_topic.is_empty()
    }

    pub(super) fn status(&self) -> Vec<SubscriberStatus> {
        let mut waiting: BTreeMap<SubscriberId, Vec<&Key>> = BTreeMap::new();
        for (id, keys) in &self.waiting {
            waiting.entry(*id).or_default().extend(keys.iter().filter(|key| self.lacks(*id, key)));
        }
        let of = |(id, subscriber): (&SubscriberId, &Subscriber)| {
            subscriber.status(waiting.get(id).map(Vec::as_slice).unwrap_or_default())
        };
        self.subscribers.iter().map(of).collect()
    }

    // ---- Subscribing

    /// Subscribes to keys and all that they lead to, and drafts those that aren't held.
    fn follow(
        &mut self,
        index: &Index,
        id: SubscriberId,
        mut keys: Vec<Key>,
        held: &HashMap<Key, Version>,
        draft: &mut Draft,
    ) {
        // Session keys are for those who have a table that names them: tables first.
        keys.sort_unstable();
        let mut keys = VecDeque::from(keys);
        while let Some(key) = keys.pop_front() {
            if !self.subscribe(index, id, &key) {
                continue;
            }
            let next = self.next(id, &key);
            match (self.posted.get(&key), held.get(&key), self.subscribers.get_mut(&id)) {
                (Some(posted), Some(version), Some(subscriber)) if posted.packed.version == *version => {
                    subscriber.holds(key, *version);
                }
                _ => self.put(id, &key, draft),
            }
            keys.extend(next);
        }
    }

    /// Enters a subscription; false when there is nothing to do, because it is there already or isn't allowed.
    fn subscribe(&mut self, index: &Index, id: SubscriberId, key: &Key) -> bool {
        let Some(subscriber) = self.subscribers.get(&id) else { return false };
        if subscriber.keys.contains_key(key) {
            return false;
        }
        if subscriber.keys.len() >= MAX_KEYS {
            self.cut_off(id, CutOff::TooManyKeys(MAX_KEYS));
            return false;
        }
        if let Key::SessionKeys { scope, .. } = key
            && !self.names_scope(subscriber, scope)
        {
            // Not an error: the table may have changed while the sidecar was on its way.
            debug!(
                "{key} isn't sent to {}/{}: no table of its names it",
                subscriber.who.namespace, subscriber.who.pod
            );
            return false;
        }
        let posted = self.posted.entry(key.clone()).or_insert_with(|| {
            self.by_topic.entry(Index::topic(key)).or_default().insert(key.clone());
            let body = index.body(key);
            Posted {
                packed: Arc::new(Packed::new(key.clone(), &body)),
                leads_to: leads_to(&body),
                subscribers: BTreeSet::new(),
                refusal_logged: false,
            }
        });
        posted.subscribers.insert(id);
        true
    }

    /// Whether a table that the subscriber gets names the scope.
    fn names_scope(&self, subscriber: &Subscriber, scope: &str) -> bool {
        let tables = subscriber.keys.keys().filter(|key| matches!(key, Key::RouteTable { .. }));
        let names = |posted: &Posted| {
            posted.leads_to.iter().any(|next| matches!(next, Leads::Sessions(named) if named == scope))
        };
        tables.filter_map(|key| self.posted.get(key)).any(names)
    }

    /// The keys that a key leads this subscriber to.
    fn next(&self, id: SubscriberId, key: &Key) -> Vec<Key> {
        let (Some(subscriber), Some(posted)) = (self.subscribers.get(&id), self.posted.get(key)) else {
            return Vec::new();
        };
        let client_namespace = || subscriber.who.namespace.clone();
        let key_of = |leads: &Leads| match leads.clone() {
            Leads::Table(service) => Key::RouteTable { client_namespace: client_namespace(), service },
            Leads::Endpoints(id) => Key::EndpointSet(id),
            Leads::Sessions(scope) => Key::SessionKeys { client_namespace: client_namespace(), scope },
        };
        posted.leads_to.iter().map(key_of).collect()
    }

    fn unsubscribe(&mut self, id: SubscriberId, key: &Key) {
        if let Some(subscriber) = self.subscribers.get_mut(&id)
            && subscriber.keys.remove(key).is_some()
        {
            self.forget(id, key);
        }
    }

    /// Takes a subscriber off a key; what nobody subscribes to is kept no longer.
    fn forget(&mut self, id: SubscriberId, key: &Key) {
        let Some(posted) = self.posted.get_mut(key) else { return };
        posted.subscribers.remove(&id);
        if !posted.subscribers.is_empty() {
            return;
        }
        self.posted.remove(key);
        let topic = Index::topic(key);
        if let Some(keys) = self.by_topic.get_mut(&topic) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_topic.remove(&topic);
            }
        }
    }

    // ---- Sending

    /// Puts the newest content of a key into a draft.
    fn put(&mut self, id: SubscriberId, key: &Key, draft: &mut Draft) {
        let (Some(posted), Some(subscriber)) = (self.posted.get(key), self.subscribers.get_mut(&id)) else {
            return;
        };
        let packed = &posted.packed;
        subscriber.sending(key.clone(), packed.version);
        if packed.wire.body.len() > MAX_BODY {
            let reason = format!("it has {} bytes; at most {MAX_BODY} can be sent", packed.wire.body.len());
            warn!("{key} isn't sent: {reason}");
            subscriber.refused(subscriber.next_delivery(), key, reason);
            return;
        }
        draft.0.push(packed.clone());
    }

    fn send(&mut self, id: SubscriberId, draft: Draft, suggested: Vec<SocketAddr>, even_if_empty: bool) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let Draft(resources) = draft;
        if resources.is_empty() && !even_if_empty {
            return;
        }
        let (number, interest) = (subscriber.next_delivery(), subscriber.interest);
        if !subscriber.deliver(Delivery { number, interest, resources, suggested }) {
            self.cut_off(id, CutOff::Slow);
        }
    }

    fn cut_off(&mut self, id: SubscriberId, reason: CutOff) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            warn!("{}/{} is cut off: {reason}", subscriber.who.namespace, subscriber.who.pod);
            subscriber.cut_off(reason);
        }
        self.leave(id);
    }
}

/// Where a body leads.
fn leads_to(body: &Body) -> Vec<Leads> {
    match body {
        Body::Address(AddressAnswer::Service(service)) => vec![Leads::Table(service.clone())],
        Body::RouteTable(table) => {
            let endpoints = table.backends().into_iter().cloned().map(Leads::Endpoints);
            endpoints
                .chain(table.scopes().into_iter().map(|scope| Leads::Sessions(scope.to_owned())))
                .collect()
        }
        _ => Vec::new(),
    }
}
