//! How it stands with an injector: `/status` on its admin port, for `gamut check` and `gamut status`.

use serde::{Deserialize, Serialize};

/// What one replica says of itself and of the pods that it looks after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectorStatus {
    /// Whether the API server may ask it.
    pub ready: bool,
    /// Its serving certificate; none before the first.
    pub certificate: Option<OwnCertificate>,
    /// Why the newest try to get a certificate failed.
    pub certificate_problem: Option<String>,
    /// What the API server knows it by.
    pub ca_bundle: CaBundle,
    /// Pods that should have a sidecar and don't, by namespace and name: the first 500.
    pub without_sidecar: Vec<WithoutSidecar>,
    /// How many of these there are.
    pub without_sidecar_total: usize,
    /// What can't be watched, and what that means, a line each.
    pub problems: Vec<String>,
    /// Namespaces whose Pod Security level refuses sidecars, though they ask for them; by name.
    pub pod_security: Vec<ForbiddingNamespace>,
}

/// The injector's own certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnCertificate {
    /// As the CA's audit log has it.
    pub serial: String,
    /// Until when it is good, RFC 3339.
    pub not_after: String,
}

/// `caBundle` of our webhook configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum CaBundle {
    /// Nobody has looked yet.
    Unknown,
    /// It holds the published roots.
    Written {
        /// How many.
        roots: usize,
    },
    /// Something that others make isn't there.
    Waiting {
        /// What, in a sentence.
        reason: String,
    },
    /// Writing failed; it is tried again.
    Failed {
        /// Why, in a sentence.
        reason: String,
    },
}

/// A pod that should have a sidecar and doesn't.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithoutSidecar {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What made it, kind and name.
    pub owner: Option<String>,
    /// Why.
    pub cause: Cause,
    /// Why, and what to do: a sentence.
    pub message: String,
}

/// Why a pod has no sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// It was created without us, and would get one now.
    NotInjected,
    /// It uses the host's network.
    HostNetwork,
    /// It is a node's own.
    StaticPod,
    /// It isn't for Linux.
    OperatingSystem,
    /// It would be refused now.
    Refused,
    /// Nobody has looked yet.
    Unexamined,
}

impl Cause {
    /// As a label's value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotInjected => "not_injected",
            Self::HostNetwork => "host_network",
            Self::StaticPod => "static_pod",
            Self::OperatingSystem => "operating_system",
            Self::Refused => "refused",
            Self::Unexamined => "unexamined",
        }
    }
}

/// A namespace that asks for sidecars and forbids them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForbiddingNamespace {
    /// Its name.
    pub namespace: String,
    /// The level that it enforces.
    pub level: String,
}
