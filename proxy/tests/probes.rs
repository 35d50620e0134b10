//! The app's probes, asked for over HTTP as the kubelet does and carried out against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use gamut_identity::{Identity, SpiffeId};
use gamut_proxy::{
    drain::Control,
    probes::ProbePort,
    tables::{Settings, Subscription, view::Limits},
    telemetry::{Telemetry, Workload},
};
use gamut_route::Uid;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{Authority, LOCALHOST, listen, nobody, read_head, read_rest, say};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// A probe port that knows one probe, at `/app/web/readiness`.
struct Port {
    address: SocketAddr,
    _control: Control,
    _subscription: Subscription,
}

impl Port {
    async fn new(probe: Value) -> Self {
        let identity = Authority::new().identity("web", Uid::of("web-0")).await;
        Self::with(probe, identity).await
    }

    async fn with(probe: Value, identity: Identity) -> Self {
        // A controller that is never reached: what the sidecar's own readiness waits for.
        let settings = Settings {
            controller: "127.0.0.1:1".to_owned(),
            controller_identity: SpiffeId::new("cluster.local", "gamut-system", "gamut-controller").unwrap(),
            namespace: "shop".to_owned(),
            pod_name: "web-0".to_owned(),
            pod: Uid::of("web-0"),
            patience: std::time::Duration::ZERO,
            limits: Limits::default(),
        };
        let telemetry = Telemetry::new(Workload::default());
        let (tables, subscription) = Subscription::new(settings, identity.clone(), telemetry);
        let probes = json!({ "/app/web/readiness": probe }).to_string().parse().unwrap();
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let (address, control) = (listener.local_addr().unwrap(), Control::new());
        let port = ProbePort { probes, pod: LOCALHOST, identity, tables };
        tokio::spawn(port.serve(listener, control.watch()));
        Self { address, _control: control, _subscription: subscription }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n"
        );
        say(&mut stream, &request).await;
        let answer = read_rest(&mut stream).await;
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn probe(&self) -> (u16, String) {
        self.get("/app/web/readiness").await
    }
}

/// An app that answers each connection's one request with the next of these answers, and the heads that it read.
async fn app(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let (listener, address) = listen().await;
    let serving = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(read_head(&mut stream).await);
            say(&mut stream, &answer).await;
        }
        heads
    });
    (address, serving)
}

fn answer(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

fn http_get(address: SocketAddr, path: &str) -> Value {
    json!({"httpGet": {"path": path, "port": address.port()}, "timeoutSeconds": 5})
}

#[tokio::test]
async fn an_http_probe_is_sent_to_the_pods_ip_as_it_was_written() {
    let (address, serving) = app(vec![answer("204 No Content")]).await;
    let headers = json!([{"name": "Host", "value": "web.example"}, {"name": "X-Probe", "value": "yes"}]);
    let probe =
        json!({"httpGet": {"path": "/healthz?deep=1", "port": address.port(), "httpHeaders": headers}});
    assert_eq!(Port::new(probe).await.probe().await.0, 200);
    let head = serving.await.unwrap().remove(0);
    assert!(head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"), "{head}");
    for field in ["host: web.example", "x-probe: yes", "user-agent: kube-probe/1.34"] {
        assert_eq!(head.matches(field).count(), 1, "{field} in {head}");
    }
}

#[tokio::test]
async fn a_failing_apps_status_reaches_the_kubelet() {
    for status in ["503 Service Unavailable", "404 Not Found"] {
        let (address, _serving) = app(vec![answer(status)]).await;
        let (probed, why) = Port::new(http_get(address, "/")).await.probe().await;
        assert_eq!(probed.to_string(), status[..3]);
        assert!(why.contains(status), "{why}");
    }
}

#[tokio::test]
async fn redirects_are_followed_within_the_pod_and_taken_for_success_elsewhere() {
    let moved = |to: &str| format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
    let (address, serving) = app(vec![moved("/sick"), answer("500 Sick")]).await;
    assert_eq!(Port::new(http_get(address, "/")).await.probe().await.0, 500);
    assert!(serving.await.unwrap()[1].starts_with("GET /sick "));

    let (second, _serving) = app(vec![answer("500 Sick")]).await;
    let (address, _first) = app(vec![moved(&format!("http://127.0.0.1:{}/x", second.port()))]).await;
    assert_eq!(Port::new(http_get(address, "/")).await.probe().await.0, 500);

    let (address, _serving) = app(vec![moved("https://login.example/")]).await;
    assert_eq!(Port::new(http_get(address, "/")).await.probe().await.0, 200);

    let (address, _serving) = app(vec![moved("/"); 20]).await;
    let (status, why) = Port::new(http_get(address, "/")).await.probe().await;
    assert!(status == 503 && why.contains("circles"), "{status} {why}");
}

#[tokio::test]
async fn an_app_that_hangs_fails_after_the_probes_own_time() {
    let (_listener, address) = listen().await;
    let probe = json!({"httpGet": {"path": "/", "port": address.port()}, "timeoutSeconds": 1});
    let port = Port::new(probe).await;
    let begin = tokio::time::Instant::now();
    let (status, why) = port.probe().await;
    assert!(status == 504 && why.contains("1s"), "{status} {why}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(3));
}

#[tokio::test]
async fn an_https_probe_takes_any_certificate() {
    let certified = rcgen::generate_simple_self_signed(["whoever.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        read_head(&mut stream).await;
        say(&mut stream, &answer("200 OK")).await;
    });
    let probe = json!({"httpGet": {"path": "/", "port": address.port(), "scheme": "HTTPS"}});
    let (status, why) = Port::new(probe).await.probe().await;
    assert_eq!(status, 200, "{why}");
}

#[tokio::test]
async fn a_tcp_probe_wants_a_connection_and_no_more() {
    let (_listener, address) = listen().await;
    assert_eq!(Port::new(json!({"tcpSocket": {"port": address.port()}})).await.probe().await.0, 200);
    let (status, why) = Port::new(json!({"tcpSocket": {"port": nobody().port()}})).await.probe().await;
    assert!(status == 503 && why.contains("refused"), "{status} {why}");
}

/// A gRPC health service that knows `cart` (serving) and `till` (not serving).
async fn health() -> SocketAddr {
    let (listener, address) = listen().await;
    let service = service_fn(|request: Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let (message, status): (&[u8], _) = match &asked[..] {
            b"\0\0\0\0\x06\x0a\x04cart" | b"\0\0\0\0\0" => (b"\0\0\0\0\x02\x08\x01", "0"),
            b"\0\0\0\0\x06\x0a\x04till" => (b"\0\0\0\0\x02\x08\x02", "0"),
            _ => (b"", "5"),
        };
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        let frames = [Frame::data(Bytes::from_static(message)), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        Ok::<_, Infallible>(
            Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
        )
    });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let builder = server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn a_grpc_probe_asks_the_health_service() {
    let port = health().await.port();
    for (service, status, why) in [
        (json!("cart"), 200, "succeeded"),
        (json!(""), 200, "succeeded"),
        (Value::Null, 200, "succeeded"),
        (json!("till"), 503, "NOT_SERVING"),
        (json!("nobody"), 503, "gRPC status 5"),
    ] {
        let probed = Port::new(json!({"grpc": {"port": port, "service": service}})).await.probe().await;
        assert!(probed.0 == status && probed.1.contains(why), "{service}: {probed:?}");
    }
}

#[tokio::test]
async fn nothing_but_the_written_probes_is_reachable() {
    let (_listener, address) = listen().await;
    let port = Port::new(json!({"tcpSocket": {"port": address.port()}})).await;
    for path in [
        "/",
        "/app/web/liveness",
        "/app/web/readiness/../../..",
        "/app/web/readiness%2f",
        "/metrics",
        "/drain",
    ] {
        assert_eq!(port.get(path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_sidecar_is_not_ready_before_it_has_heard_from_the_controller_and_says_so() {
    let port = Port::new(json!({"tcpSocket": {"port": 1}})).await;
    let (status, why) = port.get("/ready").await;
    assert_eq!(status, 503);
    assert!(why.contains("policy") && why.contains("tables") && !why.contains("certificate"), "{why}");
}
