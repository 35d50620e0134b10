//! Who may subscribe as whom, and who may read what.
//!
//! A sidecar is the pod that its certificate names, in the namespace of its identity. It reads its own namespace's
//! tables and session keys, and its own pod's policy. Addresses, endpoints and roots are the same for everybody. That a
//! session scope is named by a table which the sidecar gets is for the engine to see: it knows the tables.

use gamut_controller_api::Key;
use gamut_identity::Peer;
use thiserror::Error;
use tonic::Status;

use crate::engine::Who;

/// A subscription that isn't allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// No certificate. Not expected: the handshake asks for one.
    #[error("there is no certificate")]
    NoCertificate,
    /// A certificate without a pod: a person's or a component's.
    #[error("the certificate of {0} names no pod; only sidecars subscribe")]
    NoPod(String),
    /// Says that it is another pod.
    #[error("the certificate is pod {certificate}'s, not {claimed}'s")]
    OtherPod {
        /// By the certificate.
        certificate: String,
        /// By Hello.
        claimed: String,
    },
    /// Says that it is in another namespace.
    #[error("the certificate is of namespace {certificate}, not {claimed}")]
    OtherNamespace {
        /// By the certificate.
        certificate: String,
        /// By Hello.
        claimed: String,
    },
    /// Wants what is another's.
    #[error("{key} isn't for pod {uid} of namespace {namespace}")]
    NotYours {
        /// What it wants.
        key: String,
        /// Who it is.
        uid: String,
        /// Where it is.
        namespace: String,
    },
}

/// Checks that a sidecar is who it says that it is.
pub(super) fn identify(peer: Option<&Peer>, who: &Who) -> Result<(), Denied> {
    let peer = peer.ok_or(Denied::NoCertificate)?;
    let pod = peer.pod.ok_or_else(|| Denied::NoPod(peer.id.to_string()))?;
    if pod != who.uid {
        return Err(Denied::OtherPod { certificate: pod.to_string(), claimed: who.uid.to_string() });
    }
    if peer.id.namespace() != who.namespace {
        let certificate = peer.id.namespace().to_owned();
        return Err(Denied::OtherNamespace { certificate, claimed: who.namespace.clone() });
    }
    Ok(())
}

/// Checks that a key is for a sidecar to read.
pub(super) fn may_read(who: &Who, key: &Key) -> Result<(), Denied> {
    let allowed = match key {
        Key::Address(_) | Key::EndpointSet(_) | Key::TrustBundle => true,
        Key::RouteTable { client_namespace, .. } | Key::SessionKeys { client_namespace, .. } => {
            *client_namespace == who.namespace
        }
        Key::InboundPolicy(pod) => *pod == who.uid,
    };
    if allowed {
        return Ok(());
    }
    Err(Denied::NotYours { key: key.to_string(), uid: who.uid.to_string(), namespace: who.namespace.clone() })
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoCertificate => Self::unauthenticated(denied.to_string()),
            _ => Self::permission_denied(denied.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use gamut_identity::SpiffeId;
    use gamut_route::{BackendId, ServicePort, Uid};

    use super::*;

    fn who(namespace: &str, uid: &str) -> Who {
        let (namespace, pod) = (namespace.to_owned(), "web-0".to_owned());
        Who { namespace, pod, uid: Uid::of(uid), proxy_version: String::new() }
    }

    fn peer(namespace: &str, pod: Option<&str>) -> Peer {
        Peer { id: SpiffeId::new("cluster.local", namespace, "web").unwrap(), pod: pod.map(Uid::of) }
    }

    #[test]
    fn a_sidecar_is_the_pod_of_its_certificate_and_nobody_else() {
        assert_eq!(identify(Some(&peer("shop", Some("a"))), &who("shop", "a")), Ok(()));

        let another_pod = identify(Some(&peer("shop", Some("b"))), &who("shop", "a"));
        assert!(matches!(another_pod, Err(Denied::OtherPod { .. })), "{another_pod:?}");
        let another_namespace = identify(Some(&peer("bank", Some("a"))), &who("shop", "a"));
        assert!(matches!(another_namespace, Err(Denied::OtherNamespace { .. })), "{another_namespace:?}");
        let no_pod = identify(Some(&peer("shop", None)), &who("shop", "a"));
        assert!(matches!(no_pod, Err(Denied::NoPod(_))), "{no_pod:?}");
        assert_eq!(identify(None, &who("shop", "a")), Err(Denied::NoCertificate));
    }

    #[test]
    fn nobody_reads_anothers_tables_keys_or_policy() {
        let me = who("shop", "a");
        let service = ServicePort::new("shop", "web", 80);
        let table = |namespace: &str| Key::RouteTable {
            client_namespace: namespace.to_owned(),
            service: service.clone(),
        };
        let keys = |namespace: &str| Key::SessionKeys {
            client_namespace: namespace.to_owned(),
            scope: "route/x".to_owned(),
        };
        let everybodys = Key::EndpointSet(BackendId::Service(ServicePort::new("bank", "db", 5432)));
        for mine in [table("shop"), keys("shop"), Key::InboundPolicy(me.uid), Key::TrustBundle, everybodys] {
            assert_eq!(may_read(&me, &mine), Ok(()), "{mine}");
        }
        for anothers in [table("bank"), keys("bank"), Key::InboundPolicy(Uid::of("b"))] {
            assert!(matches!(may_read(&me, &anothers), Err(Denied::NotYours { .. })), "{anothers}");
        }
    }
}
