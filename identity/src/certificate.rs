//! A workload's own certificate: the key that was made here and the chain that the CA answered with, in memory only.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gamut_route::Uid;
use rustls::{crypto::aws_lc_rs::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::{
    clock::rfc3339,
    csr::Request,
    peer::{End, Peer, PeerError, parse, peer_at},
    roots::{Roots, RootsError},
    spiffe::SpiffeId,
    verify::verify_chain,
};

/// A certificate that the CA issued to us, with its private key.
///
/// `Debug` and `Display` show what is public; the key can't be taken out.
pub struct Certificate {
    key: Arc<CertifiedKey>,
    peer: Peer,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    lifetime: Duration,
}

/// Why what the CA answered can't be used.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// No certificate in the answer.
    #[error("the CA answered without a certificate")]
    Empty,
    /// Not a certificate of a workload.
    #[error("the CA's answer can't be used: {0}")]
    Leaf(#[from] PeerError),
    /// The roots that came with it.
    #[error("the CA's answer can't be used: {0}")]
    Roots(#[from] RootsError),
    /// Somebody else's.
    #[error("the CA answered with a certificate for {found}; asked was one for {asked}")]
    WrongIdentity {
        /// Ours.
        asked: SpiffeId,
        /// Theirs.
        found: SpiffeId,
    },
    /// Made for another key, or one that TLS can't use.
    #[error("the CA answered with a certificate for another key: {0}")]
    WrongKey(rustls::Error),
    /// Wouldn't be accepted by any peer.
    #[error("the CA's certificate isn't good at {now}, our time: {source}; is this machine's clock right?")]
    NotGood {
        /// What our clock says.
        now: String,
        /// What a peer would say.
        source: rustls::Error,
    },
}

impl Certificate {
    /// Joins a request's key with the chain that answered it, checked as a peer that trusts `roots` would at `now`.
    pub(crate) fn new(
        request: Request,
        chain: Vec<CertificateDer<'static>>,
        roots: &Roots,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let peer = peer_at(End::Client, leaf)?;
        peer_at(End::Server, leaf)?;
        if peer.id != request.id {
            return Err(CertificateError::WrongIdentity { asked: request.id, found: peer.id });
        }
        verify_chain(&chain, roots, now)
            .map_err(|source| CertificateError::NotGood { now: rfc3339(now), source })?;
        let parsed = parse(leaf)?;
        let (not_before, not_after) = (parsed.validity().not_before, parsed.validity().not_after);
        let (not_before, not_after) = (from_unix(not_before.timestamp()), from_unix(not_after.timestamp()));
        let serial = parsed.raw_serial_as_string();
        let key = any_ecdsa_type(&request.into_key()).map_err(CertificateError::WrongKey)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(CertificateError::WrongKey)?;
        let lifetime = not_after.duration_since(now).unwrap_or_default();
        Ok(Self { key: Arc::new(key), peer, serial, not_before, not_after, lifetime })
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.peer.id
    }

    /// The pod that it is bound to.
    pub fn pod(&self) -> Option<Uid> {
        self.peer.pod
    }

    /// Its serial number as the CA's audit log has it: hexadecimal bytes with colons.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// From when it is good. The CA sets this back for slow clocks: it isn't when it was issued.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is good.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// For how long it was good when it came.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The leaf and the intermediates, DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of {}, good until {}", self.serial, self.peer.id, rfc3339(self.not_after))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("id", &self.peer.id)
            .field("pod", &self.peer.pod)
            .field("serial", &self.serial)
            .field("not_before", &rfc3339(self.not_before))
            .field("not_after", &rfc3339(self.not_after))
            .finish_non_exhaustive()
    }
}

/// A certificate's time. One before 1970 is as good as 1970.
fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0))
}
