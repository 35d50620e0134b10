//! Who a workload is: its SPIFFE ID, the certificate that proves it, and TLS made of both.
//!
//! [`Identity::start`] makes a key and asks an [`Issuer`] for a certificate (a [`CaClient`], or the CA itself for its own),
//! renews it in time, and gives out rustls configurations that always speak with the certificate and the roots of now.
//! [`peer()`] says who is at the other end of a verified connection; [`grpc`] carries tonic over such connections.
//!
//! Deliberately absent: authorization (who may call whom is policy, not identity), keys on disk, session resumption, TLS 1.2.

mod certificate;
mod clock;
mod csr;
mod explain;
pub mod grpc;
mod handle;
mod issuer;
mod listen;
mod mesh;
pub mod metrics;
mod peer;
mod pod_name;
mod roots;
mod spiffe;
mod stop;
mod tls;
mod verify;
mod worker;

pub use certificate::{Certificate, CertificateError};
pub use clock::Clock;
pub use csr::RequestError;
pub use explain::{explain, explain_status};
pub use handle::{ConfigError, Identity, Status};
pub use issuer::{CaClient, IssueError, Issued, Issuer};
pub use listen::listen;
pub use mesh::MeshArgs;
pub use peer::{Peer, PeerError, peer};
pub use pod_name::{POD_DOMAIN, pod_name, server_name, uid_of_server_name};
pub use roots::{Root, Roots, RootsError, to_pem};
pub use spiffe::{SpiffeError, SpiffeId};
pub use stop::told_to_stop;
pub use tls::provider;
pub use verify::verify_chain;

/// The trust domain of an installation that names no other.
pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The namespace of our own processes.
pub const SYSTEM_NAMESPACE: &str = "gamut-system";
/// The CA's service account in [`SYSTEM_NAMESPACE`].
pub const CA_SERVICE_ACCOUNT: &str = "gamut-ca";
/// The controller's service account in [`SYSTEM_NAMESPACE`].
pub const CONTROLLER_SERVICE_ACCOUNT: &str = "gamut-controller";
/// The injector's service account in [`SYSTEM_NAMESPACE`], and the name of its Service.
pub const INJECTOR_SERVICE_ACCOUNT: &str = "gamut-injector";
/// The name by which the API server calls the injector: of the injector's Service, as webhook configurations are dialled.
pub const INJECTOR_SERVICE_NAME: &str = "gamut-injector.gamut-system.svc";
