//! The application's own TLS, which a mesh leads on by the name that it calls.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Target;
use crate::EchoError;

/// Whom to trust, and which name to call.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// # Errors
    /// There is no certificate to trust, it can't be read, or the name is none.
    pub(super) fn new(target: &Target, ca: Option<&Path>, sni: Option<&str>) -> Result<Self, EchoError> {
        let wrong = |reason: &str| EchoError::Url { url: target.url.clone(), reason: reason.to_owned() };
        let ca = ca.ok_or_else(|| wrong("https needs --ca, the certificate that is trusted"))?;
        let unreadable = |reason: &dyn fmt::Display| EchoError::Certificate {
            file: ca.to_owned(),
            reason: reason.to_string(),
        };
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(ca).map_err(|error| unreadable(&error))?;
        roots.add(root).map_err(|error| unreadable(&error))?;
        let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(|error| unreadable(&error))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = sni.unwrap_or(&target.host).to_owned();
        let name = ServerName::try_from(name).map_err(|_| wrong("the name to call is no DNS name"))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, EchoError> {
        Ok(self.connector.connect(self.name.clone(), stream).await?)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}
