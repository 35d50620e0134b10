//! HTTP/2 and gRPC through the outbound half.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use bytes::Bytes;
use caller::{App, Caller, endpoint, header, read, reason, table};
use gamut_proxy::http::{Body, HttpVersion};
use gamut_route::table::AppProtocol;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use mesh::listen;
use tokio::net::TcpListener;

const WEB: &str = "shop/web:80";

fn call(body: &'static str) -> Request<Body> {
    Request::post("http://web/echo.Echo/Say")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(body.to_owned()))
        .unwrap()
}

/// Answers gRPC calls with what they said and, as gRPC does, with the status in the trailers.
async fn echo(listener: TcpListener, status: &'static str) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    assert_eq!(request.headers()["te"], "trailers");
                    assert_eq!(request.uri().authority().unwrap(), "web");
                    let mut said = request.into_body();
                    let head =
                        Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                    let mut answer = respond.send_response(head, false).unwrap();
                    while let Some(part) = said.data().await {
                        answer.send_data(part.unwrap(), false).unwrap();
                    }
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static(status));
                    trailers.insert("gamut-answer", HeaderValue::from_static("forged"));
                    answer.send_trailers(trailers).unwrap();
                });
            }
        });
    }
}

#[tokio::test]
async fn a_grpc_call_keeps_its_trailers() {
    let (listener, address) = listen().await;
    tokio::spawn(echo(listener, "5"));
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let response = caller.h2().await.send_request(call("hello")).await.unwrap();
    let answer = response.into_body().collect().await.unwrap();
    let trailers = answer.trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "5");
    assert!(!trailers.contains_key("gamut-answer"), "{trailers:?}");
    assert_eq!(answer.to_bytes(), "hello");
}

#[tokio::test]
async fn a_grpc_call_that_the_proxy_answers_gets_a_grpc_status() {
    let caller = Caller::new(Vec::new(), &[(WEB, Vec::new())]).await;
    let response = caller.h2().await.send_request(call("hello")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "grpc-status"), Some("14"));
    assert_eq!(reason(&response), Some("no-endpoint"));
}

#[tokio::test]
async fn a_hundred_streams_of_one_connection_are_balanced_one_by_one() {
    let name = |name: &'static str| {
        App::speaking(HttpVersion::H2, move |_| async move { Response::new(Body::from(name.to_owned())) })
    };
    let (first, second) = (name("first").await, name("second").await);
    let endpoints = vec![first.endpoint("web-0"), second.endpoint("web-1")];
    let caller = Caller::new(Vec::new(), &[(WEB, endpoints)]).await;
    let sender = caller.h2().await;
    let calls = (0..100).map(|_| {
        let mut sender = sender.clone();
        async move { read(sender.send_request(call("")).await.unwrap()).await.0.status() }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| status == &200));
    assert_eq!(first.requests() + second.requests(), 100);
    assert!(first.requests() > 20 && second.requests() > 20, "{} {}", first.requests(), second.requests());
}

/// Takes calls, bodies and all, and says then that it did nothing about them.
async fn refuse(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((mut request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    while request.body_mut().data().await.is_some() {}
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                });
            }
        });
    }
}

#[tokio::test]
async fn a_call_that_was_refused_is_made_elsewhere_with_all_that_it_had_said() {
    let ((refusing, refuses), (listener, address)) = (listen().await, listen().await);
    tokio::spawn(refuse(refusing));
    tokio::spawn(echo(listener, "0"));
    let endpoints = vec![endpoint("web-0", refuses), endpoint("web-1", address)];
    let caller = Caller::new(Vec::new(), &[(WEB, endpoints)]).await;
    let sender = caller.h2().await;
    for _ in 0..20 {
        let response = sender.clone().send_request(call("hello")).await.unwrap();
        let answer = response.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(answer.to_bytes(), "hello");
    }
}

#[tokio::test]
async fn both_sides_of_a_stream_talk_at_once() {
    let (listener, address) = listen().await;
    tokio::spawn(echo(listener, "0"));
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let (sender, connection) = h2::client::handshake(caller.dial().await).await.unwrap();
    tokio::spawn(connection);
    let (head, _) = call("").into_parts();
    let (response, mut said) =
        sender.ready().await.unwrap().send_request(Request::from_parts(head, ()), false).unwrap();
    said.send_data(Bytes::from_static(b"one"), false).unwrap();
    let mut answer = response.await.unwrap().into_body();
    assert_eq!(answer.data().await.unwrap().unwrap(), "one");
    said.send_data(Bytes::from_static(b"two"), false).unwrap();
    assert_eq!(answer.data().await.unwrap().unwrap(), "two");
    said.send_data(Bytes::new(), true).unwrap();
    assert!(answer.data().await.is_none());
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_upstream() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut sender = caller.h2().await;
    let calling = tokio::spawn(async move { sender.send_request(call("hello")).await });
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (_, mut respond) = connection.accept().await.unwrap().unwrap();
    calling.abort();
    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx));
    tokio::select! {
        reset = reset => assert_eq!(reset.unwrap(), h2::Reason::CANCEL),
        other = connection.accept() => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn http_1_reaches_a_backend_that_speaks_http_2_alone() {
    let app = App::speaking(HttpVersion::H2, |request: Request<Body>| async move {
        Response::new(Body::from(format!("{:?} {}", request.version(), request.uri())))
    })
    .await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    caller.speak(WEB, AppProtocol::Http2, &[app.endpoint("web-0")]);
    let (_, body) = caller.get("/a?b").await;
    assert_eq!(body, "HTTP/2.0 http://web/a?b");
}

#[tokio::test]
async fn cookie_crumbs_and_authority_are_what_an_http_1_reader_expects() {
    let app = App::speaking(HttpVersion::H2, |request: Request<Body>| async move {
        let cookies = request.headers().get_all("cookie").iter().count();
        assert!(!request.headers().contains_key("host"));
        Response::new(Body::from(format!("{cookies} {}", request.headers()["cookie"].to_str().unwrap())))
    })
    .await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    let mut request = call("");
    for crumb in ["a=1", "b=2"] {
        request.headers_mut().append("cookie", HeaderValue::from_static(crumb));
    }
    let (_, body) = read(caller.h2().await.send_request(request).await.unwrap()).await;
    assert_eq!(body, "1 a=1; b=2");
}

#[tokio::test]
async fn a_port_that_is_said_to_be_http_2_takes_http_1_clients_too() {
    let app = App::named("web").await;
    let table = gamut_route::RouteTable { protocol: AppProtocol::Http2, ..table(Vec::new()) };
    let caller = Caller::with(table, &[(WEB, vec![app.endpoint("web-0")])]).await;
    assert_eq!(caller.get("/").await.1, "web");
}
