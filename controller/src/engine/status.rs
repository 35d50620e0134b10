//! What the controller says about itself and its subscribers: for people, and for `gamut status`.

use gamut_controller_api::MtlsMode;
use gamut_route::Uid;
use serde::{Deserialize, Serialize};

use crate::index::Settings;

/// Everything that `/status` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControllerStatus {
    /// The controller's version.
    pub version: String,
    /// What it was told to compile by.
    pub settings: SettingsStatus,
    /// How it stands with the source of objects.
    pub source: SourceStatus,
    /// Who subscribes, in the order of coming.
    pub subscribers: Vec<SubscriberStatus>,
}

/// What an installation was told that changes tables. With the same settings and objects anybody compiles the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsStatus {
    /// As [`Settings::trust_domain`].
    pub trust_domain: String,
    /// As [`Settings::mtls`].
    pub mtls: MtlsMode,
    /// As [`Settings::require_reference_grant`].
    pub require_reference_grant: bool,
}

/// How it stands with the source of objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Everything that existed at the start is known.
    pub synced: bool,
    /// What can't be read at present, one line each.
    pub problems: Vec<String>,
    /// The newest `resourceVersion` that was read, from files whose writer numbers them: who has written up to there knows
    /// that what the subscribers are said to hold follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<u64>,
    /// Statuses, and the session keys, that follow from what was read and aren't written yet.
    #[serde(default)]
    pub unwritten: usize,
}

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriberStatus {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name, as it says.
    pub pod: String,
    /// Its pod.
    pub uid: Uid,
    /// The sidecar's version, as it says.
    pub proxy_version: String,
    /// RFC 3339.
    pub connected_since: String,
    /// How many keys it subscribes to.
    pub keys: usize,
    /// True when it holds the newest of all of them.
    pub in_sync: bool,
    /// What is on its way and not acknowledged.
    pub behind: Vec<String>,
    /// What it can't use.
    pub refused: Vec<RefusedKey>,
}

/// A resource that a sidecar can't use; it goes on with the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedKey {
    /// Which.
    pub key: String,
    /// Why, in the sidecar's words.
    pub reason: String,
}

impl ControllerStatus {
    pub(super) fn new(settings: &Settings, source: SourceStatus, subscribers: Vec<SubscriberStatus>) -> Self {
        let settings = SettingsStatus {
            trust_domain: settings.trust_domain.clone(),
            mtls: settings.mtls,
            require_reference_grant: settings.require_reference_grant,
        };
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), settings, source, subscribers }
    }
}

impl From<SettingsStatus> for Settings {
    fn from(status: SettingsStatus) -> Self {
        Self {
            trust_domain: status.trust_domain,
            mtls: status.mtls,
            require_reference_grant: status.require_reference_grant,
            ..Self::default()
        }
    }
}
