//! The page's HTTP server: on loopback, for this machine's browser, and for reading only.
//!
//! Any web page that the browser has open may send requests here. What keeps it from reading the answers: no
//! `Access-Control-Allow-Origin`, a `Host` that must be loopback's (a name of its own that it makes lead to 127.0.0.1 is
//! refused), and no frames. What keeps texts from the wire from becoming part of the page: a Content-Security-Policy that
//! allows our own files and nothing inline.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::{documents, live::Live};

/// How long a client may take over a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page itself: what it shows, its script makes of its address.
const INDEX: &str = include_str!("page/index.html");

/// The page's files, by name below `/static/`.
const FILES: [(&str, &str, &str); 7] = [
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("render.js", SCRIPT, include_str!("page/render.js")),
    ("words.js", SCRIPT, include_str!("page/words.js")),
    ("plot.js", SCRIPT, include_str!("page/plot.js")),
    ("views.js", SCRIPT, include_str!("page/views.js")),
];

/// On every answer.
const HEADERS: [(header::HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

type Answer = Response<Full<Bytes>>;

/// Serves for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, live: Arc<Live>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, live.clone()))),
            Err(error) => {
                tracing::warn!("can't accept a connection to the page: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, live: Arc<Live>) {
    let service = service_fn(|request| {
        let live = live.clone();
        async move { Ok::<_, Infallible>(answer(&request, &live).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!("connection to the page: {error}");
    }
}

async fn answer(request: &Request<Incoming>, live: &Live) -> Answer {
    if let Some(refusal) = refusal(request) {
        return refusal;
    }
    let path = request.uri().path();
    if let Some(document) = path.strip_prefix("/api/") {
        live.look().await;
        return api(document, live);
    }
    file(path)
}

/// Why a request isn't answered, if it isn't.
fn refusal<B>(request: &Request<B>) -> Option<Answer> {
    if !is_loopback(request.headers().get(header::HOST)) {
        let text =
            "this page is for the machine that it runs on: open it as http://127.0.0.1 or http://localhost\n";
        return Some(text_answer(StatusCode::FORBIDDEN, text));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Some(text_answer(
            StatusCode::METHOD_NOT_ALLOWED,
            "there is nothing to change here: only GET\n",
        ));
    }
    None
}

/// Whether a request was meant for loopback. The port may be another: that of a tunnel, for example.
fn is_loopback(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Names of Kubernetes' objects are the same in an address as they are, so nothing is decoded here.
fn api(document: &str, live: &Live) -> Answer {
    let path: Vec<&str> = document.split('/').collect();
    match documents::document(&live.state(), &path) {
        Ok(Some(json)) => with_type(StatusCode::OK, "application/json", json.into()),
        Ok(None) => text_answer(StatusCode::NOT_FOUND, "there is no such document\n"),
        Err(error) => {
            text_answer(StatusCode::INTERNAL_SERVER_ERROR, &format!("this can't be shown: {error}\n"))
        }
    }
}

fn file(path: &str) -> Answer {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] | ["services" | "pods", _, _] | ["routes", _, _, _] | ["routes" | "pods"] => {
            with_type(StatusCode::OK, HTML, Bytes::from_static(INDEX.as_bytes()))
        }
        ["static", name] => match FILES.iter().find(|(known, _, _)| known == name) {
            Some((_, content_type, text)) => {
                with_type(StatusCode::OK, content_type, Bytes::from_static(text.as_bytes()))
            }
            None => text_answer(StatusCode::NOT_FOUND, "there is no such file\n"),
        },
        _ => text_answer(StatusCode::NOT_FOUND, "there is no such page; begin at /\n"),
    }
}

fn text_answer(status: StatusCode, text: &str) -> Answer {
    with_type(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(text.as_bytes()))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, host: Option<&str>) -> Request<()> {
        let request = Request::builder().method(method);
        let request = host.into_iter().fold(request, |request, host| request.header(header::HOST, host));
        request.body(()).unwrap()
    }

    #[test]
    fn only_who_asks_for_loopback_is_answered() {
        for host in ["127.0.0.1", "127.0.0.1:15080", "localhost:9999", "LOCALHOST", "[::1]:80", "[::1]"] {
            assert!(refusal(&request(Method::GET, Some(host))).is_none(), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:15080",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "::1",
            "",
            "a@127.0.0.1",
        ] {
            let refusal = refusal(&request(Method::GET, Some(host))).map(|refusal| refusal.status());
            assert_eq!(refusal, Some(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(refusal(&request(Method::GET, None)).unwrap().status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn nothing_can_be_changed() {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT] {
            let refusal = refusal(&request(method, Some("localhost"))).map(|refusal| refusal.status());
            assert_eq!(refusal, Some(StatusCode::METHOD_NOT_ALLOWED));
        }
    }

    #[test]
    fn pages_are_one_file_and_what_is_not_there_is_said() {
        for path in
            ["/", "/routes", "/pods", "/services/shop/web", "/routes/HTTPRoute/shop/web", "/pods/shop/web-1"]
        {
            assert_eq!(file(path).headers()[header::CONTENT_TYPE], HTML, "{path}");
        }
        for path in ["/etc/passwd", "/static/../main.rs", "/static/", "/services", "//evil.example"] {
            assert_eq!(file(path).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn every_file_of_the_page_is_served_under_a_policy_that_allows_nothing_inline() {
        for (name, content_type, _) in FILES {
            let answer = file(&format!("/static/{name}"));
            assert_eq!(answer.headers()[header::CONTENT_TYPE], content_type);
            let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        }
    }

    /// Text is set as text: `render.js` alone makes elements, and it knows no other way.
    #[test]
    fn no_script_of_the_page_can_make_markup_of_text() {
        let ways = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "Function(",
            "srcdoc",
        ];
        for (name, _, text) in FILES {
            for way in ways {
                assert!(!text.contains(way), "{name} has {way}");
            }
            assert!(
                !text.contains("://") || name == "icon.svg" || text.contains("http://www.w3.org/2000/svg"),
                "{name}"
            );
        }
        assert!(!INDEX.contains("style=") && !INDEX.contains("onload"), "nothing inline");
    }
}
