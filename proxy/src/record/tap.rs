//! The newest requests, for whoever watches.
//!
//! A tap asks again and again for what came after the last that it has. While somebody has asked lately, the newest records
//! are kept, a bounded number of them; a tap that is too slow learns how many it missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::{Record, Recorder};

/// How many records are kept.
const KEPT: usize = 1000;
/// For how long records are kept after somebody has asked.
const LINGER: Duration = Duration::from_secs(10);
/// How long a question waits for something to tell.
const WAIT: Duration = Duration::from_secs(2);

/// The newest records. Clones share them.
#[derive(Clone, Debug)]
pub struct Taps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    recorder: Recorder,
    kept: Mutex<Kept>,
    /// Somebody asks, or something came.
    news: Notify,
    asked: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Record>,
    /// The number of the next record; the first is 1.
    next: u64,
    until: Option<Instant>,
}

/// What a tap is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tapped {
    /// What to ask for next: the number of the last record that there is.
    pub last: u64,
    /// How many came after what was asked for and aren't kept any more.
    pub missed: u64,
    /// The others, oldest first.
    pub records: Vec<Record>,
}

impl Taps {
    pub(super) fn new(recorder: Recorder) -> Self {
        let kept = Mutex::new(Kept { next: 1, ..Kept::default() });
        Self(Arc::new(Shared { recorder, kept, news: Notify::new(), asked: Notify::new() }))
    }

    /// What came after the record with the number `after`; waits a little while there is nothing. Without a number, nothing and
    /// at once: records are kept from now on.
    pub async fn after(&self, after: Option<u64>) -> Tapped {
        let last = {
            let mut kept = self.lock();
            kept.until = Some(Instant::now() + LINGER);
            kept.next - 1
        };
        self.0.recorder.0.on.store(true, Relaxed);
        self.0.asked.notify_one();
        let Some(after) = after else { return Tapped { last, missed: 0, records: Vec::new() } };
        let news = self.0.news.notified();
        if self.lock().next - 1 <= after {
            let _ = timeout(WAIT, news).await;
        }
        self.lock().after(after)
    }

    /// Keeps a record if anybody has asked lately.
    pub(super) fn show(&self, record: &Record) {
        let mut kept = self.lock();
        if kept.until.is_none() {
            return;
        }
        if kept.records.len() == KEPT {
            kept.records.pop_front();
        }
        kept.records.push_back(record.clone());
        kept.next += 1;
        drop(kept);
        self.0.news.notify_waiters();
    }

    /// Returns when nobody has asked for a while, and forgets what was kept. The numbers go on.
    pub(super) async fn over(&self) {
        loop {
            let until = self.lock().until;
            match until {
                None => self.0.asked.notified().await,
                Some(until) if until <= Instant::now() => break,
                Some(until) => sleep_until(until).await,
            }
        }
        let mut kept = self.lock();
        (kept.until, kept.records) = (None, VecDeque::new());
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here is ever half written.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn after(&self, after: u64) -> Tapped {
        let last = self.next - 1;
        let wanted = last.saturating_sub(after);
        let there = self.records.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let records = self.records.iter().skip(self.records.len() - there).cloned().collect();
        Tapped { last, missed: wanted - there as u64, records }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{
            Begun, End,
            tests::{answered, request},
        },
        telemetry::Direction,
    };

    fn record(status: u16) -> Record {
        let (recorder, mut records) = Recorder::new(None);
        Begun::new(&recorder, Direction::Outbound, &mut request())
            .end(&answered(status, None), End::default());
        records.try_recv().unwrap()
    }

    fn statuses(tapped: &Tapped) -> Vec<u16> {
        tapped.records.iter().map(|record| record.status).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_tap_sees_what_comes_from_now_on_each_once() {
        let taps = Taps::new(Recorder::off());
        taps.show(&record(500));
        let on = taps.after(None).await;
        assert_eq!(on, Tapped { last: 0, missed: 0, records: Vec::new() });
        let (first, ()) = tokio::join!(taps.after(Some(on.last)), async { taps.show(&record(201)) });
        assert_eq!(statuses(&first), [201]);
        taps.show(&record(202));
        taps.show(&record(203));
        let second = taps.after(Some(first.last)).await;
        assert_eq!(statuses(&second), [202, 203]);
        assert_eq!(statuses(&taps.after(Some(second.last)).await), [0u16; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tap_that_is_too_slow_learns_how_many_it_missed() {
        let taps = Taps::new(Recorder::off());
        let first = taps.after(None).await;
        (0..KEPT + 5).for_each(|_| taps.show(&record(200)));
        let next = taps.after(Some(first.last)).await;
        assert_eq!((next.records.len(), next.missed), (KEPT, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn when_nobody_asks_any_more_nothing_is_kept_or_recorded() {
        let taps = Taps::new(Recorder::off());
        let first = taps.after(None).await;
        assert!(taps.0.recorder.0.on.load(Relaxed));
        taps.show(&record(200));
        taps.over().await;
        taps.show(&record(200));
        assert_eq!(taps.lock().after(first.last), Tapped { last: 1, missed: 1, records: Vec::new() });
    }
}
