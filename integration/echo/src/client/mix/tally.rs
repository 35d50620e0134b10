//! What became of the requests of one kind of client.

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Kind;

/// The counts of one kind.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Requests begun; for streams, messages.
    sent: u64,
    /// Those that were answered as they should be.
    answered: u64,
    /// Those that were answered otherwise, or not at all.
    failed: u64,
    /// Streams and bodies that ended, with an error, after they had begun.
    broken: u64,
    /// Answers that ended well and were not what they should be. Never anybody's right.
    corrupt: u64,
    /// When the last good answer came.
    last: Option<Instant>,
    /// The longest time between two of them.
    longest_gap: Duration,
}

/// The counts of every kind that there is.
#[derive(Debug)]
pub(super) struct Tallies(Vec<(Kind, Tally)>);

impl Tally {
    pub(super) fn sent(&self) {
        self.lock().sent += 1;
    }

    pub(super) fn answered(&self) {
        let mut counts = self.lock();
        let now = Instant::now();
        counts.answered += 1;
        if let Some(last) = counts.last.replace(now) {
            counts.longest_gap = counts.longest_gap.max(now - last);
        }
    }

    pub(super) fn failed(&self) {
        self.lock().failed += 1;
    }

    pub(super) fn broken(&self) {
        self.lock().broken += 1;
    }

    pub(super) fn corrupt(&self) {
        self.lock().corrupt += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tallies {
    pub(super) fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self(kinds.map(|kind| (kind, Tally::default())).collect())
    }

    /// The counts of a kind; none for one that wasn't there from the beginning.
    pub(super) fn of(&self, kind: Kind) -> Option<&Tally> {
        self.0.iter().find(|(known, _)| *known == kind).map(|(_, tally)| tally)
    }

    /// All of it, as one line of JSON.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let kinds: Vec<String> = self
            .0
            .iter()
            .map(|(kind, tally)| {
                let Counts { sent, answered, failed, broken, corrupt, last, longest_gap } = *tally.lock();
                // Those who are never answered again have waited too.
                let gap = last.map_or(longest_gap, |last| longest_gap.max(last.elapsed()));
                let (kind, gap) = (kind.name(), gap.as_millis());
                format!(
                    r#""{kind}":{{"sent":{sent},"answered":{answered},"failed":{failed},"broken":{broken},"corrupt":{corrupt},"longest_gap_ms":{gap}}}"#
                )
            })
            .collect();
        writeln!(out, "{{{}}}", kinds.join(","))
    }
}
