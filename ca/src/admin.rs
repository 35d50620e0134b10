//! `/ready` over plain HTTP, for probes on the same machine. It is served only once the CA answers.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, time::sleep};
use tracing::{debug, warn};

/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("can't accept a connection for /ready: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        tokio::spawn(async move {
            let mut connection = http1::Builder::new();
            connection.timer(TokioTimer::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await {
                debug!("admin connection: {error}");
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/ready") => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::NOT_FOUND, "there is /ready\n"),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}
