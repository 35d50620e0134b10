//! The wall clock that certificates are judged by.
//!
//! Everything here that asks for the time asks a [`Clock`]: the worker that renews, the verifiers, and the CA. So a test can
//! be an hour off, and a worker under paused timers can see days pass.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// A source of wall-clock time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(SystemTime::now)
    }

    /// A clock that says what `now` says.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// This clock, fast by `offset`.
    pub fn ahead_by(&self, offset: Duration) -> Self {
        let clock = self.clone();
        Self::new(move || clock.now() + offset)
    }

    /// This clock, slow by `offset`.
    pub fn behind_by(&self, offset: Duration) -> Self {
        let clock = self.clone();
        Self::new(move || clock.now() - offset)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// A time as messages show it: RFC 3339, UTC, whole seconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    match time
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| jiff::Timestamp::from_second(since.as_secs() as i64).ok())
    {
        Some(timestamp) => timestamp.to_string(),
        None => format!("{time:?}"),
    }
}
