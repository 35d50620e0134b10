//! What tests of the outbound half need: an app that calls a Service through it, and backends that answer on
//! real sockets.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    future::pending,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use gamut_controller_api::{Endpoint, EndpointSet, Pod, RetryBudget, SessionKeys, Transport};
use gamut_identity::{Identity, SpiffeId};
use gamut_proxy::{
    balance::{self, Cluster},
    config::MAX_CONNECTIONS,
    drain::Control,
    http::{Body, HttpVersion, server},
    inbound::{Inbound, Settings as InboundSettings},
    outbound::{Connector, Outbound, Service, Settings},
    record::{self, Hub, tap::Taps},
    tables::{self, Parts, ServiceHandle, Subscription},
    telemetry::{EndpointCounters, Telemetry, Workload},
};
use gamut_route::{
    BackendId, RouteRef, RouteTable, ServicePort, Uid,
    table::{
        AppProtocol, Backend, BackendTarget, HttpRules, Match, Outcome, RankedMatch, Rule, RuleOrigin, Split,
        Timeouts,
    },
};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use crate::mesh::{self, Authority, LOCALHOST, listen, read_head};

/// What the app dials.
pub(crate) const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)), 80);

/// What session tokens are sealed with.
pub(crate) const KEY: (u8, [u8; 32]) = (1, [7; 32]);

/// An app behind its sidecar's outbound half, and the Service `shop/web:80` as that sees it.
pub(crate) struct Caller {
    pub(crate) outbound: Outbound,
    pub(crate) telemetry: Telemetry,
    /// Who asks it sees requests one by one.
    pub(crate) taps: Taps,
    pub(crate) identity: Identity,
    /// Kept, for without it the process would be ending.
    control: Control,
    handle: ServiceHandle,
    clusters: HashMap<BackendId, Arc<Cluster>>,
    keys: HashMap<String, Arc<SessionKeys>>,
    /// Where the app's connections to the Service arrive.
    pub(crate) entrance: SocketAddr,
}

impl Caller {
    /// A caller to whom the Service has these rules. Without one, requests go to `shop/web:80` itself.
    pub(crate) async fn new(rules: Vec<Rule>, endpoints: &[(&str, Vec<Endpoint>)]) -> Self {
        Self::with(table(rules), endpoints).await
    }

    pub(crate) async fn with(table: RouteTable, endpoints: &[(&str, Vec<Endpoint>)]) -> Self {
        let (authority, pod) = (Authority::new(), Uid::of("client-0"));
        let identity = authority.identity("client", pod).await;
        Self::as_identity(identity, pod, table, endpoints).await
    }

    pub(crate) async fn as_identity(
        identity: Identity,
        pod: Uid,
        table: RouteTable,
        endpoints: &[(&str, Vec<Endpoint>)],
    ) -> Self {
        Self::build(identity, pod, table, endpoints, balance::Settings::default()).await
    }

    /// A caller that its annotations say something else to about balancing.
    pub(crate) async fn with_settings(
        settings: balance::Settings,
        rules: Vec<Rule>,
        endpoints: &[(&str, Vec<Endpoint>)],
    ) -> Self {
        let (authority, pod) = (Authority::new(), Uid::of("client-0"));
        let identity = authority.identity("client", pod).await;
        Self::build(identity, pod, table(rules), endpoints, settings).await
    }

    async fn build(
        identity: Identity,
        pod: Uid,
        table: RouteTable,
        endpoints: &[(&str, Vec<Endpoint>)],
        settings: balance::Settings,
    ) -> Self {
        let (recorder, taps, hub) = Hub::new(record::Settings::default(), &Workload::default()).unwrap();
        tokio::spawn(hub.run(pending()));
        let telemetry = Telemetry::recording(Workload::default(), recorder);
        let control = Control::new();
        let policy = gamut_controller_api::InboundPolicy {
            mode: gamut_controller_api::MtlsMode::Strict,
            ports: [].into(),
        };
        let policy = Arc::new(policy);
        let inbound = Inbound::new(
            InboundSettings { pod, ips: vec![LOCALHOST], max_connections: MAX_CONNECTIONS },
            identity.clone(),
            Box::new(move || Some(policy.clone())),
            telemetry.clone(),
            control.watch(),
        );
        let connector = Connector::new(identity.clone(), pod, inbound);
        let outbound = Outbound::new(
            Settings::default(),
            no_tables(&identity, &telemetry),
            connector,
            telemetry.clone(),
        );

        let cluster = |id: &BackendId| Cluster::with(id.clone(), settings, telemetry.endpoints(id));
        let mut clusters: HashMap<_, _> =
            table.backends().into_iter().map(|id| (id.clone(), cluster(id))).collect();
        for (id, endpoints) in endpoints {
            let id: BackendId = format!("service/{id}").parse().unwrap();
            clusters.entry(id.clone()).or_insert_with_key(cluster).update(&set(&id, endpoints));
        }
        let mut keys = HashMap::new();
        for scope in table.scopes() {
            keys.insert(scope.to_owned(), Arc::new(SessionKeys { scope: scope.to_owned(), keys: vec![KEY] }));
        }
        let service = Service::new(Arc::new(table), &Parts::new(&clusters, &keys, &telemetry)).unwrap();
        let handle = Arc::new(ArcSwap::from_pointee(service));

        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let entrance = listener.local_addr().unwrap();
        let (serving, service) = (outbound.clone(), handle.clone());
        tokio::spawn(async move {
            while let Ok((stream, client)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (outbound, service) = (serving.clone(), service.clone());
                tokio::spawn(async move { outbound.to_service(stream, client.ip(), SERVICE, service).await });
            }
        });
        Self { outbound, telemetry, taps, identity, control, handle, clusters, keys, entrance }
    }

    /// A connection of the app to the Service.
    pub(crate) async fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.entrance).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// What goes on at a backend's endpoints.
    pub(crate) fn endpoints(&self, id: &str) -> Arc<EndpointCounters> {
        self.telemetry.endpoints(&format!("service/{id}").parse().unwrap())
    }

    /// One HTTP/1.1 request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(self.dial().await)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }

    /// A GET of a path, and its answer's body.
    pub(crate) async fn get(&self, path: &str) -> (Response<()>, String) {
        read(self.send(get(path)).await).await
    }

    /// An HTTP/2 connection to the Service.
    pub(crate) async fn h2(&self) -> conn::http2::SendRequest<Body> {
        let io = TokioIo::new(self.dial().await);
        let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A new table takes the place of the old one.
    pub(crate) fn replace(&self, rules: Vec<Rule>) {
        self.replace_with(table(rules));
    }

    pub(crate) fn replace_with(&self, table: RouteTable) {
        let parts = Parts::new(&self.clusters, &self.keys, &self.telemetry);
        self.handle.store(Arc::new(Service::new(Arc::new(table), &parts).unwrap()));
    }

    /// The keys of a session's scope are others from now on.
    pub(crate) fn rotate(&self, scope: &str, keys: &[(u8, [u8; 32])], rules: Vec<Rule>) {
        let keys = SessionKeys { scope: scope.to_owned(), keys: keys.to_vec() };
        let keys = HashMap::from([(scope.to_owned(), Arc::new(keys))]);
        let parts = Parts::new(&self.clusters, &keys, &self.telemetry);
        self.handle.store(Arc::new(Service::new(Arc::new(table(rules)), &parts).unwrap()));
    }

    /// The controller says what a backend's port speaks.
    pub(crate) fn speak(&self, id: &str, protocol: AppProtocol, endpoints: &[Endpoint]) {
        let id: BackendId = format!("service/{id}").parse().unwrap();
        self.clusters[&id].update(&EndpointSet { protocol, ..set(&id, endpoints) });
    }

    /// The controller says how many retries a backend may be sent.
    pub(crate) fn limit_retries(&self, id: &str, budget: RetryBudget, endpoints: &[Endpoint]) {
        let id: BackendId = format!("service/{id}").parse().unwrap();
        self.clusters[&id].update(&EndpointSet { retry_budget: Some(budget), ..set(&id, endpoints) });
    }

    /// The controller says that a backend has these endpoints now.
    pub(crate) fn update(&self, id: &str, endpoints: &[Endpoint]) {
        let id: BackendId = format!("service/{id}").parse().unwrap();
        self.clusters[&id].update(&set(&id, endpoints));
    }
}

/// Tables whose controller is away: what is tested here is given by hand.
fn no_tables(identity: &Identity, telemetry: &Telemetry) -> tables::Tables {
    let settings = tables::Settings {
        controller: "127.0.0.1:1".to_owned(),
        controller_identity: SpiffeId::new("cluster.local", "gamut-system", "gamut-controller").unwrap(),
        namespace: "shop".to_owned(),
        pod_name: "client-0".to_owned(),
        pod: Uid::of("client-0"),
        patience: Duration::from_millis(1),
        limits: tables::view::Limits::default(),
    };
    Subscription::new(settings, identity.clone(), telemetry.clone()).0
}

fn set(id: &BackendId, endpoints: &[Endpoint]) -> EndpointSet {
    EndpointSet {
        id: id.clone(),
        protocol: AppProtocol::Detect,
        endpoints: endpoints.to_vec(),
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    }
}

/// The table of `shop/web:80`.
pub(crate) fn table(mut rules: Vec<Rule>) -> RouteTable {
    if rules.is_empty() {
        rules.push(Rule { origin: None, ..rule(&[("shop/web:80", 1)]) });
    }
    let matches = (0..rules.len()).map(|rule| RankedMatch { when: Match::default(), rule }).collect();
    RouteTable {
        parent: ServicePort::new("shop", "web", 80),
        protocol: AppProtocol::Detect,
        http: HttpRules { rules, matches },
        tls: Vec::new(),
        tcp: split(&[("shop/web:80", 1)]),
    }
}

/// A rule for everything, with these backends and weights.
pub(crate) fn rule(backends: &[(&str, u32)]) -> Rule {
    let route: RouteRef = "httproute/shop/web".parse().unwrap();
    Rule {
        origin: Some(RuleOrigin { route, name: Some("all".to_owned()), index: 0 }),
        filters: Vec::new(),
        outcome: Outcome::Forward(split(backends)),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}

pub(crate) fn split(backends: &[(&str, u32)]) -> Split {
    let backend = |(id, weight): &(&str, u32)| Backend {
        target: BackendTarget::Endpoints { id: format!("service/{id}").parse().unwrap(), uid: Uid::of(id) },
        weight: *weight,
        filters: Vec::new(),
        session: None,
    };
    Split { backends: backends.iter().map(backend).collect() }
}

/// A ready endpoint without a sidecar.
pub(crate) fn endpoint(pod: &str, address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            uid: Uid::of(pod),
            workload: pod.to_owned(),
        }),
        transport: Transport::Plaintext,
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    }
}

/// The same, behind a sidecar.
pub(crate) fn meshed(address: SocketAddr, service_account: &str, pod: Uid) -> Endpoint {
    let mut endpoint = endpoint("web-0", address);
    endpoint.transport = Transport::Mesh(SpiffeId::new("cluster.local", "shop", service_account).unwrap());
    endpoint.pod.as_mut().unwrap().uid = pod;
    endpoint
}

/// A caller of the same mesh as `pod`.
pub(crate) async fn caller_of(pod: &mesh::Pod, table: RouteTable, endpoints: Vec<Endpoint>) -> Caller {
    Caller::as_identity(pod.caller.clone(), Uid::of("client-0"), table, &[("shop/web:80", endpoints)]).await
}

/// A backend that takes requests and breaks their connections off.
pub(crate) async fn breaking() -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, taken)
}

/// A backend: hyper's server on a socket of its own, and how many requests it got.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    /// Answers every request with its own name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(Body::from(name.to_owned())) }).await
    }

    /// Answers as `answer` says, on HTTP/1.1.
    pub(crate) async fn start<F>(answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::speaking(HttpVersion::H1, answer).await
    }

    pub(crate) async fn speaking<F>(
        version: HttpVersion,
        answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, counted) = (answer.clone(), counted.clone());
                let service = move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    answer(request)
                };
                connections.spawn(server::serve(stream, version, service, std::future::pending()));
            }
        });
        Self { address, requests, task }
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn endpoint(&self, pod: &str) -> Endpoint {
        endpoint(pod, self.address)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "web").body(Body::Empty).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("host", "web").body(body.into()).unwrap()
}

/// The whole answer.
pub(crate) async fn read(response: Response<Incoming>) -> (Response<()>, String) {
    let (head, body) = response.into_parts();
    let body: Bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

/// A header of an answer.
pub(crate) fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// Why the proxy answered itself.
pub(crate) fn reason<B>(response: &Response<B>) -> Option<&str> {
    header(response, "gamut-answer")
}
