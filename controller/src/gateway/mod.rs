//! The Gateway API's objects as this mesh reads them: v1.7.0's shapes, and the older ones of `sessionPersistence`.
//!
//! Reading is lenient, because a cluster's CRDs may be older or newer than we are. A field that isn't known,
//! a value of an enumeration that isn't known, or a value of the wrong type never costs the object:
//! enumerations stay text until they are compiled, unknown fields and wrong types are collected
//! ([`Lenient`]), rule by rule, and end up in a condition of the route. Fields that are known but have no
//! meaning for a mesh are here as well, so that they aren't called unknown.
//!
//! Deliberately absent: defaults that the CRDs state (the compiler knows them; files have no API server to fill them
//! in), and what anything means.

mod doubts;
mod duration;
mod grpc;
mod http;
mod lenient;
mod policy;
mod route;
mod schema;
mod session;
mod shape;
mod stream;

pub use doubts::{FutileRule, MissedService};
pub use duration::{DurationError, format_duration, parse_duration};
pub use grpc::{GrpcFilter, GrpcMatch, GrpcMethodMatch, GrpcRule};
pub use http::{
    Cors, ExtensionRef, Fraction, Header, HeaderModifier, HttpFilter, HttpMatch, HttpRule, Mirror, PathMatch,
    PathModifier, Redirect, Retry, Rewrite, Timeouts, ValueMatch,
};
pub use lenient::{Lenient, ReadError, joined};
pub use policy::{
    BackendPort, BackendTls, BudgetDetails, EndpointSelector, GrantFrom, GrantTo, ReferenceGrant,
    RequestRate, RetryConstraint, TargetRef, TrafficPolicy, TrafficPolicySpec, XBackend, XBackendSpec,
};
pub use route::{BackendRef, ParentRef, Route, Rules, name_of};
pub use schema::{SchemaError, SchemaProblem, schema_errors};
pub use session::{CookieConfig, HeaderConfig, SessionPersistence};
pub use stream::StreamRule;

/// The Gateway API's group.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// The group of the Gateway API's experimental kinds.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";
