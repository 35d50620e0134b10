//! What a pod's annotations may say about balancing and limits.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use crate::config::SettingError;

/// Settings for all backends of a sidecar. The defaults are those of `docs/reference/annotations.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// After so many failures in a row an endpoint is ejected; none: never.
    pub eject_after: Option<NonZeroU32>,
    /// How long an endpoint that is new among others, or has come back, takes to get its full share.
    pub slow_start: Duration,
    /// The most requests, and connections of other bytes, that may be in flight to a backend.
    pub max_requests: u32,
    /// The most connections that may be under way to a backend's endpoints without being open yet.
    pub max_connecting: u32,
}

/// The setting for [`Settings::eject_after`]: a number from 1, or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectAfter(pub Option<NonZeroU32>);

impl Default for Settings {
    /// Five failures, as Envoy has it. The limits are far above what a pod does that is well, and low enough that its
    /// sidecar stays within some hundred megabytes when one of its backends is not.
    fn default() -> Self {
        Self {
            eject_after: NonZeroU32::new(5),
            slow_start: Duration::from_secs(10),
            max_requests: 16_384,
            max_connecting: 1024,
        }
    }
}

impl FromStr for EjectAfter {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text {
            "never" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|failures| Self(Some(failures)))
                .map_err(|_| SettingError::EjectAfter(text.to_owned())),
        }
    }
}

impl fmt::Display for EjectAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(failures) => write!(f, "{failures}"),
            None => f.write_str("never"),
        }
    }
}
