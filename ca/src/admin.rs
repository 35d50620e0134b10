//! `/healthz`, `/ready`, `/metrics`, and on loopback `/status`, over plain HTTP.
//!
//! `/healthz` answers as long as the process gets its turn: a CA that waits for its key, or for the API server, is well. The others have something to say only
//! once the CA answers.
//!
//! On a cluster the port is open to the pod's network, for the kubelet's probes and for scrapes; `/status` is for callers from the pod itself, as port
//! forwards are.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use gamut_identity::Identity;
use gamut_metrics::Page;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};
use tracing::{debug, warn};

use crate::{current::Current, metrics::Metrics, status::Reporter};

/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is shown.
pub(crate) struct Pages {
    pub(crate) reporter: Reporter,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) authority: Current,
    pub(crate) identity: Identity,
}

/// Answers until it is dropped. There are no pages before the CA has its key.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<OnceLock<Pages>>) -> Infallible {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("can't accept a connection on the admin port: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let local = from.ip().to_canonical().is_loopback();
        let pages = pages.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let answer = answer(pages.get(), &request, local);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
                debug!("admin connection: {error}");
            }
        });
    }
}

fn answer(pages: Option<&Pages>, request: &Request<Incoming>, local: bool) -> Response<Full<Bytes>> {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    match (request.uri().path(), pages) {
        ("/healthz", _) if asks => text(StatusCode::OK, "ok\n"),
        ("/status", _) if asks && !local => {
            text(StatusCode::FORBIDDEN, "/status is for callers on loopback, such as a port forward\n")
        }
        ("/ready" | "/metrics" | "/status", None) if asks => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: waiting for the signing key; the log says why\n",
        ),
        ("/ready", Some(_)) if asks => text(StatusCode::OK, "ready\n"),
        ("/metrics", Some(pages)) if asks => with_type(StatusCode::OK, Page::CONTENT_TYPE, pages.metrics()),
        ("/status", Some(pages)) if asks => match serde_json::to_string_pretty(&pages.reporter.status()) {
            Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("this can't be shown: {error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /healthz, /ready, /metrics and /status\n"),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

impl Pages {
    fn metrics(&self) -> String {
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        self.identity.render_metrics(&mut page);
        self.metrics.render(&mut page, self.authority.load().not_after());
        page.finish()
    }
}
