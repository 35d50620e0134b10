//! The resources: what a sidecar can subscribe to, each by key, each versioned by a hash of its content.
//!
//! Every key always has an answer: a Service that doesn't exist has an empty endpoint set, an unknown address is
//! [`AddressAnswer::NotOurs`]. So nothing is ever "deleted" on the wire, and "no answer yet" has one meaning only.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use gamut_identity::SpiffeId;
use gamut_route::{BackendId, RouteTable, ServicePort, Uid, table::AppProtocol};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// What a sidecar subscribes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// What an address that the app dialled belongs to.
    Address(SocketAddr),
    /// The rules for traffic to this Service and port by clients of this namespace (the subscriber's own).
    RouteTable {
        /// The subscriber's namespace.
        client_namespace: String,
        /// The Service and port.
        service: ServicePort,
    },
    /// The endpoints of a backend.
    EndpointSet(BackendId),
    /// How the subscriber's own pod takes traffic in.
    InboundPolicy(Uid),
    /// The roots that peers' certificates must lead to.
    TrustBundle,
    /// The keys that seal and open session tokens of one scope, for a scope that a table of this namespace names.
    SessionKeys {
        /// The subscriber's namespace.
        client_namespace: String,
        /// As [`gamut_route::table::Session::scope`].
        scope: String,
    },
}

/// A key's answer and its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What was subscribed to.
    pub key: Key,
    /// Hash of the content: equal content has equal versions, on every replica and after every restart.
    pub version: Version,
    /// The content.
    pub body: Body,
}

/// The first 16 bytes of SHA-256 over a body's wire form, printed in hexadecimal. It says "same" or "other", not "newer".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(pub [u8; 16]);

/// A resource's content; the variant always matches the key's.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// For [`Key::Address`].
    Address(AddressAnswer),
    /// For [`Key::RouteTable`].
    RouteTable(Arc<RouteTable>),
    /// For [`Key::EndpointSet`].
    EndpointSet(Arc<EndpointSet>),
    /// For [`Key::InboundPolicy`].
    InboundPolicy(Arc<InboundPolicy>),
    /// For [`Key::TrustBundle`].
    TrustBundle(Arc<TrustBundle>),
    /// For [`Key::SessionKeys`].
    SessionKeys(Arc<SessionKeys>),
}

/// What an address belongs to. The third answer of the contract, "no answer", is the absence of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AddressAnswer {
    /// A cluster IP and port of this Service: ask for its route table.
    Service(ServicePort),
    /// A pod, dialled directly: no routes, still mTLS where it is meshed.
    Pod(Endpoint),
    /// Not the mesh's: passes through untouched.
    NotOurs,
}

/// The endpoints of one backend, those that aren't ready included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// Whose endpoints.
    pub id: BackendId,
    /// What the backend's port speaks (`appProtocol` of the backend Service's port).
    pub protocol: AppProtocol,
    /// The endpoints, ordered by address.
    pub endpoints: Vec<Endpoint>,
    /// `sessionAffinity: ClientIP` and its timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip_affinity: Option<Duration>,
    /// How many retries the backend may be sent; `None`: as many as rules allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
    /// A host outside whose addresses are the endpoints (a Service of type ExternalName): the sidecar resolves it, by its
    /// pod's own DNS, and keeps it fresh. `endpoints` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalHost>,
}

/// A host by its name. It is reached as the app sends, without mTLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalHost {
    /// A DNS name, without a dot at its end.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
}

/// The share of a backend's requests that may be retries (`XBackendTrafficPolicy.spec.retryConstraint`). It belongs to the
/// backend and not to a rule: the retries of all rules draw on it, each sidecar's by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Of the requests begun within `interval`, so many of a hundred may be retries. 0 to 100.
    pub percent: u8,
    /// How long a request counts. 1 s to 1 h.
    pub interval: Duration,
    /// So many retries are allowed in each `min_interval`, whatever their share. At least 1.
    pub min_retries: u32,
    /// Never zero, at most 1 h.
    pub min_interval: Duration,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Pod IP and target port.
    pub address: SocketAddr,
    /// The pod behind it, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// How it is reached.
    pub transport: Transport,
    /// `topology.kubernetes.io/zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Takes new traffic.
    pub ready: bool,
    /// Still answers (a terminating pod may).
    pub serving: bool,
    /// Is going away.
    pub terminating: bool,
}

/// A pod as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a new one for each incarnation.
    pub uid: Uid,
    /// The workload that owns it (a Deployment's name, say), for metrics.
    pub workload: String,
}

/// How an endpoint is reached. From the pod's real state: a sidecar that was injected and has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Mutual TLS to a sidecar; its certificate must carry this identity and the pod's UID.
    Mesh(SpiffeId),
    /// As the app sent it: there is no sidecar.
    Plaintext,
}

/// How a pod takes traffic in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPolicy {
    /// The mode of every port that `ports` doesn't name.
    pub mode: MtlsMode,
    /// Ports with settings of their own.
    pub ports: BTreeMap<u16, InboundPort>,
}

/// How one port takes traffic in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboundPort {
    /// Who may speak plaintext to it.
    pub mode: MtlsMode,
    /// What the app speaks on it.
    pub protocol: AppProtocol,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtlsMode {
    /// Mesh peers only; plaintext is refused.
    Strict,
    /// Mesh peers over mTLS, everybody else as they come.
    Permissive,
}

/// As annotations and settings have it.
impl std::fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
        })
    }
}

/// The roots that certificates must lead to: a set, so that roots can be rotated with overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// DER, in a stable order.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Keys of one session scope. Never logged: `Debug` shows only ids.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    /// The scope that they are derived for.
    pub scope: String,
    /// Key id and key; the first seals, all open.
    pub keys: Vec<(u8, [u8; 32])>,
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<u8> = self.keys.iter().map(|(id, _)| *id).collect();
        f.debug_struct("SessionKeys")
            .field("scope", &self.scope)
            .field("key_ids", &ids)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl Key {
    /// The kind as `status` and metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Address(_) => "Address",
            Self::RouteTable { .. } => "RouteTable",
            Self::EndpointSet(_) => "EndpointSet",
            Self::InboundPolicy(_) => "InboundPolicy",
            Self::TrustBundle => "TrustBundle",
            Self::SessionKeys { .. } => "SessionKeys",
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Address(address) => write!(f, " {address}"),
            Self::RouteTable { client_namespace, service } => write!(f, " {service} for {client_namespace}"),
            Self::EndpointSet(id) => write!(f, " {id}"),
            Self::InboundPolicy(pod) => write!(f, " {pod}"),
            Self::TrustBundle => Ok(()),
            Self::SessionKeys { client_namespace, scope } => write!(f, " {scope} for {client_namespace}"),
        }
    }
}
