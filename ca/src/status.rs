//! How it stands with a CA: `/status` on its admin port, for `gamut check`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::current::Current;

/// What one replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// When what it signs with ends, RFC 3339. No certificate outlives that.
    pub signs_until: String,
    /// How many roots it gives out.
    pub roots: usize,
    /// What can't be done, a line each. What was in force before goes on.
    pub problems: Vec<String>,
}

/// What can't be done at the moment, each until it can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    /// The Secret can't be used, or is gone.
    pub(crate) secret: Option<String>,
    /// The roots can't be published.
    pub(crate) bundle: Option<String>,
}

/// Where status comes from.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) authority: Current,
    pub(crate) problems: watch::Receiver<Problems>,
}

impl Reporter {
    /// How it stands now.
    pub(crate) fn status(&self) -> CaStatus {
        let authority = self.authority.load();
        let Problems { secret, bundle } = self.problems.borrow().clone();
        CaStatus {
            signs_until: Timestamp::try_from(authority.not_after()).unwrap_or_default().to_string(),
            roots: authority.roots().certificates().len(),
            problems: secret.into_iter().chain(bundle).collect(),
        }
    }
}
