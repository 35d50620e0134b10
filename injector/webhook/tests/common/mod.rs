//! What surrounds an injector: the real CA, an API server that holds what it is given, and a client that verifies as the real
//! one does.

#![allow(dead_code, reason = "each test file uses its part")]

mod api_server;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use gamut_ca::{Ca, CaArgs, LocalIssuer, TokenRequest};
use gamut_identity::{Clock, provider};
use gamut_webhook::{Injector, InjectorArgs, InjectorStatus};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use self::api_server::ApiServer;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What the API server calls us.
const SERVICE: &str = "gamut-injector.gamut-system.svc";

pub(crate) struct Town {
    directory: TempDir,
    pub(crate) api_server: ApiServer,
    https: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

/// A connection as the API server makes it.
pub(crate) struct Connection {
    requests: SendRequest<Full<Bytes>>,
    /// The certificate that it was made with.
    pub(crate) leaf: CertificateDer<'static>,
}

impl Town {
    /// An injector that is ready, with a certificate that is good for `leaf_lifetime`.
    pub(crate) async fn new(leaf_lifetime: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let issuer = LocalIssuer::generate().unwrap();
        fs::write(path("issuer.pem"), issuer.public_key()).unwrap();
        let ca = CaArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            trust_domain: "cluster.local".to_owned(),
            kubeconfig: None,
            existing_secret: None,
            store_dir: Some(path("store")),
            bundle_file: vec![path("root.pem")],
            issuer_key_file: Some(path("issuer.pem")),
            leaf_lifetime,
        };
        let ca = Ca::start(&ca, Clock::system()).await.unwrap();
        let (ca_address, _) = ca.addresses().unwrap();
        tokio::spawn(ca.serve(std::future::pending()));
        fs::write(path("token"), token(&issuer)).unwrap();

        let api_server = ApiServer::start().await;
        fs::write(path("kubeconfig"), api_server.kubeconfig()).unwrap();
        let args = args(&path("kubeconfig"), &path("token"), &path("root.pem"), &ca_address.to_string());
        let injector = Injector::start(&args, Clock::system()).await.unwrap();
        let (https, admin) = injector.addresses().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(injector.serve(async move { stopped.await.unwrap_or_default() }));
        let town = Self { directory, api_server, https, admin, stop, ended };
        town.publish(&town.roots());
        town.until_status(|status| status.ready).await;
        town
    }

    /// The roots that are published, PEM.
    pub(crate) fn roots(&self) -> String {
        self.file("root.pem")
    }

    /// A file of the CA's or the injector's.
    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap()
    }

    /// Publishes roots, PEM, as the CA does on a cluster.
    pub(crate) fn publish(&self, roots: &str) {
        let metadata = json!({"namespace": "gamut-system", "name": "gamut-trust-bundle"});
        self.api_server.put("/api/v1/configmaps", json!({"metadata": metadata, "data": {"root.pem": roots}}));
    }

    pub(crate) async fn connect(&self) -> Connection {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots().as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.https).await.unwrap();
        let tls = TlsConnector::from(Arc::new(config));
        let stream: TlsStream<TcpStream> = tls.connect(SERVICE.try_into().unwrap(), stream).await.unwrap();
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let (requests, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Connection { requests, leaf }
    }

    pub(crate) async fn status(&self) -> InjectorStatus {
        serde_json::from_str(&self.page("/status").await).unwrap()
    }

    /// Waits until the injector says so of itself.
    pub(crate) async fn until_status(&self, holds: impl Fn(&InjectorStatus) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await;
            if holds(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "waited {} s in vain: {status:?}", PATIENCE.as_secs());
        }
    }

    /// A page of the admin port.
    pub(crate) async fn page(&self, path: &str) -> String {
        let stream = TcpStream::connect(self.admin).await.unwrap();
        let (mut requests, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request =
            Request::get(path).header(header::HOST, "admin").body(Full::<Bytes>::default()).unwrap();
        let answer = requests.send_request(request).await.unwrap();
        String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// Tells the injector to end.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        self.stop.send(()).unwrap();
        self.ended
    }
}

impl Connection {
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, SERVICE);
        let request = request.body(Full::new(body.into())).unwrap();
        self.requests.ready().await.unwrap();
        let answer = self.requests.send_request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The answer's `response` for a pod that is about to be created in `shop`.
    pub(crate) async fn review(&mut self, pod: &Value) -> Value {
        let (status, body) = self.send(Method::POST, "/inject", review("shop", pod).to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["response"].take()
    }
}

/// A review as the API server sends it.
pub(crate) fn review(namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn token(issuer: &LocalIssuer) -> String {
    let request = TokenRequest {
        namespace: "gamut-system",
        service_account: "gamut-injector",
        service_account_uid: "1",
        pod: "gamut-injector-0",
        pod_uid: "0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10",
        audience: "gamut.mesh/ca",
        lifetime: Duration::from_secs(3600),
    };
    issuer.mint(&request, SystemTime::now()).unwrap()
}

fn args(kubeconfig: &PathBuf, token: &PathBuf, roots: &PathBuf, ca_address: &str) -> InjectorArgs {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: InjectorArgs,
    }
    let own = ["gamut", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--image=gamut.mesh/gamut:test"];
    let files = [("--kubeconfig", kubeconfig), ("--token-file", token), ("--roots-file", roots)];
    let files = files.iter().map(|(flag, path)| format!("{flag}={}", path.display()));
    let words = own.map(str::to_owned).into_iter().chain(files).chain([format!("--ca-address={ca_address}")]);
    <Line as clap::Parser>::try_parse_from(words).unwrap().args
}
