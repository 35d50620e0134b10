//! What the CA answers: to the client that sidecars use, and to others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use common::{POD, Running, Town, ca_id, web};
use gamut_ca::{Authority, Ca, CaArgs, InProcess, TRUST_BUNDLE_KEY, authority::LEAF_LIFETIME};
use gamut_ca_api::{AUDIENCE, CertificateAuthorityClient, bearer, v1::IssueRequest};
use gamut_identity::{CaClient, Clock, Issued, Issuer, Roots, grpc};
use gamut_route::Uid;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tonic::{Code, Status, transport::Channel};

/// One try of a client, as the worker of a sidecar makes it.
async fn try_once(client: &CaClient) -> Result<Issued, String> {
    let asked = timeout(Duration::from_secs(10), client.issue(csr_for(web().as_str()).into(), None)).await;
    asked.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())
}

fn csr_for(uri: &str) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::default();
    wanted.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    wanted.serialize_request(&key).unwrap().der().to_vec()
}

#[tokio::test]
async fn a_sidecar_gets_the_certificate_of_its_own_pod() {
    let town = Town::new();
    let ca = town.start().await;
    let (identity, certificate) = town.sidecar(&ca).await;
    assert_eq!((certificate.id(), certificate.pod()), (&web(), Some(Uid::of(POD))));
    let life = certificate.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(life > LEAF_LIFETIME - Duration::from_secs(60) && life <= LEAF_LIFETIME, "{life:?}");
    assert_eq!(
        *identity.roots().unwrap(),
        Roots::from_pem(&fs::read(town.path("root.pem")).unwrap()).unwrap()
    );
    identity.server_config(&[]).unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn each_certificate_that_is_issued_is_counted_and_none_that_is_refused() {
    let town = Town::new();
    let ca = town.start().await;
    let issued = async |count: u32| {
        let page = asked(&ca.admin, "GET /metrics").await.unwrap();
        assert!(page.contains(&format!("\ngamut_ca_certificates_issued_total {count}\n")), "{page}");
        page
    };
    issued(0).await;
    town.sidecar(&ca).await;
    issued(1).await;
    try_once(&town.client(&ca.address)).await.unwrap();
    issued(2).await;
    fs::write(town.path("token"), town.token("somebody-else")).unwrap();
    try_once(&town.client(&ca.address)).await.unwrap_err();
    let page = issued(2).await;
    assert!(page.contains("\ngamut_ca_requests_refused_total{reason=\"token\"} 1\n"), "{page}");
    ca.stop().await;
}

#[tokio::test]
async fn the_root_survives_a_restart_and_is_published_in_both_forms() {
    let town = Town::new();
    let ca = town.start().await;
    let pem = fs::read_to_string(town.path("root.pem")).unwrap();
    let bundle: serde_json::Value =
        serde_json::from_slice(&fs::read(town.path("cluster/bundle.json")).unwrap()).unwrap();
    assert_eq!(bundle["kind"], "ConfigMap");
    assert_eq!(bundle["metadata"]["name"], "gamut-trust-bundle");
    assert_eq!(bundle["data"][TRUST_BUNDLE_KEY], pem);
    assert!(!pem.contains("PRIVATE"));
    ca.stop().await;

    fs::remove_file(town.path("root.pem")).unwrap();
    town.start().await.stop().await;
    assert_eq!(fs::read_to_string(town.path("root.pem")).unwrap(), pem);
}

#[tokio::test]
async fn a_restart_writes_what_has_changed_and_nothing_else() {
    let town = Town::new();
    town.start().await.stop().await;
    let file = |name: &str| fs::metadata(town.path(name)).unwrap().ino();
    let (pem, map) = (file("root.pem"), file("cluster/bundle.json"));
    fs::write(town.path("root.pem"), "of another CA").unwrap();
    // Keeps its number from being given to what is written next.
    let _open = fs::File::open(town.path("root.pem")).unwrap();

    town.start().await.stop().await;
    assert_eq!(file("cluster/bundle.json"), map, "written though nothing has changed");
    assert_ne!(file("root.pem"), pem, "written in place: readers may see a part");
    assert!(fs::read_to_string(town.path("root.pem")).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn what_a_sidecar_lacks_is_named_and_a_later_try_sees_what_was_put_there() {
    let town = Town::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let client = town.client(&address.to_string());
    let fails_with = async |part: &str| {
        let error = try_once(&client).await.unwrap_err();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    };
    fails_with("can't read the service account token").await;
    fs::write(town.path("token"), "\n").unwrap();
    fails_with("it holds no token").await;
    fs::write(town.path("token"), town.token("somebody-else")).unwrap();
    fails_with("can't read the mesh's roots").await;
    fs::write(town.path("root.pem"), "not a root").unwrap();
    fails_with("must hold at least one").await;
    // Another mesh's roots: nobody there can be our CA.
    let other = Town::new();
    other.start().await.stop().await;
    fs::copy(other.path("root.pem"), town.path("root.pem")).unwrap();
    fails_with("Connection refused").await;

    let args = CaArgs { listen: address, bundle_file: vec![town.path("real.pem")], ..town.args() };
    let serving =
        tokio::spawn(Ca::start(&args, Clock::system()).await.unwrap().serve(std::future::pending()));
    fails_with("UnknownIssuer").await;
    fs::copy(town.path("real.pem"), town.path("root.pem")).unwrap();
    fails_with("Unauthenticated").await;
    fs::write(town.path("token"), town.token(AUDIENCE)).unwrap();
    assert_eq!(try_once(&client).await.unwrap().chain.len(), 1);
    serving.abort();
}

#[tokio::test]
async fn roots_that_were_pushed_do_for_a_file_that_lags() {
    let (town, other) = (Town::new(), Town::new());
    let ca = town.start().await;
    let pushed = Roots::from_pem(&fs::read(town.path("root.pem")).unwrap()).unwrap();
    other.start().await.stop().await;
    fs::write(town.path("token"), town.token(AUDIENCE)).unwrap();
    let client = CaClient { roots_file: other.path("root.pem"), ..town.client(&ca.address) };
    assert!(try_once(&client).await.is_err());
    let csr = || csr_for(web().as_str()).into();
    client.issue(csr(), Some(Arc::new(pushed.clone()))).await.unwrap();
    let without_file = CaClient { roots_file: town.path("missing"), ..client };
    without_file.issue(csr(), Some(Arc::new(pushed))).await.unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn a_token_never_goes_to_an_impostor_with_a_certificate_of_the_same_mesh() {
    let town = Town::new();
    let ca = town.start().await;
    let (sidecar, _) = town.sidecar(&ca).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let got_in = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let config = sidecar.server_config_for_anyone(grpc::ALPN).unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await?;
        stream.read_u8().await
    });
    let error = try_once(&town.client(&address)).await.unwrap_err();
    assert!(
        error.contains("the peer is spiffe://cluster.local/ns/shop/sa/web, expected spiffe://"),
        "{error}"
    );
    assert!(got_in.await.unwrap().is_err(), "a byte of the request arrived");
    ca.stop().await;
}

/// Calls as no client of ours makes them.
struct Caller(CertificateAuthorityClient<Channel>);

impl Caller {
    async fn new(town: &Town, ca: &Running) -> Self {
        let (identity, _) = town.sidecar(ca).await;
        let config = identity.client_config_to(&ca_id(), grpc::ALPN).unwrap();
        let channel = grpc::connect(grpc::endpoint(&ca.address).unwrap(), config).await.unwrap();
        Self(CertificateAuthorityClient::new(channel))
    }

    async fn ask(&mut self, token: Option<&str>, csr: Vec<u8>) -> Result<(), Status> {
        let mut request = tonic::Request::new(IssueRequest { csr: csr.into() });
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", bearer(token).unwrap());
        }
        self.0.issue(request).await.map(|_| ())
    }
}

#[tokio::test]
async fn whoever_asks_wrongly_is_told_what_is_wrong() {
    let town = Town::new();
    let ca = town.start().await;
    let mut caller = Caller::new(&town, &ca).await;
    let (good, foreign) = (town.token(AUDIENCE), Town::new().token(AUDIENCE));
    let admin = "spiffe://cluster.local/ns/shop/sa/admin";
    for (token, csr, code, message) in [
        (None, vec![], Code::Unauthenticated, "carries no"),
        (Some("not.a.token"), vec![], Code::Unauthenticated, "isn't one of this cluster's"),
        (Some(&*foreign), vec![], Code::Unauthenticated, "isn't one of this cluster's"),
        (Some(&*good), vec![1, 2, 3], Code::InvalidArgument, "can't be read"),
        (Some(&*good), vec![0; 9 * 1024], Code::InvalidArgument, "at most 8192"),
        (Some(&*good), vec![0; 65 * 1024], Code::OutOfRange, "limit"),
        (Some(&*good), csr_for(admin), Code::PermissionDenied, "asks for"),
    ] {
        let status = caller.ask(token, csr).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(message), "{status:?}");
    }
    caller.ask(Some(&good), csr_for(web().as_str())).await.unwrap();
    ca.stop().await;
}

#[tokio::test]
async fn a_pod_that_asks_all_the_time_is_told_to_wait() {
    let town = Town::new();
    let ca = town.start().await;
    let mut caller = Caller::new(&town, &ca).await;
    let token = town.token(AUDIENCE);
    // The sidecar's own request was the first.
    for _ in 1..10 {
        caller.ask(Some(&token), csr_for(web().as_str())).await.unwrap();
    }
    let status = caller.ask(Some(&token), csr_for(web().as_str())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("pod shop/web-0 asks too often"), "{status:?}");
    ca.stop().await;
}

#[tokio::test]
async fn ready_answers_once_the_ca_does() {
    let town = Town::new();
    let ca = town.start().await;
    let ok = "HTTP/1.1 200 OK";
    for (request, expected) in
        [("GET /ready", ok), ("GET /healthz", ok), ("GET /debug", "404"), ("POST /ready", "404")]
    {
        let answer = asked(&ca.admin, request).await.unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
    ca.stop().await;
}

#[tokio::test]
async fn a_ca_that_waits_for_the_api_server_is_well_and_not_ready() {
    let town = Town::new();
    let kubeconfig = town.path("kubeconfig");
    let nobody = "apiVersion: v1\nkind: Config\ncurrent-context: a\nusers: [{name: a, user: {}}]\n\
                  clusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}]\n\
                  contexts: [{name: a, context: {cluster: a, user: a}}]\n";
    fs::write(&kubeconfig, nobody).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let args = CaArgs {
        kubeconfig: Some(kubeconfig),
        store_dir: None,
        issuer_key_file: None,
        admin: free,
        ..town.args()
    };
    let waiting = tokio::spawn(async move { Ca::start(&args, Clock::system()).await.map(drop) });
    let healthz = loop {
        match asked(&free.to_string(), "GET /healthz").await {
            Ok(answer) => break answer,
            Err(_) => {
                assert!(!waiting.is_finished(), "the CA has ended");
                tokio::task::yield_now().await;
            }
        }
    };
    assert!(healthz.starts_with("HTTP/1.1 200 OK"), "{healthz}");
    let ready = asked(&free.to_string(), "GET /ready").await.unwrap();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("waiting for the signing key"), "{ready}");
    waiting.abort();
}

async fn asked(address: &str, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn what_is_set_wrongly_is_named() {
    let town = Town::new();
    let start = async |args: CaArgs| Ca::start(&args, Clock::system()).await.err().unwrap().to_string();
    let occupied = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fs::write(town.path("not-a-key"), "x").unwrap();
    fs::write(town.path("a-file"), "x").unwrap();
    for (expected, args) in [
        ("--trust-domain: trust domain \"A\"", CaArgs { trust_domain: "A".to_owned(), ..town.args() }),
        ("can't listen on", CaArgs { listen: occupied.local_addr().unwrap(), ..town.args() }),
        ("--issuer-key-file", CaArgs { issuer_key_file: Some(town.path("missing")), ..town.args() }),
        ("must be a public key", CaArgs { issuer_key_file: Some(town.path("not-a-key")), ..town.args() }),
        ("a-file", CaArgs { store_dir: Some(town.path("a-file")), ..town.args() }),
        ("must end in .json", CaArgs { bundle_file: vec![town.path("roots")], ..town.args() }),
    ] {
        let error = start(args).await;
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_authority_certifies_its_own_process_without_a_token() {
    let stored = Authority::make("cluster.local", SystemTime::now()).unwrap();
    let authority = Authority::open(&stored, LEAF_LIFETIME, SystemTime::now()).unwrap();
    let own =
        InProcess { authority: Arc::new(authority).into(), id: ca_id(), pod: None, clock: Clock::system() };
    let certificate = own.start().ready().await;
    assert_eq!((certificate.id(), certificate.pod()), (&ca_id(), None));
}
