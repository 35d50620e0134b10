//! The probe port: for the kubelet, which has no certificate and so could reach nothing of a strict pod.
//!
//! ```text
//! GET /ready                          this sidecar: certificate, policy and first tables are there
//! GET /app/<container>/<probe>        the app's own probe, carried out from inside the pod
//! ```
//!
//! The injector replaces the app's HTTP, TCP and gRPC probes by HTTP probes of these paths, and hands the
//! originals over ([`Probes`]). They are carried out against the pod's IP by the sidecar itself, whose
//! connections aren't redirected. Nothing else is reachable here: a path that the injector didn't write is
//! answered 404.

mod check;
mod insecure;

use std::{collections::BTreeMap, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use ::http::{Method, Request, Response, StatusCode, header, header::HeaderValue, request::Parts};
use gamut_identity::Identity;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    admin::readiness,
    drain::{Drain, Phase},
    http::{Body, HttpVersion, server},
    tables::Tables,
};

/// How long one request to the probe port may take altogether, whatever the probe allows.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a probe takes at most that states no `timeoutSeconds`. Its caller's own timer, 1 s by default, is
/// what counts; lifecycle hooks have none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The app's probes as they were before the injector rewrote them, by path on the probe port. As text: JSON,
/// each probe in the form of the Kubernetes API with its port as a number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Probes(BTreeMap<String, Probe>);

/// One probe, or one lifecycle hook. Fields about when to probe are the kubelet's and stay in the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// What is done.
    #[serde(flatten)]
    pub check: Check,
    /// How long it may take.
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Check {
    /// A GET that must be answered with 200 to 399.
    HttpGet(HttpGet),
    /// A connection that must be accepted.
    TcpSocket {
        /// The app's port.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check` that must be answered with SERVING.
    Grpc {
        /// The app's port.
        port: u16,
        /// The service that is asked about; empty: the server.
        #[serde(default)]
        service: Option<String>,
    },
}

/// A GET.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// The app's port.
    pub port: u16,
    /// Path and query; empty: `/`.
    #[serde(default)]
    pub path: String,
    /// In plaintext, or over TLS whose certificate nobody checks (as the kubelet doesn't).
    #[serde(default)]
    pub scheme: Scheme,
    /// Headers to send; a `Host` among them replaces the pod's IP.
    #[serde(default)]
    pub http_headers: Vec<Header>,
}

/// A probe's scheme.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plaintext.
    #[default]
    Http,
    /// TLS.
    Https,
}

/// A header of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Probes {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim().is_empty() { Ok(Self::default()) } else { serde_json::from_str(text) }
    }
}

impl Probes {
    /// Where a probe leads, by the path of its request, and how long it may take.
    fn get(&self, path: &str) -> Option<(&Check, Duration)> {
        let probe = self.0.get(path)?;
        let timeout = probe.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        Some((&probe.check, timeout.clamp(Duration::from_secs(1), LONGEST)))
    }
}

/// What the probe port needs.
#[derive(Debug)]
pub struct ProbePort {
    /// The app's probes.
    pub probes: Probes,
    /// The pod's address.
    pub pod: IpAddr,
    /// The sidecar isn't ready without a certificate,
    pub identity: Identity,
    /// and not without its policy and its first tables.
    pub tables: Tables,
}

impl ProbePort {
    /// Answers probes until the sidecar stops.
    pub async fn serve(self, listener: TcpListener, drain: Drain) {
        let port = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.reached(Phase::Closing) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let port = Arc::clone(&port);
                    let connection =
                        async move { tokio::time::timeout(LONGEST, port.serve_connection(stream)).await };
                    tokio::spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "no probe can be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream) {
        let service = move |request: Request<Body>| {
            let port = Arc::clone(&self);
            async move { port.answer(&request.into_parts().0).await }
        };
        if let Err(error) = server::serve(stream, HttpVersion::H1, service, std::future::pending()).await {
            tracing::debug!(%error, "a prober's connection broke");
        }
    }

    async fn answer(&self, request: &Parts) -> Response<Body> {
        let path = request.uri.path();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "probes are GET requests");
        }
        if path == "/ready" {
            let readiness = readiness(&self.identity, &self.tables);
            if readiness.ready {
                return text(StatusCode::OK, "ready");
            }
            let waiting = format!("not ready: waiting for {}", readiness.waiting_for.join(", "));
            return text(StatusCode::SERVICE_UNAVAILABLE, &waiting);
        }
        let Some((check, timeout)) = self.probes.get(path) else {
            return text(StatusCode::NOT_FOUND, "the injector wrote no probe of this path");
        };
        match check::run(check, self.pod, timeout, request.headers.get(header::USER_AGENT)).await {
            Ok(()) => text(StatusCode::OK, "the app's probe succeeded"),
            Err(failure) => {
                tracing::debug!(path, %failure, "the app's probe failed");
                text(failure.status(), &failure.to_string())
            }
        }
    }
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_the_api_writes_them() {
        let probes: Probes = r#"{
            "/app/web/readiness": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "X-Probe", "value": "yes"}]}, "timeoutSeconds": 3, "periodSeconds": 10},
            "/app/web/liveness": {"tcpSocket": {"port": 9090}, "failureThreshold": 3},
            "/app/web/startup": {"grpc": {"port": 7070, "service": null}, "timeoutSeconds": 0}
        }"#
        .parse()
        .unwrap();
        let (check, timeout) = probes.get("/app/web/readiness").unwrap();
        let Check::HttpGet(get) = check else { panic!("{check:?}") };
        assert_eq!((get.port, get.path.as_str(), get.scheme), (8080, "/healthz", Scheme::Https));
        assert_eq!(get.http_headers, [Header { name: "X-Probe".to_owned(), value: "yes".to_owned() }]);
        assert_eq!(timeout, Duration::from_secs(3));
        assert_eq!(
            probes.get("/app/web/liveness"),
            Some((&Check::TcpSocket { port: 9090 }, DEFAULT_TIMEOUT))
        );
        let grpc = Check::Grpc { port: 7070, service: None };
        assert_eq!(probes.get("/app/web/startup"), Some((&grpc, Duration::from_secs(1))));
        assert_eq!(probes.get("/app/web"), None);
    }

    #[test]
    fn no_probes_are_no_mistake_but_half_a_probe_is() {
        assert_eq!("".parse::<Probes>().unwrap(), Probes::default());
        assert!(r#"{"/app/web/readiness": {"timeoutSeconds": 1}}"#.parse::<Probes>().is_err());
        assert!(r#"{"/app/web/readiness": {"httpGet": {"port": "http"}}}"#.parse::<Probes>().is_err());
    }
}
