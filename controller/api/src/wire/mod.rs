//! From domain types to the wire and back.
//!
//! Packing can't fail. Opening refuses what it doesn't understand with the path of the field, so that the reason which
//! a sidecar gives for a refusal leads a reader to the manifest. A body's bytes are made once: they are what the version
//! is a hash of, and what every subscriber is sent.

mod endpoint;
mod error;
mod filter;
mod key;
mod outcome;
mod table;
#[cfg(test)]
mod tests;
mod trust;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

pub use self::error::{Problem, WireError};
use crate::{Body, Key, Resource, Version, proto};

/// The largest body that is sent, in bytes. Far above a Service with a hundred thousand rules; it bounds what a reader
/// must be ready for.
pub const MAX_BODY: usize = 32 << 20;

/// How many bytes of bodies a message carries before the delivery goes on in the next one. A larger body goes alone.
pub const MESSAGE_TARGET: usize = 1 << 20;

/// The largest message from the controller that a sidecar decodes, in bytes.
pub const MAX_MESSAGE_FROM_CONTROLLER: usize = MAX_BODY + 2 * MESSAGE_TARGET;

/// The largest message from a sidecar that the controller decodes, in bytes: a Hello that holds [`MAX_KEYS`].
pub const MAX_MESSAGE_FROM_PROXY: usize = 4 << 20;

/// How many keys one sidecar may subscribe to.
pub const MAX_KEYS: usize = 16_384;

/// A resource in its wire form, made once and shared by all who subscribe to it.
#[derive(Clone, Debug)]
pub struct Packed {
    /// What it answers.
    pub key: Key,
    /// The hash of the body's bytes.
    pub version: Version,
    /// The message.
    pub wire: proto::Resource,
}

impl Packed {
    /// Encodes a body and computes its version.
    pub fn new(key: Key, body: &Body) -> Self {
        let bytes = Bytes::from(proto::Body::from(body).encode_to_vec());
        let version = Version::of(&bytes);
        let wire =
            proto::Resource { key: Some((&key).into()), version: version.to_wire().to_vec(), body: bytes };
        Self { key, version, wire }
    }
}

impl Resource {
    /// A key's answer with the version that its content has.
    pub fn new(key: Key, body: Body) -> Self {
        let version = Version::of(&proto::Body::from(&body).encode_to_vec());
        Self { key, version, body }
    }

    /// Opens the answer to a key.
    ///
    /// # Errors
    /// When the version or the body can't be taken, or the body answers another key.
    pub fn open(key: Key, version: &[u8], body: &[u8]) -> Result<Self, WireError> {
        let version = Version::from_wire(version)?;
        let body = proto::Body::decode(body)
            .map_err(|error| WireError::new("body", Problem::Garbled(error.to_string())))
            .and_then(Body::try_from)?;
        if !body.answers(&key) {
            return Err(WireError::invalid("body", format_args!("doesn't answer {key}")));
        }
        Ok(Self { key, version, body })
    }
}

impl Body {
    /// Whether this is an answer to the key.
    fn answers(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Address(_), Key::Address(_))
            | (Self::InboundPolicy(_), Key::InboundPolicy(_))
            | (Self::TrustBundle(_), Key::TrustBundle) => true,
            (Self::RouteTable(table), Key::RouteTable { service, .. }) => table.parent == *service,
            (Self::EndpointSet(set), Key::EndpointSet(id)) => set.id == *id,
            (Self::SessionKeys(keys), Key::SessionKeys { scope, .. }) => keys.scope == *scope,
            _ => false,
        }
    }
}

impl From<&Body> for proto::Body {
    fn from(body: &Body) -> Self {
        use proto::body::Body as Wire;
        let body = match body {
            Body::Address(answer) => Wire::Address(answer.into()),
            Body::RouteTable(table) => Wire::RouteTable(table.as_ref().into()),
            Body::EndpointSet(set) => Wire::EndpointSet(set.as_ref().into()),
            Body::InboundPolicy(policy) => Wire::InboundPolicy(policy.as_ref().into()),
            Body::TrustBundle(bundle) => Wire::TrustBundle(bundle.as_ref().into()),
            Body::SessionKeys(keys) => Wire::SessionKeys(keys.as_ref().into()),
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<proto::Body> for Body {
    type Error = WireError;

    fn try_from(body: proto::Body) -> Result<Self, WireError> {
        use proto::body::Body as Wire;
        Ok(match body.body.ok_or_else(|| WireError::missing("body"))? {
            Wire::Address(answer) => Self::Address(answer.try_into()?),
            Wire::RouteTable(table) => Self::RouteTable(Arc::new(table.try_into()?)),
            Wire::EndpointSet(set) => Self::EndpointSet(Arc::new(set.try_into()?)),
            Wire::InboundPolicy(policy) => Self::InboundPolicy(Arc::new(policy.try_into()?)),
            Wire::TrustBundle(bundle) => Self::TrustBundle(Arc::new(bundle.into())),
            Wire::SessionKeys(keys) => Self::SessionKeys(Arc::new(keys.try_into()?)),
        })
    }
}
