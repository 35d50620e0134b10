//! Telling a plaintext HTTP caller, in its own protocol, that it isn't served and what to do about it.

use std::{sync::Arc, time::Duration};

use ::http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};

use super::admit::Refusal;
use crate::{
    http::{Answer, Body, HttpVersion, Reason, answer::is_grpc, server},
    tcp::BreakOff,
    telemetry::{Direction, Telemetry},
};

/// How long the caller may take for its request and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers the first request on the connection and closes it.
pub(super) async fn answer<IO>(io: IO, version: HttpVersion, refusal: &Refusal, telemetry: &Telemetry)
where
    IO: AsyncRead + AsyncWrite + BreakOff + Unpin + Send + 'static,
{
    let reason = match refusal {
        Refusal::MtlsRequired { .. } => Reason::MtlsRequired,
        _ => Reason::NoPolicy,
    };
    let why: Arc<str> = refusal.to_string().into();
    let answered = Arc::new(Notify::new());
    let is_answered = Arc::clone(&answered);
    let service = move |request: Request<Body>| {
        is_answered.notify_one();
        let why = Arc::clone(&why);
        async move { Answer::new(reason, why).to_app(is_grpc(request.headers())) }
    };
    let serving = server::serve(io, version, service, answered.notified());
    match timeout(PATIENCE, serving).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => {
            if let Some(code) = error.closed_for() {
                telemetry.http2_closed(Direction::Inbound, code);
            }
            tracing::debug!(%error, "a refused caller didn't hear why");
        }
    }
}
