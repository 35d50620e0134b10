//! What is tried again, where, and what never is. The oracle counts what backends got.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use caller::{App, Caller, endpoint, get, post, read, reason, rule};
use gamut_proxy::http::{Body, replay::MAX_REPLAY_BYTES};
use gamut_route::table::{Retry, Rule, Timeouts};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use mesh::{listen, nobody, read_head};
use tokio::time::Instant;

const WEB: &str = "shop/web:80";

fn retrying(attempts: u32) -> Rule {
    let retry = Retry { codes: vec![503], attempts, backoff: Duration::from_millis(50) };
    Rule { retry: Some(retry), ..rule(&[(WEB, 1)]) }
}

/// A backend that answers 503 this often and then repeats what the request said.
async fn recovering(failures: usize) -> App {
    let left = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(failures));
    App::start(move |request: Request<hyper::body::Incoming>| {
        let left = left.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let fails =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            let status = if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            Response::builder().status(status).body(Body::from(body)).unwrap()
        }
    })
    .await
}

/// A backend that takes requests and breaks the connection off. Says how many it took.
async fn breaking() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let (listener, address) = listen().await;
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = taken.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, taken)
}

#[tokio::test]
async fn a_refused_connection_goes_elsewhere_with_its_body_and_nobody_notices() {
    let app = recovering(0).await;
    for _ in 0..20 {
        let endpoints = vec![endpoint("web-0", nobody().await), app.endpoint("web-1")];
        let caller = Caller::new(Vec::new(), &[(WEB, endpoints)]).await;
        let (response, body) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (200, "order"));
    }
    assert_eq!(app.requests(), 20);
}

#[tokio::test]
async fn without_a_stanza_nothing_that_may_have_been_processed_is_repeated() {
    let (address, taken) = breaking().await;
    let other = App::named("other").await;
    let endpoints = vec![endpoint("web-0", address), other.endpoint("web-1")];
    let caller = Caller::new(Vec::new(), &[(WEB, endpoints)]).await;
    let mut failed = 0;
    for n in 0..40 {
        let request = if n % 2 == 0 { get("/") } else { post("/", Body::from("order".to_owned())) };
        let (response, _) = read(caller.send(request).await).await;
        if response.status() == 502 {
            assert_eq!(reason(&response), Some("upstream-reset"));
            failed += 1;
        }
    }
    assert!(failed > 0);
    assert_eq!(taken.load(Ordering::SeqCst), failed);
    assert_eq!(other.requests(), 40 - failed);
}

#[tokio::test]
async fn with_a_stanza_a_broken_connection_is_repeated_for_idempotent_methods_alone() {
    for (method, again) in [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)]
    {
        let (address, taken) = breaking().await;
        let caller = Caller::new(vec![retrying(2)], &[(WEB, vec![endpoint("web-0", address)])]).await;
        let request =
            Request::builder().method(method).uri("/").header("host", "web").body(Body::Empty).unwrap();
        let (response, _) = read(caller.send(request).await).await;
        assert_eq!(reason(&response), Some("upstream-reset"));
        assert_eq!(taken.load(Ordering::SeqCst), if again { 3 } else { 1 }, "{method}");
    }
}

#[tokio::test]
async fn a_named_code_is_tried_again_with_the_same_body_after_a_pause_that_grows() {
    let app = recovering(2).await;
    let caller = Caller::new(vec![retrying(2)], &[(WEB, vec![app.endpoint("web-0")])]).await;
    let begin = Instant::now();
    let (response, body) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
    assert_eq!((response.status().as_u16(), body.as_str()), (200, "order"));
    assert_eq!(app.requests(), 3);
    assert!(begin.elapsed() >= Duration::from_millis(50 + 100), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn the_last_answer_is_the_backends_own() {
    let app = recovering(usize::MAX).await;
    let caller = Caller::new(vec![retrying(1)], &[(WEB, vec![app.endpoint("web-0")])]).await;
    let (response, body) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
    assert_eq!((response.status().as_u16(), body.as_str()), (503, "order"));
    assert_eq!(reason(&response), None);
    assert_eq!(app.requests(), 2);
}

#[tokio::test]
async fn zero_attempts_are_none_at_all() {
    let caller = Caller::new(
        vec![retrying(0)],
        &[(WEB, vec![endpoint("web-0", nobody().await), endpoint("web-1", nobody().await)])],
    )
    .await;
    let (response, _) = caller.get("/").await;
    assert_eq!(reason(&response), Some("upstream-connect"));
    let tried: u64 = caller.telemetry.routes().iter().map(|(_, counters)| counters.connect_failures()).sum();
    assert_eq!(tried, 1);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_sent_once_and_whole() {
    let app = recovering(1).await;
    let caller = Caller::new(vec![retrying(3)], &[(WEB, vec![app.endpoint("web-0")])]).await;
    for (length, status, requests) in [(MAX_REPLAY_BYTES + 1, 503, 1), (MAX_REPLAY_BYTES, 200, 2)] {
        let body = Bytes::from(vec![b'x'; length]);
        let (response, answer) = read(caller.send(post("/", body)).await).await;
        assert_eq!((response.status().as_u16(), answer.len()), (status, length));
        assert_eq!(app.requests(), requests);
    }
}

#[tokio::test]
async fn an_attempt_that_runs_into_its_limit_makes_room_for_the_next() {
    let first = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let app = App::start(move |_| {
        let first = first.clone();
        async move {
            if first.swap(false, Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Response::new(Body::from("late but here".to_owned()))
        }
    })
    .await;
    let timeouts = Timeouts { request: None, backend_request: Some(Duration::from_millis(100)) };
    let endpoints = [(WEB, vec![app.endpoint("web-0")])];
    let caller = Caller::new(vec![Rule { timeouts, ..retrying(1) }], &endpoints).await;
    assert_eq!(caller.get("/").await.1, "late but here");
}

#[tokio::test]
async fn all_attempts_end_with_the_requests_time() {
    let app = recovering(usize::MAX).await;
    let timeouts = Timeouts { request: Some(Duration::from_millis(200)), backend_request: None };
    let endpoints = [(WEB, vec![app.endpoint("web-0")])];
    let caller = Caller::new(vec![Rule { timeouts, ..retrying(1000) }], &endpoints).await;
    let begin = Instant::now();
    let (response, _) = caller.get("/").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (504, Some("timeout")));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(app.requests() < 5);
}

/// A server that answers the first request of each connection, and closes it when it has read the second. Says how many
/// requests it dropped so.
async fn forgetful() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let (listener, address) = listen().await;
    let dropped = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = dropped.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                mesh::say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                read_head(&mut stream).await;
                counted.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (address, dropped)
}

#[tokio::test]
async fn a_kept_connection_that_ends_without_a_byte_is_replaced_for_idempotent_methods_alone() {
    for (method, again) in [("GET", true), ("PUT", true), ("DELETE", true), ("POST", false), ("PATCH", false)]
    {
        let (address, dropped) = forgetful().await;
        let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
        assert_eq!(caller.get("/").await.1, "ok");
        let request =
            Request::builder().method(method).uri("/").header("host", "web").body(Body::Empty).unwrap();
        let (response, _) = read(caller.send(request).await).await;
        assert_eq!(response.status(), if again { 200 } else { 502 }, "{method}");
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "{method}");
    }
}

#[tokio::test]
async fn zero_attempts_leave_a_stale_connections_request_where_it_is() {
    let (address, _) = forgetful().await;
    let caller = Caller::new(vec![retrying(0)], &[(WEB, vec![endpoint("web-0", address)])]).await;
    assert_eq!(caller.get("/").await.1, "ok");
    assert_eq!(reason(&caller.get("/").await.0), Some("upstream-reset"));
}

/// The race between an idle connection's end and the next request, over and over: none may fail, for none was
/// written.
#[tokio::test]
async fn a_server_that_closes_idle_connections_at_once_costs_no_request() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_head(&mut stream).await;
                mesh::say(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            });
        }
    });
    let caller = Caller::new(Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    for _ in 0..200 {
        let (response, body) = read(caller.send(post("/", Body::Empty)).await).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (200, "ok"));
    }
}
