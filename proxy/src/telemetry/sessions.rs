//! What became of sessions.

use std::sync::atomic::{AtomicU64, Ordering};

use gamut_route::{ServicePort, table::RuleOrigin};
use serde::{Deserialize, Serialize};

/// What a scope's counters are registered under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The rule.
    pub origin: Option<RuleOrigin>,
    /// The Service and port that the app addressed.
    pub parent: ServicePort,
    /// The scope that tokens are bound to.
    pub scope: String,
}

/// What became of a request's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionOutcome {
    /// The request brought a token and went to the pod that it names.
    Kept,
    /// The request brought none and got one.
    Started,
    /// The request brought a good token, but its pod is gone: it went to another and got a new one.
    Moved,
    /// The token's time is over.
    Expired,
    /// What came is no token at all: cut off, drawn out, another version's.
    Malformed,
    /// The token doesn't open: another scope's or installation's, a retired key's, forged or changed.
    Foreign,
}

/// The counters of one scope.
#[derive(Debug, Default)]
pub struct SessionCounters([AtomicU64; SessionOutcome::ALL.len()]);

impl SessionOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Kept, Self::Started, Self::Moved, Self::Expired, Self::Malformed, Self::Foreign];

    /// The outcome as metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Started => "started",
            Self::Moved => "moved",
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
        }
    }
}

impl SessionCounters {
    /// Counts one request.
    pub fn count(&self, outcome: SessionOutcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every outcome and how often it was.
    pub fn counts(&self) -> impl Iterator<Item = (SessionOutcome, u64)> {
        SessionOutcome::ALL.into_iter().zip(&self.0).map(|(outcome, n)| (outcome, n.load(Ordering::Relaxed)))
    }
}

impl PartialOrd for SessionKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.parent, &self.scope).cmp(&(&other.parent, &other.scope))
    }
}
