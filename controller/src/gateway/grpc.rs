//! GRPCRoute's rules, field by field as in the CRD.

use serde::Deserialize;

use super::{
    http::{ExtensionRef, HeaderModifier, HttpFilter, Mirror, ValueMatch},
    route::BackendRef,
    session::SessionPersistence,
};

/// `GRPCRoute.spec.rules[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRule {
    /// Unique in the route.
    pub name: Option<String>,
    /// Any of these; none means every request.
    pub matches: Vec<GrpcMatch>,
    /// In the order of the manifest.
    pub filters: Vec<GrpcFilter>,
    /// Where requests go.
    pub backend_refs: Vec<BackendRef<GrpcFilter>>,
    /// Route-scope sessions.
    pub session_persistence: Option<SessionPersistence>,
}

/// `matches[]`: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcMatch {
    /// Service and method; unset: all.
    pub method: Option<GrpcMethodMatch>,
    /// Metadata tests.
    pub headers: Vec<ValueMatch>,
}

/// `matches[].method`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    /// `Exact` (default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The service with its package; unset or empty: any.
    pub service: Option<String>,
    /// The method; unset or empty: any.
    pub method: Option<String>,
}

/// `filters[]`, of a rule or of a backendRef: a type and the field of the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcFilter {
    /// Which of the fields below counts.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestMirror`.
    pub request_mirror: Option<Mirror>,
    /// `ExtensionRef`; not supported.
    pub extension_ref: Option<ExtensionRef>,
}

/// GRPCRoute's filters are some of HTTPRoute's, and mean the same.
impl From<GrpcFilter> for HttpFilter {
    fn from(filter: GrpcFilter) -> Self {
        Self {
            kind: filter.kind,
            request_header_modifier: filter.request_header_modifier,
            response_header_modifier: filter.response_header_modifier,
            request_mirror: filter.request_mirror,
            extension_ref: filter.extension_ref,
            ..Self::default()
        }
    }
}
