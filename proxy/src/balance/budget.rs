//! How many of a backend's requests may be retries (GEP-3388).
//!
//! ```text
//! first attempt ── request() ──> requests ──┐
//!                                retries  ──┴─> share of `interval`   ─┐
//! one more?     ── retry()   ──> retries  ────> number in `min_interval` ┴─> yes: counted and made; no: 503
//! ```
//!
//! "If the retry budget interval is 10 seconds, there have been 1000 active requests in the past 10 seconds, and the
//! allowed percentage is 20 %, then 200 of those requests may be composed of retries", says the specification: retries
//! are among the requests that they are a share of. With 100 % there is no limit, and 20 % are one retry to four
//! first attempts.
//!
//! Every request of this sidecar to the backend passes here, on any thread, and so there are neither locks nor
//! allocations, only rings of counters.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use gamut_controller_api::RetryBudget;
use tokio::time::Instant;

/// Into how many slots a [`Window`] is cut. What is counted is forgotten late by one of them at most: 3 %.
const SLOTS: u32 = 32;

/// After so many slots a place in a [`Window`]'s ring is used again.
const ROUND: u32 = SLOTS + 1;

/// A budget and what was spent of it.
#[derive(Debug)]
pub(super) struct Budget {
    limits: RetryBudget,
    since: Instant,
    /// First attempts.
    requests: Window,
    /// Attempts beyond the first, over the same interval.
    retries: Window,
    /// The same again, over `min_interval`.
    latest_retries: Window,
}

/// There is nothing left of a backend's budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its retry budget is spent: {} % of the requests within {:?}, or {} retries within {:?} (XBackendTrafficPolicy, retryConstraint)",
    .0.percent, .0.interval, .0.min_retries, .0.min_interval
)]
pub struct Spent(pub RetryBudget);

impl Budget {
    /// A budget of which nothing is spent.
    pub(super) fn new(limits: RetryBudget, now: Instant) -> Self {
        Self {
            limits,
            since: now,
            requests: Window::new(limits.interval),
            retries: Window::new(limits.interval),
            latest_retries: Window::new(limits.min_interval),
        }
    }

    /// What the policy says.
    pub(super) fn limits(&self) -> RetryBudget {
        self.limits
    }

    /// Counts the first attempt of a request.
    pub(super) fn request(&self, now: Instant) {
        self.requests.add(now - self.since);
    }

    /// Takes a retry out of the budget. Threads that ask for the last one in the same instant may all get it: it is
    /// overdrawn by no more than their number, and the next have to wait for that much longer.
    ///
    /// # Errors
    /// [`Spent`]; nothing is counted then.
    pub(super) fn retry(&self, now: Instant) -> Result<(), Spent> {
        let at = now - self.since;
        let latest = self.latest_retries.sum(at);
        if latest >= u64::from(self.limits.min_retries) {
            let with_this_one = self.retries.sum(at) + 1;
            let all = self.requests.sum(at) + with_this_one;
            if with_this_one * 100 > all * u64::from(self.limits.percent) {
                return Err(Spent(self.limits));
            }
        }
        self.retries.add(at);
        self.latest_retries.add(at);
        Ok(())
    }
}

/// How often something happened within a time that ends now: a ring of slots, each for a part of that time. One slot
/// more than make up the time, because of the oldest a part is still in it, and of the newest a part is yet to come.
#[derive(Debug)]
struct Window {
    /// Of a slot, in nanoseconds.
    width: u64,
    /// [`Slot`]s.
    ring: [AtomicU64; ROUND as usize],
}

/// What happened in one part of the time, in the halves of a word so that both change at once.
///
/// Parts are told apart by the lower half of their number. It comes round after 37 hours where slots are as short as they
/// can be (1 ms by 32), and then matters only to a slot that nothing was counted in for exactly as long.
#[derive(Clone, Copy)]
struct Slot {
    part: u32,
    count: u32,
}

impl Window {
    fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self { width: nanos.div_ceil(u64::from(SLOTS)).max(1), ring: [const { AtomicU64::new(0) }; _] }
    }

    /// Counts what happens at `at`, since the beginning.
    fn add(&self, at: Duration) {
        let number = self.number(at);
        let place = number % self.ring.len() as u64;
        let Some(slot) = usize::try_from(place).ok().and_then(|place| self.ring.get(place)) else { return };
        let part = number as u32;
        let counted = |slot: u64| {
            let slot = Slot::from(slot);
            // Another thread may have got ahead by a whole round: what it has counted is not undone.
            let stays = slot.part.wrapping_sub(part) <= ROUND;
            Some(u64::from(if stays { slot.plus_one() } else { Slot { part, count: 1 } }))
        };
        // Never fails, for there is always a next value.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// How much was counted in the window that ends `at`, since the beginning.
    fn sum(&self, at: Duration) -> u64 {
        let now = self.number(at) as u32;
        let slots = self.ring.iter().map(|slot| Slot::from(slot.load(Ordering::Relaxed)));
        let is_in =
            |slot: &Slot| now.wrapping_sub(slot.part) <= SLOTS || slot.part.wrapping_sub(now) <= ROUND;
        slots.filter(is_in).map(|slot| u64::from(slot.count)).sum()
    }

    /// Of the part of time that `at` is in.
    fn number(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos()).unwrap_or(u64::MAX) / self.width
    }
}

impl Slot {
    fn plus_one(self) -> Self {
        Self { count: self.count.saturating_add(1), ..self }
    }
}

impl From<u64> for Slot {
    fn from(word: u64) -> Self {
        Self { part: (word >> 32) as u32, count: word as u32 }
    }
}

impl From<Slot> for u64 {
    fn from(slot: Slot) -> Self {
        Self::from(slot.part) << 32 | Self::from(slot.count)
    }
}

#[cfg(test)]
mod tests;
