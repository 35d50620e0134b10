//! `/healthz`, `/ready`, `/metrics`, and on loopback `/status`.
//!
//! `/healthz` answers as long as the process gets its turn: a controller without an API server or a CA is well, and a busy one is only slow.
//!
//! On a cluster the port is open to the pod's network, for the kubelet's probes and for scrapes. What sidecars talk to is nobody else's business: `/status` is
//! for callers from the pod itself, as port forwards are.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use gamut_identity::Identity;
use gamut_metrics::Page;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};
use tracing::{debug, warn};

use crate::{engine::Handle, metrics};

/// How long a client may take over a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, engine: Handle, identity: Identity) -> Infallible {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("can't accept a connection on the admin port: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (engine, identity) = (engine.clone(), identity.clone());
        let local = from.ip().to_canonical().is_loopback();
        let service = service_fn(move |request: Request<Incoming>| {
            let (engine, identity) = (engine.clone(), identity.clone());
            async move { Ok::<_, Infallible>(answer(&request, local, &engine, &identity).await) }
        });
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                debug!("admin connection: {error}");
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, local: bool, engine: &Handle, identity: &Identity) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET | &Method::HEAD, "/ready") => ready(engine, identity),
        (&Method::GET | &Method::HEAD, "/metrics") => metrics(engine, identity).await,
        (&Method::GET | &Method::HEAD, "/status") if local => status(engine).await,
        (&Method::GET | &Method::HEAD, "/status") => {
            text(StatusCode::FORBIDDEN, "/status is for callers on loopback, such as a port forward\n")
        }
        (&Method::GET | &Method::HEAD, _) => {
            text(StatusCode::NOT_FOUND, "there are /healthz, /ready, /metrics and /status\n")
        }
        _ => text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n"),
    }
}

fn ready(engine: &Handle, identity: &Identity) -> Answer {
    let missing = [
        (!engine.is_synced(), "the objects that exist"),
        (identity.certificate().is_none(), "a certificate from the CA"),
    ];
    let missing: Vec<&str> = missing.iter().filter(|(is, _)| *is).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: waiting for {}\n", missing.join(" and ")))
}

async fn metrics(engine: &Handle, identity: &Identity) -> Answer {
    let mut page = Page::default();
    page.build(env!("CARGO_PKG_VERSION"));
    identity.render_metrics(&mut page);
    if let Some(status) = engine.status().await {
        metrics::render(&mut page, &status);
    }
    with_type(StatusCode::OK, Page::CONTENT_TYPE, page.finish())
}

async fn status(engine: &Handle) -> Answer {
    let Some(status) = engine.status().await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the controller is shutting down\n");
    };
    match serde_json::to_string_pretty(&status) {
        Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("this can't be shown: {error}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
