//! What rules do to requests, and the answers that the proxy makes itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::time::Duration;

use caller::{App, Caller, header, post, read, reason, rule, table};
use gamut_proxy::http::Body;
use gamut_route::{
    filter::{Cors, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite},
    table::{BackendTarget, Match, Outcome, PathMatch, RankedMatch, Rule, Split, Timeouts},
};
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh::{nobody, read_rest, say};
use tokio::sync::mpsc;

const WEB: &str = "shop/web:80";

fn filtered(filters: Vec<Filter>) -> Rule {
    Rule { filters, ..rule(&[(WEB, 1)]) }
}

fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    HeaderEdits { set: pairs(set), add: pairs(add), remove: remove.iter().map(|n| (*n).to_owned()).collect() }
}

/// A backend that reports the heads of its requests.
async fn reporting() -> (App, mpsc::UnboundedReceiver<http::request::Parts>) {
    let (sender, heads) = mpsc::unbounded_channel();
    let app = App::start(move |request: Request<Body>| {
        sender.send(request.into_parts().0).unwrap();
        async {
            Response::builder()
                .header("x-app", "1")
                .header("server", "app")
                .body(Body::from("ok".to_owned()))
                .unwrap()
        }
    });
    (app.await, heads)
}

#[tokio::test]
async fn headers_host_and_path_are_edited_on_the_way_and_headers_on_the_way_back() {
    let (app, mut heads) = reporting().await;
    let mut rule = filtered(vec![
        Filter::RequestHeaders(edits(&[("x-set", "rule")], &[("x-add", "2")], &["x-gone"])),
        Filter::ResponseHeaders(edits(&[("server", "gamut")], &[], &["x-app"])),
        Filter::Rewrite(Rewrite {
            hostname: Some("other.example".to_owned()),
            path: Some(PathRewrite::Prefix("/v2".to_owned())),
        }),
    ]);
    if let Outcome::Forward(split) = &mut rule.outcome {
        split.backends[0].filters = vec![Filter::RequestHeaders(edits(&[("x-backend", "1")], &[], &[]))];
    }
    let mut table = table(vec![rule]);
    table.http.matches[0].when.path = PathMatch::Prefix("/v1".to_owned());
    let caller = Caller::with(table, &[(WEB, vec![app.endpoint("web-0")])]).await;
    let request =
        Request::get("/v1/cart?id=1").header("host", "web").header("x-gone", "1").header("x-add", "1");
    let (response, _) = read(caller.send(request.body(Body::Empty).unwrap()).await).await;
    let head = heads.recv().await.unwrap();
    assert_eq!(head.uri, "/v2/cart?id=1");
    assert_eq!(head.headers["host"], "other.example");
    assert_eq!(head.headers["x-set"], "rule");
    assert_eq!(head.headers["x-add"], "1,2");
    assert_eq!(head.headers["x-backend"], "1");
    assert!(!head.headers.contains_key("x-gone"));
    assert_eq!(header(&response, "server"), Some("gamut"));
    assert_eq!(header(&response, "x-app"), None);
}

#[tokio::test]
async fn one_path_is_matched_and_forwarded() {
    let (app, mut heads) = reporting().await;
    let mut table = table(vec![rule(&[(WEB, 1)])]);
    table.http.matches[0].when.path = PathMatch::Prefix("/admin".to_owned());
    let caller = Caller::with(table, &[(WEB, vec![app.endpoint("web-0")])]).await;
    for path in ["/admin/x", "/a/../admin/x", "/%61dmin/x"] {
        assert_eq!(caller.get(path).await.0.status(), 200, "{path}");
        assert_eq!(heads.recv().await.unwrap().uri, "/admin/x", "{path}");
    }
    assert_eq!(caller.get("/admin/../x").await.0.status(), 404);
    for path in ["/admin/..;/x", "/a%00", "/a%2"] {
        assert_eq!(reason(&caller.get(path).await.0), Some("bad-request"), "{path}");
    }
}

#[tokio::test]
async fn a_redirect_is_the_answer() {
    let redirect = Redirect {
        scheme: Some("https".to_owned()),
        hostname: Some("example.org".to_owned()),
        path: None,
        port: None,
        status: 301,
    };
    let caller = Caller::new(vec![filtered(vec![Filter::Redirect(redirect)])], &[(WEB, Vec::new())]).await;
    let (response, _) = caller.get("/a?b").await;
    assert_eq!(response.status(), 301);
    assert_eq!(header(&response, "location"), Some("https://example.org/a?b"));
}

#[tokio::test]
async fn cors_answers_preflights_and_marks_answers() {
    let (app, mut heads) = reporting().await;
    let cors = Cors {
        allow_origins: vec!["https://shop.example".to_owned()],
        allow_methods: vec!["PUT".to_owned()],
        max_age: Duration::from_secs(5),
        ..Cors::default()
    };
    let caller =
        Caller::new(vec![filtered(vec![Filter::Cors(cors)])], &[(WEB, vec![app.endpoint("web-0")])]).await;
    let asking = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/")
            .header("host", "web")
            .header("origin", "https://shop.example")
    };
    let preflight =
        asking("OPTIONS").header("access-control-request-method", "PUT").body(Body::Empty).unwrap();
    let (response, _) = read(caller.send(preflight).await).await;
    assert_eq!(header(&response, "access-control-allow-methods"), Some("PUT"));
    assert!(heads.try_recv().is_err(), "a preflight goes no further");
    let (response, _) = read(caller.send(asking("PUT").body(Body::Empty).unwrap()).await).await;
    assert_eq!(header(&response, "access-control-allow-origin"), Some("https://shop.example"));
}

#[tokio::test]
async fn a_mirror_gets_the_whole_request_and_its_answer_matters_to_nobody() {
    let app = App::named("web").await;
    let (sender, mut copies) = mpsc::unbounded_channel();
    let shadow = App::start(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let (head, body) = request.into_parts();
            sender.send((head, body.collect().await.unwrap().to_bytes())).unwrap();
            Response::builder().status(500).body(Body::Empty).unwrap()
        }
    })
    .await;
    let mirror = Mirror { backend: "service/shop/shadow:80".parse().unwrap(), numerator: 1, denominator: 1 };
    let caller = Caller::new(
        vec![filtered(vec![Filter::Mirror(mirror)])],
        &[(WEB, vec![app.endpoint("web-0")]), ("shop/shadow:80", vec![shadow.endpoint("shadow-0")])],
    )
    .await;
    let (response, body) = read(caller.send(post("/order", Body::from("one book".to_owned()))).await).await;
    assert_eq!((response.status().as_u16(), body.as_str()), (200, "web"));
    let (head, body) = copies.recv().await.unwrap();
    assert_eq!((head.method.as_str(), head.uri.path(), &body[..]), ("POST", "/order", &b"one book"[..]));
}

#[tokio::test]
async fn what_goes_nowhere_is_answered_with_status_reason_rule_and_cause() {
    let invalid = BackendTarget::Invalid("Service shop/nothing does not exist".to_owned());
    let mut to_nowhere = rule(&[(WEB, 1)]);
    to_nowhere.outcome = Outcome::Forward(Split {
        backends: vec![gamut_route::table::Backend {
            target: invalid,
            weight: 1,
            filters: Vec::new(),
            session: None,
        }],
    });
    let broken = Filter::RequestHeaders(edits(&[("not a name", "1")], &[], &[]));
    for (rule, status, expected, cause) in [
        (rule(&[(WEB, 1)]), 503, "no-endpoint", "service/shop/web:80 has no endpoint that takes traffic"),
        (rule(&[(WEB, 0)]), 500, "no-backend", "no backend has a weight above 0"),
        (to_nowhere, 500, "invalid-backend", "Service shop/nothing does not exist"),
        (
            Rule { outcome: Outcome::Fail("no backendRefs".to_owned()), ..rule(&[]) },
            500,
            "invalid-rule",
            "no backendRefs",
        ),
        (filtered(vec![broken]), 500, "invalid-rule", "\"not a name\" is not the name of an HTTP header"),
    ] {
        let caller = Caller::new(vec![rule], &[(WEB, Vec::new())]).await;
        let (response, body) = caller.get("/").await;
        assert_eq!((response.status().as_u16(), reason(&response)), (status, Some(expected)));
        assert_eq!(body, format!("gamut: {expected}: httproute/shop/web rule 0 (all): {cause}\n"));
    }
}

#[tokio::test]
async fn no_rule_is_404_and_no_connection_is_503() {
    let mut table = table(vec![rule(&[(WEB, 1)])]);
    table.http.matches = vec![RankedMatch {
        when: Match { path: PathMatch::Exact("/here".to_owned()), ..Match::default() },
        rule: 0,
    }];
    let caller = Caller::with(table, &[(WEB, vec![caller::endpoint("web-0", nobody())])]).await;
    let (response, body) = caller.get("/there").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (404, Some("no-route")));
    assert_eq!(body, "gamut: no-route: no rule for shop/web:80 matches the request\n");
    let (response, body) = caller.get("/here").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("upstream-connect")));
    assert!(body.contains("Connection refused"), "{body}");
}

#[tokio::test]
async fn requests_that_no_proxy_may_pass_on_are_refused() {
    let (app, mut heads) = reporting().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    for (request, status) in [
        ("CONNECT web:443 HTTP/1.1\r\nhost: web\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: web\r\nhost: other\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nhost: web\r\ncontent-length: +5\r\n\r\nhello", "400"),
        ("GET / HTTP/1.1\r\nhost : web\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
    ] {
        let mut client = caller.dial().await;
        say(&mut client, &request.replacen("\r\n", "\r\nconnection: close\r\n", 1)).await;
        let answer = read_rest(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request:?} {answer:?}");
    }
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn a_length_that_contradicts_the_chunks_is_not_passed_on() {
    let (app, mut heads) = reporting().await;
    let caller = Caller::new(Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    let mut client = caller.dial().await;
    say(
        &mut client,
        "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n0\r\n\r\n",
    )
    .await;
    read_rest(&mut client).await;
    if let Ok(head) = heads.try_recv() {
        // RFC 9112 section 6.3: chunks win, and the length must be removed.
        assert!(!head.headers.contains_key("content-length"), "{head:?}");
    }
}

#[tokio::test]
async fn the_time_limit_of_a_request_holds_to_its_answers_end() {
    let slow = App::start(|request: Request<Body>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        // A body that never ends: the client's own, which it never finishes.
        Response::new(request.into_body())
    })
    .await;
    let timeouts = Timeouts { request: Some(Duration::from_millis(200)), backend_request: None };
    let caller =
        Caller::new(vec![Rule { timeouts, ..rule(&[(WEB, 1)]) }], &[(WEB, vec![slow.endpoint("web-0")])])
            .await;
    let (response, body) = caller.get("/never").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (504, Some("timeout")));
    assert!(body.contains("200ms"), "{body}");

    let mut client = caller.dial().await;
    say(&mut client, "POST /echo HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    let answer = read_rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_tap_sees_what_was_asked_who_answered_and_why_nobody_did() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (app, mut heads) = reporting().await;
    let mut table = table(vec![rule(&[(WEB, 1)])]);
    table.http.matches[0].when.path = PathMatch::Prefix("/v1".to_owned());
    let caller = Caller::with(table, &[(WEB, vec![app.endpoint("web-0")])]).await;
    let mut last = Some(caller.taps.after(None).await.last);
    for (path, status) in [("/v1/cart?token=1", 200), ("/v2", 404)] {
        let request = Request::get(path).header("host", "web").header("traceparent", TRACE);
        let asking = async { read(caller.send(request.body(Body::Empty).unwrap()).await).await };
        let (tapped, (response, _)) = tokio::join!(caller.taps.after(last), asking);
        assert_eq!(response.status(), status);
        let [record] = tapped.records.as_slice() else { panic!("{tapped:?}") };
        assert_eq!((record.method.as_str(), record.host.as_str(), record.status), ("GET", "web", status));
        assert_eq!((record.parent.as_str(), record.trace_id.as_str()), (WEB, &TRACE[3..35]));
        if status == 200 {
            assert_eq!((record.path.as_str(), record.bytes), ("/v1/cart", 2));
            assert_eq!(record.backend, "service/shop/web:80");
            assert!(record.endpoint.is_some() && record.pod.ends_with("/web-0"), "{record:?}");
            // Nobody exports spans: the context goes on as it came.
            assert_eq!(heads.recv().await.unwrap().headers["traceparent"], TRACE);
        } else {
            assert_eq!((record.reason.as_str(), record.bytes), ("no-route", 0));
            assert!(record.why.contains("no rule for shop/web:80"), "{record:?}");
        }
        last = Some(tapped.last);
    }
}
