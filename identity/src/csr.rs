//! A certificate request: a fresh key and the PKCS #10 text that asks for a certificate for it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::spiffe::SpiffeId;

/// A request on its way. Each has a key of its own, ECDSA P-256, which never leaves this process's memory.
pub(crate) struct Request {
    pub(crate) id: SpiffeId,
    key: KeyPair,
    csr: CertificateSigningRequestDer<'static>,
}

/// The cryptographic library refused to make a key or to sign. Not expected: it means that there is no entropy.
#[derive(Debug, Error)]
#[error("can't make a key and a certificate request: {0}")]
pub struct RequestError(#[from] rcgen::Error);

impl Request {
    /// Makes a key and a request whose one name is `id`. The subject stays empty: identity is in the SAN alone.
    pub(crate) fn new(id: SpiffeId) -> Result<Self, RequestError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = DistinguishedName::new();
        wanted.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        let csr = wanted.serialize_request(&key)?.der().clone();
        Ok(Self { id, key, csr })
    }

    /// The request, PKCS #10, DER.
    pub(crate) fn csr(&self) -> &CertificateSigningRequestDer<'static> {
        &self.csr
    }

    pub(crate) fn into_key(self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}
