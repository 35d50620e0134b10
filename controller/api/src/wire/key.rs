//! Keys and versions on the wire.

use aws_lc_rs::digest;
use bytes::Bytes;
use gamut_route::Uid;

use super::error::{WireError, parsed, sized};
use crate::{Key, Version, proto};

impl Version {
    /// The version of a body with this wire form.
    pub fn of(body: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, body);
        let mut version = [0; 16];
        for (to, from) in version.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Self(version)
    }

    /// Reads a version from the wire.
    ///
    /// # Errors
    /// When there aren't exactly 16 bytes.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, WireError> {
        sized("version", bytes).map(Self)
    }

    /// The version as the wire has it.
    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl From<&Key> for proto::Key {
    fn from(key: &Key) -> Self {
        use proto::key::Key as Wire;
        let key = match key {
            Key::Address(address) => Wire::Address(address.to_string()),
            Key::RouteTable { client_namespace, service } => Wire::RouteTable(proto::RouteTableKey {
                client_namespace: client_namespace.clone(),
                service: service.to_string(),
            }),
            Key::EndpointSet(id) => Wire::EndpointSet(id.to_string()),
            Key::InboundPolicy(pod) => Wire::InboundPolicy(pod.to_string()),
            Key::TrustBundle => Wire::TrustBundle(proto::TrustBundleKey {}),
            Key::SessionKeys { client_namespace, scope } => Wire::SessionKeys(proto::SessionKeysKey {
                client_namespace: client_namespace.clone(),
                scope: scope.clone(),
            }),
        };
        Self { key: Some(key) }
    }
}

impl TryFrom<proto::Key> for Key {
    type Error = WireError;

    fn try_from(key: proto::Key) -> Result<Self, WireError> {
        use proto::key::Key as Wire;
        Ok(match key.key.ok_or_else(|| WireError::missing("key"))? {
            Wire::Address(address) => Self::Address(parsed("address", &address)?),
            Wire::RouteTable(key) => Self::RouteTable {
                client_namespace: key.client_namespace,
                service: parsed("route_table.service", &key.service)?,
            },
            Wire::EndpointSet(id) => Self::EndpointSet(parsed("endpoint_set", &id)?),
            Wire::InboundPolicy(pod) => Self::InboundPolicy(Uid::of(&pod)),
            Wire::TrustBundle(proto::TrustBundleKey {}) => Self::TrustBundle,
            Wire::SessionKeys(key) => {
                Self::SessionKeys { client_namespace: key.client_namespace, scope: key.scope }
            }
        })
    }
}
