//! Latencies in buckets that are the same everywhere, so that histograms of many proxies add up.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in milliseconds, as `istio_request_duration_milliseconds` has them; above the last is `+Inf`.
pub const BOUNDS_MS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    /// Not cumulative: one per bound, and one for what is above them all.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BOUNDS_MS.len() + 1], sum_micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds one.
    pub fn observe(&self, elapsed: Duration) {
        let millis = elapsed.as_secs_f64() * 1e3;
        let bucket = BOUNDS_MS.iter().position(|bound| millis <= *bound).unwrap_or(BOUNDS_MS.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Adds what another holds.
    pub(super) fn absorb(&self, other: &Self) {
        for (bucket, more) in self.buckets.iter().zip(&other.buckets) {
            bucket.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(other.sum_micros.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many were at or below each bound, and last, how many there are.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts().scan(0, |total, count| {
            *total += count;
            Some(*total)
        })
    }

    /// How many were in each bucket, one for each bound and one for what is above them all.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))
    }

    /// The sum of all, in milliseconds.
    pub(super) fn sum_ms(&self) -> f64 {
        Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64() * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_or_below_its_bound() {
        let histogram = Histogram::default();
        for millis in [0, 1, 2, 5, 4_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let counts: Vec<u64> = histogram.cumulative().collect();
        assert_eq!(&counts[..4], [1, 2, 4, 4]);
        assert_eq!(counts[BOUNDS_MS.len() - 1..], [4, 5]);
        assert!((histogram.sum_ms() - 4_000_008.0).abs() < 1e-6);
    }
}
