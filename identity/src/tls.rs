//! rustls configurations out of a certificate cell and a root cell.
//!
//! TLS 1.3 only, X25519MLKEM768 first, X25519 for who can't. A configuration is made once and stays good: it reads the
//! certificate and the roots of now at each handshake.
//!
//! There is no session resumption, by choice. A resumed session is authenticated by the handshake that it came from: neither
//! chain, time nor names are looked at again, so that a root that was taken away, or a leaf that has expired, would go on
//! working for as long as its ticket. What it would save, one signature and two verifications, is paid rarely because
//! connections between sidecars are kept and shared.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, Error, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite, default_provider, kx_group},
    },
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    certificate::Certificate,
    clock::Clock,
    pod_name::{POD_DOMAIN, uid_of_server_name},
    verify::{Clients, Servers},
};

/// Where the certificate of now is: empty until the first is issued.
pub(crate) type CurrentLeaf = Arc<ArcSwapOption<Certificate>>;

/// The cryptography of every connection in the mesh.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
            ..default_provider()
        })
    });
    PROVIDER.clone()
}

/// A client's side. Without `leaf` it shows no certificate.
pub(crate) fn client(
    servers: Servers,
    leaf: Option<CurrentLeaf>,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(servers));
    let mut config = match leaf {
        Some(leaf) => builder.with_client_cert_resolver(Arc::new(Resolver(leaf))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

/// A server's side. Without `clients` it asks for no certificate.
pub(crate) fn server(
    clients: Option<Clients>,
    leaf: CurrentLeaf,
    alpn: &[&[u8]],
    clock: &Clock,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(Arc::new(clients)),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(leaf)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = owned(alpn);
    Ok(config)
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Gives each handshake the certificate of now.
struct Resolver(CurrentLeaf);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().as_ref()?.key().clone())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

impl ResolvesServerCert for Resolver {
    /// Another pod's name gets no certificate: the caller's endpoint is stale, and it shall learn so at once.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let leaf = self.0.load();
        let leaf = leaf.as_ref()?;
        match hello.server_name() {
            Some(name) if name.ends_with(POD_DOMAIN) && uid_of_server_name(name) != leaf.pod() => None,
            _ => Some(leaf.key().clone()),
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.0.load()).finish()
    }
}
