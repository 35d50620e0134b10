//! HTTPS for the API server: connections in, reviews answered.
//!
//! Anybody in the cluster can connect, so that everything is bounded: connections, their age, requests at once, the bytes of
//! bodies, and the time for each step. Whoever is too slow or too big gets an error and the API server none of it.
//!
//! Each handshake has the certificate of now, so that a renewal touches no connection that stands. At the end the server goes on
//! answering while the news of its end spreads, then asks clients to leave, then waits for what is going on.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use gamut_identity::{Identity, grpc};
use gamut_injector::Config;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::{
    admit::admit,
    metrics::Metrics,
    namespaces::Namespaces,
    review::{self, Verdict},
};

/// HTTP/2 first: the API server sends many requests over one connection.
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
/// The longest body. Kubernetes itself takes no longer request (`--max-request-body-bytes` of its API server).
const LONGEST: usize = 3 * 1024 * 1024;
/// How many bytes of bodies are in memory at once, in units of [`UNIT`]; further ones wait.
const BODIES: u32 = 64 * 1024;
/// Bytes.
const UNIT: usize = 1024;
/// How long a body may take to come, and how long it may have to wait for its turn.
const BODY: Duration = Duration::from_secs(4);
/// How long a request's head may take, over HTTP/1.
const HEAD: Duration = Duration::from_secs(10);
/// How many connections there are at once; further ones wait in the kernel.
const CONNECTIONS: usize = 512;
/// How long a connection is used. Then it is asked to leave, so that none outlives the certificate that it began with.
const AGE: Duration = Duration::from_secs(10 * 60);
/// How long a connection may take to leave.
const GRACE: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How many requests one connection may have going.
const STREAMS: u32 = 64;
/// How long connections are still accepted when the end has come: endpoints take that long to spread.
const LAME_DUCK: Duration = Duration::from_secs(5);

type Answer = Response<Full<Bytes>>;

/// What answers. Shared by all connections.
pub(crate) struct Webhook {
    namespaces: Namespaces,
    config: Config,
    metrics: Arc<Metrics>,
    bodies: Semaphore,
    stopping: watch::Sender<bool>,
}

impl Webhook {
    pub(crate) fn new(namespaces: Namespaces, config: Config, metrics: Arc<Metrics>) -> Arc<Self> {
        let (bodies, stopping) = (Semaphore::new(BODIES as usize), watch::Sender::new(false));
        Arc::new(Self { namespaces, config, metrics, bodies, stopping })
    }

    /// What is missing before it may be asked; nothing if it may.
    pub(crate) fn missing(&self, identity: &Identity) -> Vec<&'static str> {
        let missing = [
            (*self.stopping.borrow(), "its end: it is shutting down"),
            (identity.server_config_for_anyone(ALPN).is_err(), "a good certificate from the CA"),
            (!self.namespaces.are_listed(), "the list of namespaces"),
        ];
        missing.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect()
    }

    /// Serves until `stop` is ready and all that was going on is over.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        identity: Identity,
        stop: impl Future<Output = ()>,
    ) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let (leave, leaving) = watch::channel(false);
        let tls = identity.clone();
        let mut connections = pin!(grpc::incoming(listener, move || tls.server_config_for_anyone(ALPN)));
        let mut stop = pin!(async {
            stop.await;
            self.stopping.send_replace(true);
            info!(
                "shutting down: pods are answered for {} s more, while others take over",
                LAME_DUCK.as_secs()
            );
            sleep(LAME_DUCK).await;
        });
        loop {
            let next = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, connections.next().await)
            };
            let (slot, stream) = tokio::select! {
                () = &mut stop => break,
                next = next => match next {
                    (Ok(slot), Some(Ok(stream))) => (slot, stream),
                    (_, Some(Err(_))) => continue,
                    // Neither the semaphore nor the listener is ever closed before the end.
                    (Err(_), _) | (_, None) => break,
                },
            };
            let (webhook, identity, leaving) = (self.clone(), identity.clone(), leaving.clone());
            tokio::spawn(async move {
                webhook.connection(stream, identity, leaving).await;
                drop(slot);
            });
        }
        leave.send_replace(true);
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        // What takes longer is cut off.
        let _ = timeout(GRACE, slots.acquire_many(all)).await;
    }

    async fn connection(
        self: Arc<Self>,
        stream: grpc::Accepted,
        identity: Identity,
        mut leaving: watch::Receiver<bool>,
    ) {
        let service = service_fn(move |request| {
            let (webhook, identity) = (self.clone(), identity.clone());
            async move { Ok::<_, Infallible>(webhook.answer(request, &identity).await) }
        });
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            // An error means that nobody is left to ask.
            _ = leaving.wait_for(|leave| *leave) => None,
            () = sleep(AGE) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                timeout(GRACE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!("connection: {error}");
        }
    }

    async fn answer(&self, request: Request<Incoming>, identity: &Identity) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/inject") => match self.inject(request.into_body()).await {
                Ok(answer) => answer,
                Err((status, message)) => {
                    self.metrics.failed.fetch_add(1, Relaxed);
                    warn!(status = status.as_u16(), "{message}");
                    text(status, message)
                }
            },
            (&Method::GET | &Method::HEAD, "/ready") => ready(&self.missing(identity)),
            (&Method::GET | &Method::HEAD, "/healthz") => text(StatusCode::OK, "ok"),
            (_, "/inject" | "/ready" | "/healthz") => text(
                StatusCode::METHOD_NOT_ALLOWED,
                "POST /inject, GET /ready and GET /healthz are answered here",
            ),
            _ => text(StatusCode::NOT_FOUND, "there are /inject, /ready and /healthz"),
        }
    }

    /// One review. What is wrong with the request itself is an error, with its status.
    async fn inject(&self, body: Incoming) -> Result<Answer, (StatusCode, String)> {
        let too_long = || {
            let message = format!("the body is longer than {} MiB", LONGEST / 1024 / 1024);
            (StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let late = |what: &str| (StatusCode::REQUEST_TIMEOUT, format!("{what} within {} s", BODY.as_secs()));
        let declared = body.size_hint().exact().map(usize::try_from);
        let length = declared.map_or(LONGEST, |length| length.unwrap_or(usize::MAX));
        if length > LONGEST {
            return Err(too_long());
        }
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(BODIES).max(1);
        let turn = timeout(BODY, self.bodies.acquire_many(units)).await;
        let _turn = turn.map_err(|_| {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                format!("too many bodies at once: no turn within {} s", BODY.as_secs()),
            )
        })?;
        let read = timeout(BODY, Limited::new(body, LONGEST).collect()).await;
        let body = read.map_err(|_| late("the body didn't come"))?.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return too_long();
            }
            (StatusCode::BAD_REQUEST, format!("the body broke off: {}", review::one_line(&error.to_string())))
        })?;
        let request = review::read(&body.to_bytes());
        let request = request.map_err(|garbled| (StatusCode::BAD_REQUEST, garbled.to_string()))?;
        let verdict = admit(&request, &self.namespaces, &self.config).await;
        self.note(&request, &verdict);
        let body = review::answer(&request.uid, &verdict).to_string();
        Ok(with_type(StatusCode::OK, "application/json", body))
    }

    fn note(&self, request: &review::Request, verdict: &Verdict) {
        let (pod, dry_run) = (request.name(), request.dry_run);
        match verdict {
            Verdict::Injected { .. } => {
                self.metrics.injected.fetch_add(1, Relaxed);
                info!(pod, dry_run, "injected");
            }
            Verdict::Skipped { reason, .. } => {
                self.metrics.skipped.fetch_add(1, Relaxed);
                info!(pod, dry_run, "no sidecar: {reason}");
            }
            Verdict::Refused(message) => {
                self.metrics.refused.fetch_add(1, Relaxed);
                warn!(dry_run, "refused: {}", review::one_line(message));
            }
        }
    }
}

/// The answer to whoever asks whether we are ready.
pub(crate) fn ready(missing: &[&str]) -> Answer {
    match missing {
        [] => text(StatusCode::OK, "ready"),
        missing => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: waiting for {}", missing.join(" and ")))
        }
    }
}

/// A line of text.
pub(crate) fn text(status: StatusCode, line: impl Into<String>) -> Answer {
    with_type(status, "text/plain; charset=utf-8", line.into() + "\n")
}

/// A document.
pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
