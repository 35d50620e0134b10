//! `/ready`, `/metrics`, and on loopback `/status`, over plain HTTP. All are served only once the CA answers.
//!
//! On a cluster the port is open to the pod's network, for the kubelet's probes and for scrapes; `/status` is for callers from the pod itself, as port
//! forwards are.

use std::{convert::Infallible, sync::Arc, time::Duration};

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
#[derive(Clone)]
pub(crate) struct Pages {
    pub(crate) reporter: Reporter,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) authority: Current,
    pub(crate) identity: Identity,
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, pages: Pages) -> Infallible {
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
            let answer = pages.answer(&request, local);
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

impl Pages {
    fn answer(&self, request: &Request<Incoming>, local: bool) -> Response<Full<Bytes>> {
        let text = |status, body: &str| (status, "text/plain; charset=utf-8", body.to_owned());
        let (status, content_type, body) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/ready") => text(StatusCode::OK, "ready\n"),
            (&Method::GET | &Method::HEAD, "/metrics") => {
                (StatusCode::OK, Page::CONTENT_TYPE, self.metrics())
            }
            (&Method::GET | &Method::HEAD, "/status") if local => {
                match serde_json::to_string_pretty(&self.reporter.status()) {
                    Ok(json) => (StatusCode::OK, "application/json", json + "\n"),
                    Err(error) => {
                        text(StatusCode::INTERNAL_SERVER_ERROR, &format!("this can't be shown: {error}\n"))
                    }
                }
            }
            (&Method::GET | &Method::HEAD, "/status") => {
                text(StatusCode::FORBIDDEN, "/status is for callers on loopback, such as a port forward\n")
            }
            _ => text(StatusCode::NOT_FOUND, "there are /ready, /metrics and /status\n"),
        };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    fn metrics(&self) -> String {
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        self.identity.render_metrics(&mut page);
        self.metrics.render(&mut page, self.authority.load().not_after());
        page.finish()
    }
}
