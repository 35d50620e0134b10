//! `sessionPersistence` (GEP-1619) in all shapes that it has had, and in the annotation that needs no CRD.
//!
//! | version | shape |
//! |---|---|
//! | v1.4, v1.5 | `sessionName`, `absoluteTimeout`, `idleTimeout`, `type`, `cookieConfig.lifetimeType` |
//! | v1.6 | the same without `idleTimeout` |
//! | v1.7 | `absoluteTimeout`, `type`, `cookie{name, path, lifetimeType}`, `header{name}` |

use serde::Deserialize;

/// Session settings, of whatever version.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    /// Only in the annotation `gamut.mesh/session-persistence`: the name of the one rule that the settings are for.
    pub rule: Option<String>,
    /// How long a session is good, a GEP-2257 duration.
    pub absolute_timeout: Option<String>,
    /// Until v1.5. Ignored, and said so.
    pub idle_timeout: Option<String>,
    /// `Cookie` (default) or `Header`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// v1.7.
    pub cookie: Option<CookieConfig>,
    /// v1.7.
    pub header: Option<HeaderConfig>,
    /// Until v1.6: the name of the cookie or header.
    pub session_name: Option<String>,
    /// Until v1.6.
    pub cookie_config: Option<CookieConfig>,
}

/// `cookie`, and the older `cookieConfig`, which has only `lifetimeType`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    /// Unset: one is generated.
    pub name: Option<String>,
    /// Default `/`.
    pub path: Option<String>,
    /// `Session` (default) or `Permanent`.
    pub lifetime_type: Option<String>,
}

/// `header`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderConfig {
    /// The header's name.
    pub name: String,
}
