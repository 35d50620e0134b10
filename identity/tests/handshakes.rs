//! Real handshakes: our configurations with each other, and with peers that do everything wrong.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{io, sync::Arc, time::Duration};

use common::{CLIENT, Credentials, Mesh, WEB, dns, honest, id, uri};
use gamut_identity::{
    Clock, ConfigError, Identity, Peer, Roots, SpiffeId, explain, peer, pod_name, server_name,
};
use gamut_route::Uid;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const ALPN: &[&[u8]] = &[b"gamut/1-h2"];
const URI: &str = "spiffe://cluster.local/ns/shop/sa/web";

type Ends = (io::Result<client::TlsStream<DuplexStream>>, io::Result<server::TlsStream<DuplexStream>>);

/// A handshake and one byte each way: a client of TLS 1.3 learns of the server's refusal only when it reads.
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: ServerName<'static>) -> Ends {
    let (near, far) = duplex(64 * 1024);
    let connect = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"!").await?;
        Ok(stream)
    };
    tokio::join!(connect, accept)
}

async fn meet(client: &Identity, server: &Identity, pod: &str) -> Ends {
    let (client, server) = (client.client_config(ALPN).unwrap(), server.server_config(ALPN).unwrap());
    shake(client, server, server_name(Uid::of(pod))).await
}

fn web() -> ServerName<'static> {
    server_name(Uid::of(WEB))
}

#[tokio::test]
async fn two_pods_learn_who_the_other_is_over_tls_1_3_with_ml_kem() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let (near, far) = meet(&client, &server, WEB).await;
    let (near, far) = (near.unwrap(), far.unwrap());

    let (near, far) = (near.get_ref().1, far.get_ref().1);
    assert_eq!(near.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(near.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(near.alpn_protocol(), Some(&b"gamut/1-h2"[..]));
    let seen_by_client = peer(near.peer_certificates().unwrap()).unwrap();
    let seen_by_server = peer(far.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen_by_client, Peer { id: id("web"), pod: Some(Uid::of(WEB)) });
    assert_eq!(seen_by_server, Peer { id: id("client"), pod: Some(Uid::of(CLIENT)) });
}

#[tokio::test]
async fn a_second_connection_is_verified_from_the_start_again() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    for _ in 0..2 {
        let (near, far) = meet(&client, &server, WEB).await;
        assert_eq!(near.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(far.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn configurations_are_made_once() {
    let mesh = Mesh::new();
    let identity = mesh.identity("web", WEB).await;
    let (first, second) = (identity.client_config(ALPN).unwrap(), identity.client_config(ALPN).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    let (first, second) = (identity.server_config(ALPN).unwrap(), identity.server_config(ALPN).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &identity.server_config_for_anyone(ALPN).unwrap()));
    assert!(!Arc::ptr_eq(&first, &identity.server_config(&[]).unwrap()));
}

#[tokio::test]
async fn a_pod_doesnt_answer_to_another_pods_name() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let (near, far) = meet(&client, &server, CLIENT).await;
    assert!(near.is_err() && far.is_err());

    // Not even a caller that would take anybody is answered.
    let careless = mesh.forge(honest("spiffe://cluster.local/ns/shop/sa/client", CLIENT));
    for (pod, answers) in [(WEB, true), (CLIENT, false)] {
        let name = server_name(Uid::of(pod));
        let (_, far) = shake(hostile_client(&careless), server.server_config(&[]).unwrap(), name).await;
        assert_eq!(far.is_ok(), answers, "{pod}");
    }
}

#[tokio::test]
async fn a_client_notices_that_another_pod_answers() {
    let mesh = Mesh::new();
    let client = mesh.identity("client", CLIENT).await;
    // The same service account, another incarnation: what an IP that is used again looks like.
    let successor = mesh.forge(honest(URI, CLIENT));
    let (near, _) = shake(client.client_config(ALPN).unwrap(), hostile_server(&successor), web()).await;
    let error = explain(&near.unwrap_err());
    assert!(error.contains("its address has a new holder"), "{error}");
}

#[tokio::test]
async fn whoever_has_no_certificate_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.identity("web", WEB).await;
    let stranger = ClientConfig::builder_with_provider(gamut_identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(mesh.store())
        .with_no_client_auth();
    let (near, far) = shake(Arc::new(stranger.clone()), server.server_config(&[]).unwrap(), web()).await;
    assert!(near.is_err() && far.is_err());

    let (near, far) = shake(Arc::new(stranger), server.server_config_for_anyone(&[]).unwrap(), web()).await;
    assert!(near.is_ok() && far.unwrap().get_ref().1.peer_certificates().is_none());
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mesh = Mesh::new();
    let server = mesh.identity("web", WEB).await;
    let old = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS12])
        .with_root_certificates(mesh.store())
        .with_no_client_auth();
    let (near, far) = shake(Arc::new(old), server.server_config_for_anyone(&[]).unwrap(), web()).await;
    assert!(near.is_err() && far.is_err());
}

#[tokio::test]
async fn what_isnt_tls_is_an_error() {
    let mesh = Mesh::new();
    let server = mesh.identity("web", WEB).await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0, 1, 0], &[0x16, 3, 1, 0xff, 0xff, 1]]
    {
        let (mut near, far) = duplex(1024);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let accepted = TlsAcceptor::from(server.server_config(ALPN).unwrap()).accept(far).await;
        assert!(accepted.is_err(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_called_by_its_identity_must_have_exactly_that() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let address = || ServerName::try_from("10.0.0.7").unwrap();
    let expecting = |id: SpiffeId| client.client_config_to(&id, &[]).unwrap();

    let (near, _) = shake(expecting(id("web")), server.server_config(&[]).unwrap(), address()).await;
    assert!(near.is_ok());
    for other in [id("client"), SpiffeId::new("cluster.local", "shop2", "web").unwrap()] {
        let (near, _) = shake(expecting(other), server.server_config(&[]).unwrap(), address()).await;
        let error = explain(&near.unwrap_err());
        assert!(error.contains(&format!("the peer is {URI}, expected")), "{error}");
    }
}

#[tokio::test]
async fn roots_are_exchanged_under_running_processes() {
    let (old, new) = (Mesh::new(), Mesh::new());
    let (client, server) = (old.identity("client", CLIENT).await, new.identity("web", WEB).await);
    let works = async || {
        let (near, far) = meet(&client, &server, WEB).await;
        near.is_ok() && far.is_ok()
    };
    assert!(!works().await, "two meshes");

    let both = old.roots().and(&new.roots()).unwrap();
    client.set_roots(both.clone());
    assert!(!works().await, "the server still trusts its own root only");
    server.set_roots(both);
    assert!(works().await, "overlap");
    client.set_roots(old.roots());
    assert!(!works().await, "the server's root was taken away");
}

#[tokio::test]
async fn clocks_may_be_an_hour_apart() {
    let mesh = Mesh::new();
    let hour = Duration::from_secs(60 * 60);
    let right = mesh.identity("client", CLIENT).await;
    for clock in [Clock::system().behind_by(hour), Clock::system().ahead_by(hour)] {
        let skewed = mesh.identity_by("web", WEB, clock).await;
        let (near, far) = meet(&right, &skewed, WEB).await;
        assert!(near.is_ok() && far.is_ok());
        let (near, far) = meet(&skewed, &right, CLIENT).await;
        assert!(near.is_ok() && far.is_ok());
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_configuration() {
    let mesh = Mesh::new();
    // Issues for another account than asked, so that the identity never becomes ready.
    let issuer = mesh.issuer("other", WEB, Clock::system());
    let identity = Identity::start(id("web"), issuer, Clock::system());
    let mut status = identity.status();
    status.wait_for(|status| status.failures > 0).await.unwrap();

    for error in [
        identity.client_config(ALPN).unwrap_err(),
        identity.client_config_to(&id("x"), ALPN).unwrap_err(),
        identity.server_config(ALPN).unwrap_err(),
        identity.server_config_for_anyone(ALPN).unwrap_err(),
    ] {
        let ConfigError::NoCertificate { id: whose, reason } = &error else { panic!("{error}") };
        assert_eq!(*whose, id("web"));
        assert!(reason.contains("the CA refused: the certificate request asks for"), "{reason}");
    }
}

/// One thing is wrong with each of these, and each end says which.
#[tokio::test]
async fn no_certificate_of_a_hostile_kind_gets_in_at_either_end() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    for (reason, credentials) in hostile(&mesh) {
        let (_, far) = shake(hostile_client(&credentials), server.server_config(&[]).unwrap(), web()).await;
        let error = explain(&far.expect_err(reason));
        assert!(error.contains(reason), "as client: expected {reason:?}, got {error:?}");

        let (near, _) = shake(client.client_config(&[]).unwrap(), hostile_server(&credentials), web()).await;
        let error = explain(&near.expect_err(reason));
        assert!(error.contains(reason), "as server: expected {reason:?}, got {error:?}");
    }
}

#[tokio::test]
async fn the_forger_can_forge_a_good_one_too() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let credentials = mesh.forge(honest(URI, WEB));
    let (_, far) = shake(hostile_client(&credentials), server.server_config(&[]).unwrap(), web()).await;
    far.unwrap();
    let (near, _) = shake(client.client_config(&[]).unwrap(), hostile_server(&credentials), web()).await;
    near.unwrap();
}

#[tokio::test]
async fn a_certificate_for_one_end_is_no_good_at_the_other() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let only = |usage| mesh.forge(spoilt(|leaf| leaf.extended_key_usages = vec![usage]));

    let for_servers = only(ExtendedKeyUsagePurpose::ServerAuth);
    let (_, far) = shake(hostile_client(&for_servers), server.server_config(&[]).unwrap(), web()).await;
    assert!(far.is_err());
    let for_clients = only(ExtendedKeyUsagePurpose::ClientAuth);
    let (near, _) = shake(client.client_config(&[]).unwrap(), hostile_server(&for_clients), web()).await;
    assert!(near.is_err());
}

#[tokio::test]
async fn only_keys_of_the_kind_that_our_ca_certifies_can_speak() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let credentials = mesh.forge_for(honest(URI, WEB), KeyPair::generate_for(algorithm).unwrap());
        let (_, far) = shake(hostile_client(&credentials), server.server_config(&[]).unwrap(), web()).await;
        assert!(far.is_err(), "{algorithm:?}");
        let (near, _) = shake(client.client_config(&[]).unwrap(), hostile_server(&credentials), web()).await;
        assert!(near.is_err(), "{algorithm:?}");
    }
}

fn spoilt(spoil: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut leaf = honest(URI, WEB);
    spoil(&mut leaf);
    leaf
}

/// What must be refused, and a part of what our end says about it.
fn hostile(mesh: &Mesh) -> Vec<(&'static str, Credentials)> {
    let named = |names: Vec<rcgen::SanType>| mesh.forge(spoilt(|leaf| leaf.subject_alt_names = names));
    let pod = || dns(&pod_name(Uid::of(WEB)));
    let called = |text: &str| named(vec![uri(text), pod()]);
    let stranger = Mesh::new();
    let half_an_hour = Duration::from_secs(30 * 60);
    let now = std::time::SystemTime::now();
    let mut cases = vec![
        ("UnknownIssuer", stranger.forge(honest(URI, WEB))),
        ("0 URI names", named(vec![pod()])),
        ("2 URI names", named(vec![uri(URI), uri("spiffe://cluster.local/ns/shop/sa/admin"), pod()])),
        ("2 URI names", named(vec![uri(URI), uri(URI), pod()])),
        ("one of its names is not of its kind", {
            // A second URI, which only readers see who don't mind that it isn't ASCII.
            let element = |tag: u8, name: &[u8]| [&[tag, u8::try_from(name.len()).unwrap()], name].concat();
            let names = [
                element(0x86, URI.as_bytes()),
                element(0x86, b"spiffe\xe1//x"),
                element(0x82, pod_name(Uid::of(WEB)).as_bytes()),
            ];
            let names = element(0x30, &names.concat());
            let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
            mesh.forge(spoilt(|leaf| {
                leaf.subject_alt_names.clear();
                leaf.custom_extensions.push(names);
            }))
        }),
        ("of another trust domain", called("spiffe://cluster.local.evil/ns/shop/sa/web")),
        ("of another trust domain", called("spiffe://evil-cluster.local/ns/shop/sa/web")),
        ("isn't the one name of a pod", named(vec![uri(URI), pod(), dns(&pod_name(Uid::of(CLIENT)))])),
        ("isn't the one name of a pod", named(vec![uri(URI), dns("*.pod.gamut.mesh")])),
        ("isn't the one name of a pod", named(vec![uri(URI), dns("x.pod.gamut.mesh")])),
        ("isn't the one name of a pod", named(vec![uri(URI), dns("pod.gamut.mesh")])),
        ("expired", mesh.forge(spoilt(|leaf| leaf.not_after = (now - Duration::from_secs(1)).into()))),
        ("not valid yet", mesh.forge(spoilt(|leaf| leaf.not_before = (now + half_an_hour).into()))),
        ("states no key usage", mesh.forge(spoilt(|leaf| leaf.key_usages.clear()))),
        (
            "lacks digitalSignature",
            mesh.forge(spoilt(|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement])),
        ),
        (
            "key usage is a CA's",
            mesh.forge(spoilt(|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ),
        ("states no extended key usage", mesh.forge(spoilt(|leaf| leaf.extended_key_usages.clear()))),
        (
            "extended key usage",
            mesh.forge(spoilt(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ),
        (
            "CaUsedAsEndEntity",
            mesh.forge(spoilt(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ),
        ("ExtensionValueInvalid", {
            // One library might read the first list of names and another the second.
            let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 3, 0x86, 1, b'x']);
            mesh.forge(spoilt(|leaf| leaf.custom_extensions.push(names)))
        }),
        ("at most 4 are looked at", {
            let mut padded = mesh.forge(honest(URI, WEB));
            padded.chain.extend(vec![padded.chain[0].clone(); 4]);
            padded
        }),
        ("BadSignature", {
            // Somebody else's certificate, without its key.
            let mut stolen = mesh.forge(honest(URI, WEB));
            stolen.key = mesh.forge(honest(URI, WEB)).key;
            stolen
        }),
    ];
    for text in [
        "SPIFFE://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/sa/web/../admin",
        "spiffe://cluster.local/",
    ] {
        cases.push(("is not of the form spiffe://", called(text)));
    }
    for (reason, text) in [
        (r#"namespace "Shop" must be"#, "spiffe://cluster.local/ns/Shop/sa/web"),
        (r#"namespace "shop%2Fsa%2Fweb" must be"#, "spiffe://cluster.local/ns/shop%2Fsa%2Fweb/sa/x"),
        (r#"namespace "" must be"#, "spiffe://cluster.local/ns//sa/web"),
        (r#"service account "web\0" must be"#, "spiffe://cluster.local/ns/shop/sa/web\0"),
        (r#"trust domain "cluster.local\0.evil" must be"#, "spiffe://cluster.local\0.evil/ns/shop/sa/web"),
    ] {
        cases.push((reason, called(text)));
    }
    cases
}

fn hostile_client(credentials: &Credentials) -> Arc<ClientConfig> {
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsAnybody))
        .with_client_cert_resolver(Arc::new(Shows(Arc::new(credentials.certified_key()))));
    Arc::new(config)
}

fn hostile_server(credentials: &Credentials) -> Arc<ServerConfig> {
    let resolver = Arc::new(Shows(Arc::new(credentials.certified_key())));
    Arc::new(ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver))
}

/// Shows its certificate to everybody, whatever was asked for.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        gamut_identity::provider().signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn a_set_of_roots_is_taken_whole_or_not_at_all() {
    let mesh = Mesh::new();
    let root = mesh.roots().certificates()[0].clone();
    let leaf = mesh.forge(honest(URI, WEB)).chain[0].clone();
    let error =
        |certificates: Vec<CertificateDer<'static>>| Roots::new(certificates).unwrap_err().to_string();
    assert!(error(vec![]).contains("must hold at least one"));
    assert!(error(vec![root.clone(), leaf]).contains("root 2"));
    assert!(error(vec![CertificateDer::from(vec![1, 2, 3])]).contains("root 1 isn't a certificate"));
    let mut followed = root.to_vec();
    followed.push(0);
    assert!(error(vec![followed.into()]).contains("1 bytes follow it"));
    assert!(Roots::from_pem(b"no certificates here").is_err());
    assert!(Roots::from_pem(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").is_err());

    let twice = Roots::new([root.clone(), root]).unwrap();
    assert_eq!(twice.certificates().len(), 1);
    assert_eq!(Roots::from_pem(twice.to_pem().as_bytes()), Ok(twice));
}
