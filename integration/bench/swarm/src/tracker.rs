//! Who knows which change since when.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// Counts what subscribers receive, and times changes until the last one who is concerned has them.
#[derive(Default)]
pub(crate) struct Tracker {
    /// How many subscribe to each Service's endpoints.
    audience: HashMap<usize, usize>,
    /// The newest change of a Service that a subscriber has.
    known: HashMap<(usize, usize), u64>,
    /// Changes of a Service that somebody lacks, oldest first.
    pending: HashMap<usize, VecDeque<Pending>>,
    latencies: Vec<Duration>,
    messages: u64,
    bytes: u64,
    loaded: usize,
}

struct Pending {
    change: u64,
    made: Instant,
    missing: usize,
}

/// What was received since the last time that somebody asked.
pub(crate) struct Received {
    /// From a change to the last who has it; sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Messages of all subscribers.
    pub(crate) messages: u64,
    /// Their bytes, without framing and TLS.
    pub(crate) bytes: u64,
}

impl Tracker {
    /// A change is about to be made.
    pub(crate) fn change(&mut self, service: usize, change: u64) {
        let missing = self.audience.get(&service).copied().unwrap_or(0);
        if missing > 0 {
            let pending = Pending { change, made: Instant::now(), missing };
            self.pending.entry(service).or_default().push_back(pending);
        }
    }

    /// A subscriber has a Service's endpoints as of a change. A newer one stands for all before it.
    pub(crate) fn seen(&mut self, subscriber: usize, service: usize, change: u64) {
        let before = match self.known.insert((subscriber, service), change) {
            Some(before) => before,
            None => {
                *self.audience.entry(service).or_default() += 1;
                return;
            }
        };
        let Some(pending) = self.pending.get_mut(&service) else { return };
        for waiting in
            pending.iter_mut().filter(|waiting| before < waiting.change && waiting.change <= change)
        {
            waiting.missing = waiting.missing.saturating_sub(1);
            if waiting.missing == 0 {
                self.latencies.push(waiting.made.elapsed());
            }
        }
        pending.retain(|waiting| waiting.missing > 0);
    }

    /// A message has come.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// A subscriber has all that it wanted when it connected.
    pub(crate) fn loaded(&mut self) {
        self.loaded += 1;
    }

    /// How many have.
    pub(crate) fn all_loaded(&self) -> usize {
        self.loaded
    }

    /// How many changes somebody lacks.
    pub(crate) fn missing(&self) -> usize {
        self.pending.values().map(VecDeque::len).sum()
    }

    /// Begins to count anew, and gives what was counted.
    pub(crate) fn take(&mut self) -> Received {
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        self.loaded = 0;
        Received {
            latencies,
            messages: std::mem::take(&mut self.messages),
            bytes: std::mem::take(&mut self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_over_when_the_last_one_has_it_or_something_newer() {
        let mut tracker = Tracker::default();
        tracker.seen(0, 7, 0);
        tracker.seen(1, 7, 0);
        tracker.change(7, 1);
        tracker.change(7, 2);
        tracker.seen(0, 7, 2);
        assert_eq!(tracker.missing(), 2, "one of two has both");
        tracker.seen(1, 7, 1);
        assert_eq!(tracker.missing(), 1);
        tracker.seen(1, 7, 2);
        assert_eq!((tracker.take().latencies.len(), tracker.missing()), (2, 0));
    }

    #[test]
    fn what_nobody_subscribes_to_is_waited_for_by_nobody() {
        let mut tracker = Tracker::default();
        tracker.change(7, 1);
        assert_eq!(tracker.missing(), 0);
    }
}
