//! Identities: peers' certificates, requests for them, and the tokens that come with those.

use std::{
    slice,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use gamut_ca::{
    Authority, LocalIssuer, LocalTokens, TokenRequest, TokenReview as _, authority::LEAF_LIFETIME,
};
use gamut_identity::{Clock, Roots, SpiffeId, peer, pod_name, uid_of_server_name, verify_chain};
use gamut_route::Uid;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, IsCa, Issuer, KeyPair,
    PublicKeyData as _, SigningKey as _,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::block_on;

const POD: &str = "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10";
/// A general name's tag when it is a URI or a DNS name (RFC 5280 section 4.2.1.6).
const URI: u8 = 0x86;
const DNS: u8 = 0x82;

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("entropy"));
static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let now = SystemTime::now();
    let stored = Authority::make("cluster.local", now).expect("entropy");
    Authority::open(&stored, LEAF_LIFETIME, now).expect("it was just made")
});
static TOKENS: LazyLock<(LocalTokens, String)> = LazyLock::new(|| {
    let issuer = LocalIssuer::generate().expect("entropy");
    let token = TokenRequest {
        namespace: "shop",
        service_account: "web",
        service_account_uid: "1",
        pod: "web-0",
        pod_uid: POD,
        audience: gamut_ca_api::AUDIENCE,
        lifetime: Duration::from_secs(1_000_000),
    };
    let token = issuer.mint(&token, SystemTime::now()).expect("a key");
    let tokens =
        LocalTokens::new(issuer.public_key().as_bytes(), "cluster.local", Clock::system()).expect("a key");
    (tokens, token)
});

/// A CA that signs whatever names are asked for, and the roots that trust it.
struct Careless {
    issuer: Issuer<'static, KeyPair>,
    roots: Roots,
}

static CARELESS: LazyLock<Careless> = LazyLock::new(|| {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("entropy");
    let certificate = root.self_signed(&key).expect("a key");
    let roots = Roots::new([certificate.der().clone()]).expect("a root");
    Careless { issuer: Issuer::new(root, key), roots }
});

/// A peer's certificate: bytes that nobody signed are nobody; and of names that a careless CA signed, an identity is the one
/// URI that is there, spelt as it is there.
pub(crate) fn certificate(input: &[u8]) {
    let raw = CertificateDer::from(input);
    let _ = peer(slice::from_ref(&raw));
    assert!(verify_chain(slice::from_ref(&raw), &CARELESS.roots, SystemTime::now()).is_err());

    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    leaf.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], input.to_vec())];
    let Ok(leaf) = leaf.signed_by(&*KEY, &CARELESS.issuer) else { return };
    let leaf = leaf.der();
    if verify_chain(slice::from_ref(leaf), &CARELESS.roots, SystemTime::now()).is_err() {
        return;
    }
    let Ok(holder) = peer(slice::from_ref(leaf)) else { return };
    let names = general_names(input);
    let uris: Vec<_> = names.iter().filter(|(tag, _)| *tag == URI).map(|(_, name)| *name).collect();
    assert_eq!(uris, [holder.id.as_str().as_bytes()]);
    let pod = holder.pod.map(pod_name);
    if let Some(pod) = &pod {
        let is_pod = |(tag, name): &&(u8, &[u8])| *tag == DNS && *name == pod.as_bytes();
        assert_eq!(names.iter().filter(is_pod).count(), 1);
    }
    let hidden = names
        .iter()
        .filter(|(tag, name)| *tag == DNS && name.to_ascii_lowercase().ends_with(b".pod.gamut.mesh"));
    assert_eq!(hidden.count(), usize::from(pod.is_some()));
}

/// The tags and contents of the SEQUENCE that a `SubjectAltName` is, read as strictly as can be.
fn general_names(input: &[u8]) -> Vec<(u8, &[u8])> {
    let (tag, mut rest, behind) = element(input).expect("a SEQUENCE");
    assert!(tag == 0x30 && behind.is_empty(), "a SEQUENCE and nothing else");
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (tag, name, others) = element(rest).expect("a general name");
        names.push((tag, name));
        rest = others;
    }
    names
}

/// Tag, content and what follows of a DER element of less than 64 KiB.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// Names of identities and pods: what is taken is spelt in one way.
pub(crate) fn spiffe_id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text);
        let again = SpiffeId::new(id.trust_domain(), id.namespace(), id.service_account());
        assert_eq!(again.as_ref(), Ok(&id));
    }
    if let Some(uid) = uid_of_server_name(text) {
        assert_eq!(pod_name(uid), text);
    }
}

/// A request for a certificate: bytes that anybody sent, and attributes that the holder of a key signed. A certificate
/// names its asker or doesn't exist.
pub(crate) fn csr(input: &[u8]) {
    let own = SpiffeId::new("cluster.local", "shop", "web").expect("valid parts");
    let pod = Uid::of(POD);
    for (csr, is_signed) in [(input.to_vec(), false), (signed(input), true)] {
        let csr = CertificateSigningRequestDer::from(csr);
        let Ok(leaf) = AUTHORITY.issue(&csr, &own, Some(pod), SystemTime::now()) else { continue };
        assert!(is_signed, "a signature over {:?} was found", csr);
        let holder = peer(slice::from_ref(&leaf.der)).expect("a leaf of ours");
        assert_eq!((&holder.id, holder.pod), (&own, Some(pod)));
        let asked = input.windows(own.as_str().len()).filter(|part| *part == own.as_str().as_bytes());
        assert!(asked.count() >= 1, "nobody asked for {own}");
    }
}

/// A request whose key is ours and whose attributes are the input.
fn signed(attributes: &[u8]) -> Vec<u8> {
    const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
    let version_and_subject = [2, 1, 0, 0x30, 0].as_slice();
    let key = KEY.subject_public_key_info();
    let info = der(0x30, &[version_and_subject, &key, &der(0xa0, &[attributes])]);
    let signature = KEY.sign(&info).expect("a key");
    der(0x30, &[&info, &ECDSA_WITH_SHA256, &der(3, &[&[0], &signature])])
}

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u32::try_from(content.len()).expect("a short input").to_be_bytes();
    let header = match content.len() {
        0..0x80 => vec![tag, length[3]],
        0x80..0x1_0000 => vec![tag, 0x82, length[2], length[3]],
        _ => vec![tag, 0x83, length[1], length[2], length[3]],
    };
    [header, content].concat()
}

/// A text that claims to be a service account's token. The key differs from run to run, so that whatever is taken wasn't
/// signed; nor is one of ours that was changed in one place.
pub(crate) fn service_token(input: &[u8]) {
    let (tokens, genuine) = &*TOKENS;
    let Ok(text) = std::str::from_utf8(input) else { return };
    assert!(block_on(tokens.review(text)).is_err(), "taken: {text:?}");
    if let [place, by, ..] = input {
        let mut changed = genuine.clone().into_bytes();
        let place = usize::from(*place) * 5 % changed.len();
        changed[place] = *by;
        if let Ok(changed) = String::from_utf8(changed)
            && changed != *genuine
            && let Ok(workload) = block_on(tokens.review(&changed))
        {
            // The last character of a base64url text carries bits that nobody reads.
            assert_eq!(place + 1, changed.len(), "{place} = {by}: {workload:?}");
        }
    }
}
