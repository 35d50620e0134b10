//! HTTP and bytes from a mesh peer to the app and back, over real sockets and real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use gamut_controller_api::MtlsMode;
use gamut_metrics::Page;
use gamut_proxy::{
    http::{Body, Carrier},
    inbound::MeshProtocol,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, server, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{PATIENCE, Pod, listen, nobody, read_head, read_rest, say};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::TcpStream,
    time::timeout,
};

async fn strict() -> Pod {
    Pod::new(MtlsMode::Strict).await
}

/// A request over a mesh connection of its own; the answer's head and body as text.
async fn ask(pod: &Pod, app: SocketAddr, request: &str) -> String {
    let mut peer = pod.dial_mesh(app, MeshProtocol::H1).await;
    say(&mut peer, request).await;
    read_rest(&mut peer).await
}

#[tokio::test]
async fn requests_of_several_peers_share_the_apps_connections() {
    let (pod, (app, address)) = (strict().await, listen().await);
    let serving = tokio::spawn(async move {
        let (mut server, _) = app.accept().await.unwrap();
        for _ in 0..3 {
            let request = read_head(&mut server).await;
            assert!(request.starts_with("GET /who HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("host: web\r\n"), "{request}");
            say(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nme").await;
        }
    });
    for _ in 0..3 {
        let answer = ask(&pod, address, "GET /who HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nme"), "{answer}");
    }
    serving.await.unwrap();
}

#[tokio::test]
async fn an_app_that_takes_no_connection_is_reported_as_not_having_seen_the_request() {
    let answer = ask(
        &strict().await,
        nobody(),
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("gamut-proxy-answer: app-connect; not-processed\r\n"), "{answer}");
}

#[tokio::test]
async fn an_app_that_breaks_off_may_have_seen_it() {
    let (pod, (app, address)) = (strict().await, listen().await);
    tokio::spawn(async move {
        let (mut server, _) = app.accept().await.unwrap();
        read_head(&mut server).await;
    });
    let answer = ask(&pod, address, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(answer.contains("gamut-proxy-answer: app-reset; broken\r\n"), "{answer}");
}

#[tokio::test]
async fn nobody_speaks_in_a_sidecars_name() {
    let (pod, (app, address)) = (strict().await, listen().await);
    let serving = tokio::spawn(async move {
        let (mut server, _) = app.accept().await.unwrap();
        let request = read_head(&mut server).await;
        say(
            &mut server,
            "HTTP/1.1 503 No\r\nGamut-Proxy-Answer: app-connect; not-processed\r\nGamut-Answer: no-route\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        request
    });
    let forged = "GET / HTTP/1.1\r\nHost: web\r\nGamut-Proxy-Answer: x\r\nGamut-Answer: x\r\nConnection: close\r\n\r\n";
    let answer = ask(&pod, address, forged).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("gamut-"), "{answer}");
    let request = serving.await.unwrap();
    assert!(!request.contains("gamut-"), "{request}");
}

#[tokio::test]
async fn a_body_streams_both_ways_before_its_end() {
    let (pod, (app, address)) = (strict().await, listen().await);
    let mut peer = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut peer, "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n").await;
    let (mut server, _) = app.accept().await.unwrap();
    read_head(&mut server).await;
    let mut chunk = [0; 6];
    server.read_exact(&mut chunk).await.unwrap();
    assert_eq!(&chunk, b"1\r\na\r\n", "the app has the first part while the peer still sends");

    say(&mut server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n").await;
    read_head(&mut peer).await;
    peer.read_exact(&mut chunk).await.unwrap();
    assert_eq!(&chunk, b"1\r\nA\r\n", "the peer has the first part while both still send");

    say(&mut peer, "1\r\nb\r\n0\r\n\r\n").await;
    let mut rest = [0; 11];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"1\r\nb\r\n0\r\n\r\n");
    say(&mut server, "1\r\nB\r\n0\r\n\r\n").await;
    peer.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"1\r\nB\r\n0\r\n\r\n");
}

#[tokio::test]
async fn an_upgraded_connection_becomes_bytes() {
    let (pod, (app, address)) = (strict().await, listen().await);
    let mut peer = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut peer, "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let (mut server, _) = app.accept().await.unwrap();
    let request = read_head(&mut server).await;
    assert!(request.contains("upgrade: websocket\r\n"), "{request}");
    say(
        &mut server,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst",
    )
    .await;
    let answer = read_head(&mut peer).await;
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
    let mut bytes = [0; 5];
    peer.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"first", "sent behind the 101");
    say(&mut peer, "again").await;
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"again");
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_no_tunnel() {
    let (pod, (app, address)) = (strict().await, listen().await);
    tokio::spawn(async move {
        let (mut server, _) = app.accept().await.unwrap();
        read_head(&mut server).await;
        say(&mut server, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
        read_rest(&mut server).await;
    });
    let answer = ask(&pod, address, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn connect_is_refused() {
    let answer =
        ask(&strict().await, nobody(), "CONNECT web:80 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && !answer.contains("not-processed"), "{answer}");
}

/// An HTTP/2 app: answers in two parts and with trailers, and says whether the request was HTTP/2.
async fn serve_h2(stream: TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async move {
        let version = request.version();
        request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("gamut-proxy-answer", HeaderValue::from_static("forged; not-processed"));
        let frames =
            [Frame::data(Bytes::from("one ")), Frame::data(Bytes::from("two")), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        let response = Response::builder().header("was", format!("{version:?}"));
        Ok::<_, Infallible>(response.header("content-type", "application/grpc").body(body).unwrap())
    });
    let builder = server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn grpc_request() -> Request<Body> {
    let request =
        Request::post("/shop.Cart/Add").header("host", "web").header("content-type", "application/grpc");
    request.header("te", "trailers").body(Body::from("request".to_owned())).unwrap()
}

#[tokio::test]
async fn http2_reaches_the_app_as_http2_with_its_trailers() {
    let (pod, (app, address)) = (strict().await, listen().await);
    tokio::spawn(async move { serve_h2(app.accept().await.unwrap().0).await });
    let upstream = pod.upstream(address);
    let asking = (0..20).map(|_| upstream.send(Carrier::MuxH2, grpc_request()));
    for answer in futures_util::future::join_all(asking).await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["was"], "HTTP/2.0");
        let body = answer.into_body().collect().await.unwrap();
        let trailers: Vec<_> = body.trailers().unwrap().iter().collect();
        let status = (&http::HeaderName::from_static("grpc-status"), &HeaderValue::from_static("0"));
        assert_eq!(trailers, [status], "what is a sidecar's to say isn't passed on");
        assert_eq!(body.to_bytes(), "one two");
    }
}

#[tokio::test]
async fn a_grpc_caller_reads_the_sidecars_own_answer_as_a_status() {
    let upstream = strict().await.upstream(nobody());
    let answer = upstream.send(Carrier::MuxH2, grpc_request()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.headers()["gamut-proxy-answer"], "app-connect; not-processed");
}

#[tokio::test]
async fn bytes_pass_with_half_closed_connections() {
    let (pod, (app, address)) = (strict().await, listen().await);
    let mut peer = pod.dial_mesh(address, MeshProtocol::Tcp).await;
    say(&mut peer, "all I have").await;
    peer.shutdown().await.unwrap();
    let (mut server, _) = app.accept().await.unwrap();
    assert_eq!(read_rest(&mut server).await, "all I have");
    say(&mut server, "then here is the answer").await;
    drop(server);
    assert_eq!(read_rest(&mut peer).await, "+then here is the answer");
}

#[tokio::test]
async fn ones_own_pod_is_served_in_memory_under_the_same_policy() {
    let (pod, (app, address)) = (strict().await, listen().await);
    tokio::spawn(async move {
        let (mut server, _) = app.accept().await.unwrap();
        read_head(&mut server).await;
        say(&mut server, "HTTP/1.1 204 No Content\r\n\r\n").await;
        read_rest(&mut server).await;
    });
    let (mut near, far) = duplex(1024);
    let (inbound, peer) = (pod.inbound.clone(), pod.peer());
    tokio::spawn(async move { inbound.serve_stream(far, MeshProtocol::H1, peer, address).await });
    say(&mut near, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    assert!(read_head(&mut near).await.starts_with("HTTP/1.1 204 "));

    let closed = Pod::with(None).await;
    let (mut near, far) = duplex(1024);
    closed.inbound.serve_stream(far, MeshProtocol::H1, closed.peer(), address).await;
    assert_eq!(
        near.read(&mut [0]).await.unwrap(),
        0,
        "without a policy nobody is served, not even the pod itself"
    );
}

#[tokio::test]
async fn draining_asks_peers_to_leave_and_stopping_answers_them_until_nobody_comes() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    let (mut pod, (app, address)) = (strict().await, listen().await);
    let answered = async |app: &tokio::net::TcpListener| {
        let (mut server, _) = app.accept().await.unwrap();
        read_head(&mut server).await;
        say(&mut server, "HTTP/1.1 204 No Content\r\n\r\n").await;
    };
    let mut kept = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut kept, GET).await;
    answered(&app).await;
    assert!(!read_head(&mut kept).await.contains("connection: close"));
    let mut busy = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut busy, GET).await;
    let (mut server, _) = app.accept().await.unwrap();
    read_head(&mut server).await;

    pod.control.notice().begin();
    // A kept connection stays for the request that may be on its way already, and is closed with its answer. What the
    // app has closed meanwhile doesn't matter: the request goes to it over a new connection.
    say(&mut kept, GET).await;
    answered(&app).await;
    let answer = read_rest(&mut kept).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("connection: close\r\n"), "{answer}");
    let mut late = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut late, GET).await;
    answered(&app).await;
    let answer = read_head(&mut late).await;
    assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.contains("connection: close"), "{answer}");

    // The app is gone.
    drop(app);
    let stopping = tokio::spawn(std::mem::take(&mut pod.control).stop(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    let latest = pod.dial_mesh(address, MeshProtocol::H1).await;
    for mut peer in [late, latest] {
        say(&mut peer, GET).await;
        let answer = read_rest(&mut peer).await;
        assert!(answer.contains("gamut-proxy-answer: app-connect; not-processed\r\n"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    assert!(!stopping.is_finished());
    say(&mut server, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let answer = read_rest(&mut busy).await;
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("done"), "{answer}");
    assert!(stopping.await.unwrap(), "nothing was cut off");
}

#[tokio::test]
async fn draining_asks_for_no_more_requests_and_lets_open_ones_end() {
    let (mut pod, (app, address)) = (strict().await, listen().await);
    let upstream = pod.upstream(address);
    let answer = tokio::spawn(async move { upstream.send(Carrier::MuxH2, grpc_request()).await });
    let (server, _) = app.accept().await.unwrap();

    pod.control.notice().begin();
    let stopping = tokio::spawn(std::mem::take(&mut pod.control).stop(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    assert!(!stopping.is_finished());
    tokio::spawn(serve_h2(server));
    let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "one two");
    // The connection ends by itself once its one stream has.
    assert!(stopping.await.unwrap(), "nothing was cut off");
}

#[tokio::test]
async fn a_sidecar_that_does_not_keep_to_the_protocol_loses_its_connection_which_is_counted() {
    let (pod, address) = (strict().await, nobody());
    for (protocol, count) in [(MeshProtocol::MuxH1, 1), (MeshProtocol::MuxH2, 2)] {
        let mut peer = pod.dial_mesh(address, protocol).await;
        // A frame of a kind that there is none of.
        peer.write_all(&[0x7f, 0, 0, 0, 0, 0, 0, 1]).await.unwrap();
        peer.flush().await.unwrap();
        // Whatever it says before it hangs up.
        let _ = timeout(PATIENCE, peer.read_to_end(&mut Vec::new())).await.expect("the connection's end");
        let mut page = Page::default();
        pod.telemetry.render(&mut page);
        let page = page.finish();
        let sample = "gamut_http2_closed_total{code=\"protocol-error\",direction=\"inbound\"}";
        assert!(page.contains(&format!("{sample} {count}\n")), "{protocol:?}: {page}");
    }
}
