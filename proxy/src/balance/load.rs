//! How busy an endpoint is, as far as this sidecar can tell: peak EWMA of its latency times what it has in
//! flight.
//!
//! The estimate jumps to every latency above it and sinks towards lower ones and, without news, towards
//! nothing: a slow endpoint is noticed at its first slow answer and given another chance soon after.
//! (Finagle's `PeakEwma` is where this comes from.)

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// In this time the weight of what was seen earlier falls to 1/e.
const DECAY: Duration = Duration::from_secs(5);
/// What counts as the latency of an attempt that failed: failing fast must not look like being fast.
const PENALTY: Duration = Duration::from_secs(1);
/// The estimate for an endpoint that nothing is known about, nor about others of its cluster.
pub(super) const UNKNOWN: Duration = Duration::from_millis(1);
/// Below this all latencies count as equal: they are noise of the machine.
const FLOOR_NANOS: f64 = 50_000.0;

/// The load of one endpoint. Written and read without locks: an update lost to another thread's would matter
/// little.
#[derive(Debug)]
pub struct Load {
    in_flight: AtomicU32,
    /// The estimate in nanoseconds, an `f64`'s bits, as of `stamp`.
    estimate: AtomicU64,
    /// Nanoseconds since `start`.
    stamp: AtomicU64,
    start: Instant,
}

impl Load {
    /// An idle endpoint, expected to answer within `estimate`.
    pub(super) fn new(estimate: Duration) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            estimate: AtomicU64::new((estimate.as_nanos() as f64).to_bits()),
            stamp: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Requests sent and not answered to their end.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The latency that the next request may expect.
    pub fn estimate(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.decayed(now) as u64)
    }

    /// What another request would cost here; to be compared with other endpoints' only.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.decayed(now).max(FLOOR_NANOS) * f64::from(self.in_flight() + 1)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, latency: Duration, now: Instant) {
        let latency = latency.as_nanos() as f64;
        let weight = self.weight(now);
        let earlier = f64::from_bits(self.estimate.load(Ordering::Relaxed));
        let estimate =
            if latency > earlier * weight { latency } else { earlier * weight + latency * (1.0 - weight) };
        self.estimate.store(estimate.to_bits(), Ordering::Relaxed);
        self.stamp.store(now.duration_since(self.start).as_nanos() as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, now: Instant) {
        self.answered(PENALTY, now);
    }

    fn decayed(&self, now: Instant) -> f64 {
        f64::from_bits(self.estimate.load(Ordering::Relaxed)) * self.weight(now)
    }

    fn weight(&self, now: Instant) -> f64 {
        let since = now.duration_since(self.start).as_nanos() as u64;
        let idle = since.saturating_sub(self.stamp.load(Ordering::Relaxed));
        (-(idle as f64) / DECAY.as_nanos() as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(load: &Load, now: Instant) -> f64 {
        load.estimate(now).as_secs_f64() * 1e3
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_answer_is_believed_at_once_and_forgotten_slowly() {
        let load = Load::new(UNKNOWN);
        let now = Instant::now();
        load.answered(Duration::from_millis(100), now);
        assert!(millis(&load, now) > 99.0);

        let later = now + Duration::from_secs(1);
        load.answered(Duration::from_millis(1), later);
        assert!((50.0..90.0).contains(&millis(&load, later)), "{}", millis(&load, later));

        assert!(millis(&load, later + Duration::from_secs(30)) < 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn failing_fast_costs_more_than_answering_slowly() {
        let (failing, slow) = (Load::new(UNKNOWN), Load::new(UNKNOWN));
        let now = Instant::now();
        failing.failed(now);
        slow.answered(Duration::from_millis(300), now);
        assert!(failing.cost(now) > slow.cost(now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_in_flight_counts() {
        let load = Load::new(UNKNOWN);
        let now = Instant::now();
        let idle = load.cost(now);
        load.begin();
        load.begin();
        assert_eq!(load.in_flight(), 2);
        assert_eq!(load.cost(now), 3.0 * idle);
        load.end();
        load.end();
        assert_eq!(load.cost(now), idle);
    }
}
