//! The verifiers of both ends: a chain comes in from a handshake, a verdict goes out.
//!
//! Each verdict is read against the roots of *now*: the verifiers hold the cell that new roots are put into, so that one
//! configuration serves for a process's whole life. Order: chain length, chain to a root with signatures, time and usage
//! (webpki), then our own rules (`peer`), then whether it is who was called.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::verify_tls13_signature,
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    peer::{End, MAX_CHAIN, Peer, PeerError, peer_at},
    pod_name::uid_of_server_name,
    roots::Roots,
    spiffe::SpiffeId,
    tls,
};

/// Where the roots of now are: empty until the first are known, and then nobody is trusted.
pub(crate) type TrustedRoots = Arc<ArcSwapOption<Roots>>;

/// Our CA certifies P-256 keys only, so nobody may sign a handshake with anything else.
const SCHEMES: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

/// Who a client means to reach.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Callee {
    /// The pod that the server name names, of this trust domain. Its identity is for the caller to compare.
    Pod { trust_domain: Arc<str> },
    /// One identity, at whatever address.
    Exactly(SpiffeId),
}

/// A client's verdict on the server's certificate.
pub(crate) struct Servers {
    pub(crate) roots: TrustedRoots,
    pub(crate) callee: Callee,
}

/// A server's verdict on the client's certificate: required, and of our trust domain.
pub(crate) struct Clients {
    pub(crate) roots: TrustedRoots,
    pub(crate) trust_domain: Arc<str>,
}

/// Verifies a chain, leaf first, up to one of the roots: signatures, time, basic constraints, and usage if stated. It does not
/// look at names: that is [`peer`](crate::peer())'s part.
///
/// # Errors
/// rustls's, for the first thing that is wrong.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &Roots,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = tls::provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots.store(), intermediates, now, algorithms)
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(intermediates)?;
        let roots = self.roots.load();
        let roots = roots.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = tls::provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots.store(), intermediates, now, algorithms)?;

        let peer = peer_at(End::Server, leaf).map_err(refused)?;
        self.callee.check(&peer, server_name).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Clients {
    /// None: there is one CA to choose a certificate of, and its name is nobody's business.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(intermediates)?;
        let roots = self.roots.load();
        let roots = roots.as_ref().ok_or(CertificateError::UnknownIssuer)?;
        roots.client_verifier().verify_client_cert(leaf, intermediates, now)?;

        let peer = peer_at(End::Client, leaf).map_err(refused)?;
        check_trust_domain(&peer, &self.trust_domain).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl Callee {
    fn check(&self, peer: &Peer, server_name: &ServerName<'_>) -> Result<(), PeerError> {
        match self {
            Self::Exactly(expected) if *expected == peer.id => Ok(()),
            Self::Exactly(expected) => {
                Err(PeerError::Unexpected { expected: expected.clone(), found: peer.id.clone() })
            }
            Self::Pod { trust_domain } => {
                check_trust_domain(peer, trust_domain)?;
                let expected = server_name.to_str();
                match uid_of_server_name(&expected) {
                    Some(pod) if peer.pod == Some(pod) => Ok(()),
                    _ => Err(PeerError::WrongPod { expected: expected.into_owned(), found: peer.id.clone() }),
                }
            }
        }
    }
}

fn check_trust_domain(peer: &Peer, ours: &str) -> Result<(), PeerError> {
    if peer.id.trust_domain() == ours {
        return Ok(());
    }
    Err(PeerError::TrustDomain { id: peer.id.clone(), ours: ours.to_owned() })
}

fn check_length(intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
    match intermediates.len() + 1 {
        length if length > MAX_CHAIN => Err(refused(PeerError::ChainTooLong(length))),
        _ => Ok(()),
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithms = &tls::provider().signature_verification_algorithms;
    verify_tls13_signature(message, certificate, signature, algorithms)
}

/// Our reason inside rustls's error, where the log finds it; the peer sees no more than the alert `certificate_unknown`.
fn refused(reason: PeerError) -> Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

fn not_tls13() -> Error {
    Error::General("TLS 1.2 is never negotiated".to_owned())
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}
