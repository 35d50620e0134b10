//! A certificate request becomes a leaf.
//!
//! The request is read for two things: that its key is one that our proxies make and that the asker holds it, and that it
//! asks for nothing that isn't the asker's own. The leaf is then written from the asker's authenticated identity alone, so
//! that a mistake in reading could refuse an honest request but not sign a dishonest one.

use std::{ops::Range, time::SystemTime};

use gamut_identity::{INJECTOR_SERVICE_ACCOUNT, INJECTOR_SERVICE_NAME, SYSTEM_NAMESPACE, SpiffeId, pod_name};
use gamut_route::Uid;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use thiserror::Error;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256},
    prelude::FromDer,
    x509::SubjectPublicKeyInfo as PublicKey,
};

/// The longest request, in bytes, that is parsed. One of ours has about 300.
const MAX_CSR: usize = 8 * 1024;

/// A signed leaf.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate, DER.
    pub der: CertificateDer<'static>,
    /// Its serial number, hexadecimal with colons, as [`gamut_identity::Certificate::serial`] prints it.
    pub serial: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Why a request is not answered with a certificate. Each is the asker's doing, except [`Refused::Sign`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than [`MAX_CSR`].
    #[error("the certificate request has {0} bytes; at most {MAX_CSR} are read")]
    TooLong(usize),
    /// Not PKCS #10.
    #[error("the certificate request can't be read: {0}")]
    Unreadable(String),
    /// The asker doesn't hold the key, or the request was changed.
    #[error("the certificate request's signature doesn't match its key")]
    Signature,
    /// Weak, huge, or simply not ours.
    #[error("the certificate request's key must be ECDSA P-256, signing with SHA-256")]
    Key,
    /// No URI, or several.
    #[error("the certificate request must ask for exactly one URI name, {own}; it asks for {count}")]
    UriCount {
        /// The asker's own.
        own: SpiffeId,
        /// How many it names.
        count: usize,
    },
    /// Somebody else's identity.
    #[error("the certificate request asks for {asked:?}, but its token is {own}'s")]
    NotOwn {
        /// The asker's own.
        own: SpiffeId,
        /// What it asks for.
        asked: String,
    },
    /// A CA of its own.
    #[error("the certificate request asks for a CA certificate")]
    Ca,
    /// The signing certificate has expired, or the cryptographic library refuses.
    #[error("the CA can't sign: {0}")]
    Sign(String),
}

/// Checks a request by the holder of `own`, and returns its key.
///
/// # Errors
/// If it is no honest request for that identity. What else it may ask for (names of other kinds, usages, lifetimes) is
/// ignored: none of it gets into the leaf.
pub(crate) fn check_request(
    csr: &CertificateSigningRequestDer<'_>,
    own: &SpiffeId,
) -> Result<SubjectPublicKeyInfo, Refused> {
    if csr.len() > MAX_CSR {
        return Err(Refused::TooLong(csr.len()));
    }
    let unreadable = |reason: &dyn std::fmt::Display| Refused::Unreadable(reason.to_string());
    let (rest, request) = X509CertificationRequest::from_der(csr).map_err(|error| unreadable(&error))?;
    if !rest.is_empty() {
        return Err(unreadable(&"bytes follow it"));
    }
    let public_key = &request.certification_request_info.subject_pki;
    // Before the signature: verifying with a huge key is work that a stranger must not be able to order.
    if !is_p256(public_key) || request.signature_algorithm.algorithm != OID_SIG_ECDSA_WITH_SHA256 {
        return Err(Refused::Key);
    }
    request.verify_signature().map_err(|_| Refused::Signature)?;

    let mut uris = Vec::new();
    for extension in extensions(&request) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                if names.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
                    return Err(Refused::Unreadable("one of its names is not of its kind".to_owned()));
                }
                uris.extend(names.general_names.iter().filter_map(|name| match name {
                    GeneralName::URI(uri) => Some(*uri),
                    _ => None,
                }));
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => return Err(Refused::Ca),
            ParsedExtension::ParseError { error } => return Err(unreadable(error)),
            _ => {}
        }
    }
    match *uris {
        [uri] if uri == own.as_str() => {}
        [uri] => return Err(Refused::NotOwn { own: own.clone(), asked: uri.chars().take(300).collect() }),
        _ => return Err(Refused::UriCount { own: own.clone(), count: uris.len() }),
    }
    SubjectPublicKeyInfo::from_der(public_key.raw).map_err(|_| Refused::Key)
}

/// Signs a leaf: these names and this validity, our usages, a random serial number, and nothing else.
pub(crate) fn sign(
    issuer: &rcgen::Issuer<'static, KeyPair>,
    key: &SubjectPublicKeyInfo,
    id: &SpiffeId,
    pod: Option<Uid>,
    validity: Range<SystemTime>,
) -> Result<Leaf, Refused> {
    let refused = |error: rcgen::Error| Refused::Sign(error.to_string());
    if validity.is_empty() {
        return Err(Refused::Sign("its own certificate has expired".to_owned()));
    }
    let serial = random_serial();
    let mut leaf = CertificateParams::default();
    // An empty subject makes the SAN critical (RFC 5280 section 4.2.1.6): nobody can overlook who it is.
    leaf.distinguished_name = DistinguishedName::new();
    leaf.subject_alt_names = vec![SanType::URI(id.as_str().try_into().map_err(refused)?)];
    if let Some(pod) = pod {
        leaf.subject_alt_names.push(SanType::DnsName(pod_name(pod).try_into().map_err(refused)?));
    }
    if let Some(name) = service_name(id) {
        leaf.subject_alt_names.push(SanType::DnsName(name.try_into().map_err(refused)?));
    }
    leaf.serial_number = Some(serial.clone());
    leaf.not_before = validity.start.into();
    leaf.not_after = validity.end.into();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(key, issuer).map_err(refused)?;
    Ok(Leaf { der: leaf.into(), serial: serial.to_string(), not_after: validity.end })
}

/// The name of the Service that an identity is reached by, where that is by somebody who doesn't verify identities: the API
/// server knows a webhook by the DNS name of its Service alone. So whoever had that name could put anything into any pod,
/// and it goes to one identity, which no request can name without its token.
fn service_name(id: &SpiffeId) -> Option<&'static str> {
    let injector = id.namespace() == SYSTEM_NAMESPACE && id.service_account() == INJECTOR_SERVICE_ACCOUNT;
    injector.then_some(INJECTOR_SERVICE_NAME)
}

/// 16 bytes, random but for the first two bits: one is clear (positive), one set (always as long).
pub(crate) fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// The extensions of all `extensionRequest` attributes: a second one is read too, not hidden behind the first.
fn extensions<'a>(
    request: &'a X509CertificationRequest<'a>,
) -> impl Iterator<Item = &'a ParsedExtension<'a>> {
    request
        .certification_request_info
        .iter_attributes()
        .filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
            _ => None,
        })
        .flatten()
        .map(|extension| extension.parsed_extension())
}

fn is_p256(key: &PublicKey<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    // An uncompressed point: 0x04 and two coordinates (RFC 5480 section 2.2).
    let point = &key.subject_public_key.data;
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve == Some(OID_EC_P256)
        && point.len() == 65
        && point.first() == Some(&4)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use gamut_identity::{Roots, peer, verify_chain};
    use rcgen::{
        BasicConstraints, CustomExtension, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
        PKCS_RSA_SHA256,
    };
    use x509_parser::{certificate::X509Certificate, extensions::BasicConstraints as Constraints};

    use super::*;
    use crate::authority::{Authority, BACKDATE, LEAF_LIFETIME};

    const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";

    fn own() -> SpiffeId {
        SpiffeId::new("cluster.local", "shop", "web").unwrap()
    }

    fn authority() -> Authority {
        let now = SystemTime::now();
        Authority::open(&Authority::make("cluster.local", now).unwrap(), LEAF_LIFETIME, now).unwrap()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn request(spoil: impl FnOnce(&mut CertificateParams)) -> CertificateSigningRequestDer<'static> {
        request_for(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), spoil)
    }

    fn request_for(
        key: &KeyPair,
        spoil: impl FnOnce(&mut CertificateParams),
    ) -> CertificateSigningRequestDer<'static> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = DistinguishedName::new();
        wanted.subject_alt_names = vec![uri(own().as_str())];
        spoil(&mut wanted);
        wanted.serialize_request(key).unwrap().der().clone()
    }

    fn issue(csr: &CertificateSigningRequestDer<'_>) -> Result<Leaf, Refused> {
        authority().issue(csr, &own(), Some(Uid::of(POD)), SystemTime::now())
    }

    #[test]
    fn a_leaf_says_who_where_and_how_long_and_nothing_more() {
        let (authority, now) = (authority(), SystemTime::now());
        let leaf = authority.issue(&request(|_| {}), &own(), Some(Uid::of(POD)), now).unwrap();
        verify_chain(slice::from_ref(&leaf.der), authority.roots(), now).unwrap();
        let holder = peer(slice::from_ref(&leaf.der)).unwrap();
        assert_eq!((holder.id, holder.pod), (own(), Some(Uid::of(POD))));

        let (_, parsed) = X509Certificate::from_der(&leaf.der).unwrap();
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        assert_eq!(parsed.validity().not_before.timestamp(), seconds(now - BACKDATE));
        assert_eq!(parsed.validity().not_after.timestamp(), seconds(now + LEAF_LIFETIME));
        assert_eq!(parsed.raw_serial_as_string(), leaf.serial);
        assert_eq!(parsed.raw_serial().len(), 16);
        assert_eq!(parsed.subject().iter().count(), 0);
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical && names.value.general_names.len() == 2);
        let constraints = parsed.basic_constraints().unwrap().unwrap().value;
        assert_eq!(constraints, &Constraints { ca: false, path_len_constraint: None });
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.to_string(), "Digital Signature");
        let extended = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.server_auth && extended.client_auth && !extended.any && !extended.code_signing);
    }

    #[test]
    fn the_injector_alone_is_certified_for_its_service_and_needs_not_ask() {
        let service = "gamut-injector.gamut-system.svc";
        let dns_names = |namespace: &str, account: &str, asked: &str| {
            let id = SpiffeId::new("cluster.local", namespace, account).unwrap();
            let csr = request(|wanted| {
                wanted.subject_alt_names =
                    vec![uri(id.as_str()), SanType::DnsName(asked.try_into().unwrap())];
            });
            let leaf = authority().issue(&csr, &id, Some(Uid::of(POD)), SystemTime::now()).unwrap();
            assert_eq!(peer(slice::from_ref(&leaf.der)).unwrap().id, id);
            let (_, parsed) = X509Certificate::from_der(&leaf.der).unwrap();
            let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
            let dns = names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            dns.collect::<Vec<_>>()
        };
        let pod = pod_name(Uid::of(POD));
        assert_eq!(dns_names("gamut-system", "gamut-injector", "anything"), [pod.as_str(), service]);
        for (namespace, account) in [
            ("gamut-system", "gamut-ca"),
            ("gamut-system", "gamut-injector-2"),
            ("shop", "gamut-injector"),
            ("gamut-systems", "gamut-injector"),
        ] {
            assert_eq!(dns_names(namespace, account, service), [pod.as_str()], "{namespace}/{account}");
        }
    }

    #[test]
    fn serials_dont_repeat() {
        let (authority, csr) = (authority(), request(|_| {}));
        let serial = || authority.issue(&csr, &own(), None, SystemTime::now()).unwrap().serial;
        let serials: std::collections::HashSet<_> = (0..100).map(|_| serial()).collect();
        assert_eq!(serials.len(), 100);
    }

    #[test]
    fn no_leaf_outlives_the_certificate_that_signed_it() {
        let (authority, now) = (authority(), SystemTime::now());
        let ten_years = std::time::Duration::from_secs(10 * 365 * 24 * 60 * 60);
        let late = now + ten_years - std::time::Duration::from_secs(60);
        let leaf = authority.issue(&request(|_| {}), &own(), None, late).unwrap();
        assert!(leaf.not_after <= now + ten_years);
        let error = authority.issue(&request(|_| {}), &own(), None, now + 2 * ten_years).unwrap_err();
        assert!(matches!(error, Refused::Sign(_)), "{error}");
    }

    #[test]
    fn what_else_a_request_asks_for_is_ignored() {
        let csr = request(|wanted| {
            wanted.distinguished_name.push(rcgen::DnType::CommonName, "admin");
            wanted.subject_alt_names.push(SanType::DnsName("admin.shop.svc".try_into().unwrap()));
            wanted.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
            wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        });
        let leaf = issue(&csr).unwrap();
        let (_, parsed) = X509Certificate::from_der(&leaf.der).unwrap();
        assert_eq!(parsed.subject().iter().count(), 0);
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
        assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
        assert!(!parsed.extended_key_usage().unwrap().unwrap().value.code_signing);
    }

    #[test]
    fn another_identity_is_refused_however_it_is_asked_for() {
        for names in [
            vec![uri("spiffe://cluster.local/ns/shop/sa/admin")],
            vec![uri("spiffe://cluster.local/ns/shop/sa/web/")],
            vec![uri("SPIFFE://cluster.local/ns/shop/sa/web")],
            vec![uri("spiffe://cluster.local/ns/shop/sa/web\0")],
            vec![uri("spiffe://cluster.local/ns/shop/sa/we%62")],
        ] {
            let refused = issue(&request(|wanted| wanted.subject_alt_names = names)).unwrap_err();
            assert!(matches!(refused, Refused::NotOwn { .. }), "{refused}");
        }
        for (count, names) in [
            (0, vec![SanType::DnsName("web.shop.svc".try_into().unwrap())]),
            (2, vec![uri(own().as_str()), uri(own().as_str())]),
            (2, vec![uri(own().as_str()), uri("spiffe://cluster.local/ns/shop/sa/admin")]),
        ] {
            let refused = issue(&request(|wanted| wanted.subject_alt_names = names)).unwrap_err();
            assert_eq!(refused, Refused::UriCount { own: own(), count });
        }
    }

    #[test]
    fn a_name_that_not_every_reader_sees_is_refused() {
        let own = own();
        let element = |name: &[u8]| [&[0x86, u8::try_from(name.len()).unwrap()], name].concat();
        let names = [element(own.as_str().as_bytes()), element(b"spiffe\xe1//x")].concat();
        let names = [&[0x30, u8::try_from(names.len()).unwrap()], &*names].concat();
        let csr = request(|wanted| {
            wanted.subject_alt_names.clear();
            wanted.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], names)];
        });
        assert!(matches!(issue(&csr), Err(Refused::Unreadable(_))));
    }

    #[test]
    fn a_ca_certificate_is_refused() {
        for constraints in [BasicConstraints::Unconstrained, BasicConstraints::Constrained(0)] {
            let csr = request(|wanted| wanted.is_ca = IsCa::Ca(constraints));
            assert_eq!(issue(&csr).unwrap_err(), Refused::Ca);
        }
    }

    #[test]
    fn keys_that_our_proxies_dont_make_are_refused() {
        for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            assert_eq!(issue(&request_for(&key, |_| {})).unwrap_err(), Refused::Key);
        }
        for size in [rcgen::RsaKeySize::_2048, rcgen::RsaKeySize::_4096] {
            let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
            assert_eq!(issue(&request_for(&key, |_| {})).unwrap_err(), Refused::Key);
        }
    }

    #[test]
    fn a_request_that_was_changed_or_isnt_one_is_refused() {
        let csr = request(|_| {});
        let (_, parsed) = X509CertificationRequest::from_der(&csr).unwrap();
        // Behind the outer sequence's header comes what is signed.
        let signed = 4..4 + parsed.certification_request_info.raw.len();
        for at in signed {
            let mut changed = csr.to_vec();
            changed[at] ^= 1;
            assert!(issue(&changed.into()).is_err(), "byte {at}");
        }
        for end in 0..csr.len() {
            assert!(issue(&csr[..end].to_vec().into()).is_err(), "cut at {end}");
        }
        let mut followed = csr.to_vec();
        followed.push(0);
        assert!(matches!(issue(&followed.into()), Err(Refused::Unreadable(_))));
        assert_eq!(issue(&vec![0x30; MAX_CSR + 1].into()).unwrap_err(), Refused::TooLong(MAX_CSR + 1));
    }

    #[test]
    fn a_key_that_isnt_held_is_refused() {
        // Somebody else's public key in a request that is otherwise one's own: the signature is then by the wrong key.
        let (theirs, ours) = (request(|_| {}), request(|_| {}));
        let key = |csr: &[u8]| {
            let (_, parsed) = X509CertificationRequest::from_der(csr).unwrap();
            parsed.certification_request_info.subject_pki.raw.to_vec()
        };
        let (their_key, our_key) = (key(&theirs), key(&ours));
        let at = ours.windows(our_key.len()).position(|window| window == our_key).unwrap();
        let mut stolen = ours.to_vec();
        stolen[at..at + their_key.len()].copy_from_slice(&their_key);
        assert_eq!(issue(&stolen.into()).unwrap_err(), Refused::Signature);
    }

    #[test]
    fn roots_come_out_as_they_went_in() {
        let authority = authority();
        let pem = authority.roots().to_pem();
        assert_eq!(&Roots::from_pem(pem.as_bytes()).unwrap(), authority.roots());
    }
}
