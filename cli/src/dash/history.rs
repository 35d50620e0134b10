//! The last ten minutes of what all sidecars counted: answers in, increases out.
//!
//! ```text
//! every sidecar's counters ─ observe ─► last, by pod ─ what has come since ─► steps, a ring ─ sums over a window ─► figures
//! ```
//!
//! A sidecar's first answer is where its counting begins. One that doesn't answer is waited for: what it counted meanwhile comes
//! with its next answer. A pod that is gone is forgotten; what it did stays until it leaves the ring.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::figures::Count;

/// How far back the plots go.
pub(super) const KEPT: Duration = Duration::from_secs(10 * 60);
/// What the figures beside the plots are of.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// Which requests are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// `httproute/shop/web`; empty where the Service has no routes.
    pub(super) route: String,
    /// The rule's name or index.
    pub(super) rule: String,
    /// The Service and port that the app addressed: `shop/web:80`.
    pub(super) parent: String,
    /// `service/shop/web-v1:80`; empty for what the sidecar answered by itself.
    pub(super) backend: String,
}

/// What one pod's sidecar said.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The pod's UID.
    pub(super) uid: String,
    /// `namespace/name`.
    pub(super) pod: Arc<str>,
    /// Its counters; `None` if it didn't answer.
    pub(super) counted: Option<Vec<(Key, Count)>>,
}

pub(super) type Counts = HashMap<Arc<Key>, Count>;

/// The split of each rule as it was set: by route and rule, each backend's share in percent.
pub(super) type Splits = HashMap<(String, String), Vec<(String, f64)>>;

/// What came between two rounds of answers.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// When it ended.
    pub(super) time: Timestamp,
    at: Instant,
    /// How long it was; 0 for the first.
    pub(super) seconds: f64,
    /// What was counted. What didn't change isn't here.
    pub(super) counted: Counts,
    /// The same by pod, as long as the step is in the [`WINDOW`].
    pub(super) by_pod: HashMap<Arc<str>, Counts>,
    /// The splits as they were set at its end.
    pub(super) set: Arc<Splits>,
}

/// The ring, and what the next answers are compared with.
#[derive(Debug, Default)]
pub(super) struct History {
    last: HashMap<String, Counts>,
    steps: VecDeque<Step>,
}

impl History {
    /// Takes a round of answers, of all pods that there are, at a moment later than the last.
    pub(super) fn observe(&mut self, at: Instant, time: Timestamp, answers: Vec<Answer>, set: Splits) {
        let present: HashSet<&str> = answers.iter().map(|answer| answer.uid.as_str()).collect();
        self.last.retain(|uid, _| present.contains(uid.as_str()));
        let mut by_pod: HashMap<Arc<str>, Counts> = HashMap::new();
        for Answer { uid, pod, counted } in answers {
            let Some(counted) = counted else { continue };
            let increase = self.increase(uid, counted);
            if !increase.is_empty() {
                by_pod.insert(pod, increase);
            }
        }
        let mut counted = Counts::new();
        for (key, count) in by_pod.values().flatten() {
            counted.entry(key.clone()).or_default().add(count);
        }
        let seconds = self.steps.back().map_or(0.0, |last| (at - last.at).as_secs_f64());
        let set = match self.steps.back() {
            Some(last) if *last.set == set => last.set.clone(),
            _ => Arc::new(set),
        };
        self.steps.push_back(Step { time, at, seconds, counted, by_pod, set });
        while self.steps.front().is_some_and(|step| at - step.at > KEPT) {
            self.steps.pop_front();
        }
        for step in self.steps.iter_mut().rev().skip_while(|step| at - step.at < WINDOW) {
            step.by_pod = HashMap::new();
        }
    }

    /// What a pod has counted since its last answer; nothing with its first.
    fn increase(&mut self, uid: String, counted: Vec<(Key, Count)>) -> Counts {
        let before = self.last.remove(&uid);
        let counted: Counts =
            counted.into_iter().map(|(key, count)| (known(before.as_ref(), key), count)).collect();
        let mut increase = Counts::new();
        if let Some(before) = before {
            for (key, count) in &counted {
                // One that is new to a sidecar which answered before has counted from zero since.
                let since = before.get(key).map_or_else(|| count.clone(), |before| count.since(before));
                if !since.is_zero() {
                    increase.insert(key.clone(), since);
                }
            }
        }
        self.last.insert(uid, counted);
        increase
    }

    /// All that is kept, the oldest first.
    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.steps.iter()
    }

    /// The newest steps, as many as make a window: the newest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = &Step> {
        let newest = self.steps.back().map(|step| step.at);
        self.steps.iter().rev().take_while(move |step| newest.is_some_and(|newest| newest - step.at < WINDOW))
    }

    /// How long the window is: less than [`WINDOW`] in the beginning.
    pub(super) fn recent_seconds(&self) -> f64 {
        self.recent().map(|step| step.seconds).sum()
    }

    /// What was counted in the window, under the keys that are meant, by what `of` makes of them.
    pub(super) fn recently<K: Eq + std::hash::Hash>(
        &self,
        of: impl Fn(&Key) -> Option<K>,
    ) -> HashMap<K, Count> {
        let mut sums: HashMap<K, Count> = HashMap::new();
        for (key, count) in self.recent().flat_map(|step| &step.counted) {
            if let Some(key) = of(key) {
                sums.entry(key).or_default().add(count);
            }
        }
        sums
    }
}

impl Key {
    /// The Service that the app addressed, without its port: `shop/web`.
    pub(super) fn service(&self) -> &str {
        without_port(&self.parent)
    }

    /// The Service that the requests were sent to: `shop/web-v1`. None for XBackends and for what sidecars answered by themselves.
    pub(super) fn receiver(&self) -> Option<&str> {
        self.backend.strip_prefix("service/").map(without_port)
    }
}

fn without_port(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(service, _)| service)
}

/// The key as it is held already, so that ten minutes hold each but once.
fn known(before: Option<&Counts>, key: Key) -> Arc<Key> {
    let held = before.and_then(|before| before.get_key_value(&key));
    held.map_or_else(|| Arc::new(key), |(held, _)| held.clone())
}

#[cfg(test)]
mod tests;
