//! [`Identity`]: the handle that everything else holds. The worker puts certificates in, TLS configurations come out.

use std::{sync::Arc, time::SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::{ClientConfig, ServerConfig};
use thiserror::Error;
use tokio::sync::watch;

use crate::{
    certificate::Certificate,
    clock::{Clock, rfc3339},
    issuer::Issuer,
    roots::Roots,
    spiffe::SpiffeId,
    tls::{self, CurrentLeaf},
    verify::{Callee, Clients, Servers, TrustedRoots},
    worker::Worker,
};

/// A workload's identity: cheap to clone, every clone sees the same certificate and the same roots.
#[derive(Clone)]
pub struct Identity(Arc<Shared>);

struct Shared {
    id: SpiffeId,
    trust_domain: Arc<str>,
    clock: Clock,
    leaf: CurrentLeaf,
    roots: TrustedRoots,
    status: watch::Sender<Status>,
    clients: Cache<(Callee, Alpn), ClientConfig>,
    servers: Cache<(Asks, Alpn), ServerConfig>,
}

/// How it stands with the certificate.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The newest one, expired or not; `None` before the first.
    pub certificate: Option<Arc<Certificate>>,
    /// Why the newest try to get one failed; `None` after a success.
    pub problem: Option<Arc<str>>,
    /// How many tries have failed since the last success.
    pub failures: u32,
}

/// Why there is no TLS to be had. New connections fail closed with this; they never fall back to plaintext.
#[derive(Clone, Debug, Error)]
pub enum ConfigError {
    /// The first certificate hasn't come.
    #[error("{id} has no certificate yet: {reason}")]
    NoCertificate {
        /// Whose.
        id: SpiffeId,
        /// What the worker is waiting for.
        reason: Arc<str>,
    },
    /// It couldn't be renewed in time.
    #[error("the certificate of {id} expired at {since} and can't be renewed: {reason}")]
    Expired {
        /// Whose.
        id: SpiffeId,
        /// When, RFC 3339.
        since: String,
        /// What the last try failed with.
        reason: Arc<str>,
    },
    /// The TLS library refuses our settings. Not expected.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

type Alpn = Vec<Vec<u8>>;

/// Whether a server asks its clients for certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Certificates,
    Nothing,
}

impl Identity {
    /// Starts getting a certificate for `id` from `issuer` and keeping it fresh, on the current tokio runtime, for as long as
    /// that runs. Returns at once; [`Identity::ready`] waits.
    pub fn start(id: SpiffeId, issuer: impl Issuer, clock: Clock) -> Self {
        let identity = Self::without_certificate(id, clock);
        tokio::spawn(Worker::new(identity.clone(), issuer).run());
        identity
    }

    pub(crate) fn without_certificate(id: SpiffeId, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            trust_domain: id.trust_domain().into(),
            id,
            clock,
            leaf: CurrentLeaf::default(),
            roots: Arc::new(ArcSwapOption::empty()),
            status: watch::Sender::default(),
            clients: Cache::default(),
            servers: Cache::default(),
        }))
    }

    /// Whose identity this is.
    pub fn id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// Waits for the first certificate. Later calls return at once, with the newest, which may have expired.
    pub async fn ready(&self) -> Arc<Certificate> {
        let mut status = self.0.status.subscribe();
        loop {
            if let Some(certificate) = &status.borrow_and_update().certificate {
                return certificate.clone();
            }
            // It can't close: `self` holds the sender.
            let _ = status.changed().await;
        }
    }

    /// The newest certificate, expired or not.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.0.leaf.load_full()
    }

    /// Follows what happens to the certificate.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// The roots of now; `None` before the first certificate.
    pub fn roots(&self) -> Option<Arc<Roots>> {
        self.0.roots.load_full()
    }

    /// Trusts these roots and no others, from the next handshake on. Connections that stand are left alone.
    pub fn set_roots(&self, roots: Roots) {
        self.0.roots.store(Some(Arc::new(roots)));
    }

    /// For connections to pods of the mesh, dialled with [`server_name`](crate::server_name). The handshake checks that it is
    /// that pod; whose service account it runs as is for the caller to compare ([`peer`](crate::peer)).
    ///
    /// Cheap; one is shared by all connections with the same ALPN list.
    ///
    /// # Errors
    /// Without a good certificate of our own.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, ConfigError> {
        self.client_config_for(Callee::Pod { trust_domain: self.0.trust_domain.clone() }, alpn)
    }

    /// For connections to one known identity at whatever address, such as the controller.
    ///
    /// # Errors
    /// Without a good certificate of our own.
    pub fn client_config_to(
        &self,
        server: &SpiffeId,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, ConfigError> {
        self.client_config_for(Callee::Exactly(server.clone()), alpn)
    }

    /// For connections from mesh peers, whose certificates it requires and verifies.
    ///
    /// # Errors
    /// Without a good certificate of our own.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, ConfigError> {
        self.server_config_that(Asks::Certificates, alpn)
    }

    /// For connections from who can't have a certificate yet: the client verifies us, we don't verify it.
    ///
    /// # Errors
    /// Without a good certificate of our own.
    pub fn server_config_for_anyone(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, ConfigError> {
        self.server_config_that(Asks::Nothing, alpn)
    }

    fn client_config_for(&self, callee: Callee, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, ConfigError> {
        self.check_certificate()?;
        let shared = &self.0;
        shared.clients.get_or_make((callee, owned(alpn)), |(callee, _)| {
            let servers = Servers { roots: shared.roots.clone(), callee: callee.clone() };
            Ok(tls::client(servers, Some(shared.leaf.clone()), alpn, &shared.clock)?)
        })
    }

    fn server_config_that(&self, asks: Asks, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, ConfigError> {
        self.check_certificate()?;
        let shared = &self.0;
        shared.servers.get_or_make((asks, owned(alpn)), |(asks, _)| {
            let clients = match asks {
                Asks::Certificates => {
                    Some(Clients { roots: shared.roots.clone(), trust_domain: shared.trust_domain.clone() })
                }
                Asks::Nothing => None,
            };
            Ok(tls::server(clients, shared.leaf.clone(), alpn, &shared.clock)?)
        })
    }

    fn check_certificate(&self) -> Result<(), ConfigError> {
        let now = self.0.clock.now();
        match &*self.0.leaf.load() {
            Some(leaf) if now <= leaf.not_after() => Ok(()),
            Some(leaf) => Err(ConfigError::Expired {
                id: self.0.id.clone(),
                since: rfc3339(leaf.not_after()),
                reason: self.reason("it is being renewed"),
            }),
            None => Err(ConfigError::NoCertificate {
                id: self.0.id.clone(),
                reason: self.reason("the CA hasn't answered yet"),
            }),
        }
    }

    fn reason(&self, otherwise: &str) -> Arc<str> {
        self.0.status.borrow().problem.clone().unwrap_or_else(|| otherwise.into())
    }

    pub(crate) fn now(&self) -> SystemTime {
        self.0.clock.now()
    }

    /// A new certificate, and the roots that came with it.
    pub(crate) fn install(&self, certificate: Certificate, roots: Roots) {
        let certificate = Arc::new(certificate);
        self.set_roots(roots);
        self.0.leaf.store(Some(certificate.clone()));
        self.0.status.send_replace(Status { certificate: Some(certificate), ..Status::default() });
    }

    /// A try failed; whatever certificate there is stays.
    pub(crate) fn record_failure(&self, problem: &str) {
        self.0.status.send_modify(|status| {
            status.problem = Some(problem.into());
            status.failures = status.failures.saturating_add(1);
        });
    }
}

fn owned(alpn: &[&[u8]]) -> Alpn {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// The few configurations that a process uses, made on first use. Reading it takes no lock.
struct Cache<K, V>(ArcSwap<Vec<(K, Arc<V>)>>);

impl<K: Clone + PartialEq, V> Cache<K, V> {
    fn get_or_make(
        &self,
        key: K,
        make: impl FnOnce(&K) -> Result<V, ConfigError>,
    ) -> Result<Arc<V>, ConfigError> {
        let find =
            |all: &Vec<(K, Arc<V>)>| all.iter().find(|(k, _)| *k == key).map(|(_, value)| value.clone());
        if let Some(found) = find(&self.0.load()) {
            return Ok(found);
        }
        let made = Arc::new(make(&key)?);
        // Two that race both add theirs, which is harmless: the configurations are equal.
        self.0.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push((key.clone(), made.clone()));
            all
        });
        Ok(made)
    }
}

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.0.id)
            .field("certificate", &*self.0.leaf.load())
            .finish_non_exhaustive()
    }
}
