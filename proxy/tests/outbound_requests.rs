//! What happens to a request between the app and a backend: real sockets, real HTTP on both sides.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::time::Duration;

use caller::{App, Caller, endpoint, get, read, reason};
use gamut_proxy::http::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh::{listen, read_head, read_rest, say};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const WEB: &str = "shop/web:80";

/// Says what it got: method, target, headers in order of their names, body.
async fn mirror(request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut headers: Vec<String> =
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    headers.sort();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    Response::new(Body::from(format!("{} {}\n{}\n\n{body}", head.method, head.uri, headers.join("\n"))))
}

async fn mirrored() -> (Caller, App) {
    let app = App::start(mirror).await;
    (Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await, app)
}

#[tokio::test]
async fn an_app_sees_the_request_as_its_client_wrote_it_and_nothing_of_the_mesh() {
    let (caller, _app) = mirrored().await;
    let request =
        Request::post("/a%20b?c=d&c").header("host", "web").header("x-one", "1").header("x-one", "2");
    let (response, body) =
        read(caller.send(request.body(Body::from("hello".to_owned())).unwrap()).await).await;
    assert_eq!(response.status(), 200);
    assert_eq!(body, "POST /a%20b?c=d&c\ncontent-length: 5\nhost: web\nx-one: 1\nx-one: 2\n\nhello");
    assert_eq!(reason(&response), None);
}

#[tokio::test]
async fn what_an_app_says_in_a_sidecars_name_goes_neither_way() {
    let app = App::start(|request: Request<Body>| async move {
        assert!(!request.headers().contains_key("gamut-proxy-answer"));
        let forged =
            Response::builder().header("gamut-proxy-answer", "x; not-processed").header("gamut-answer", "x");
        forged.body(Body::Empty).unwrap()
    })
    .await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    let mut request = get("/");
    request.headers_mut().insert("gamut-proxy-answer", http::HeaderValue::from_static("x; not-processed"));
    let (response, _) = read(caller.send(request).await).await;
    assert!(response.headers().keys().all(|name| !name.as_str().starts_with("gamut-")), "{response:?}");
    assert_eq!(app.requests(), 1, "believed from nobody without a sidecar");
}

#[tokio::test]
async fn requests_of_one_connection_are_balanced_one_by_one_over_kept_connections() {
    let (first, second) = (App::named("first").await, App::named("second").await);
    let endpoints = vec![first.endpoint("web-0"), second.endpoint("web-1")];
    let caller = Caller::new(Vec::new(), &[(WEB, endpoints)]).await;
    let mut stream = caller.dial().await;
    for _ in 0..100 {
        say(&mut stream, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let head = read_head(&mut stream).await;
        let length = if head.contains("content-length: 5") { 5 } else { 6 };
        stream.read_exact(&mut vec![0; length]).await.unwrap();
    }
    assert_eq!(first.requests() + second.requests(), 100);
    // Who hiccups once gets a small share for seconds: how large it is says something about the machine only.
    assert!(first.requests() > 0 && second.requests() > 0, "{} {}", first.requests(), second.requests());
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    say(&mut client, "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    assert!(read_head(&mut app).await.contains("transfer-encoding: chunked"));
    say(&mut app, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    read_head(&mut client).await;
    for _ in 0..3 {
        say(&mut client, "4\r\nping\r\n").await;
        let mut heard = [0; 9];
        app.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"4\r\nping\r\n");
        say(&mut app, "4\r\npong\r\n").await;
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"4\r\npong\r\n");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    for said in [
        "GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 100\r\n\r\nhalf",
    ] {
        let mut client = caller.dial().await;
        say(&mut client, said).await;
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        drop(client);
        // Not before: the app waits for it.
        read_rest(&mut app).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_holds_its_backend_back() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    say(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
    let part = vec![7; 1024 * 1024];
    let mut sent = 0;
    // Socket buffers take some MiB; a proxy that reads ahead takes all.
    while tokio::time::timeout(Duration::from_millis(300), app.write_all(&part)).await.is_ok() {
        sent += 1;
        assert!(sent < 64, "{sent} MiB were taken from the backend though nobody reads them");
    }
}

#[tokio::test]
async fn trailers_pass_to_clients_that_want_them() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    say(
        &mut client,
        "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntrailer: x-sent\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sent: 1\r\ngamut-answer: x\r\n\r\n",
    )
    .await;
    let (mut app, _) = listener.accept().await.unwrap();
    let head = read_head(&mut app).await;
    assert!(head.contains("te: trailers"), "{head}");
    assert_eq!(read_head(&mut app).await, "5\r\nhello\r\n0\r\nx-sent: 1\r\n\r\n");
    say(
        &mut app,
        "HTTP/1.1 200 OK\r\ntrailer: x-sum, gamut-answer\r\n\
         transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\ngamut-answer: x\r\n\r\n",
    )
    .await;
    read_head(&mut client).await;
    assert_eq!(read_head(&mut client).await, "5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[tokio::test]
async fn the_answer_to_head_says_a_length_and_has_no_body() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    for _ in 0..2 {
        say(&mut client, "HEAD / HTTP/1.1\r\nhost: web\r\n\r\n").await;
    }
    let (mut app, _) = listener.accept().await.unwrap();
    for _ in 0..2 {
        read_head(&mut app).await;
        say(&mut app, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
        assert!(read_head(&mut client).await.contains("content-length: 5"));
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_ends_for_the_client_too() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let get = caller.get("/");
    let ((_, body), ()) = tokio::join!(get, async {
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        say(&mut app, "HTTP/1.1 200 OK\r\n\r\nall there is").await;
    });
    assert_eq!(body, "all there is");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_complete() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let (response, ()) = tokio::join!(caller.send(get("/")), async {
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        say(&mut app, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    });
    assert!(response.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_body_that_is_expected_is_asked_for_by_the_backend_itself() {
    let (listener, address) = listen().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let mut client = caller.dial().await;
    say(&mut client, "PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let (mut app, _) = listener.accept().await.unwrap();
    assert!(read_head(&mut app).await.contains("expect: 100-continue"));
    say(&mut app, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(read_head(&mut client).await, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&mut client, "large").await;
    let mut body = [0; 5];
    app.read_exact(&mut body).await.unwrap();
    say(&mut app, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204"));
}
