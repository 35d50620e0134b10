//! What the collector and the server share: the newest answers, the history, and whether anybody looks.
//!
//! Nobody looks, nobody is asked: the collector rests until the page asks for something, and goes on for as long afterwards as
//! the plots go back, so that who comes back finds them whole.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gamut_local::control::PodReport;
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};

use super::history::{History, KEPT};
use crate::{routes, status};

/// How long a page waits for the first round of answers; after that it says that there is none yet.
const FIRST: Duration = Duration::from_secs(10);

/// Shared between two threads.
#[derive(Debug)]
pub(super) struct Live {
    state: Mutex<State>,
    looked: watch::Sender<Option<Instant>>,
    /// How many rounds are over, failed ones included.
    rounds: watch::Sender<u64>,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The newest answers.
    pub(super) newest: Option<Answers>,
    /// What was counted.
    pub(super) history: History,
    /// Why the last round brought no answers, if it didn't.
    pub(super) problem: Option<String>,
    /// How long it takes from one round to the next.
    pub(super) every: Duration,
}

/// One round of answers: what `gamut status -o json` and `gamut routes -o json` print, and what they are made of.
#[derive(Debug)]
pub(super) struct Answers {
    /// When they were complete.
    pub(super) time: Timestamp,
    /// As `gamut status` has it.
    pub(super) status: status::Report,
    /// As `gamut routes` has it.
    pub(super) routes: routes::Report,
    /// The pods of the status, each with all that its sidecar said.
    pub(super) pods: Vec<PodReport>,
    /// All Services, as `namespace/name`.
    pub(super) services: Vec<String>,
}

impl Live {
    /// Nothing is known, and nobody looks.
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), looked: watch::Sender::default(), rounds: watch::Sender::default() }
    }

    /// Somebody looks. Waits for the first round, for a bounded time.
    pub(super) async fn look(&self) {
        self.look_at(1).await;
    }

    /// As [`Self::look`], until so many rounds are over.
    pub(super) async fn look_at(&self, round: u64) {
        self.looked.send_replace(Some(Instant::now()));
        let mut rounds = self.rounds.subscribe();
        let over = rounds.wait_for(|rounds| *rounds >= round);
        // Without an answer yet, the page says so.
        let _ = timeout(FIRST, over).await;
    }

    /// Waits until somebody looks, or has lately.
    pub(super) async fn wanted(&self) {
        let lately = |looked: &Option<Instant>| looked.is_some_and(|looked| looked.elapsed() < KEPT);
        // Neither end is ever dropped before the other: both are ours.
        let _ = self.looked.subscribe().wait_for(lately).await;
    }

    /// What is known.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round is over.
    pub(super) fn next_round(&self) {
        self.rounds.send_modify(|rounds| *rounds += 1);
    }
}
