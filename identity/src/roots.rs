//! The roots that certificates must lead to: PEM or DER in, a checked [`Roots`] out.
//!
//! It is always a set, because a root is replaced by first trusting both the old and the new one everywhere, then issuing
//! from the new one, then dropping the old one.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    RootCertStore,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls;

/// A non-empty set of root certificates.
#[derive(Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// What people are told of a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Whose it is.
    pub subject: String,
    /// Its serial number: hexadecimal bytes with colons.
    pub serial: String,
    /// Until when it is good, in seconds since 1970.
    pub not_after: i64,
}

/// Why a set of roots can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RootsError {
    /// Trusting nobody is never what was meant.
    #[error("there is no root certificate in the set; it must hold at least one")]
    Empty,
    /// Broken PEM armour or base64.
    #[error("the roots aren't PEM: {0}")]
    Pem(String),
    /// One of them isn't an X.509 certificate.
    #[error("root {position} isn't a certificate: {reason}")]
    Unreadable {
        /// Which one, counted from 1.
        position: usize,
        /// What is wrong.
        reason: String,
    },
    /// One of them may not sign certificates.
    #[error("root {position} ({subject}) isn't a CA certificate: its basic constraints lack CA:TRUE")]
    NotCa {
        /// Which one, counted from 1.
        position: usize,
        /// Its subject.
        subject: String,
    },
}

impl Roots {
    /// Checks a set of roots, DER, and keeps their order; equal ones count once.
    ///
    /// # Errors
    /// If it is empty, or one of them isn't a CA certificate: a set is taken whole or not at all.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        let mut kept = Vec::new();
        for (index, certificate) in certificates.into_iter().enumerate() {
            if kept.contains(&certificate) {
                continue;
            }
            check(&certificate, index + 1)?;
            store
                .add(certificate.clone())
                .map_err(|error| RootsError::Unreadable { position: index + 1, reason: error.to_string() })?;
            kept.push(certificate);
        }
        let store = Arc::new(store);
        // The builder's one complaint is a set without roots.
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), tls::provider())
            .clear_root_hint_subjects()
            .build()
            .map_err(|_| RootsError::Empty)?;
        Ok(Self { certificates: kept, store, clients })
    }

    /// Reads every certificate of a PEM text; other PEM sections and text between them are passed over.
    ///
    /// # Errors
    /// As [`Roots::new`], and if the armour is broken.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::new(certificates.map_err(|error| RootsError::Pem(error.to_string()))?)
    }

    /// The set as PEM.
    pub fn to_pem(&self) -> String {
        self.certificates.iter().map(|certificate| to_pem(certificate)).collect()
    }

    /// The set, DER.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The set in words.
    pub fn described(&self) -> Vec<Root> {
        let root = |der: &CertificateDer<'_>| {
            let (_, certificate) = X509Certificate::from_der(der).ok()?;
            Some(Root {
                subject: certificate.subject().to_string(),
                serial: certificate.raw_serial_as_string(),
                not_after: certificate.validity().not_after.timestamp(),
            })
        };
        // None is left out: all of them were read when the set was made.
        self.certificates.iter().filter_map(root).collect()
    }

    /// These and those.
    ///
    /// # Errors
    /// None that two checked sets could cause.
    pub fn and(&self, others: &Self) -> Result<Self, RootsError> {
        Self::new(self.certificates.iter().chain(&others.certificates).cloned())
    }

    pub(crate) fn store(&self) -> &RootCertStore {
        &self.store
    }

    pub(crate) fn client_verifier(&self) -> &dyn ClientCertVerifier {
        &*self.clients
    }
}

/// A certificate in PEM armour (RFC 7468): lines of 64 characters.
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn check(der: &CertificateDer<'_>, position: usize) -> Result<(), RootsError> {
    let unreadable = |reason: String| RootsError::Unreadable { position, reason };
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} bytes follow it", rest.len())));
    }
    if !certificate.is_ca() {
        return Err(RootsError::NotCa { position, subject: certificate.subject().to_string() });
    }
    Ok(())
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.certificates.len())
    }
}
