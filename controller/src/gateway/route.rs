//! Routes: what all kinds have in common, and their rules.

use std::collections::BTreeMap;

use gamut_manifest::Object;
use gamut_route::{NamespacedName, RouteKind, RouteRef, Uid};
use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    grpc::GrpcRule,
    http::HttpRule,
    lenient::Lenient,
    policy::{ReferenceGrant, TrafficPolicy, XBackend},
    stream::StreamRule,
};

/// A route object of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Kind, namespace and name.
    pub reference: RouteRef,
    /// What session scopes are made of.
    pub uid: Uid,
    /// `metadata.creationTimestamp`: of two routes that tie, the older wins.
    pub created: Timestamp,
    /// `metadata.generation`, for `observedGeneration`.
    pub generation: i64,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `spec.parentRefs`, those of other controllers included.
    pub parents: Lenient<Vec<ParentRef>>,
    /// `spec.hostnames`.
    pub hostnames: Lenient<Vec<String>>,
    /// `spec.rules`.
    pub rules: Rules,
    /// Fields of `spec` that aren't known.
    pub unknown: Vec<String>,
    /// The `status` as it is now, other controllers' entries included.
    pub status: Value,
}

/// A route's rules, each read by itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Rules {
    /// Of an HTTPRoute.
    Http(Vec<Lenient<HttpRule>>),
    /// Of a GRPCRoute.
    Grpc(Vec<Lenient<GrpcRule>>),
    /// Of a TCPRoute or TLSRoute.
    Stream(Vec<Lenient<StreamRule>>),
    /// `rules` isn't a list.
    Unreadable,
}

impl Rules {
    /// The names of rules for requests, in their order; `None` for one without a name, or that can't be read.
    pub fn names(&self) -> Vec<Option<&str>> {
        match self {
            Self::Http(rules) => rules.iter().map(|rule| rule.ok()?.name.as_deref()).collect(),
            Self::Grpc(rules) => rules.iter().map(|rule| rule.ok()?.name.as_deref()).collect(),
            Self::Stream(_) | Self::Unreadable => Vec::new(),
        }
    }
}

/// `spec.parentRefs[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentRef {
    /// Default `gateway.networking.k8s.io`.
    pub group: Option<String>,
    /// Default `Gateway`.
    pub kind: Option<String>,
    /// Default: the route's own.
    pub namespace: Option<String>,
    /// The parent.
    pub name: String,
    /// For a Service: a port's name.
    pub section_name: Option<String>,
    /// For a Service: a port's number.
    pub port: Option<i64>,
}

/// `backendRefs[]`, and the `backendRef` of a mirror (which has no weight and no filters).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct BackendRef<F> {
    /// Default: the core group.
    pub group: Option<String>,
    /// Default `Service`.
    pub kind: Option<String>,
    /// Default: the route's own.
    pub namespace: Option<String>,
    /// The Service or XBackend.
    pub name: String,
    /// The Service's port.
    pub port: Option<i64>,
    /// Default 1.
    pub weight: Option<i64>,
    /// For requests that go to this backend.
    pub filters: Vec<F>,
}

impl<F> Default for BackendRef<F> {
    fn default() -> Self {
        Self {
            group: None,
            kind: None,
            namespace: None,
            name: String::new(),
            port: None,
            weight: None,
            filters: Vec::new(),
        }
    }
}

/// Fields of `spec` that every route kind has. `useDefaultGateways` is about Gateways only, and so nothing to a mesh.
const COMMON_FIELDS: [&str; 4] = ["parentRefs", "hostnames", "rules", "useDefaultGateways"];

impl Route {
    /// Reads a route of the kind. Never fails: what can't be read is kept as such.
    pub fn read(kind: RouteKind, object: &Object) -> Self {
        let empty = Map::new();
        let spec = object.raw.get("spec").and_then(Value::as_object).unwrap_or(&empty);
        let field = |name: &str| spec.get(name).cloned();
        // TCPRoute has no hostnames: there they are as unknown as any other field.
        let is_known =
            |name: &str| COMMON_FIELDS.contains(&name) && !(kind == RouteKind::Tcp && name == "hostnames");
        let rules = field("rules");
        Self {
            reference: RouteRef { kind, name: name_of(object) },
            uid: Uid::of(&object.uid),
            created: object.created,
            generation: object.generation,
            annotations: object.annotations.clone(),
            parents: Lenient::read(field("parentRefs").unwrap_or_else(|| Value::Array(Vec::new()))),
            hostnames: Lenient::read(field("hostnames").unwrap_or_else(|| Value::Array(Vec::new()))),
            rules: match kind {
                RouteKind::Http => each(rules).map_or(Rules::Unreadable, Rules::Http),
                RouteKind::Grpc => each(rules).map_or(Rules::Unreadable, Rules::Grpc),
                RouteKind::Tcp | RouteKind::Tls => each(rules).map_or(Rules::Unreadable, Rules::Stream),
            },
            unknown: spec
                .iter()
                .filter(|(name, value)| !is_known(name) && !value.is_null())
                .map(|(name, _)| name.clone())
                .collect(),
            status: object.raw.get("status").cloned().unwrap_or(Value::Null),
        }
    }

    /// The parents that are Services, each once, in the order of the manifest.
    pub fn service_parents(&self) -> Vec<&ParentRef> {
        let mut parents: Vec<&ParentRef> = Vec::new();
        for parent in self.parents.ok().into_iter().flatten().filter(|parent| parent.is_service()) {
            if !parents.contains(&parent) {
                parents.push(parent);
            }
        }
        parents
    }
}

impl ParentRef {
    /// True for a Service; `core` is accepted as another name of the core group.
    pub fn is_service(&self) -> bool {
        matches!(self.group.as_deref(), Some("" | "core")) && self.kind.as_deref() == Some("Service")
    }

    /// The parent's namespace and name, for a route of the given namespace.
    pub fn target(&self, route_namespace: &str) -> NamespacedName {
        NamespacedName::new(self.namespace.as_deref().unwrap_or(route_namespace), self.name.as_str())
    }
}

impl ReferenceGrant {
    /// Reads a ReferenceGrant; one that can't be read grants nothing.
    pub fn read(object: &Object) -> Lenient<Self> {
        Lenient::read(object.raw.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new())))
    }
}

impl XBackend {
    /// Reads an XBackend.
    pub fn read(object: &Object) -> Self {
        Self {
            name: name_of(object),
            uid: Uid::of(&object.uid),
            generation: object.generation,
            spec: Lenient::read(object.raw.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()))),
            status: object.raw.get("status").cloned().unwrap_or(Value::Null),
        }
    }
}

impl TrafficPolicy {
    /// Reads an XBackendTrafficPolicy.
    pub fn read(object: &Object) -> Self {
        Self {
            name: name_of(object),
            generation: object.generation,
            created: object.created,
            spec: Lenient::read(object.raw.get("spec").cloned().unwrap_or_else(|| Value::Object(Map::new()))),
            status: object.raw.get("status").cloned().unwrap_or(Value::Null),
        }
    }
}

/// An object's namespace and name.
pub fn name_of(object: &Object) -> NamespacedName {
    NamespacedName::new(object.namespace.clone().unwrap_or_default(), object.name.clone())
}

/// Each element read by itself; no list is no rules, anything else is `None`.
fn each<T: DeserializeOwned>(list: Option<Value>) -> Option<Vec<Lenient<T>>> {
    match list {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => Some(list.into_iter().map(Lenient::read_rule).collect()),
        Some(_) => None,
    }
}
