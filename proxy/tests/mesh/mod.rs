//! What tests of connections between sidecars need: a CA, identities of it, and an inbound half with an app behind it.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gamut_controller_api::{InboundPolicy, InboundPort, MtlsMode};
use gamut_identity::{
    Clock, Identity, IssueError, Issued, Issuer, Peer, Roots, SpiffeId, pod_name, server_name,
};
use gamut_proxy::{
    ahead::ReadAhead,
    config::MAX_CONNECTIONS,
    drain::Control,
    http::{Body, Carrier, DialError, Io, Pool, PoolLimits, SendError},
    inbound::{Inbound, MeshProtocol, Settings},
    telemetry::{Telemetry, Workload},
};
use gamut_route::{Uid, table::AppProtocol};
use http::{Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A certificate authority in this process.
#[derive(Clone)]
pub(crate) struct Authority(Arc<rcgen::CertifiedIssuer<'static, KeyPair>>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Self(Arc::new(rcgen::CertifiedIssuer::self_signed(root, key).unwrap()))
    }

    /// The certificate that all others lead to.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// The identity of a pod that runs as this service account of namespace `shop`.
    pub(crate) async fn identity(&self, service_account: &str, pod: Uid) -> Identity {
        let id = SpiffeId::new("cluster.local", "shop", service_account).unwrap();
        let identity = Identity::start(id, ForPod(self.clone(), pod), Clock::system());
        identity.ready().await;
        identity
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
        let root = &self.0.0;
        let mut csr = CertificateSigningRequestParams::from_der(&csr).unwrap();
        csr.params.subject_alt_names.push(SanType::DnsName(pod_name(self.1).try_into().unwrap()));
        csr.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        csr.params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = csr.signed_by(root).unwrap();
        Ok(Issued { chain: vec![leaf.der().clone()], roots: Roots::new([self.0.root()]).unwrap() })
    }
}

/// A pod `web` on 127.0.0.1 whose sidecar's inbound half listens, and a client pod that may call it.
pub(crate) struct Pod {
    pub(crate) inbound: Inbound,
    pub(crate) control: Control,
    pub(crate) telemetry: Telemetry,
    pub(crate) uid: Uid,
    pub(crate) authority: Authority,
    pub(crate) caller: Identity,
}

impl Pod {
    /// A pod with this policy on all ports.
    pub(crate) async fn new(mode: MtlsMode) -> Self {
        Self::with(Some(InboundPolicy { mode, ports: [].into() })).await
    }

    pub(crate) async fn with(policy: Option<InboundPolicy>) -> Self {
        let (authority, uid) = (Authority::new(), Uid::of("web-0"));
        let identity = authority.identity("web", uid).await;
        let caller = authority.identity("client", Uid::of("client-0")).await;
        let control = Control::new();
        let policy = policy.map(Arc::new);
        let telemetry = Telemetry::new(Workload::default());
        let inbound = Inbound::new(
            Settings { pod: uid, ips: vec![LOCALHOST], max_connections: MAX_CONNECTIONS },
            identity,
            Box::new(move || policy.clone()),
            telemetry.clone(),
            control.watch(),
        );
        Self { inbound, control, telemetry, uid, authority, caller }
    }

    /// A connection to the sidecar that was going to `app`.
    pub(crate) async fn dial(&self, app: SocketAddr) -> TcpStream {
        let (near, far) = pair().await;
        let inbound = self.inbound.clone();
        tokio::spawn(async move { inbound.serve(far, app).await });
        near
    }

    /// The same, by the client's sidecar, the handshake done.
    pub(crate) async fn dial_mesh(&self, app: SocketAddr, protocol: MeshProtocol) -> TlsStream<TcpStream> {
        self.dial_mesh_as(&self.caller, self.uid, app, protocol).await.unwrap()
    }

    /// The same, by anybody, meaning any pod.
    pub(crate) async fn dial_mesh_as(
        &self,
        caller: &Identity,
        pod: Uid,
        app: SocketAddr,
        protocol: MeshProtocol,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = caller.client_config(&[protocol.alpn()]).unwrap();
        TlsConnector::from(config).connect(server_name(pod), self.dial(app).await).await
    }

    /// The handshake of the client's sidecar on a connection that there is already.
    pub(crate) async fn shake_hands(
        &self,
        stream: TcpStream,
        protocol: MeshProtocol,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.caller.client_config(&[protocol.alpn()]).unwrap();
        let connecting = TlsConnector::from(config).connect(server_name(self.uid), stream);
        timeout(PATIENCE, connecting).await.expect("a handshake's end")
    }

    /// What the client's sidecar has of connections to this one for requests to `app`.
    pub(crate) fn upstream(&self, app: SocketAddr) -> Upstream {
        let (inbound, caller) = (self.inbound.clone(), self.caller.clone());
        Upstream { pool: Pool::new(PoolLimits::MESH), inbound, caller, uid: self.uid, app }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer { id: self.caller.id().clone(), pod: Some(Uid::of("client-0")) }
    }
}

/// A pool of the client's sidecar.
pub(crate) struct Upstream {
    pub(crate) pool: Arc<Pool>,
    inbound: Inbound,
    caller: Identity,
    uid: Uid,
    app: SocketAddr,
}

impl Upstream {
    /// Sends a request in normal form and waits for the answer's head.
    pub(crate) async fn send(
        &self,
        carrier: Carrier,
        request: Request<Body>,
    ) -> Result<Response<Body>, SendError> {
        let dial = || Self::dial(self.inbound.clone(), self.caller.clone(), self.uid, self.app, carrier);
        self.pool.send(carrier, request, dial).await
    }

    async fn dial(
        inbound: Inbound,
        caller: Identity,
        pod: Uid,
        app: SocketAddr,
        carrier: Carrier,
    ) -> Result<Io, DialError> {
        let (near, far) = pair().await;
        tokio::spawn(async move { inbound.serve(far, app).await });
        let config = caller.client_config(&[MeshProtocol::from(carrier).alpn()]).unwrap();
        let connecting = TlsConnector::from(config).connect(server_name(pod), ReadAhead::dialled(near));
        Ok(Io::Tls(Box::new(connecting.await.unwrap())))
    }
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen().await;
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}

pub(crate) fn port_mode(mode: MtlsMode) -> InboundPort {
    InboundPort { mode, protocol: AppProtocol::Detect }
}

/// An app's listening socket.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The entrance of a pod's sidecar, as the redirect would make it: whoever dials it was going to `app`.
pub(crate) async fn sidecar(pod: &Pod, app: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let inbound = pod.inbound.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let inbound = inbound.clone();
            tokio::spawn(async move { inbound.serve(stream, app).await });
        }
    });
    address
}

/// An address of the pod that no app listens on, and none will: its port stays taken until the tests end.
pub(crate) fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    Box::leak(Box::new(socket));
    address
}

/// How long anything may take before a test fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Reads a message's head, up to and with its empty line.
pub(crate) async fn read_head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, reading).await.expect("a message's head");
    String::from_utf8(head).unwrap()
}

/// Everything until the other side closes, in whichever way.
pub(crate) async fn read_rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the connection's end");
    String::from_utf8(rest).unwrap()
}

/// Says `text` and goes on.
pub(crate) async fn say(stream: &mut (impl AsyncWriteExt + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}
