//! `/ready`, and on loopback `/status`, over plain HTTP. Both are served only once the CA answers.
//!
//! On a cluster the port is open to the pod's network, for the kubelet's probes; `/status` is for callers from the pod itself, as port
//! forwards are.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};
use tracing::{debug, warn};

use crate::status::Reporter;

/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, reporter: Reporter) -> Infallible {
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
        let reporter = reporter.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let answer = answer(&request, local, &reporter);
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

fn answer(request: &Request<Incoming>, local: bool, reporter: &Reporter) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/ready") => (StatusCode::OK, "ready\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/status") if local => {
            match serde_json::to_string_pretty(&reporter.status()) {
                Ok(json) => (StatusCode::OK, json + "\n"),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("this can't be shown: {error}\n")),
            }
        }
        (&Method::GET | &Method::HEAD, "/status") => {
            (StatusCode::FORBIDDEN, "/status is for callers on loopback, such as a port forward\n".to_owned())
        }
        _ => (StatusCode::NOT_FOUND, "there are /ready and /status\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
