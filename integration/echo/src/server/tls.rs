//! Ports that speak TLS, with the one certificate that the command line names.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::EchoError;

/// Reads the certificate chain and its key, both PEM.
///
/// # Errors
/// If a file can't be read, isn't PEM, or the two don't belong together.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, EchoError> {
    let error = |file: &Path, reason: &dyn std::fmt::Display| EchoError::Certificate {
        file: file.to_owned(),
        reason: reason.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'static>> = chain.map_err(|reason| error(certificate, &reason))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|reason| error(key, &reason))?;
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map(|config| config.with_no_client_auth());
    let config = config.and_then(|config| config.with_single_cert(chain, secret));
    let mut config = config.map_err(|reason| error(certificate, &reason))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::server::{App, Protocol, Server};

    #[tokio::test]
    async fn a_tls_port_answers_as_the_others_do_and_shows_its_certificate() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["echo".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (crt, key) = (directory.path().join("cert.crt"), directory.path().join("cert.key"));
        std::fs::write(&crt, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let protocol = Protocol::Https(acceptor(&crt, &key).unwrap());
        let _server = Server::start(vec![(listener, protocol)], App::new("v7".to_owned(), None));

        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("echo").unwrap();
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("ServiceVersion=v7") && answer.contains("URL=/a"), "{answer}");
    }

    #[test]
    fn a_certificate_that_cant_be_read_is_named() {
        let error = acceptor(Path::new("/none.crt"), Path::new("/none.key")).err().unwrap().to_string();
        assert!(error.starts_with("/none.crt: "), "{error}");
    }
}
