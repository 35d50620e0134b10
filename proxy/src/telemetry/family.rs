//! A few counters told apart by labels that become known only while requests are answered: a backend's workloads, the
//! callers of a port. Reading is a short scan without a lock; only a label's first use takes one.

use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::lock;

/// Counters by labels `K`, at most `limit` of them; the rest share one.
pub(super) struct Family<K, V> {
    known: ArcSwap<Vec<Arc<(K, V)>>>,
    other: (K, V),
    make: fn(&K) -> V,
    limit: usize,
    adding: Mutex<()>,
}

impl<K, V> Family<K, V> {
    /// An empty family. `other` labels what comes beyond the limit.
    pub(super) fn new(limit: usize, other: K, make: fn(&K) -> V) -> Self {
        let counters = make(&other);
        let other = (other, counters);
        Self { known: ArcSwap::default(), other, make, limit, adding: Mutex::new(()) }
    }

    /// Uses the counters whose labels `is` recognises; `labels` makes them on first use.
    pub(super) fn with<R>(
        &self,
        is: impl Fn(&K) -> bool,
        labels: impl FnOnce() -> K,
        then: impl FnOnce(&V) -> R,
    ) -> R {
        if let Some(entry) = self.known.load().iter().find(|entry| is(&entry.0)) {
            return then(&entry.1);
        }
        let adding = lock(&self.adding);
        let known = self.known.load_full();
        // Another thread may have been faster.
        if let Some(entry) = known.iter().find(|entry| is(&entry.0)) {
            return then(&entry.1);
        }
        if known.len() >= self.limit {
            drop(adding);
            return then(&self.other.1);
        }
        let labels = labels();
        let counters = (self.make)(&labels);
        let entry = Arc::new((labels, counters));
        let mut longer = known.as_ref().clone();
        longer.push(entry.clone());
        self.known.store(Arc::new(longer));
        drop(adding);
        then(&entry.1)
    }

    /// Calls `f` with every member, that of what came beyond the limit last and only if the limit was reached.
    pub(super) fn each(&self, mut f: impl FnMut(&K, &V)) {
        let known = self.known.load();
        known.iter().for_each(|entry| f(&entry.0, &entry.1));
        if known.len() >= self.limit {
            f(&self.other.0, &self.other.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn count(family: &Family<String, AtomicU64>, label: &str) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        family.with(|known| known == label, || label.to_owned(), add);
    }

    fn counts(family: &Family<String, AtomicU64>) -> Vec<(String, u64)> {
        let mut counts = Vec::new();
        family.each(|label, counter| counts.push((label.clone(), counter.load(Ordering::Relaxed))));
        counts
    }

    #[test]
    fn a_flood_of_labels_is_counted_under_other() {
        let family = Family::new(2, "other".to_owned(), |_| AtomicU64::new(0));
        for label in ["a", "b", "c", "d", "a"] {
            count(&family, label);
        }
        assert_eq!(counts(&family), [("a".to_owned(), 2), ("b".to_owned(), 1), ("other".to_owned(), 2)]);
    }

    #[test]
    fn threads_that_meet_a_label_at_once_share_its_counter() {
        let family = Family::new(8, "other".to_owned(), |_| AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|i| count(&family, ["x", "y"][i % 2])));
            }
        });
        let mut counts = counts(&family);
        counts.sort();
        assert_eq!(counts, [("x".to_owned(), 2000), ("y".to_owned(), 2000)]);
    }
}
