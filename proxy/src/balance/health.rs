//! Whether an endpoint answers, as far as this sidecar has seen: passive health.
//!
//! ```text
//!            fails `eject_after` times in a row              its time is over
//!   well ────────────────────────────────────────> ejected ───────────────────> returning
//!    ^                                                ^                             │
//!    │                                                └── fails once, for longer ───┤
//!    └──────────────────────────────── answers ─────────────────────────────────────┘
//! ```
//!
//! One that returns, and one that is new among others, gets less than its share at first ([`Health::weight`]). Who may be
//! ejected at all is the [`Cluster`](super::Cluster)'s to say, which knows the others.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Settings;

/// How long an endpoint is ejected for the first time; every time after that for twice as long.
pub const FIRST_EJECTION: Duration = Duration::from_secs(3);
/// It is never ejected for longer.
pub const LONGEST_EJECTION: Duration = Duration::from_secs(180);
/// Once it has been back for so long, the next time counts as its first.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(180);
/// The share of its usual traffic that an endpoint begins with.
const FIRST_WEIGHT: f64 = 0.1;

/// How an attempt failed, as far as that matters to the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// There was no connection or no answer in time: each of these was found out by itself.
    Alone,
    /// The connection broke. Others may have been on it, and all of them together are one event.
    Together,
}

/// What is known of one endpoint. Requests read and write it without locks.
#[derive(Debug)]
pub(super) struct Health {
    start: Instant,
    /// In a row.
    failures: AtomicU32,
    /// When the newest of them was counted.
    failed_at: AtomicU64,
    /// 0: it isn't ejected. Here and below: nanoseconds since `start`.
    ejected_until: AtomicU64,
    /// Since when it gets more every moment; 0: it has its full share.
    growing_since: AtomicU64,
    /// Only for who ejects.
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// How often it was ejected without being forgiven.
    ejections: u32,
    /// The end of the last ejection.
    until: Option<Instant>,
}

impl Health {
    /// An endpoint that is well.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            failures: AtomicU32::new(0),
            failed_at: AtomicU64::new(0),
            ejected_until: AtomicU64::new(0),
            growing_since: AtomicU64::new(0),
            past: Mutex::default(),
        }
    }

    /// It has answered.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// An attempt that began at `since` failed. Says how many did in a row.
    pub(super) fn failed(&self, how: Failed, since: Instant, now: Instant) -> u32 {
        let counted = self.failed_at.load(Ordering::Relaxed);
        if how == Failed::Together && counted != 0 && self.at(since) <= counted {
            return self.failures.load(Ordering::Relaxed);
        }
        self.failed_at.store(self.at(now), Ordering::Relaxed);
        // Saturating, though nobody lives to see it.
        self.failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| failures.checked_add(1))
            .map_or(u32::MAX, |before| before + 1)
    }

    /// Ejects it. Says until when.
    pub(super) fn eject(&self, now: Instant) -> Instant {
        let mut past = self.past();
        if past.until.is_some_and(|until| now.saturating_duration_since(until) >= FORGIVEN_AFTER) {
            past.ejections = 0;
        }
        let doubled = FIRST_EJECTION.saturating_mul(1_u32.checked_shl(past.ejections).unwrap_or(u32::MAX));
        let until = now + doubled.min(LONGEST_EJECTION);
        *past = Past { ejections: past.ejections.saturating_add(1), until: Some(until) };
        self.ejected_until.store(self.at(until), Ordering::Relaxed);
        until
    }

    /// Until when it is ejected, if it is; also when that is over and nobody has brought it back yet.
    pub(super) fn ejected_until(&self) -> Option<Instant> {
        match self.ejected_until.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(self.start + Duration::from_nanos(nanos)),
        }
    }

    /// Brings it back, to be ejected again by its next failure.
    pub(super) fn bring_back(&self, now: Instant, settings: &Settings) {
        self.ejected_until.store(0, Ordering::Relaxed);
        let one_less = settings.eject_after.map_or(0, |failures| failures.get() - 1);
        self.failures.store(one_less, Ordering::Relaxed);
        self.past().until = Some(now);
        self.grow(now);
    }

    /// Those who know it better say that it is well now.
    pub(super) fn begin_anew(&self, now: Instant) {
        self.ejected_until.store(0, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.grow(now);
    }

    /// The share of its usual traffic that it takes now: 1 but for who has just come or come back.
    pub(super) fn weight(&self, now: Instant, settings: &Settings) -> f64 {
        let since = self.growing_since.load(Ordering::Relaxed);
        if since == 0 || settings.slow_start.is_zero() {
            return 1.0;
        }
        let grown = self.at(now).saturating_sub(since) as f64 / settings.slow_start.as_nanos() as f64;
        if grown >= 1.0 {
            self.growing_since.store(0, Ordering::Relaxed);
        }
        grown.clamp(FIRST_WEIGHT, 1.0)
    }

    fn grow(&self, now: Instant) {
        self.growing_since.store(self.at(now), Ordering::Relaxed);
    }

    /// Never 0, which stands for "never".
    fn at(&self, when: Instant) -> u64 {
        u64::try_from(when.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[tokio::test(start_paused = true)]
    async fn an_ejection_lasts_twice_as_long_each_time_up_to_a_limit_until_it_is_forgiven() {
        let mut now = Instant::now();
        let health = Health::new(now);
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let until = health.eject(now);
            lengths.push((until - now).as_secs());
            now = until + seconds(1);
            health.bring_back(now, &Settings::default());
        }
        assert_eq!(lengths, [3, 6, 12, 24, 48, 96, 180, 180]);
        now += FORGIVEN_AFTER;
        assert_eq!(health.eject(now), now + FIRST_EJECTION);
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_on_a_connection_that_breaks_are_one_failure() {
        let start = Instant::now();
        let health = Health::new(start);
        let broken = start + seconds(1);
        for _ in 0..100 {
            assert_eq!(health.failed(Failed::Together, start, broken), 1);
        }
        assert_eq!(health.failed(Failed::Together, broken + seconds(1), broken + seconds(2)), 2);
        assert_eq!(health.failed(Failed::Alone, start, broken + seconds(3)), 3, "a time-out is its own");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_back_gets_its_share_little_by_little() {
        let start = Instant::now();
        let (health, settings) = (Health::new(start), Settings::default());
        assert_eq!(health.weight(start, &settings), 1.0);
        health.begin_anew(start);
        let weights = [0, 3, 5, 10, 20].map(|later| health.weight(start + seconds(later), &settings));
        assert_eq!(weights.map(|weight| (weight * 10.0).round() as u32), [1, 3, 5, 10, 10]);
        let none = Settings { slow_start: Duration::ZERO, ..settings };
        health.begin_anew(start + seconds(30));
        assert_eq!(health.weight(start + seconds(30), &none), 1.0);
    }
}
