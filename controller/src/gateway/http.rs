//! HTTPRoute's rules, field by field as in the CRD. What each field means is documented in
//! `docs/reference/httproute.md`.

use serde::Deserialize;
use serde_json::Value;

use super::{route::BackendRef, session::SessionPersistence};

/// `HTTPRoute.spec.rules[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRule {
    /// Unique in the route.
    pub name: Option<String>,
    /// Any of these; none means every request.
    pub matches: Vec<HttpMatch>,
    /// In the order of the manifest.
    pub filters: Vec<HttpFilter>,
    /// Where requests go.
    pub backend_refs: Vec<BackendRef<HttpFilter>>,
    /// Time limits.
    pub timeouts: Option<Timeouts>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// Route-scope sessions.
    pub session_persistence: Option<SessionPersistence>,
}

/// `matches[]`: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Unset: prefix `/`.
    pub path: Option<PathMatch>,
    /// Header tests.
    pub headers: Vec<ValueMatch>,
    /// Query parameter tests.
    pub query_params: Vec<ValueMatch>,
    /// The method.
    pub method: Option<String>,
}

/// `matches[].path`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PathMatch {
    /// `Exact`, `PathPrefix` (default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Default `/`.
    pub value: Option<String>,
}

/// A test of a header's or query parameter's value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ValueMatch {
    /// `Exact` (default) or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The header's or parameter's name.
    pub name: String,
    /// The value, or the regular expression.
    pub value: String,
}

/// `filters[]`, of a rule or of a backendRef: a type and the field of the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpFilter {
    /// Which of the fields below counts.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestMirror`.
    pub request_mirror: Option<Mirror>,
    /// `RequestRedirect`.
    pub request_redirect: Option<Redirect>,
    /// `URLRewrite`.
    pub url_rewrite: Option<Rewrite>,
    /// `CORS`.
    pub cors: Option<Cors>,
    /// `ExternalAuth`; not supported, so its content is of no interest.
    pub external_auth: Option<Value>,
    /// `ExtensionRef`; not supported.
    pub extension_ref: Option<ExtensionRef>,
}

/// Header edits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Replaces.
    pub set: Vec<Header>,
    /// Appends.
    pub add: Vec<Header>,
    /// Takes away.
    pub remove: Vec<String>,
}

/// A header's name and value.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Header {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// `requestMirror`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mirror {
    /// Where copies go.
    pub backend_ref: BackendRef<HttpFilter>,
    /// The share in percent.
    pub percent: Option<i64>,
    /// The share as a fraction.
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// Not negative, not more than the denominator.
    pub numerator: i64,
    /// Default 100.
    pub denominator: Option<i64>,
}

/// `requestRedirect`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The Location's host.
    pub hostname: Option<String>,
    /// The Location's path.
    pub path: Option<PathModifier>,
    /// The Location's port.
    pub port: Option<i64>,
    /// Default 302.
    pub status_code: Option<i64>,
}

/// `urlRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rewrite {
    /// The new host.
    pub hostname: Option<String>,
    /// The new path.
    pub path: Option<PathModifier>,
}

/// `path` of a redirect or rewrite: a type and the field of the same name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    /// `ReplaceFullPath` or `ReplacePrefixMatch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The whole new path.
    pub replace_full_path: Option<String>,
    /// What stands in place of the matched prefix.
    pub replace_prefix_match: Option<String>,
}

/// `cors`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cors {
    /// Origins, with wildcards.
    pub allow_origins: Vec<String>,
    /// Default false.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<String>,
    /// Request headers, or `*`.
    pub allow_headers: Vec<String>,
    /// Response headers, or `*`.
    pub expose_headers: Vec<String>,
    /// Seconds; default 5.
    pub max_age: Option<i64>,
}

/// `extensionRef`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExtensionRef {
    /// The group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// `timeouts`: GEP-2257 durations.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    /// For the whole of a request, retries included.
    pub request: Option<String>,
    /// For each try.
    pub backend_request: Option<String>,
}

/// `retry`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Retry {
    /// 400 to 599.
    pub codes: Vec<i64>,
    /// Default 1; 0 turns retries off.
    pub attempts: Option<i64>,
    /// The base interval, a GEP-2257 duration.
    pub backoff: Option<String>,
}
