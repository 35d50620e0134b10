//! What the controller serves: the resources ([`Key`], [`Body`]), and how they travel ([`wire`], [`proto`]).
//!
//! Both sides use these types: the controller packs bodies that it compiled, the sidecar opens them again. Anything a
//! reader can't take (an unknown filter of a newer controller, say) is refused by name and never dropped.

pub mod proto;
mod resource;
pub mod wire;

pub use resource::{
    AddressAnswer, Body, Endpoint, EndpointSet, ExternalHost, InboundPolicy, InboundPort, Key, MtlsMode, Pod,
    Resource, RetryBudget, SessionKeys, Transport, TrustBundle, Version,
};
pub use wire::{Packed, WireError};
