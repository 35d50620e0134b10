//! Messages whose bodies can't be taken for what they say: who is told, who is blamed, and that nothing of them is
//! passed on as if it were whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::time::Duration;

use caller::{App, Caller, endpoint, rule};
use gamut_controller_api::MtlsMode;
use gamut_proxy::inbound::MeshProtocol;
use gamut_route::table::{Retry, Rule};
use mesh::{Pod, listen, read_head, read_rest, say};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

const WEB: &str = "shop/web:80";

/// A PUT, which a stanza would try again if the backend had failed.
const CHUNKED: &str =
    "PUT / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";

fn eager() -> Rule {
    let retry = Retry { codes: vec![400, 502], attempts: 3, backoff: Duration::from_millis(1) };
    Rule { retry: Some(retry), ..rule(&[(WEB, 1)]) }
}

#[tokio::test]
async fn a_broken_body_is_its_clients_fault_and_is_not_tried_again() {
    for broken in ["ZZ\r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n", "fffffffffffffffff\r\nabc", "3\r\nabcdef\r\n"]
    {
        let (listener, address) = listen().await;
        let caller = Caller::new(vec![eager()], &[(WEB, vec![endpoint("web-0", address)])]).await;
        let mut client = caller.dial().await;
        say(&mut client, CHUNKED).await;
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        say(&mut client, broken).await;
        let answer = read_rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{broken:?}: {answer}");
        assert!(answer.contains("gamut-answer: bad-request\r\n"), "{broken:?}: {answer}");
        assert!(!read_rest(&mut app).await.ends_with("0\r\n\r\n"), "it must not look whole");
        let again = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
        assert!(again.is_err(), "{broken:?}: tried again");
    }
}

#[tokio::test]
async fn a_client_that_ends_in_mid_body_is_told_so_and_its_backend_is_not_blamed() {
    let (listener, address) = listen().await;
    let caller = Caller::new(vec![eager()], &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    say(&mut client, CHUNKED).await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    client.shutdown().await.unwrap();
    let answer = read_rest(&mut client).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(!read_rest(&mut app).await.ends_with("0\r\n\r\n"), "it must not look whole");
}

#[tokio::test]
async fn a_sidecar_does_not_blame_its_app_for_a_peers_broken_body() {
    let (pod, (app, address)) = (Pod::new(MtlsMode::Strict).await, listen().await);
    let mut peer = pod.dial_mesh(address, MeshProtocol::H1).await;
    say(&mut peer, CHUNKED).await;
    let (mut server, _) = app.accept().await.unwrap();
    read_head(&mut server).await;
    say(&mut peer, "ZZ\r\n").await;
    let answer = read_rest(&mut peer).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains("gamut-proxy-answer: bad-request\r\n"), "{answer}");
}

const CODINGS: [(&str, &str); 4] = [
    ("gzip, chunked", "501"),
    ("identity, chunked", "501"),
    ("gzip\r\ntransfer-encoding: chunked", "501"),
    ("chunked, chunked", "400"),
];

fn coded(coding: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"
    )
}

#[tokio::test]
async fn a_request_coded_for_the_connection_is_refused_and_not_passed_on_half_decoded() {
    let app = App::named("web").await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    let pod = Pod::new(MtlsMode::Strict).await;
    for (coding, status) in CODINGS {
        let mut client = caller.dial().await;
        say(&mut client, &coded(coding)).await;
        let answer = read_rest(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{coding}: {answer}");

        let mut peer = pod.dial_mesh(mesh::nobody(), MeshProtocol::H1).await;
        say(&mut peer, &coded(coding)).await;
        let answer = read_rest(&mut peer).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{coding}: {answer}");
    }
    assert_eq!(app.requests(), 0);
}

/// What becomes of `answer` on its way back to whoever asks.
async fn ask(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    listener: &TcpListener,
    answer: &str,
) -> String {
    say(client, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, answer).await;
    read_rest(client).await
}

/// RFC 9112 section 6.3: a proxy may pass on such an answer without the length, and needn't. It was made, so asking again
/// would have it made twice.
#[tokio::test]
async fn an_answer_with_two_lengths_is_none_and_is_not_asked_for_again() {
    const TWO: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let (listener, address) = listen().await;
    let caller = Caller::new(vec![eager()], &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    let got = ask(&mut client, &listener, TWO).await;
    assert!(got.starts_with("HTTP/1.1 502 "), "{got}");
    let again = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(again.is_err(), "asked twice");
}

#[tokio::test]
async fn an_answer_coded_for_the_connection_is_none() {
    for coding in CODINGS.map(|(coding, _)| coding).into_iter().chain(["gzip"]) {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");

        let (listener, address) = listen().await;
        let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
        let mut client = caller.dial().await;
        let got = ask(&mut client, &listener, &answer).await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{coding}: {got}");
        assert!(got.contains("gamut-answer: upstream-reset\r\n"), "{coding}: {got}");

        let (pod, (listener, address)) = (Pod::new(MtlsMode::Strict).await, listen().await);
        let mut peer = pod.dial_mesh(address, MeshProtocol::H1).await;
        let got = ask(&mut peer, &listener, &answer).await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{coding}: {got}");
        assert!(got.contains("gamut-proxy-answer: app-reset\r\n"), "{coding}: {got}");
    }
}
