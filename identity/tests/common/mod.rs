//! A mesh of one CA: the real authority, and its key in the hands of somebody who signs whatever a test needs.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use gamut_ca::{Authority, InProcess, Stored, authority::LEAF_LIFETIME};
use gamut_identity::{Clock, Identity, Roots, SpiffeId, pod_name};
use gamut_route::Uid;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::{RootCertStore, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The pod that tests call.
pub(crate) const WEB: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";
/// The pod that calls it.
pub(crate) const CLIENT: &str = "6c1d2a54-9a39-4a52-8e0a-0f4f6b0f7a77";

pub(crate) struct Mesh {
    pub(crate) authority: Arc<Authority>,
    pub(crate) stored: Stored,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let stored = Authority::make("cluster.local", SystemTime::now()).unwrap();
        let authority = Authority::open(&stored, LEAF_LIFETIME, SystemTime::now()).unwrap();
        Self { authority: Arc::new(authority), stored }
    }

    pub(crate) fn roots(&self) -> Roots {
        self.authority.roots().clone()
    }

    /// An honest identity, certified by the authority.
    pub(crate) async fn identity(&self, service_account: &str, pod: &str) -> Identity {
        self.identity_by(service_account, pod, Clock::system()).await
    }

    /// An honest identity whose machine has its own idea of the time; the authority's clock is right.
    pub(crate) async fn identity_by(&self, service_account: &str, pod: &str, clock: Clock) -> Identity {
        let issuer = self.issuer(service_account, pod, Clock::system());
        let identity = Identity::start(issuer.id.clone(), issuer, clock);
        identity.ready().await;
        identity
    }

    pub(crate) fn issuer(&self, service_account: &str, pod: &str, clock: Clock) -> InProcess {
        InProcess {
            authority: self.authority.clone().into(),
            id: id(service_account),
            pod: Some(Uid::of(pod)),
            clock,
        }
    }

    /// Signs anything, with the root's key, for a new key.
    pub(crate) fn forge(&self, leaf: CertificateParams) -> Credentials {
        self.forge_for(leaf, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap())
    }

    pub(crate) fn forge_for(&self, leaf: CertificateParams, key: KeyPair) -> Credentials {
        let root = KeyPair::from_pem(&self.stored.key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&self.stored.chain, root).unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        Credentials { chain: vec![certificate.into()], key }
    }

    /// As an ordinary TLS library trusts it.
    pub(crate) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add(self.roots().certificates()[0].clone()).unwrap();
        store
    }
}

pub(crate) fn id(service_account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", service_account).unwrap()
}

/// A chain and its key, outside of our own code's care.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl Credentials {
    pub(crate) fn certified_key(&self) -> CertifiedKey {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        CertifiedKey::new(self.chain.clone(), key)
    }
}

/// What the authority itself would have signed for this pod; tests then spoil one thing.
pub(crate) fn honest(uri: &str, pod: &str) -> CertificateParams {
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![self::uri(uri), dns(&pod_name(Uid::of(pod)))];
    leaf.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    leaf.not_after = (SystemTime::now() + Duration::from_secs(3600)).into();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}
