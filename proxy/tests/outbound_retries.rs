//! What is tried again, where, and what never is. The oracle counts what backends got.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use caller::{App, Caller, breaking, endpoint, get, post, read, reason, rule};
use futures_util::future::join_all;
use gamut_controller_api::RetryBudget;
use gamut_proxy::{
    http::{Body, replay::MAX_REPLAY_BYTES},
    telemetry::BackendCounters,
};
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
    App::start(move |request: Request<Body>| {
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

#[tokio::test]
async fn a_refused_connection_goes_elsewhere_with_its_body_and_nobody_notices() {
    let app = recovering(0).await;
    for _ in 0..20 {
        let endpoints = vec![endpoint("web-0", nobody()), app.endpoint("web-1")];
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
        &[(WEB, vec![endpoint("web-0", nobody()), endpoint("web-1", nobody())])],
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
    // It ends in a pause, far from both of its ends.
    let timeouts = Timeouts { request: Some(Duration::from_secs(1)), backend_request: None };
    let retry = Retry { codes: vec![503], attempts: 1000, backoff: Duration::from_secs(30) };
    let endpoints = [(WEB, vec![app.endpoint("web-0")])];
    let caller =
        Caller::new(vec![Rule { timeouts, retry: Some(retry), ..rule(&[(WEB, 1)]) }], &endpoints).await;
    let (response, _) = caller.get("/").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (504, Some("timeout")));
    assert_eq!(app.requests(), 1);
}

/// A share of the retries, and how many are allowed whatever their share, in a time that is longer than a test.
fn budget(percent: u8, min_retries: u32) -> RetryBudget {
    let hour = Duration::from_secs(3600);
    RetryBudget { percent, interval: hour, min_retries, min_interval: hour }
}

/// `attempts` more for every 503, as fast as they can be.
fn storming(attempts: u32) -> Rule {
    let retry = Retry { codes: vec![503], attempts, backoff: Duration::from_millis(1) };
    Rule { retry: Some(retry), ..rule(&[(WEB, 1)]) }
}

/// How many were made, and how many a budget prevented, as metrics have it.
fn retries(caller: &Caller) -> (u64, u64) {
    let routes = caller.telemetry.routes();
    let sum = |of: fn(&BackendCounters) -> u64| routes.iter().map(|(_, counters)| of(counters)).sum();
    (sum(BackendCounters::retries), sum(BackendCounters::refused_retries))
}

/// Without the budget 200 requests are 800, as the backend goes down.
#[tokio::test]
async fn a_retry_storm_stays_within_the_backends_budget() {
    let app = recovering(usize::MAX).await;
    let endpoints = vec![app.endpoint("web-0")];
    let caller = Caller::new(vec![storming(3)], &[(WEB, endpoints.clone())]).await;
    caller.limit_retries(WEB, budget(20, 10), &endpoints);
    let mut told = 0;
    for _ in 0..200 {
        let (response, body) = caller.get("/").await;
        assert_eq!(response.status(), 503);
        if let Some(reason) = reason(&response) {
            assert_eq!(reason, "retry-budget");
            assert!(body.contains("service/shop/web:80 isn't tried again"), "{body}");
            assert!(body.ends_with("the last attempt: answered 503 Service Unavailable\n"), "{body}");
            told += 1;
        }
    }
    // A fifth of all 250. The endpoint said 503 itself to those that had all of their four attempts.
    assert_eq!(app.requests(), 250);
    assert_eq!(retries(&caller), (50, told));
    assert!(told > 150, "{told}");
}

#[tokio::test]
async fn requests_that_come_all_at_once_have_the_same_budget() {
    let app = recovering(usize::MAX).await;
    let endpoints = vec![app.endpoint("web-0")];
    let caller = Caller::new(vec![storming(3)], &[(WEB, endpoints.clone())]).await;
    caller.limit_retries(WEB, budget(20, 10), &endpoints);
    let answers = join_all((0..200).map(|_| caller.get("/"))).await;
    assert!(answers.iter().all(|(response, _)| response.status() == 503));
    let (made, refused) = retries(&caller);
    assert_eq!(app.requests() as u64, 200 + made);
    assert!((10..=50).contains(&made) && refused > 0, "{made} made, {refused} refused");
}

#[tokio::test]
async fn a_spent_budget_is_answered_503_whatever_the_last_attempt_was() {
    let (address, taken) = breaking().await;
    let endpoints = vec![endpoint("web-0", address)];
    let caller = Caller::new(vec![storming(3)], &[(WEB, endpoints.clone())]).await;
    caller.limit_retries(WEB, budget(0, 1), &endpoints);
    let (response, body) = caller.get("/").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("retry-budget")), "{body}");
    assert_eq!(taken.load(Ordering::SeqCst), 2, "one retry was left");
    // What nothing would have been tried about is answered as ever.
    let (response, _) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
    assert_eq!((response.status().as_u16(), reason(&response)), (502, Some("upstream-reset")));
}

#[tokio::test]
async fn rules_of_one_backend_share_its_budget_and_a_new_endpoint_is_no_new_budget() {
    let app = recovering(usize::MAX).await;
    let endpoints = vec![app.endpoint("web-0")];
    let caller = Caller::new(vec![storming(1)], &[(WEB, endpoints.clone())]).await;
    caller.limit_retries(WEB, budget(0, 2), &endpoints);
    caller.get("/").await;
    caller.replace(vec![storming(2)]);
    caller.limit_retries(WEB, budget(0, 2), &[app.endpoint("web-1")]);
    assert_eq!(reason(&caller.get("/").await.0), Some("retry-budget"));
    assert_eq!(app.requests(), 4, "two requests and two retries");
}

/// No app gets a request once more by this, and a Deployment that shrinks would cost requests otherwise.
#[tokio::test]
async fn what_an_endpoint_did_nothing_about_moves_on_without_a_budget() {
    let app = recovering(0).await;
    let mut gone = Vec::new();
    for pod in ["web-0", "web-1", "web-2"] {
        gone.push(endpoint(pod, nobody()));
    }
    gone.push(app.endpoint("web-3"));
    let caller = Caller::new(Vec::new(), &[(WEB, gone.clone())]).await;
    caller.limit_retries(WEB, budget(0, 1), &gone);
    for _ in 0..20 {
        let (response, _) = read(caller.send(post("/", Body::from("order".to_owned()))).await).await;
        assert_eq!(response.status(), 200);
    }
    let (made, refused) = retries(&caller);
    assert!(made > 1, "{made}");
    assert_eq!(refused, 0);
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
