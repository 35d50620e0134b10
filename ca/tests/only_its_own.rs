//! The CA's one promise, against random askers: whatever a request says, a certificate names its asker or doesn't exist.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    slice,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use gamut_ca::{Authority, LocalIssuer, LocalTokens, TokenRequest, TokenReview, authority::LEAF_LIFETIME};
use gamut_ca_api::AUDIENCE;
use gamut_identity::{Clock, peer, pod_name};
use gamut_route::Uid;
use proptest::{prelude::*, sample::select};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let now = SystemTime::now();
    Authority::open(&Authority::make("cluster.local", now).unwrap(), LEAF_LIFETIME, now).unwrap()
});
static ISSUER: LazyLock<LocalIssuer> = LazyLock::new(|| LocalIssuer::generate().unwrap());
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().unwrap());

/// How many of the askers were given something.
static ISSUED: AtomicUsize = AtomicUsize::new(0);

/// The name by which the API server calls the injector, which nobody else may have.
const INJECTOR: &str = "gamut-injector.gamut-system.svc";

/// Few names, so that honest requests are among them, and the injector's.
fn account() -> impl Strategy<Value = (&'static str, &'static str)> {
    (select(vec!["shop", "gamut-system"]), select(vec!["web", "gamut-injector"]))
}

fn uri() -> impl Strategy<Value = SanType> {
    let own =
        account().prop_map(|(namespace, name)| format!("spiffe://cluster.local/ns/{namespace}/sa/{name}"));
    let odd = account().prop_flat_map(|(namespace, name)| {
        select(vec![
            format!("SPIFFE://cluster.local/ns/{namespace}/sa/{name}"),
            format!("spiffe://cluster.local/ns/{namespace}/sa/{name}/"),
            format!("spiffe://evil.local/ns/{namespace}/sa/{name}"),
            format!("spiffe://cluster.local/ns/{namespace}/sa/{name}\0"),
        ])
    });
    let text = prop_oneof![6 => own, 1 => odd, 1 => "[ -~]{0,40}"];
    text.prop_map(|text| SanType::URI(text.as_str().try_into().unwrap()))
}

fn other_name() -> impl Strategy<Value = SanType> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|uid| SanType::DnsName(pod_name(Uid(uid)).try_into().unwrap())),
        Just(SanType::DnsName(INJECTOR.try_into().unwrap())),
        any::<[u8; 4]>().prop_map(|address| SanType::IpAddress(address.into())),
        "[a-z]{1,9}@[a-z]{1,9}".prop_map(|mail| SanType::Rfc822Name(mail.as_str().try_into().unwrap())),
    ]
}

prop_compose! {
    fn request()(
        uris in prop_oneof![5 => prop::collection::vec(uri(), 1), 1 => prop::collection::vec(uri(), 0..4)],
        others in prop::collection::vec(other_name(), 0..3),
        is_ca in prop::bool::weighted(0.1),
        signs in any::<bool>(),
        subject in "[a-z]{0,12}",
        flip in prop::option::weighted(0.2, (any::<prop::sample::Index>(), 0..8_u8)),
    ) -> Vec<u8> {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, subject);
        wanted.subject_alt_names = uris.into_iter().chain(others).collect();
        if is_ca {
            wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        if signs {
            wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        let mut csr = wanted.serialize_request(&*KEY).unwrap().der().to_vec();
        if let Some((at, bit)) = flip {
            let at = at.index(csr.len());
            csr[at] ^= 1 << bit;
        }
        csr
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    fn whatever_is_issued_names_its_asker(
        csr in request(),
        (namespace, service_account) in account(),
        pod in any::<[u8; 16]>(),
        audience in select(vec![AUDIENCE, AUDIENCE, AUDIENCE, "https://kubernetes.default.svc"]),
        tampered in prop::option::weighted(0.1, any::<prop::sample::Index>()),
    ) {
        let pod = Uid(pod);
        let mut token = ISSUER
            .mint(
                &TokenRequest {
                    namespace,
                    service_account,
                    service_account_uid: "1",
                    pod: "web-0",
                    pod_uid: &pod.to_string(),
                    audience,
                    lifetime: LEAF_LIFETIME,
                },
                SystemTime::now(),
            )
            .unwrap();
        if let Some(at) = tampered {
            let at = at.index(token.len());
            let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
            token.replace_range(at..=at, other);
        }
        let tokens = LocalTokens::new(ISSUER.public_key().as_bytes(), "cluster.local", Clock::system()).unwrap();
        let review = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(tokens.review(&token));
        let Ok(workload) = review else { return Ok(()) };
        prop_assert_eq!(audience, AUDIENCE);
        prop_assert_eq!(workload.pod, pod);

        let csr = CertificateSigningRequestDer::from(csr);
        let Ok(leaf) = AUTHORITY.issue(&csr, &workload.id, Some(workload.pod), SystemTime::now()) else { return Ok(()) };
        ISSUED.fetch_add(1, Ordering::Relaxed);
        let holder = peer(slice::from_ref(&leaf.der)).unwrap();
        prop_assert_eq!(holder.id.namespace(), namespace);
        prop_assert_eq!(holder.id.service_account(), service_account);
        prop_assert_eq!(holder.id.trust_domain(), "cluster.local");
        prop_assert_eq!(holder.pod, Some(pod));

        let (_, parsed) = X509Certificate::from_der(&leaf.der).unwrap();
        let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
        match (namespace, service_account) {
            ("gamut-system", "gamut-injector") => {
                prop_assert!(matches!(names[..], [GeneralName::URI(_), GeneralName::DNSName(_), GeneralName::DNSName(INJECTOR)]));
            }
            _ => prop_assert!(matches!(names[..], [GeneralName::URI(_), GeneralName::DNSName(_)])),
        }
        prop_assert!(!parsed.is_ca());
        prop_assert!(!parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
        prop_assert_eq!(parsed.subject().iter().count(), 0);
    }
}

#[test]
fn a_certificate_names_its_asker_or_doesnt_exist() {
    whatever_is_issued_names_its_asker();
    // Who asks for nothing but their own is among them.
    let issued = ISSUED.load(Ordering::Relaxed);
    assert!(issued >= 10, "of 500 requests {issued} were granted");
}
