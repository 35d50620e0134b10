//! One subscriber as the board sees it: what it was sent, what it holds, what it refused.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use gamut_controller_api::{Key, Version};
use tokio::sync::{mpsc, oneshot};

use super::{
    CutOff, Delivery, Who,
    status::{RefusedKey, SubscriberStatus},
};

/// How many deliveries wait for a subscriber before it counts as slow.
pub(super) const QUEUE: usize = 64;

pub(super) struct Subscriber {
    pub(super) who: Who,
    since: SystemTime,
    queue: mpsc::Sender<Delivery>,
    cut_off: Option<oneshot::Sender<CutOff>>,
    pub(super) keys: BTreeMap<Key, Sent>,
    /// Deliveries that weren't acknowledged, oldest first.
    in_flight: VecDeque<(u64, Vec<Key>)>,
    last_delivery: u64,
    /// The number of the last interest.
    pub(super) interest: u64,
}

/// What was sent of a key last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) version: Version,
    /// In which delivery; 0 for what it held when it came.
    delivery: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// On its way.
    Sent,
    /// It is held.
    Acknowledged,
    /// It can't be used; the one before it is.
    Refused(String),
}

impl Subscriber {
    pub(super) fn new(who: Who) -> (Self, mpsc::Receiver<Delivery>, oneshot::Receiver<CutOff>) {
        let (queue, deliveries) = mpsc::channel(QUEUE);
        let (cut_off, is_cut_off) = oneshot::channel();
        let subscriber = Self {
            who,
            since: SystemTime::now(),
            queue,
            cut_off: Some(cut_off),
            keys: BTreeMap::new(),
            in_flight: VecDeque::new(),
            last_delivery: 0,
            interest: 0,
        };
        (subscriber, deliveries, is_cut_off)
    }

    /// The number that the next delivery will have.
    pub(super) fn next_delivery(&self) -> u64 {
        self.last_delivery + 1
    }

    /// Notes that a version of a key is on its way in the next delivery.
    pub(super) fn sending(&mut self, key: Key, version: Version) {
        let delivery = self.next_delivery();
        self.keys.insert(key, Sent { version, delivery, state: State::Sent });
    }

    /// Notes that a version of a key was held from the start.
    pub(super) fn holds(&mut self, key: Key, version: Version) {
        self.keys.insert(key, Sent { version, delivery: 0, state: State::Acknowledged });
    }

    /// Queues a delivery; false when the subscriber is too slow, or gone.
    pub(super) fn deliver(&mut self, delivery: Delivery) -> bool {
        let keys = delivery.resources.iter().map(|packed| packed.key.clone()).collect();
        self.last_delivery = delivery.number;
        self.in_flight.push_back((delivery.number, keys));
        self.queue.try_send(delivery).is_ok()
    }

    pub(super) fn acknowledged(&mut self, delivery: u64) {
        let later = self.in_flight.partition_point(|(number, _)| *number <= delivery);
        for (number, keys) in self.in_flight.drain(..later) {
            for key in keys {
                match self.keys.get_mut(&key) {
                    Some(sent) if sent.delivery == number && sent.state == State::Sent => {
                        sent.state = State::Acknowledged;
                    }
                    // Refused, unsubscribed, or sent anew since.
                    _ => {}
                }
            }
        }
    }

    /// Notes a refusal; returns the version, or `None` when something newer is on its way already.
    pub(super) fn refused(&mut self, delivery: u64, key: &Key, reason: String) -> Option<Version> {
        let sent = self.keys.get_mut(key).filter(|sent| sent.delivery == delivery)?;
        sent.state = State::Refused(reason);
        Some(sent.version)
    }

    /// Tells it why it is ended.
    pub(super) fn cut_off(&mut self, reason: CutOff) {
        if let Some(cut_off) = self.cut_off.take() {
            // It may have gone by itself.
            let _ = cut_off.send(reason);
        }
    }

    /// How it stands with it. `waiting`: what is to be sent next.
    pub(super) fn status(&self, waiting: &[&Key]) -> SubscriberStatus {
        let mut behind: Vec<String> = waiting.iter().map(ToString::to_string).collect();
        let mut refused = Vec::new();
        for (key, sent) in &self.keys {
            match &sent.state {
                State::Acknowledged => {}
                State::Sent => behind.push(key.to_string()),
                State::Refused(reason) => {
                    refused.push(RefusedKey { key: key.to_string(), reason: reason.clone() });
                }
            }
        }
        SubscriberStatus {
            namespace: self.who.namespace.clone(),
            pod: self.who.pod.clone(),
            uid: self.who.uid,
            proxy_version: self.who.proxy_version.clone(),
            connected_since: jiff::Timestamp::try_from(self.since)
                .map_or(String::new(), |time| time.to_string()),
            keys: self.keys.len(),
            in_sync: behind.is_empty() && refused.is_empty(),
            behind,
            refused,
        }
    }
}
