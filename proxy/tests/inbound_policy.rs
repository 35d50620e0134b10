//! Who gets in, over real sockets and real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;

use gamut_controller_api::{InboundPolicy, MtlsMode};
use gamut_proxy::inbound::MeshProtocol;
use gamut_route::Uid;
use mesh::{Authority, LOCALHOST, Pod, listen, nobody, port_mode, read_head, read_rest, say};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// What comes next is this.
async fn hears(io: &mut (impl AsyncRead + Unpin), expected: &str) {
    let mut heard = vec![0; expected.len()];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

#[tokio::test]
async fn a_plaintext_http_caller_of_a_strict_port_reads_why_it_is_refused() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let mut caller = pod.dial(nobody()).await;
    say(&mut caller, GET).await;
    let answer = read_rest(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("gamut-answer: mtls-required\r\n"), "{answer}");
    assert!(answer.contains("gamut.mesh/plaintext-ports"), "it names a remedy: {answer}");
}

#[tokio::test]
async fn so_does_an_http2_caller() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let io = hyper_util::rt::TokioIo::new(pod.dial(nobody()).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::get("http://web/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(response.headers()["gamut-answer"], "mtls-required");
}

#[tokio::test]
async fn other_plaintext_is_closed_by_a_strict_port_and_never_reaches_the_app() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (app, address) = listen().await;
    let own_tls = b"\x16\x03\x01\x00\x04\x02\x00\x00\x00";
    for bytes in [&b"*1\r\n$4\r\nPING\r\n"[..], own_tls] {
        let mut caller = pod.dial(address).await;
        caller.write_all(bytes).await.unwrap();
        assert_eq!(read_rest(&mut caller).await, "");
    }
    let accepted = tokio::time::timeout(std::time::Duration::ZERO, app.accept()).await;
    assert!(accepted.is_err(), "the app saw a connection");
}

#[tokio::test]
async fn a_permissive_port_gives_plaintext_to_the_app_as_it_is() {
    let policy = InboundPolicy { mode: MtlsMode::Strict, ports: [].into() };
    let (app, address) = listen().await;
    let ports = [(address.port(), port_mode(MtlsMode::Permissive))].into();
    let pod = Pod::with(Some(InboundPolicy { ports, ..policy })).await;

    let mut caller = pod.dial(address).await;
    say(&mut caller, GET).await;
    let (mut server, _) = app.accept().await.unwrap();
    assert_eq!(read_head(&mut server).await, GET);
    say(&mut server, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(read_head(&mut caller).await, "HTTP/1.1 204 No Content\r\n\r\n");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_through_a_permissive_port() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let mut caller = pod.dial(address).await;
    let (mut server, _) = app.accept().await.unwrap();
    say(&mut server, "220 mail\r\n").await;
    hears(&mut caller, "220 mail\r\n").await;
    assert_eq!(pod.telemetry.detect_timeouts(), 1, "the silence is counted");
}

#[tokio::test]
async fn a_sidecar_that_is_slow_to_begin_is_served_by_a_permissive_port_too() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let caller = pod.dial(address).await;
    // It is taken for one whose server speaks first.
    let (mut unused, _) = app.accept().await.unwrap();
    let mut caller = pod.shake_hands(caller, MeshProtocol::Tcp).await.unwrap();
    assert_eq!(read_rest(&mut unused).await, "", "no byte of the handshake is the app's");
    hears(&mut caller, "+").await;
    say(&mut caller, "hello").await;
    let (mut server, _) = app.accept().await.unwrap();
    hears(&mut server, "hello").await;
}

#[tokio::test]
async fn a_sidecars_handshake_never_reaches_an_app_that_spoke_first() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let mut caller = pod.dial(address).await;
    let (mut server, _) = app.accept().await.unwrap();
    say(&mut server, "220 mail\r\n").await;
    hears(&mut caller, "220 mail\r\n").await;
    assert!(pod.shake_hands(caller, MeshProtocol::Tcp).await.is_err());
    let mut heard = Vec::new();
    // Reset, or ended: but silent.
    let _ = server.read_to_end(&mut heard).await;
    assert!(heard.is_empty(), "{heard:?}");
}

#[tokio::test]
async fn the_callers_own_tls_reaches_an_app_that_spoke_first() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let mut caller = pod.dial(address).await;
    let (mut server, _) = app.accept().await.unwrap();
    say(&mut server, "220 mail\r\n").await;
    hears(&mut caller, "220 mail\r\n").await;
    let config = pod.caller.client_config(&[b"smtp"]).unwrap();
    let connecting = tokio_rustls::TlsConnector::from(config);
    tokio::spawn(
        async move { connecting.connect(gamut_identity::server_name(Uid::of("mail")), caller).await },
    );
    let mut record = [0; 2];
    server.read_exact(&mut record).await.unwrap();
    assert_eq!(record, [22, 3]);
}

#[tokio::test]
async fn what_a_refusing_app_leaves_is_a_reset_and_no_end() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let mut caller = pod.dial(nobody()).await;
    say(&mut caller, "*1\r\n$4\r\nPING\r\n").await;
    let error = caller.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_caller_that_vanishes_is_found_out() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let (listener, entrance) = listen().await;
    let (mut caller, accepted) = tokio::join!(tokio::net::TcpStream::connect(entrance), listener.accept());
    let accepted = accepted.unwrap().0.into_std().unwrap();
    let socket = socket2::Socket::from(accepted.try_clone().unwrap());
    let accepted = tokio::net::TcpStream::from_std(accepted).unwrap();
    let inbound = pod.inbound.clone();
    tokio::spawn(async move { inbound.serve(accepted, address).await });
    say(caller.as_mut().unwrap(), "*1\r\n").await;
    let _served = app.accept().await.unwrap();
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(gamut_proxy::tcp::USER_TIMEOUT));
    assert!(socket.keepalive().unwrap());
}

#[tokio::test]
async fn a_meshed_caller_gets_in_whatever_the_mode() {
    for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
        let pod = Pod::new(mode).await;
        let (app, address) = listen().await;
        let mut caller = pod.dial_mesh(address, MeshProtocol::Tcp).await;
        say(&mut caller, "hello").await;
        let (mut server, _) = app.accept().await.unwrap();
        hears(&mut server, "hello").await;
    }
}

#[tokio::test]
async fn before_the_first_policy_nobody_gets_in() {
    let pod = Pod::with(None).await;
    let address = nobody();
    assert!(pod.dial_mesh_as(&pod.caller, pod.uid, address, MeshProtocol::Tcp).await.is_err());
    let mut caller = pod.dial(address).await;
    say(&mut caller, GET).await;
    let answer = read_rest(&mut caller).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("gamut-answer: no-policy"), "{answer}");
}

#[tokio::test]
async fn a_sidecar_that_means_the_addresss_last_holder_is_refused() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let stale = pod.dial_mesh_as(&pod.caller, Uid::of("web-before"), address, MeshProtocol::H1).await;
    assert!(stale.is_err());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, app.accept()).await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_worth_nothing() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let stranger = Authority::new().identity("client", Uid::of("client-0")).await;
    // It doesn't trust us either, so its handshake fails on both sides; what matters is that the app sees nothing.
    assert!(pod.dial_mesh_as(&stranger, pod.uid, address, MeshProtocol::Tcp).await.is_err());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, app.accept()).await.is_err());
}

#[tokio::test]
async fn a_mesh_caller_without_a_certificate_is_refused() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pod.authority.root()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(gamut_identity::provider());
    let config =
        config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![MeshProtocol::Tcp.alpn().to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = connector.connect(gamut_identity::server_name(pod.uid), pod.dial(address).await).await;
    // In TLS 1.3 a client finishes before its certificate is looked at: the refusal comes with the first read.
    let mut stream = stream.unwrap();
    assert!(stream.read(&mut [0]).await.is_err());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, app.accept()).await.is_err());
}

#[tokio::test]
async fn a_forged_destination_is_no_way_to_other_pods() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let other = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let destination = other.local_addr().unwrap();
    let mut caller = pod.dial(destination).await;
    say(&mut caller, GET).await;
    assert_eq!(read_rest(&mut caller).await, "");
    assert!(pod.dial_mesh_as(&pod.caller, pod.uid, destination, MeshProtocol::Tcp).await.is_err());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, other.accept()).await.is_err());
}

#[tokio::test]
async fn the_app_is_dialled_at_the_address_that_was_called() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let (app, address) = listen().await;
    let mut caller = pod.dial_mesh(address, MeshProtocol::Tcp).await;
    say(&mut caller, "x").await;
    let (server, _) = app.accept().await.unwrap();
    assert_eq!(server.local_addr().unwrap(), SocketAddr::new(LOCALHOST, address.port()));
}
