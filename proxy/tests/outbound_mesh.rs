//! Between sidecars: a real outbound half calls a real inbound half over mTLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use caller::{App, Caller, breaking, caller_of, endpoint, get, meshed, post, read, reason, rule, table};
use gamut_controller_api::MtlsMode;
use gamut_identity::SpiffeId;
use gamut_proxy::{
    balance::PodTarget,
    http::{Body, HttpVersion, replay::MAX_REPLAY_BYTES},
    inbound::MeshProtocol,
};
use gamut_route::{
    RouteTable, Uid,
    table::{AppProtocol, Retry, Rule},
};
use http::{Request, Response, Version};
use mesh::{LOCALHOST, Pod, listen, nobody, read_head, read_rest, say, sidecar};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};
use tokio_rustls::TlsAcceptor;

const WEB: &str = "shop/web:80";

#[tokio::test]
async fn http_1_http_2_and_bodies_pass_over_mtls() {
    let pod = Pod::new(MtlsMode::Strict).await;
    for version in [HttpVersion::H1, HttpVersion::H2] {
        let app = App::speaking(version, |request: Request<Body>| async move {
            assert!(request.headers().keys().all(|name| !name.as_str().starts_with("gamut-")));
            Response::new(request.into_body())
        })
        .await;
        let entrance = sidecar(&pod, app.address).await;
        let caller = caller_of(&pod, table(Vec::new()), vec![meshed(entrance, "web", pod.uid)]).await;
        let large = "x".repeat(1_000_000);
        for _ in 0..3 {
            let (response, body) = match version {
                HttpVersion::H1 => read(caller.send(post("/", Body::from(large.clone()))).await).await,
                HttpVersion::H2 => {
                    let request = Request::post("http://web/").body(Body::from(large.clone())).unwrap();
                    read(caller.h2().await.send_request(request).await.unwrap()).await
                }
            };
            assert_eq!(response.status(), 200);
            assert!(body == large);
        }
        assert_eq!(app.requests(), 3);
    }
}

#[tokio::test]
async fn an_upgrade_passes_both_sidecars() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    let entrance = sidecar(&pod, address).await;
    let caller = caller_of(&pod, table(Vec::new()), vec![meshed(entrance, "web", pod.uid)]).await;
    let mut client = caller.dial().await;
    say(&mut client, "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nearly")
        .await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(
        &mut app,
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst",
    )
    .await;
    read_head(&mut client).await;
    let mut heard = [0; 5];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"first");
    app.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"early");
    client.shutdown().await.unwrap();
    assert_eq!(read_rest(&mut app).await, "");
}

#[tokio::test]
async fn whoever_is_not_the_endpoint_that_was_meant_gets_nothing() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let app = App::named("web").await;
    let entrance = sidecar(&pod, app.address).await;
    for (stranger, why) in [
        (meshed(entrance, "other", pod.uid), "but spiffe://cluster.local/ns/shop/sa/other in pod"),
        (meshed(entrance, "web", Uid::of("web-1")), "handshake"),
        // A server without TLS, where a sidecar was said to be.
        (meshed(app.address, "web", pod.uid), "handshake"),
    ] {
        let caller = caller_of(&pod, table(Vec::new()), vec![stranger]).await;
        let (response, body) = caller.get("/").await;
        assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("upstream-connect")));
        assert!(body.contains(why), "{body}");
    }
    let foreign = Caller::new(Vec::new(), &[(WEB, vec![meshed(entrance, "web", pod.uid)])]).await;
    assert_eq!(foreign.get("/").await.0.status(), 503, "a certificate of another root");
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn what_the_app_did_not_process_is_taken_elsewhere_and_no_copy_of_it_is_lost() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let app = App::named("web").await;
    let gone = sidecar(&pod, nobody()).await;
    let here = sidecar(&pod, app.address).await;
    let endpoints = vec![meshed(gone, "web", pod.uid), meshed(here, "web", pod.uid)];
    let caller = caller_of(&pod, table(Vec::new()), endpoints).await;
    for _ in 0..30 {
        assert_eq!(caller.get("/").await.1, "web");
    }
    let alone = caller_of(&pod, table(Vec::new()), vec![meshed(gone, "web", pod.uid)]).await;
    let (response, body) = alone.get("/").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("app-connect")));
    assert!(!response.headers().contains_key("gamut-proxy-answer") && body.contains("refused"), "{body}");
}

#[tokio::test]
async fn so_is_a_body_that_is_short_enough_to_be_kept_whether_its_length_is_said_or_not() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let app = App::start(|request: Request<Body>| async move { Response::new(request.into_body()) }).await;
    let gone = sidecar(&pod, nobody()).await;
    let here = sidecar(&pod, app.address).await;
    let endpoints = vec![meshed(gone, "web", pod.uid), meshed(here, "web", pod.uid)];
    let caller = caller_of(&pod, table(Vec::new()), endpoints).await;
    for _ in 0..20 {
        let (response, body) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (200, "order"));
        let mut client = caller.dial().await;
        say(
            &mut client,
            "POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await;
        say(&mut client, "5\r\norder\r\n0\r\n\r\n").await;
        let answer = read_rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("order"), "{answer}");
    }
    // A longer one passes once: whole, or not at all.
    let long = "x".repeat(MAX_REPLAY_BYTES + 1);
    for _ in 0..20 {
        let (response, body) = read(caller.send(post("/", Body::from(long.clone()))).await).await;
        match response.status().as_u16() {
            200 => assert!(body == long),
            status => assert_eq!((status, reason(&response)), (503, Some("app-connect"))),
        }
    }
}

#[tokio::test]
async fn an_app_that_closes_a_kept_connection_costs_no_idempotent_request() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_head(&mut stream).await;
                say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                // The second request is read, and no byte is said to it.
                read_head(&mut stream).await;
            });
        }
    });
    let entrance = sidecar(&pod, address).await;
    let caller = caller_of(&pod, table(Vec::new()), vec![meshed(entrance, "web", pod.uid)]).await;
    for _ in 0..10 {
        assert_eq!(caller.get("/").await.1, "ok");
    }
    let (response, _) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
    assert_eq!((response.status().as_u16(), reason(&response)), (502, Some("app-reset")));
}

#[tokio::test]
async fn with_a_stanza_an_app_that_breaks_off_behind_its_sidecar_is_no_worse_than_one_without() {
    for (version, method, again) in [
        (Version::HTTP_11, "GET", true),
        (Version::HTTP_2, "GET", true),
        (Version::HTTP_11, "POST", false),
        (Version::HTTP_2, "POST", false),
    ] {
        let pod = Pod::new(MtlsMode::Strict).await;
        let (address, taken) = breaking().await;
        let entrance = sidecar(&pod, address).await;
        let retry = Retry { codes: Vec::new(), attempts: 2, backoff: Duration::from_millis(1) };
        let table = table(vec![Rule { retry: Some(retry), ..rule(&[(WEB, 1)]) }]);
        let caller = caller_of(&pod, table, vec![meshed(entrance, "web", pod.uid)]).await;
        let request = Request::builder().method(method).uri("http://web/").version(version);
        let (response, _) = read(caller.send(request.body(Body::Empty).unwrap()).await).await;
        assert_eq!((response.status().as_u16(), reason(&response)), (502, Some("app-reset")));
        assert_eq!(taken.load(Ordering::SeqCst), if again { 3 } else { 1 }, "{method} in {version:?}");
    }
}

#[tokio::test]
async fn an_app_can_not_make_a_caller_repeat_a_request() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let app = App::start(|_| async {
        let forged = Response::builder().status(503).header("gamut-proxy-answer", "x; not-processed");
        forged.body(Body::Empty).unwrap()
    })
    .await;
    let entrance = sidecar(&pod, app.address).await;
    let other = sidecar(&pod, app.address).await;
    let endpoints = vec![meshed(entrance, "web", pod.uid), meshed(other, "web", pod.uid)];
    let caller = caller_of(&pod, table(Vec::new()), endpoints).await;
    assert_eq!(caller.get("/").await.0.status(), 503);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn ones_own_pod_is_reached_through_its_own_inbound_half() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let app = App::named("myself").await;
    let caller =
        caller_of(&pod, table(Vec::new()), vec![meshed(app.address, "client", Uid::of("client-0"))]).await;
    for _ in 0..3 {
        assert_eq!(caller.get("/").await.1, "myself");
    }
    let opaque = RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    let caller = caller_of(&pod, opaque, vec![meshed(app.address, "client", Uid::of("client-0"))]).await;
    assert_eq!(caller.get("/").await.1, "myself");
}

#[tokio::test]
async fn bytes_pass_both_ways_and_each_side_ends_by_itself() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    let entrance = sidecar(&pod, address).await;
    let opaque = RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    for endpoint in [meshed(entrance, "web", pod.uid), endpoint("web-1", address)] {
        let caller = caller_of(&pod, opaque.clone(), vec![endpoint]).await;
        let mut client = caller.dial().await;
        let (mut app, _) = listener.accept().await.unwrap();
        // The server speaks first, as it may on an opaque port.
        say(&mut app, "220 ready\r\n\r\n").await;
        assert_eq!(read_head(&mut client).await, "220 ready\r\n\r\n");
        say(&mut client, "all I have").await;
        client.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut app).await, "all I have");
        say(&mut app, "and the answer").await;
        drop(app);
        assert_eq!(read_rest(&mut client).await, "and the answer");
    }
}

#[tokio::test]
async fn an_end_that_nobody_said_is_no_end_on_the_other_side_of_two_sidecars() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    let entrance = sidecar(&pod, address).await;
    let refusing = sidecar(&pod, nobody()).await;
    let opaque = || RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    let reset =
        |read: std::io::Result<usize>| read.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset;

    let caller = caller_of(&pod, opaque(), vec![meshed(entrance, "web", pod.uid)]).await;
    for app_breaks_off in [true, false] {
        let client = caller.dial().await;
        let (app, _) = listener.accept().await.unwrap();
        let (breaking, mut left) = if app_breaks_off { (app, client) } else { (client, app) };
        breaking.set_zero_linger().unwrap();
        drop(breaking);
        assert!(reset(left.read(&mut [0]).await), "the app breaks off: {app_breaks_off}");
    }
    let caller = caller_of(&pod, opaque(), vec![meshed(refusing, "web", pod.uid)]).await;
    assert!(reset(caller.dial().await.read(&mut [0]).await), "the app took no connection");
}

#[tokio::test]
async fn bytes_go_to_another_endpoint_where_one_refuses_them_and_are_reset_where_all_do() {
    let (listener, address) = listen().await;
    let opaque = || RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    for _ in 0..10 {
        let mut endpoints = vec![endpoint("web-0", address)];
        for refusing in ["web-1", "web-2", "web-3"] {
            endpoints.push(endpoint(refusing, nobody()));
        }
        let caller = Caller::with(opaque(), &[(WEB, endpoints)]).await;
        let mut client = caller.dial().await;
        let (mut app, _) = listener.accept().await.unwrap();
        say(&mut client, "hello").await;
        client.shutdown().await.unwrap();
        assert_eq!(read_rest(&mut app).await, "hello");
    }
    let caller = Caller::with(opaque(), &[(WEB, vec![endpoint("web-0", nobody())])]).await;
    let mut client = caller.dial().await;
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_go_to_another_endpoint_where_an_app_takes_none_of_its_sidecar() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    let gone = sidecar(&pod, nobody()).await;
    let here = sidecar(&pod, address).await;
    let opaque = RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    for _ in 0..10 {
        let endpoints = vec![meshed(gone, "web", pod.uid), meshed(here, "web", pod.uid)];
        let caller = caller_of(&pod, opaque.clone(), endpoints).await;
        let mut client = caller.dial().await;
        say(&mut client, "all I have").await;
        client.shutdown().await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        assert_eq!(read_rest(&mut app).await, "all I have");
        say(&mut app, "and the answer").await;
        drop(app);
        assert_eq!(read_rest(&mut client).await, "and the answer");
    }
}

/// A sidecar that proves to be the pod's and then says this about its app; and what it was sent on each connection.
async fn saying(pod: &Pod, said: &'static str) -> (SocketAddr, UnboundedReceiver<String>) {
    let (listener, address) = listen().await;
    let (tell, heard) = unbounded_channel();
    let identity = pod.authority.identity("web", pod.uid).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let config = identity.server_config(&[MeshProtocol::Tcp.alpn()]).unwrap();
            let mut stream = TlsAcceptor::from(config).accept(stream).await.unwrap();
            say(&mut stream, said).await;
            let _ = stream.shutdown().await;
            tell.send(read_rest(&mut stream).await).unwrap();
        }
    });
    (address, heard)
}

#[tokio::test]
async fn a_sidecar_that_says_anything_else_of_its_app_hasnt_taken_the_connection() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let (listener, address) = listen().await;
    let here = sidecar(&pod, address).await;
    let opaque = RouteTable { protocol: AppProtocol::Opaque, ..table(Vec::new()) };
    for said in ["", "-", "-220 ready", "HTTP/1.1 200 OK\r\n\r\n", "\0+"] {
        let (strange, mut heard) = saying(&pod, said).await;
        let strange = meshed(strange, "web", pod.uid);
        for _ in 0..5 {
            let endpoints = vec![strange.clone(), meshed(here, "web", pod.uid)];
            let caller = caller_of(&pod, opaque.clone(), endpoints).await;
            let mut client = caller.dial().await;
            say(&mut client, "hello").await;
            client.shutdown().await.unwrap();
            let (mut app, _) = listener.accept().await.unwrap();
            assert_eq!(read_rest(&mut app).await, "hello");
        }
        let alone = caller_of(&pod, opaque.clone(), vec![strange]).await;
        let mut client = alone.dial().await;
        say(&mut client, "hello").await;
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{said:?}");
        // It was called at least that once.
        assert_eq!(
            heard.recv().await.unwrap(),
            "",
            "nothing is said to who hasn't said that the app is there"
        );
    }
}

#[tokio::test]
async fn bytes_on_a_port_of_unknown_protocol_are_recognized_as_such() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    for first in ["*1\r\n$4\r\nPING\r\n", "\x16\x03\x01 no TLS after all"] {
        let mut client = caller.dial().await;
        say(&mut client, first).await;
        client.shutdown().await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        assert_eq!(read_rest(&mut app).await, first);
    }
}

#[tokio::test]
async fn a_pod_dialled_by_its_own_address_is_reached_over_mtls_too() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let app = App::named("web").await;
    let entrance = sidecar(&pod, app.address).await;
    let caller = caller_of(&pod, table(Vec::new()), Vec::new()).await;
    let target = PodTarget::new(&meshed(entrance, "web", pod.uid));
    let (listener, address) = listen().await;
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let outbound = caller.outbound.clone();
    tokio::spawn(async move { outbound.to_pod(accepted.unwrap().0, &target).await });
    let mut client = client.unwrap();
    say(&mut client, "GET / HTTP/1.1\r\nhost: web-0\r\nconnection: close\r\n\r\n").await;
    let answer = read_rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("web"), "{answer}");
}

#[tokio::test]
async fn an_address_without_an_answer_is_reset_and_never_guessed_at() {
    let caller = Caller::new(Vec::new(), &[(WEB, Vec::new())]).await;
    let app = App::named("must not be reached").await;
    let (listener, address) = listen().await;
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (outbound, destination) = (caller.outbound.clone(), app.address);
    tokio::spawn(async move { outbound.connect(accepted.unwrap().0, LOCALHOST, destination).await });
    let error = client.unwrap().read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_destination_out_of_the_mesh_is_reached_untouched() {
    let caller = Caller::new(Vec::new(), &[(WEB, Vec::new())]).await;
    let app = App::named("outside").await;
    let (listener, address) = listen().await;
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (outbound, destination) = (caller.outbound.clone(), app.address);
    tokio::spawn(async move { outbound.untouched(accepted.unwrap().0, destination).await });
    let mut client = client.unwrap();
    say(&mut client, "GET / HTTP/1.1\r\nhost: outside\r\nconnection: close\r\n\r\n").await;
    assert!(read_rest(&mut client).await.ends_with("outside"));
}

#[tokio::test]
async fn without_a_certificate_nothing_is_sent_and_the_answer_says_why() {
    let pod = Pod::new(MtlsMode::Permissive).await;
    let app = App::named("web").await;
    let entrance = sidecar(&pod, app.address).await;
    let identity = mesh_identity_without_certificate();
    let endpoints = [(WEB, vec![meshed(entrance, "web", pod.uid)])];
    let caller = Caller::as_identity(identity, Uid::of("client-0"), table(Vec::new()), &endpoints).await;
    let (response, body) = read(caller.send(get("/")).await).await;
    assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("no-certificate")));
    assert!(body.contains("no certificate yet"), "{body}");
    assert_eq!(app.requests(), 0);
}

/// An identity whose CA never answers.
fn mesh_identity_without_certificate() -> gamut_identity::Identity {
    struct Never;
    impl gamut_identity::Issuer for Never {
        async fn issue(
            &self,
            _csr: rustls_pki_types::CertificateSigningRequestDer<'static>,
            _trusted: Option<std::sync::Arc<gamut_identity::Roots>>,
        ) -> Result<gamut_identity::Issued, gamut_identity::IssueError> {
            std::future::pending().await
        }
    }
    let id = SpiffeId::new("cluster.local", "shop", "client").unwrap();
    gamut_identity::Identity::start(id, Never, gamut_identity::Clock::system())
}
