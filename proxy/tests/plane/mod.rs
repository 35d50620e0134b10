//! A control plane on loopback: a real CA, a real controller over a directory of files, and sidecars' subscriptions.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Parser;
use gamut_ca::{Ca, CaArgs, LocalIssuer, TokenRequest};
use gamut_ca_api::AUDIENCE;
use gamut_controller::{Controller, ControllerArgs, ControllerStatus};
use gamut_identity::{CaClient, Clock, Identity, SpiffeId};
use gamut_proxy::{
    admin::Background,
    tables::{Destination, Settings, Subscription, Tables, view::Limits},
    telemetry::{Telemetry, Workload},
};
use gamut_route::{RouteTable, Uid};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// How long anything may take: far longer than 80,000 endpoints do on a busy machine, so that a failure is never the machine's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster IP of Service `shop/web`, port 80.
pub(crate) const WEB: &str = "10.96.0.1:80";

pub(crate) struct Plane {
    directory: TempDir,
    issuer: LocalIssuer,
    ca_address: String,
    _ca: JoinHandle<()>,
}

pub(crate) struct RunningController {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

pub(crate) struct Sidecar {
    pub(crate) tables: Tables,
    pub(crate) identity: Identity,
    pub(crate) telemetry: Telemetry,
    subscription: JoinHandle<()>,
}

#[derive(Parser)]
struct CaCommand {
    #[command(flatten)]
    ca: CaArgs,
}

#[derive(Parser)]
struct ControllerCommand {
    #[command(flatten)]
    controller: ControllerArgs,
}

impl Plane {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let issuer = LocalIssuer::generate().unwrap();
        fs::write(directory.path().join("issuer.pem"), issuer.public_key()).unwrap();
        fs::create_dir_all(directory.path().join("cluster")).unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let args = CaCommand::parse_from([
            "ca",
            "--listen=127.0.0.1:0",
            "--admin=127.0.0.1:0",
            &format!("--store-dir={}", path("store")),
            &format!("--bundle-file={},{}", path("root.pem"), path("cluster/bundle.json")),
            &format!("--issuer-key-file={}", path("issuer.pem")),
        ]);
        let ca = Ca::start(&args.ca, Clock::system()).await.unwrap();
        let ca_address = ca.addresses().unwrap().0.to_string();
        let serving = tokio::spawn(async move { ca.serve(std::future::pending()).await.unwrap() });
        Self { directory, issuer, ca_address, _ca: serving }
    }

    /// Saves an object as a file.
    pub(crate) fn apply(&self, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap();
        let name = format!("{}.{}.json", text("/kind"), text("/metadata/name"));
        // As every writer of this directory does: whoever reads sees the old file or the new one.
        let (new, file) = (self.path(&format!(".{name}")), self.path(&format!("cluster/{name}")));
        fs::write(&new, object.to_string()).unwrap();
        fs::rename(new, file).unwrap();
    }

    /// Starts a controller, on a new port or on one that another had.
    pub(crate) async fn controller(&self, at: Option<SocketAddr>) -> RunningController {
        let token = self.token("gamut-system", "gamut-controller", "controller-0");
        let at = at.map_or("127.0.0.1:0".to_owned(), |at| at.to_string());
        let [cluster, status, root] =
            ["cluster", "status", "root.pem"].map(|name| self.path(name).display().to_string());
        let args = ControllerCommand::parse_from([
            "controller",
            &format!("--listen={at}"),
            "--admin=127.0.0.1:0",
            &format!("--ca-address={}", self.ca_address),
            &format!("--token-file={}", token.display()),
            &format!("--roots-file={root}"),
            &format!("--cluster-dir={cluster}"),
            &format!("--status-dir={status}"),
        ]);
        let controller = Controller::start(&args.controller, Clock::system()).await.unwrap();
        let (address, admin) = controller.addresses().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            controller.serve(async move { stopped.await.unwrap_or_default() }).await.unwrap();
        });
        RunningController { address, admin, stop, ended }
    }

    /// The identity of a pod, as the CA gives it.
    pub(crate) async fn identity(&self, namespace: &str, pod: &str) -> Identity {
        let id = SpiffeId::new("cluster.local", namespace, "default").unwrap();
        let token_file = self.token(namespace, "default", pod);
        let issuer = CaClient {
            address: self.ca_address.clone(),
            ca: system("gamut-ca"),
            token_file,
            roots_file: self.path("root.pem"),
            clock: Clock::system(),
        };
        let identity = Identity::start(id, issuer, Clock::system());
        identity.ready().await;
        identity
    }

    /// A sidecar that subscribes.
    pub(crate) async fn sidecar(&self, namespace: &str, pod: &str, controller: SocketAddr) -> Sidecar {
        self.subscribed(namespace, pod, controller, |subscription| tokio::spawn(subscription.run())).await
    }

    /// One that does so on its admin thread, as the process does.
    pub(crate) async fn sidecar_on(
        &self,
        background: &Background,
        namespace: &str,
        pod: &str,
        controller: SocketAddr,
    ) -> Sidecar {
        self.subscribed(namespace, pod, controller, |subscription| background.spawn(subscription.run())).await
    }

    async fn subscribed(
        &self,
        namespace: &str,
        pod: &str,
        controller: SocketAddr,
        start: impl FnOnce(Subscription) -> JoinHandle<()>,
    ) -> Sidecar {
        let identity = self.identity(namespace, pod).await;
        let telemetry = Telemetry::new(Workload::default());
        let settings = Settings {
            controller: controller.to_string(),
            controller_identity: system("gamut-controller"),
            namespace: namespace.to_owned(),
            pod_name: pod.to_owned(),
            pod: Uid::of(&uid(pod)),
            patience: Duration::from_secs(5),
            limits: Limits::default(),
        };
        let (tables, subscription) = Subscription::new(settings, identity.clone(), telemetry.clone());
        Sidecar { tables, identity, telemetry, subscription: start(subscription) }
    }

    fn token(&self, namespace: &str, account: &str, pod: &str) -> PathBuf {
        let request = TokenRequest {
            namespace,
            service_account: account,
            service_account_uid: "1",
            pod,
            pod_uid: &uid(pod),
            audience: AUDIENCE,
            lifetime: Duration::from_secs(3600),
        };
        let file = self.path(&format!("token-{namespace}-{pod}"));
        fs::write(&file, self.issuer.mint(&request, SystemTime::now()).unwrap()).unwrap();
        file
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl RunningController {
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }

    pub(crate) async fn status(&self) -> ControllerStatus {
        let (status, body) = get(self.admin, "/status").await;
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }
}

impl Sidecar {
    /// Waits until the table in force for `web` is as wanted.
    pub(crate) async fn until_table(&self, is_wanted: impl Fn(&RouteTable) -> bool) {
        let mut applied = self.tables.applied();
        while !self.table().is_some_and(|table| is_wanted(&table)) {
            let next = tokio::time::timeout(PATIENCE, applied.changed()).await;
            assert!(next.is_ok(), "nothing brought it; in force: {:?}", self.table());
        }
    }

    /// The table in force for `web`.
    pub(crate) fn table(&self) -> Option<RouteTable> {
        match self.tables.get(WEB.parse().unwrap())? {
            Destination::Service(handle) => Some(handle.load().table().as_ref().clone()),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.subscription.abort();
    }
}

/// A pod's UID.
pub(crate) fn uid(pod: &str) -> String {
    Uid::of(pod).to_string()
}

pub(crate) fn system(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "gamut-system", account).unwrap()
}

/// The status and body of a page.
pub(crate) async fn get(from: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(from).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "clusterIP": ip, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

/// `count` endpoints of a Service, in 10.`subnet`.0.0/16.
pub(crate) fn endpoints(name: &str, subnet: u8, count: usize) -> Value {
    let address = |n: usize| format!("10.{subnet}.{}.{}", n / 256, n % 256);
    let of = |n| json!({ "addresses": [address(n)], "conditions": { "ready": true } });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop", "name": format!("{name}-1"),
            "labels": { "kubernetes.io/service-name": name },
        },
        "addressType": "IPv4",
        "ports": [{ "port": 8080, "protocol": "TCP" }],
        "endpoints": (0..count).map(of).collect::<Vec<_>>(),
    })
}

/// A route for `web` that splits among Services.
pub(crate) fn route(backends: &[(&str, u32)]) -> Value {
    let of = |(name, weight): &(&str, u32)| json!({ "name": name, "port": 80, "weight": weight });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "namespace": "shop", "name": "web" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
            "rules": [{ "backendRefs": backends.iter().map(of).collect::<Vec<_>>() }],
        },
    })
}
