//! The admin port: `/ready`, `/healthz`, `/metrics`, and on loopback `/status`, over plain HTTP.
//!
//! On a cluster the port is open to the pod's network, for scrapes. Which pods lack a sidecar is nobody else's business.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use gamut_identity::Identity;
use gamut_injector::INJECT;
use gamut_metrics::Page;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::watch, time::sleep};
use tracing::{debug, warn};

use crate::{
    follow::Problems,
    metrics::Metrics,
    namespaces::{Known, Namespaces},
    pod_security,
    reconcile::Report,
    serve::{Webhook, ready, text, with_type},
    status::{CaBundle, ForbiddingNamespace, InjectorStatus, OwnCertificate},
};

/// How long a client may take over a request's head.
const HEAD: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is asked about here.
pub(crate) struct Admin {
    pub(crate) identity: Identity,
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) namespaces: Namespaces,
    pub(crate) ca_bundle: watch::Receiver<CaBundle>,
    pub(crate) without_sidecar: watch::Receiver<Report>,
    pub(crate) problems: Problems,
}

impl Admin {
    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self, listener: TcpListener) -> Infallible {
        let admin = Arc::new(self);
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("can't accept a connection on the admin port: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let admin = admin.clone();
            let local = from.ip().to_canonical().is_loopback();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = admin.answer(&request, local);
                async move { Ok::<_, Infallible>(answer) }
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

    fn answer(&self, request: &Request<Incoming>, local: bool) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        }
        match request.uri().path() {
            "/ready" => ready(&self.webhook.missing(&self.identity)),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/metrics" => with_type(StatusCode::OK, Page::CONTENT_TYPE, self.metrics()),
            "/status" if !local => {
                text(StatusCode::FORBIDDEN, "/status is for callers on loopback, such as a port forward")
            }
            "/status" => match serde_json::to_string_pretty(&self.status()) {
                Ok(json) => with_type(StatusCode::OK, "application/json", json + "\n"),
                Err(error) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("this can't be shown: {error}"))
                }
            },
            _ => text(StatusCode::NOT_FOUND, "there are /ready, /healthz, /metrics and /status"),
        }
    }

    fn status(&self) -> InjectorStatus {
        let without_sidecar = self.without_sidecar.borrow();
        let own = self.identity.status().borrow().clone();
        InjectorStatus {
            ready: self.webhook.missing(&self.identity).is_empty(),
            certificate: own.certificate.map(|certificate| OwnCertificate {
                serial: certificate.serial().to_owned(),
                not_after: Timestamp::try_from(certificate.not_after()).unwrap_or_default().to_string(),
            }),
            certificate_problem: own.problem.map(|problem| problem.to_string()),
            ca_bundle: self.ca_bundle.borrow().clone(),
            without_sidecar: without_sidecar.listed.clone(),
            without_sidecar_total: without_sidecar.counts.values().sum(),
            problems: self.problems.lines(),
            pod_security: forbidding(&self.namespaces.subscribe().borrow()),
        }
    }

    fn metrics(&self) -> String {
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        self.identity.render_metrics(&mut page);
        let is_written = matches!(*self.ca_bundle.borrow(), CaBundle::Written { .. });
        self.metrics.render(&mut page, &self.without_sidecar.borrow().counts, is_written);
        page.finish()
    }
}

/// Namespaces that ask for sidecars and refuse them.
fn forbidding(known: &Known) -> Vec<ForbiddingNamespace> {
    let asks = |labels: &BTreeMap<String, String>| labels.get(INJECT).is_some_and(|value| value == "enabled");
    let asking = known.by_name.iter().filter(|(_, namespace)| asks(&namespace.view.labels));
    let forbidding = asking.filter_map(|(name, namespace)| {
        let level = pod_security::forbidding(&namespace.view.labels)?;
        Some(ForbiddingNamespace { namespace: name.clone(), level: level.to_owned() })
    });
    forbidding.collect()
}
