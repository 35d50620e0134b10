//! The worker that gets a certificate and keeps it fresh.
//!
//! ```text
//!             start
//!               v
//!   +------> Asking -- certificate --> Resting (until 50-70 % of its remaining life)
//!   |         |  ^                        |
//!   |      no |  +------------------------+
//!   |         v
//!   +----- Backing off (exponential, jittered)
//! ```
//! A certificate stays in use until a better one is there, however many tries fail in between. When it has expired nothing
//! here changes: handshakes fail closed on their own, and the worker goes on asking.

use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::{
    certificate::Certificate,
    csr::Request,
    handle::Identity,
    issuer::{IssueError, Issuer},
};

/// How long one try may take, connecting included.
const TRY: Duration = Duration::from_secs(10);
/// The first wait after a failure, before jitter; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait while there is no good certificate: something waits for it.
const LONGEST_WITHOUT: Duration = Duration::from_secs(5);
/// The longest wait while there is one.
const LONGEST_WITH: Duration = Duration::from_secs(60);
/// Timers run on the monotonic clock, certificates on the wall clock, which is set, and goes on while a machine sleeps. So
/// the wall clock is looked at this often.
const LOOK: Duration = Duration::from_secs(60);
/// Renewal falls at a random point of this part of the life that a certificate had when it came, which isn't counted from its `notBefore`:
/// the CA sets that back.
const RENEWAL: std::ops::Range<f64> = 0.5..0.7;

/// What the worker does next.
#[derive(Debug, PartialEq)]
enum State {
    /// Make a key, ask the issuer.
    Asking {
        /// Tries that failed since the last success.
        failures: u32,
    },
    /// There is a fresh certificate; nothing to do until it's time to renew it.
    Resting { until: SystemTime },
    /// The last try failed.
    BackingOff { failures: u32, wait: Duration },
}

pub(crate) struct Worker<I> {
    identity: Identity,
    issuer: I,
}

impl<I: Issuer> Worker<I> {
    pub(crate) fn new(identity: Identity, issuer: I) -> Self {
        Self { identity, issuer }
    }

    pub(crate) async fn run(self) {
        let mut state = State::Asking { failures: 0 };
        loop {
            state = self.step(state).await;
        }
    }

    async fn step(&self, state: State) -> State {
        match state {
            State::Asking { failures } => match self.ask().await {
                Ok(renew_at) => State::Resting { until: renew_at },
                Err(problem) => {
                    let failures = failures.saturating_add(1);
                    let wait = self.report(&problem, failures);
                    State::BackingOff { failures, wait }
                }
            },
            State::Resting { until } => {
                while let Ok(left) = until.duration_since(self.identity.now())
                    && !left.is_zero()
                {
                    sleep(left.min(LOOK)).await;
                }
                State::Asking { failures: 0 }
            }
            State::BackingOff { failures, wait } => {
                sleep(wait).await;
                State::Asking { failures }
            }
        }
    }

    /// One try, from a new key to an installed certificate. Returns when to renew it.
    async fn ask(&self) -> Result<SystemTime, IssueError> {
        let request = Request::new(self.identity.id().clone())?;
        let issued = timeout(TRY, self.issuer.issue(request.csr().clone(), self.identity.roots()))
            .await
            .map_err(|_| IssueError::Timeout(TRY.as_secs()))??;
        let now = self.identity.now();
        let certificate = Certificate::new(request, issued.chain, &issued.roots, now)?;
        let renew_at = now + certificate.lifetime().mul_f64(rand::random_range(RENEWAL));
        info!(serial = certificate.serial(), id = %certificate.id(), "{certificate}");
        self.identity.install(certificate, issued.roots);
        Ok(renew_at)
    }

    /// Says what went wrong, and returns how long to wait before the next try.
    fn report(&self, problem: &IssueError, failures: u32) -> Duration {
        self.identity.record_failure(&problem.to_string());
        let good_for = self
            .identity
            .certificate()
            .and_then(|certificate| certificate.not_after().duration_since(self.identity.now()).ok());
        let longest = match good_for {
            // A short life is not slept away.
            Some(left) => (left / 4).clamp(FIRST_BACKOFF, LONGEST_WITH),
            None => LONGEST_WITHOUT,
        };
        let wait = backoff(failures, longest, rand::random_range(0.5..1.0));
        match good_for {
            Some(left) => {
                warn!(
                    failures,
                    "can't renew the certificate, {} s before it expires: {problem}",
                    left.as_secs()
                );
            }
            None => error!(failures, "no certificate, new connections are refused: {problem}"),
        }
        wait
    }
}

/// Doubles with each failure up to `longest`, then takes `part` of it.
fn backoff(failures: u32, longest: Duration, part: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(longest).mul_f64(part)
}
