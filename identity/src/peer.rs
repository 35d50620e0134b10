//! What a leaf certificate says about its holder: DER in, a [`Peer`] out.
//!
//! Chain, signature and time are rustls's part (see `verify`). Here are the rules that TLS libraries don't have: exactly
//! one URI SAN, and it is a service account's SPIFFE ID; at most one pod's DNS SAN, well formed; usages stated and no more
//! than a workload's (X509-SVID sections 3 to 5).

use gamut_route::Uid;
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Version},
};

use crate::{
    pod_name::{POD_DOMAIN, uid_of_server_name},
    spiffe::{SpiffeError, SpiffeId},
};

/// The longest chain that we look at, leaf included. Ours have one certificate, or two under a user's intermediate.
pub(crate) const MAX_CHAIN: usize = 4;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its service account.
    pub id: SpiffeId,
    /// Its pod; `None` for a holder that isn't one.
    pub pod: Option<Uid>,
}

/// Which end of a connection a certificate is used at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// Why a certificate doesn't make its holder a peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// The connection has none.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// More certificates than any honest peer has.
    #[error("the peer sent {0} certificates; at most {MAX_CHAIN} are looked at")]
    ChainTooLong(usize),
    /// Not X.509, or not version 3.
    #[error("the peer's certificate can't be read: {0}")]
    Unreadable(String),
    /// None, or more than one, URI among its names.
    #[error("the peer's certificate has {0} URI names; an identity is exactly one")]
    UriCount(usize),
    /// Its URI isn't a service account's.
    #[error("the peer's certificate: {0}")]
    Spiffe(#[from] SpiffeError),
    /// Names a pod in another way than our CA does, or two.
    #[error("the peer's certificate has the DNS name {0:?}, which isn't the one name of a pod")]
    PodName(String),
    /// Made for something else.
    #[error("the peer's certificate is not for a workload: {0}")]
    Usage(&'static str),
    /// Another mesh's, or one that pretends.
    #[error("the peer is {id}, of another trust domain than ours, {ours}")]
    TrustDomain {
        /// Who it says it is.
        id: SpiffeId,
        /// Our trust domain.
        ours: String,
    },
    /// Somebody else than who was called.
    #[error("the peer is {found}, expected {expected}")]
    Unexpected {
        /// Who was called.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// Another pod, or none, behind the address: it was used again.
    #[error("the peer ({found}) isn't pod {expected}: its address has a new holder")]
    WrongPod {
        /// The name that the connection was for.
        expected: String,
        /// The SPIFFE ID in the certificate.
        found: SpiffeId,
    },
}

/// The identity at the other end of a connection whose handshake *our* configurations have verified, for the caller to
/// compare with the identity that it expects.
///
/// `chain` is what rustls's `peer_certificates()` returns, leaf first.
///
/// # Errors
/// If there is none, or the leaf doesn't name exactly one service account.
pub fn peer(chain: &[CertificateDer<'_>]) -> Result<Peer, PeerError> {
    let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
    names(&parse(leaf)?)
}

/// As [`peer`], with the rules about usages, for the end of the connection that the leaf is used at.
pub(crate) fn peer_at(end: End, leaf: &CertificateDer<'_>) -> Result<Peer, PeerError> {
    let leaf = parse(leaf)?;
    usages(&leaf, end)?;
    names(&leaf)
}

pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    let unreadable = |reason: &str| PeerError::Unreadable(reason.to_owned());
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(&error.to_string()))?;
    match (rest.is_empty(), certificate.version()) {
        (false, _) => Err(unreadable("bytes follow it")),
        (_, X509Version::V3) => Ok(certificate),
        (true, _) => Err(unreadable("it isn't version 3")),
    }
}

fn names(leaf: &X509Certificate<'_>) -> Result<Peer, PeerError> {
    // Two extensions of one kind are an error here, so that no parser can read one and another the other.
    let names = leaf.subject_alternative_name().map_err(|error| PeerError::Unreadable(error.to_string()))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    // A URI or DNS name that isn't ASCII is none for this parser, and may be one for another.
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(PeerError::Unreadable("one of its names is not of its kind".to_owned()));
    }

    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        let count = names.iter().filter(|name| matches!(name, GeneralName::URI(_))).count();
        return Err(PeerError::UriCount(count));
    };

    let mut pod = None;
    for name in names {
        let GeneralName::DNSName(name) = name else { continue };
        if !name.to_ascii_lowercase().contains(POD_DOMAIN.trim_matches('.')) {
            // Such as the Service that a webhook is called by: nothing to do with identity.
            continue;
        }
        match (uid_of_server_name(name), pod) {
            (Some(uid), None) => pod = Some(uid),
            _ => return Err(PeerError::PodName((*name).to_owned())),
        }
    }
    Ok(Peer { id: uri.parse()?, pod })
}

fn usages(leaf: &X509Certificate<'_>, end: End) -> Result<(), PeerError> {
    let unreadable = |error: x509_parser::error::X509Error| PeerError::Unreadable(error.to_string());
    if leaf.is_ca() {
        return Err(PeerError::Usage("it is a CA certificate"));
    }
    let usage =
        leaf.key_usage().map_err(unreadable)?.ok_or(PeerError::Usage("it states no key usage"))?.value;
    if !usage.digital_signature() {
        return Err(PeerError::Usage("its key usage lacks digitalSignature"));
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(PeerError::Usage("its key usage is a CA's"));
    }
    let extended = leaf.extended_key_usage().map_err(unreadable)?;
    let extended = extended.ok_or(PeerError::Usage("it states no extended key usage"))?.value;
    match end {
        End::Client if !extended.client_auth => {
            Err(PeerError::Usage("its extended key usage lacks clientAuth"))
        }
        End::Server if !extended.server_auth => {
            Err(PeerError::Usage("its extended key usage lacks serverAuth"))
        }
        _ => Ok(()),
    }
}
