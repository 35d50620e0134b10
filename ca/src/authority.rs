//! The authority: the signing key, the roots, and the one way to have something signed.
//!
//! Made at the first start ([`Authority::make`]) or read from a [`Stored`], which is checked by issuing a certificate to
//! nobody and verifying it as a peer would. Roots are a set: while one is replaced, `ca.crt` holds the old and the new.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gamut_identity::{
    Clock, Identity, IssueError, Issued, Issuer, Roots, RootsError, SpiffeId, to_pem, verify_chain,
};
use gamut_route::Uid;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    current::Current,
    issue::{self, Leaf, Refused},
    store::Stored,
};

/// How long a root that we make is good: long enough for rotation to be a choice, short enough to be an end.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How long a leaf is good unless configured otherwise. It is renewed at 50 to 70 % of that.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The widest difference between two clocks in the mesh that we support: [`BACKDATE`] and the renewal at 70 % cover it.
pub const SUPPORTED_SKEW: Duration = Duration::from_secs(60 * 60);

/// How far `notBefore` is set back, so that a certificate is good at once on a machine whose clock is slow: the
/// [`SUPPORTED_SKEW`], and five minutes more so that its limit isn't a cliff.
pub const BACKDATE: Duration = Duration::from_secs(65 * 60);

/// Signs certificates.
pub struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    /// The certificates between a leaf and the root: none, or the user's.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Roots,
    /// When the signing certificate ends. No leaf outlives it.
    not_after: SystemTime,
    leaf_lifetime: Duration,
}

/// Why an authority can't be made of what is stored.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The cryptographic library refuses.
    #[error("can't make a root certificate: {0}")]
    Make(rcgen::Error),
    /// `tls.key`.
    #[error(
        "tls.key can't be used: {0}; it must be one private key, PEM, ECDSA P-256 or P-384, Ed25519 or RSA"
    )]
    Key(rcgen::Error),
    /// `tls.crt`.
    #[error("tls.crt can't be used: {0}")]
    Chain(String),
    /// `ca.crt`.
    #[error("ca.crt can't be used: {0}")]
    Roots(#[from] RootsError),
    /// It is over with `tls.crt`, or hasn't begun.
    #[error("tls.crt is good from {0} to {1} only, and not now; is this machine's clock right?")]
    NotGood(String, String),
    /// The parts don't belong together.
    #[error(
        "what tls.key and tls.crt sign doesn't verify against ca.crt: {0}; do the three belong together?"
    )]
    Inconsistent(rustls::Error),
}

impl Authority {
    /// Makes a new key and a self-signed root, to be stored. What it returns opens with [`Authority::open`].
    ///
    /// # Errors
    /// If there is no entropy.
    pub fn make(trust_domain: &str, now: SystemTime) -> Result<Stored, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let mut root = CertificateParams::default();
        root.distinguished_name = DistinguishedName::new();
        root.distinguished_name.push(DnType::OrganizationName, trust_domain);
        let serial = issue::random_serial();
        // A name of its own: path building goes by names, and a root meets its successor.
        root.distinguished_name.push(DnType::CommonName, format!("Gamut root {serial}"));
        root.serial_number = Some(serial);
        root.not_before = (now - BACKDATE).into();
        root.not_after = (now + ROOT_LIFETIME).into();
        // It signs leaves and nothing else.
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = root.self_signed(&key).map_err(AuthorityError::Make)?;
        let pem = to_pem(root.der());
        Ok(Stored { key: key.serialize_pem(), chain: pem.clone(), roots: Some(pem) })
    }

    /// Reads and checks what is stored.
    ///
    /// # Errors
    /// If a part can't be read, or what it signs would not be accepted.
    pub fn open(stored: &Stored, leaf_lifetime: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let unreadable = |reason: &dyn std::fmt::Display| AuthorityError::Chain(reason.to_string());
        let key = KeyPair::from_pem(&stored.key).map_err(AuthorityError::Key)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(stored.chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(&error))?;
        let Some(signing) = chain.first() else {
            return Err(unreadable(&"it holds no certificate"));
        };
        let issuer = rcgen::Issuer::from_ca_cert_der(signing, key).map_err(|error| unreadable(&error))?;
        let (_, parsed) = X509Certificate::from_der(signing).map_err(|error| unreadable(&error))?;
        let [not_before, not_after] = [parsed.validity().not_before, parsed.validity().not_after];
        let [good_from, good_until] =
            [not_before, not_after].map(|time| SystemTime::from(time.to_datetime()));
        // Verifying a leaf wouldn't tell: nobody looks at the times of a root that is trusted anyway.
        if now < good_from || good_until < now {
            return Err(AuthorityError::NotGood(not_before.to_string(), not_after.to_string()));
        }
        let is_root = parsed.subject() == parsed.issuer();
        let roots = match (&stored.roots, is_root) {
            (Some(pem), _) => Roots::from_pem(pem.as_bytes())?,
            (None, true) => Roots::new([signing.clone()])?,
            (None, false) => return Err(unreadable(&"it isn't a root, and there is no ca.crt with one")),
        };
        let intermediates = if is_root { Vec::new() } else { chain };

        let authority = Self { issuer, intermediates, roots, not_after: good_until, leaf_lifetime };
        authority.try_out(now)?;
        Ok(authority)
    }

    /// The roots of now, all of them good.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// When the signing certificate ends. No leaf outlives it.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a leaf for exactly `id` and `pod`, for the key of a request that itself names nobody else.
    ///
    /// # Errors
    /// If the request asks for anything that isn't the caller's, or is no honest request.
    pub fn issue(
        &self,
        csr: &CertificateSigningRequestDer<'_>,
        id: &SpiffeId,
        pod: Option<Uid>,
        now: SystemTime,
    ) -> Result<Leaf, Refused> {
        let key = issue::check_request(csr, id)?;
        let not_after = (now + self.leaf_lifetime).min(self.not_after);
        issue::sign(&self.issuer, &key, id, pod, now - BACKDATE..not_after)
    }

    /// A leaf's chain as it is sent: leaf, then what leads to the root.
    pub fn chain(&self, leaf: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf).chain(self.intermediates.iter().cloned()).collect()
    }

    /// Issues a certificate to nobody, and looks at it with a peer's eyes.
    fn try_out(&self, now: SystemTime) -> Result<(), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Make)?;
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name = DistinguishedName::new();
        leaf.not_before = (now - BACKDATE).into();
        leaf.not_after = (now + BACKDATE).into();
        let leaf = leaf.signed_by(&key, &self.issuer).map_err(AuthorityError::Make)?;
        verify_chain(&self.chain(leaf.into()), &self.roots, now).map_err(AuthorityError::Inconsistent)
    }
}

/// The authority as the [`Issuer`] of its own process: no token, because nobody else can reach it.
#[derive(Clone)]
pub struct InProcess {
    /// Who signs.
    pub authority: Current,
    /// Whose certificates.
    pub id: SpiffeId,
    /// Their pod.
    pub pod: Option<Uid>,
    /// The time of issue.
    pub clock: Clock,
}

impl InProcess {
    /// Starts an identity that this authority certifies and renews.
    pub fn start(self) -> Identity {
        let (id, clock) = (self.id.clone(), self.clock.clone());
        Identity::start(id, self, clock)
    }
}

impl Issuer for InProcess {
    async fn issue(
        &self,
        csr: CertificateSigningRequestDer<'static>,
        _trusted: Option<Arc<Roots>>,
    ) -> Result<Issued, IssueError> {
        let authority = self.authority.load();
        let leaf = authority
            .issue(&csr, &self.id, self.pod, self.clock.now())
            .map_err(|refused| IssueError::Local(refused.to_string()))?;
        Ok(Issued { chain: authority.chain(leaf.der), roots: authority.roots().clone() })
    }
}

#[cfg(test)]
mod tests {
    use gamut_identity::peer;

    use super::*;

    const DAY: Duration = LEAF_LIFETIME;

    fn open(stored: &Stored) -> Result<Authority, AuthorityError> {
        Authority::open(stored, LEAF_LIFETIME, SystemTime::now())
    }

    fn make() -> Stored {
        Authority::make("cluster.local", SystemTime::now()).unwrap()
    }

    /// A chain as a user's PKI makes it: a root that stays at home, and an intermediate for us.
    fn users_own() -> (CertificateDer<'static>, Stored) {
        let root_key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "The company's root");
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&root_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&root, &root_key);

        let key = KeyPair::generate().unwrap();
        let mut intermediate = CertificateParams::default();
        intermediate.distinguished_name = DistinguishedName::new();
        intermediate.distinguished_name.push(DnType::CommonName, "The mesh's intermediate");
        intermediate.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        intermediate.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let intermediate = intermediate.signed_by(&key, &issuer).unwrap();
        let stored = Stored {
            key: key.serialize_pem(),
            chain: to_pem(intermediate.der()),
            roots: Some(to_pem(root_certificate.der())),
        };
        (root_certificate.into(), stored)
    }

    fn leaf_of(authority: &Authority) -> Vec<CertificateDer<'static>> {
        let id = SpiffeId::new("cluster.local", "shop", "web").unwrap();
        let key = KeyPair::generate().unwrap();
        let mut wanted = CertificateParams::default();
        wanted.subject_alt_names = vec![rcgen::SanType::URI(id.as_str().try_into().unwrap())];
        let csr = wanted.serialize_request(&key).unwrap();
        let leaf = authority.issue(csr.der(), &id, None, SystemTime::now()).unwrap();
        authority.chain(leaf.der)
    }

    #[test]
    fn what_is_made_opens_and_stays_the_same_root() {
        let stored = make();
        let (first, second) = (open(&stored).unwrap(), open(&stored).unwrap());
        assert_eq!(first.roots(), second.roots());
        verify_chain(&leaf_of(&first), second.roots(), SystemTime::now()).unwrap();
        assert_ne!(open(&make()).unwrap().roots(), first.roots());
    }

    #[test]
    fn a_users_intermediate_signs_and_is_sent_along() {
        let (root, stored) = users_own();
        let authority = open(&stored).unwrap();
        assert_eq!(authority.roots().certificates(), [root]);
        let chain = leaf_of(&authority);
        assert_eq!(chain.len(), 2);
        verify_chain(&chain, authority.roots(), SystemTime::now()).unwrap();
        assert_eq!(peer(&chain).unwrap().id.service_account(), "web");
    }

    #[test]
    fn while_a_root_is_replaced_both_are_handed_out_and_either_signs() {
        let (old, new) = (make(), make());
        let both = format!("{}{}", old.chain, new.chain);
        for signing in [&old, &new] {
            let overlap = Stored { roots: Some(both.clone()), ..signing.clone() };
            let authority = open(&overlap).unwrap();
            assert_eq!(authority.roots().certificates().len(), 2);
            verify_chain(&leaf_of(&authority), authority.roots(), SystemTime::now()).unwrap();
        }
    }

    #[test]
    fn a_root_needs_no_second_file() {
        open(&Stored { roots: None, ..make() }).unwrap();
        let (_, users) = users_own();
        let error = open(&Stored { roots: None, ..users }).err().unwrap().to_string();
        assert!(error.contains("there is no ca.crt"), "{error}");
    }

    #[test]
    fn parts_that_dont_belong_together_or_cant_be_read_are_refused_by_name() {
        let (good, other) = (make(), make());
        let broken = |text: &str| text.to_owned();
        for (expected, stored) in [
            ("tls.key can't be used", Stored { key: broken("no key"), ..good.clone() }),
            ("tls.crt can't be used", Stored { chain: broken("no certificate"), ..good.clone() }),
            ("ca.crt can't be used", Stored { roots: Some(broken("no root")), ..good.clone() }),
            ("do the three belong together", Stored { key: other.key.clone(), ..good.clone() }),
            ("do the three belong together", Stored { roots: other.roots.clone(), ..good.clone() }),
        ] {
            let error = open(&stored).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_root_that_has_expired_is_refused() {
        let stored = Authority::make("cluster.local", SystemTime::now() - ROOT_LIFETIME - DAY).unwrap();
        assert!(matches!(open(&stored), Err(AuthorityError::NotGood(..))));
    }
}
