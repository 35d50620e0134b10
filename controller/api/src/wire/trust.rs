//! Roots and session keys on the wire.

use rustls_pki_types::CertificateDer;

use super::error::{WireError, each, narrow, sized};
use crate::{SessionKeys, TrustBundle, proto};

impl From<&TrustBundle> for proto::TrustBundle {
    fn from(bundle: &TrustBundle) -> Self {
        Self { roots: bundle.roots.iter().map(|root| root.to_vec()).collect() }
    }
}

impl From<proto::TrustBundle> for TrustBundle {
    /// Whether the bytes are certificates is for the one who uses them to find out.
    fn from(bundle: proto::TrustBundle) -> Self {
        Self { roots: bundle.roots.into_iter().map(CertificateDer::from).collect() }
    }
}

impl From<&SessionKeys> for proto::SessionKeys {
    fn from(keys: &SessionKeys) -> Self {
        let of_wire =
            |(id, key): &(u8, [u8; 32])| proto::SessionKey { id: u32::from(*id), key: key.to_vec() };
        Self { scope: keys.scope.clone(), keys: keys.keys.iter().map(of_wire).collect() }
    }
}

impl TryFrom<proto::SessionKeys> for SessionKeys {
    type Error = WireError;

    fn try_from(keys: proto::SessionKeys) -> Result<Self, WireError> {
        let opened: Vec<SessionKey> = each("keys", keys.keys)?;
        Ok(Self {
            scope: keys.scope,
            keys: opened.into_iter().map(|SessionKey(id, key)| (id, key)).collect(),
        })
    }
}

/// One entry of the repeated field.
struct SessionKey(u8, [u8; 32]);

impl TryFrom<proto::SessionKey> for SessionKey {
    type Error = WireError;

    fn try_from(key: proto::SessionKey) -> Result<Self, WireError> {
        Ok(Self(narrow("id", key.id)?, sized("key", &key.key)?))
    }
}
