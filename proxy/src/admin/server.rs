//! The HTTP server of the admin ports.

use std::{convert::Infallible, time::Duration};

use gamut_metrics::Page;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::{debug, warn};

use super::{
    Shown,
    metrics::metrics,
    status::{ProxyStatus, readiness},
};
/// How long a client may take over a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which pages a port has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pages {
    All,
    /// Only what anybody may see: the port is open to the cluster.
    Metrics,
}

type Answer = Response<Full<Bytes>>;

/// Serves a port for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, pages: Pages, shown: Shown) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, pages, shown.clone()))),
            Err(error) => {
                warn!("can't accept a connection on an admin port: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, pages: Pages, shown: Shown) {
    let service = service_fn(|request| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(answer(&request, pages, &shown).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        debug!("admin connection: {error}");
    }
}

async fn answer(request: &Request<Incoming>, pages: Pages, shown: &Shown) -> Answer {
    if let (&Method::POST, "/drain", Pages::All) = (request.method(), request.uri().path(), pages) {
        shown.drain.begin();
        return text(StatusCode::OK, "draining\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    match (request.uri().path(), pages) {
        ("/metrics", _) => with_type(StatusCode::OK, Page::CONTENT_TYPE, metrics(shown).await),
        ("/ready", Pages::All) => ready(shown),
        ("/status", Pages::All) => {
            json(&ProxyStatus::collect(&shown.identity, &shown.tables, &shown.telemetry).await)
        }
        ("/tap", Pages::All) => {
            let after = request.uri().query().and_then(|query| query.strip_prefix("after=")?.parse().ok());
            json(&shown.taps.after(after).await)
        }
        ("/config_dump", Pages::All) => match shown.tables.dump().await {
            Some(dump) => json(&dump),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the sidecar is shutting down\n"),
        },
        (_, Pages::All) => {
            text(StatusCode::NOT_FOUND, "there are /ready, /status, /config_dump, /tap and /metrics\n")
        }
        (_, Pages::Metrics) => text(StatusCode::NOT_FOUND, "there is only /metrics\n"),
    }
}

fn ready(shown: &Shown) -> Answer {
    let readiness = readiness(&shown.identity, &shown.tables);
    if readiness.ready {
        return text(StatusCode::OK, "ready\n");
    }
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: waiting for {}\n", readiness.waiting_for.join(", ")),
    )
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(value) {
        Ok(body) => with_type(StatusCode::OK, "application/json", body + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("this can't be shown: {error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}
