//! The roots that certificates must lead to, and the keys that session tokens are sealed with.

use std::collections::BTreeMap;

use gamut_controller_api::TrustBundle;
use gamut_manifest::Object;
use gamut_route::session::token;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;

/// The ConfigMap with the roots, written by the CA.
pub(crate) const TRUST_BUNDLE: &str = "gamut-trust-bundle";

/// Its key.
const ROOTS: &str = "root.pem";

/// The Secret with the installation's session keys, written by the controller.
pub(crate) const SESSION_KEYS: &str = "gamut-session-keys";

/// The entry that names the key which seals; the others are keys by id: `key-1`, `key-2`.
pub(crate) const CURRENT_KEY: &str = "current";

/// Before an id in the names of entries.
pub(crate) const KEY_PREFIX: &str = "key-";

/// The length of an installation's session key, in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// The installation's session keys. Never logged.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct MasterKeys {
    current: Option<u8>,
    keys: BTreeMap<u8, Vec<u8>>,
    /// The Secret that they are read from: what a rotation starts from.
    secret: Value,
}

/// How it stands with the Secret that session keys are read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionSecret<'a> {
    /// There is none.
    Missing,
    /// There is one, and somebody has to mend it: writing over it would destroy what is left of it.
    Unreadable,
    /// As it is, whole. Not for logs.
    Good(&'a Value),
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKeys").field("ids", &self.keys.keys()).finish_non_exhaustive()
    }
}

/// The roots of a trust bundle: a set, in the order of their bytes.
///
/// # Errors
/// What is wrong with the ConfigMap, in one line. One with no roots at all is an error too: it would lock
/// everybody out.
pub(super) fn read_roots(object: &Object) -> Result<TrustBundle, String> {
    let map = ConfigMap::deserialize(&object.raw).map_err(|error| error.to_string())?;
    let pem = map
        .data
        .as_ref()
        .and_then(|data| data.get(ROOTS))
        .ok_or_else(|| format!("data[{ROOTS:?}] is missing"))?;
    let roots = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut roots = roots.map_err(|error| format!("data[{ROOTS:?}] isn't PEM: {error}"))?;
    roots.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    roots.dedup();
    if roots.is_empty() {
        return Err(format!("data[{ROOTS:?}] has no certificate"));
    }
    Ok(TrustBundle { roots })
}

impl MasterKeys {
    /// Reads the Secret.
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    pub(super) fn read(object: &Object) -> Result<Self, String> {
        let secret = Secret::deserialize(&object.raw).map_err(|error| error.to_string())?;
        let data = secret.data.unwrap_or_default();
        let mut keys = BTreeMap::new();
        for (name, key) in &data {
            let Some(id) = name.strip_prefix(KEY_PREFIX).and_then(|id| id.parse::<u8>().ok()) else {
                continue;
            };
            if key.0.len() < KEY_LENGTH {
                return Err(format!(
                    "data[{name:?}] has {} bytes, and a key has {KEY_LENGTH} or more",
                    key.0.len()
                ));
            }
            keys.insert(id, key.0.clone());
        }
        let named =
            data.get(CURRENT_KEY).and_then(|id| std::str::from_utf8(&id.0).ok()?.trim().parse::<u8>().ok());
        let current = named.filter(|id| keys.contains_key(id)).or_else(|| keys.keys().next_back().copied());
        if current.is_none() {
            return Err(format!("data has no key; entries are named {KEY_PREFIX}1, {KEY_PREFIX}2"));
        }
        Ok(Self { current, keys, secret: object.raw.clone() })
    }

    /// The Secret as it is.
    pub(super) fn secret(&self) -> &Value {
        &self.secret
    }

    /// The keys of a scope, the one that seals first.
    pub(super) fn derive(&self, scope: &str) -> Vec<(u8, [u8; 32])> {
        let others = self.keys.keys().copied().filter(|id| Some(*id) != self.current);
        let ids = self.current.into_iter().chain(others);
        ids.filter_map(|id| Some((id, token::derive(self.keys.get(&id)?, scope)))).collect()
    }
}
