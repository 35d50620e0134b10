//! How often one workload may ask: a token bucket for each pod.
//!
//! For each pod and not for each service account, because all pods of a Deployment share theirs and start together, while
//! whoever has stolen a token has one pod's. A pod needs two certificates a day, and one at each restart of its sidecar.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use gamut_route::Uid;

/// So many requests may come at once...
const BURST: u32 = 10;
/// ... and then one in each such interval.
const REFILL: Duration = Duration::from_secs(30);
/// From this many buckets on, the full ones are thrown away: they say nothing.
const CROWD: usize = 10_000;

/// The buckets.
#[derive(Default)]
pub(crate) struct Limits(Mutex<HashMap<Uid, Bucket>>);

/// A bucket as the time at which it will be full again: [`REFILL`] later for each request.
struct Bucket {
    full_at: Instant,
}

impl Limits {
    /// Takes one request out of a pod's bucket, or says how long until the next one may come.
    pub(crate) fn admit(&self, pod: Uid, now: Instant) -> Result<(), Duration> {
        // A panic while it was held can't have left a bucket half changed.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CROWD {
            buckets.retain(|_, bucket| bucket.full_at > now);
        }
        let bucket = buckets.entry(pod).or_insert(Bucket { full_at: now });
        let next = bucket.full_at.max(now) + REFILL;
        match next.duration_since(now).checked_sub(REFILL * BURST) {
            Some(early) if !early.is_zero() => Err(early),
            _ => {
                bucket.full_at = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_ask_in_a_burst_then_steadily_and_never_stops_another() {
        let (limits, start) = (Limits::default(), Instant::now());
        let (greedy, modest) = (Uid::of("greedy"), Uid::of("modest"));
        for _ in 0..BURST {
            assert_eq!(limits.admit(greedy, start), Ok(()));
        }
        assert_eq!(limits.admit(greedy, start), Err(REFILL));
        assert_eq!(limits.admit(modest, start), Ok(()));

        let later = start + REFILL;
        assert_eq!(limits.admit(greedy, later), Ok(()));
        assert_eq!(limits.admit(greedy, later), Err(REFILL));
        assert_eq!(limits.admit(greedy, later + REFILL / 2), Err(REFILL / 2));
    }

    #[test]
    fn buckets_that_say_nothing_are_thrown_away() {
        let (limits, start) = (Limits::default(), Instant::now());
        for pod in 0..CROWD {
            limits.admit(Uid::of(&pod.to_string()), start).unwrap();
        }
        limits.admit(Uid::of("one more"), start + REFILL).unwrap();
        assert_eq!(limits.0.lock().unwrap().len(), 1);
    }
}
