//! What isn't a route: ReferenceGrant, XBackend (GEP-4894), XBackendTrafficPolicy.

use std::collections::BTreeMap;

use gamut_route::{NamespacedName, Uid};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{Lenient, session::SessionPersistence};

/// A ReferenceGrant: who in other namespaces may refer to what in this one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    /// Any of these may refer.
    pub from: Vec<GrantFrom>,
    /// To any of these.
    pub to: Vec<GrantTo>,
}

/// `from[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrantFrom {
    /// The referrer's group.
    pub group: String,
    /// The referrer's kind.
    pub kind: String,
    /// The referrer's namespace.
    pub namespace: String,
}

/// `to[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GrantTo {
    /// The referent's group; empty is the core group.
    pub group: String,
    /// The referent's kind.
    pub kind: String,
    /// The referent's name; unset: all of the kind.
    pub name: Option<String>,
}

/// An XBackend object.
#[derive(Clone, Debug, PartialEq)]
pub struct XBackend {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What session tokens name.
    pub uid: Uid,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec`.
    pub spec: Lenient<XBackendSpec>,
    /// The `status` as it is now.
    pub status: Value,
}

/// `XBackend.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct XBackendSpec {
    /// `EndpointSelector` or `ExternalHostname`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The port that endpoints listen on.
    pub port: BackendPort,
    /// For `ExternalHostname`; not supported.
    pub external_hostname: Option<Value>,
    /// For `EndpointSelector`.
    pub endpoint_selector: Option<EndpointSelector>,
    /// Backend-scope sessions.
    pub session_persistence: Option<SessionPersistence>,
    /// `TCP`, `HTTP`, `HTTP2`, `HTTP11`, `H2C`, `GRPC`, `MCP` or `WSS`.
    pub protocol: Option<String>,
    /// TLS to the backend; only mode `None` is supported.
    pub tls: Option<BackendTls>,
}

/// `port`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BackendPort {
    /// 1 to 65535.
    pub number: i64,
}

/// `endpointSelector`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSelector {
    /// All of these labels.
    pub match_labels: BTreeMap<String, String>,
}

/// `tls`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTls {
    /// `None`, `ServerOnly` or `ClientAndServer`.
    pub mode: String,
    /// For `ClientAndServer`.
    pub client_certificate_ref: Option<Value>,
    /// How the server is checked.
    pub validation: Option<Value>,
}

/// An XBackendTrafficPolicy object.
#[derive(Clone, Debug, PartialEq)]
pub struct TrafficPolicy {
    /// Namespace and name.
    pub name: NamespacedName,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.creationTimestamp`: of two policies for one Service the older wins (GEP-713).
    pub created: Timestamp,
    /// `spec`.
    pub spec: Lenient<TrafficPolicySpec>,
    /// The `status` as it is now.
    pub status: Value,
}

/// `XBackendTrafficPolicy.spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicySpec {
    /// The Services that it is for, in its own namespace.
    pub target_refs: Vec<TargetRef>,
    /// A retry budget.
    pub retry_constraint: Option<RetryConstraint>,
    /// Sessions for rules that lead to the target and have no settings of their own.
    pub session_persistence: Option<SessionPersistence>,
}

/// `retryConstraint`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConstraint {
    /// The share of requests that may be retries.
    pub budget: Option<BudgetDetails>,
    /// What is allowed whatever the share.
    pub min_retry_rate: Option<RequestRate>,
}

/// `retryConstraint.budget`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BudgetDetails {
    /// 0 to 100; default 20.
    pub percent: Option<i64>,
    /// A GEP-2257 duration from 1s to 1h; default 10s.
    pub interval: Option<String>,
}

/// `retryConstraint.minRetryRate`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RequestRate {
    /// 1 to 1,000,000; default 10.
    pub count: Option<i64>,
    /// A GEP-2257 duration up to 1h, not zero; default 1s.
    pub interval: Option<String>,
}

/// `targetRefs[]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Empty is the core group.
    pub group: String,
    /// `Service`.
    pub kind: String,
    /// The Service's name.
    pub name: String,
}
