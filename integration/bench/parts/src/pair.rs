//! Whole requests: an app's bytes into outbound, mTLS to inbound, the other app's answer and back, on sockets of this
//! machine and all in one thread. App and client write and read fixed bytes, so that nearly all that is counted is the
//! two halves of a sidecar.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use gamut_controller_api::{Endpoint, EndpointSet, InboundPolicy, MtlsMode, Pod, SessionKeys, Transport};
use gamut_identity::{Clock, Identity, IssueError, Issued, Issuer, Roots, SpiffeId, pod_name};
use gamut_proxy::{
    balance::Cluster,
    config::MAX_CONNECTIONS,
    drain::Control,
    inbound::{self, Inbound},
    outbound::{self, Connector, Outbound, Service},
    tables::{Parts, ServiceHandle, Tables},
    telemetry::{Telemetry, Workload},
};
use gamut_route::{
    BackendId, RouteTable, ServicePort, Uid,
    filter::{Filter, HeaderEdits},
    table::{
        AppProtocol, Backend, BackendTarget, Carrier, HttpRules, Match, Outcome, PathMatch, RankedMatch,
        Rule, RuleOrigin, Session, Split, Timeouts,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::Part;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 7)), 80);
const SCOPE: &str = "route/bench";
const TIMES: u32 = 400;

const REQUEST: &[u8] = b"GET /api/v1/items/42?page=2 HTTP/1.1\r\nHost: web.shop\r\nAccept: application/json\r\nUser-Agent: client/1.0\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, world";

pub(crate) fn parts() -> anyhow::Result<Vec<Part>> {
    Ok(vec![
        request("request_without_routes", vec![rule(0, &[100], false)])?,
        request("request_with_everything", everything())?,
    ])
}

/// One request after the other on a kept connection.
fn request(name: &'static str, rules: Vec<Rule>) -> anyhow::Result<Part> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut pair = runtime.block_on(Pair::connect(rules))?;
    let mut answer = vec![0; 4096];
    let once = move || exchange(&runtime, &mut pair, &mut answer);
    Ok(Part { name, times: TIMES, once: Box::new(once) })
}

fn exchange(runtime: &Runtime, pair: &mut Pair, answer: &mut [u8]) -> anyhow::Result<()> {
    runtime.block_on(async {
        pair.connection.write_all(REQUEST).await?;
        let mut length = 0;
        while !answer.get(..length).is_some_and(|read| read.ends_with(b"hello, world")) {
            let room = answer.get_mut(length..).context("an answer that has no end")?;
            let read = pair.connection.read(room).await?;
            anyhow::ensure!(read > 0, "the connection ended");
            length += read;
            let ok = answer.starts_with(b"HTTP/1.1 200 ");
            anyhow::ensure!(
                ok,
                "answered with {}",
                String::from_utf8_lossy(answer.get(..length).unwrap_or_default())
            );
        }
        Ok(())
    })
}

/// The app's connection to a pair of sidecars.
struct Pair {
    connection: TcpStream,
    /// Dropping them would say that the sidecars are ending.
    _controls: [Control; 2],
}

impl Pair {
    async fn connect(rules: Vec<Rule>) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let (web, client) = (Uid::of("web-0"), Uid::of("client-0"));
        let app = serve_app().await?;
        let (web_inbound, web_control) = inbound(web, authority.identity("web", web).await?);
        let entrance = listen().await?;
        let sidecar = entrance.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = entrance.accept().await {
                let inbound = web_inbound.clone();
                tokio::spawn(async move { inbound.serve(stream, app).await });
            }
        });

        let telemetry = Telemetry::new(Workload::default());
        let identity = authority.identity("client", client).await?;
        let (own_inbound, own_control) = inbound(client, identity.clone());
        let connector = Connector::new(identity, client, own_inbound);
        let tables = Tables::holding([]);
        let outbound = Outbound::new(outbound::Settings::default(), tables, connector, telemetry.clone());
        let service = service(rules, sidecar, web, &telemetry)?;
        let exit = listen().await?;
        let connection = TcpStream::connect(exit.local_addr()?).await?;
        connection.set_nodelay(true)?;
        let (stream, from) = exit.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move { outbound.to_service(stream, from.ip(), SERVICE, service).await });
        Ok(Self { connection, _controls: [web_control, own_control] })
    }
}

/// An app that answers every request with the same bytes.
async fn serve_app() -> anyhow::Result<SocketAddr> {
    let listener = listen().await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let (mut buffer, mut length) = (vec![0; 4096], 0);
                while let Some(room) = buffer.get_mut(length..)
                    && let Ok(read @ 1..) = stream.read(room).await
                {
                    length += read;
                    if buffer.get(..length).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
                        length = 0;
                        if stream.write_all(ANSWER).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}

fn inbound(pod: Uid, identity: Identity) -> (Inbound, Control) {
    let policy = Arc::new(InboundPolicy { mode: MtlsMode::Strict, ports: [].into() });
    let settings = inbound::Settings { pod, ips: vec![LOCALHOST], max_connections: MAX_CONNECTIONS };
    let (telemetry, control) = (Telemetry::new(Workload::default()), Control::new());
    let inbound =
        Inbound::new(settings, identity, Box::new(move || Some(policy.clone())), telemetry, control.watch());
    (inbound, control)
}

async fn listen() -> anyhow::Result<TcpListener> {
    Ok(TcpListener::bind((LOCALHOST, 0)).await?)
}

// ---- The table

/// Twenty rules, of which the last one serves the request: a filter, a split 90:10, a session.
fn everything() -> Vec<Rule> {
    let mut rules: Vec<Rule> = (0..19).map(|index| rule(index, &[100], false)).collect();
    rules.push(rule(19, &[90, 10], true));
    rules
}

fn rule(index: usize, weights: &[u32], with_session: bool) -> Rule {
    let backend = |(number, weight): (usize, &u32)| Backend {
        target: BackendTarget::Endpoints { id: backend(number), uid: Uid::of(&format!("web-{number}")) },
        weight: *weight,
        filters: Vec::new(),
        session: None,
    };
    let edits = HeaderEdits { set: vec![("x-bench".to_owned(), "1".to_owned())], ..HeaderEdits::default() };
    let carrier = Carrier::Cookie { name: "stay".to_owned(), path: "/".to_owned(), permanent: false };
    Rule {
        origin: "httproute/shop/web".parse().ok().map(|route| RuleOrigin { route, name: None, index }),
        filters: if with_session { vec![Filter::RequestHeaders(edits)] } else { Vec::new() },
        outcome: Outcome::Forward(Split { backends: weights.iter().enumerate().map(backend).collect() }),
        timeouts: Timeouts::default(),
        retry: None,
        session: with_session.then(|| Session { scope: SCOPE.to_owned(), carrier, absolute_timeout: None }),
    }
}

fn backend(number: usize) -> BackendId {
    BackendId::Service(ServicePort::new("shop", format!("web-{number}"), 80))
}

fn service(
    rules: Vec<Rule>,
    sidecar: SocketAddr,
    pod: Uid,
    telemetry: &Telemetry,
) -> anyhow::Result<ServiceHandle> {
    let last = rules.len().saturating_sub(1);
    let matches = (0..rules.len()).map(|rule| {
        let path = if rule == last {
            PathMatch::Prefix("/".to_owned())
        } else {
            PathMatch::Prefix(format!("/other/{rule}"))
        };
        RankedMatch { when: Match { path, ..Match::default() }, rule }
    });
    let matches = matches.collect();
    let table = RouteTable {
        parent: ServicePort::new("shop", "web", 80),
        protocol: AppProtocol::Http,
        http: HttpRules { rules, matches },
        tls: Vec::new(),
        tcp: Split::default(),
    };
    let endpoint = Endpoint {
        address: sidecar,
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: "web-0".to_owned(),
            uid: pod,
            workload: "web".to_owned(),
        }),
        transport: Transport::Mesh(SpiffeId::new("cluster.local", "shop", "web")?),
        zone: None,
        ready: true,
        serving: true,
        terminating: false,
    };
    let mut clusters = HashMap::new();
    for id in table.backends() {
        let cluster = Cluster::new(id.clone());
        cluster.update(&EndpointSet {
            id: id.clone(),
            protocol: AppProtocol::Http,
            endpoints: vec![endpoint.clone()],
            client_ip_affinity: None,
            retry_budget: None,
            external: None,
        });
        clusters.insert(id.clone(), cluster);
    }
    let keys = SessionKeys { scope: SCOPE.to_owned(), keys: vec![(1, [7; 32])] };
    let keys = HashMap::from([(SCOPE.to_owned(), Arc::new(keys))]);
    let service = Service::new(Arc::new(table), &Parts::new(&clusters, &keys, telemetry));
    let service = service.map_err(|refusal| anyhow::anyhow!("the table is refused: {refusal}"))?;
    Ok(Arc::new(ArcSwap::from_pointee(service)))
}

// ---- Identities

/// A certificate authority in this process.
#[derive(Clone)]
struct Authority(Arc<CertifiedIssuer<'static, KeyPair>>);

impl Authority {
    fn new() -> anyhow::Result<Self> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self(Arc::new(CertifiedIssuer::self_signed(root, KeyPair::generate()?)?)))
    }

    async fn identity(&self, service_account: &str, pod: Uid) -> anyhow::Result<Identity> {
        let id = SpiffeId::new("cluster.local", "shop", service_account)?;
        let identity = Identity::start(id, ForPod(self.clone(), pod), Clock::system());
        identity.ready().await;
        Ok(identity)
    }

    fn sign(&self, csr: &CertificateSigningRequestDer<'static>, pod: Uid) -> anyhow::Result<Issued> {
        let mut csr = CertificateSigningRequestParams::from_der(csr)?;
        csr.params.subject_alt_names.push(SanType::DnsName(pod_name(pod).try_into()?));
        csr.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        csr.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = csr.signed_by(&*self.0)?;
        Ok(Issued { chain: vec![leaf.der().clone()], roots: Roots::new([self.0.der().clone()])? })
    }
}

/// Issues certificates for one pod.
struct ForPod(Authority, Uid);

impl Issuer for ForPod {
    async fn issue(
        &self,
        csr: CertificateSigningRequestDer<'static>,
        _trusted: Option<Arc<Roots>>,
    ) -> Result<Issued, IssueError> {
        self.0.sign(&csr, self.1).map_err(|error| IssueError::Connect {
            address: "this process".to_owned(),
            reason: error.to_string(),
        })
    }
}
