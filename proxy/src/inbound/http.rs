//! HTTP from mesh peers to the app: one request at a time, streamed both ways.

use std::{net::SocketAddr, sync::Arc};

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use gamut_identity::Peer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Inbound, Refusal, app::App};
use crate::{
    drain::{Leave, Phase},
    http::{
        Answer, Body, Carrier, HttpError, HttpVersion, Reason, SendError,
        answer::{Seen, is_grpc, strip_signals},
        body::Guard,
        headers::{BadAnswer, BadRequest, normalize_request, normalize_response, prepare_request},
        mux, server,
    },
    record::{Begun, End},
    tcp::BreakOff,
    telemetry::{Answered, Direction, InboundCounters, Method, Protocol},
};

/// Serves one peer's connection until it ends.
pub(super) async fn serve<IO>(inbound: Inbound, io: IO, carrier: Carrier, peer: Peer, destination: SocketAddr)
where
    IO: AsyncRead + AsyncWrite + BreakOff + Unpin + Send + 'static,
{
    let drain = inbound.0.drain.clone();
    let connection = Arc::new(Connection {
        app: inbound.0.apps.get(destination),
        authority: destination.to_string(),
        counters: inbound.0.telemetry.inbound(destination.port()),
        leave: drain.leave(),
        inbound,
        peer,
        carrier,
    });
    let telemetry = connection.inbound.0.telemetry.clone();
    let answer = move |request| Arc::clone(&connection).answer(request);
    let ended = match carrier {
        Carrier::H1 => {
            // An idle connection that closes now may do so under a request that is on its way: answers say it.
            let closing = drain.reached(Phase::Closing);
            server::serve(io, HttpVersion::H1, answer, closing).await
        }
        Carrier::MuxH1 | Carrier::MuxH2 | Carrier::H2 => {
            let h1 = carrier == Carrier::MuxH1;
            mux::server::serve(io, h1, answer, drain.next()).await.map_err(HttpError::from)
        }
    };
    if let Err(error) = ended {
        if let Some(code) = error.closed_for() {
            telemetry.http2_closed(Direction::Inbound, code);
        }
        tracing::debug!(%destination, %error, "a peer's connection broke");
    }
}

/// What all requests of a connection share.
struct Connection {
    inbound: Inbound,
    peer: Peer,
    carrier: Carrier,
    app: Arc<App>,
    /// What stands in for the host of a request that names none.
    authority: String,
    counters: Arc<InboundCounters>,
    leave: Leave,
}

/// An answer in place of the app's, and what the app has seen of the request.
struct Own {
    answer: Answer<'static>,
    seen: Seen,
}

impl Connection {
    async fn answer(self: Arc<Self>, mut request: Request<Body>) -> Response<Body> {
        let begin = Instant::now();
        let mut record =
            self.inbound.0.telemetry.recorder().begin(Direction::Inbound, &mut request).map(|begun| {
                let peer = self.peer.id.to_string();
                Box::new((begun, End { endpoint: Some(self.app.address()), peer, ..End::default() }))
            });
        self.inbound.0.drain.arrived();
        let grpc = is_grpc(request.headers());
        let method = request.method().into();
        let (mut response, own) = match self.forward(request).await {
            Ok(response) => (response, None),
            Err(Own { answer, seen }) => {
                let reason = answer.reason().as_str();
                self.inbound.0.telemetry.own_answer(Direction::Inbound, reason);
                tracing::debug!(destination = self.authority, peer = %self.peer.id, ?seen, "{answer}");
                if let Some(record) = &mut record {
                    record.1.why = answer.to_string();
                }
                (answer.to_sidecar(grpc, seen), Some(reason))
            }
        };
        if self.carrier == Carrier::H1
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && self.leave.is_due()
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let protocol = if grpc { Protocol::Grpc } else { Protocol::Http };
        let status = response.status().as_u16();
        // A trailers-only answer has gRPC's status in its head.
        let grpc_status = grpc_status(response.headers());
        let count = Count {
            connection: Arc::clone(&self),
            begin,
            method,
            protocol,
            status,
            grpc_status,
            own,
            record,
        };
        response.map(|body| body.guarded(count))
    }

    async fn forward(&self, request: Request<Body>) -> Result<Response<Body>, Own> {
        let destination = self.app.address();
        self.inbound.authorize(&self.peer, destination).map_err(Own::refused)?;

        let (mut head, body) = request.into_parts();
        let wishes = normalize_request(&mut head).map_err(Own::bad_request)?;
        let mut request = Request::from_parts(head, body);
        let version = match self.carrier {
            Carrier::MuxH2 | Carrier::H2 => HttpVersion::H2,
            Carrier::MuxH1 | Carrier::H1 => HttpVersion::H1,
        };
        prepare_request(&mut request, version, &wishes, &self.authority).map_err(Own::bad_request)?;

        let is_ending = self.inbound.0.drain.has_begun();
        let sent = self.app.send(version, request, is_ending).await;
        let response = sent.map_err(|error| Own::of_app(error, self.inbound.0.drain.has_begun()))?;
        let (mut head, body) = response.into_parts();
        normalize_response(&mut head).map_err(Own::bad_answer)?;
        // An app that speaks in a sidecar's name could make its callers send a request twice.
        strip_signals(&mut head.headers);
        if head.status == StatusCode::SWITCHING_PROTOCOLS && wishes.upgrade.is_none() {
            return Err(Own::unasked_upgrade());
        }
        Ok(Response::from_parts(head, body))
    }
}

impl Own {
    fn refused(refusal: Refusal) -> Self {
        let reason = if refusal == Refusal::NoPolicy { Reason::NoPolicy } else { Reason::Policy };
        Self { answer: Answer::new(reason, refusal), seen: Seen::Nothing }
    }

    /// Nobody would take it: not to be tried elsewhere, though the app hasn't seen it.
    fn bad_request(error: BadRequest) -> Self {
        Self { answer: Answer::new(error.reason(), error), seen: Seen::Perhaps }
    }

    fn bad_answer(error: BadAnswer) -> Self {
        let answer = Answer::new(Reason::AppReset, format_args!("the app behind this sidecar: {error}"));
        Self { answer, seen: Seen::Perhaps }
    }

    /// RFC 9110 section 15.2.2: a 101 answers an `Upgrade`, and this request had none.
    fn unasked_upgrade() -> Self {
        let why = "the app switched protocols, which the request hadn't asked for";
        Self { answer: Answer::new(Reason::AppReset, why), seen: Seen::Perhaps }
    }

    /// `is_ending`: so that a new connection which ends without a byte is one that the app didn't get to.
    fn of_app(error: SendError, is_ending: bool) -> Self {
        let (reason, seen) = match &error {
            SendError::Dial { .. } | SendError::Unsent { .. } => (Reason::AppConnect, Seen::Nothing),
            SendError::Refused(_) => (Reason::AppReset, Seen::Nothing),
            SendError::Stale(_) => (Reason::AppReset, Seen::NoAnswer),
            SendError::Silent(_) if is_ending => (Reason::AppReset, Seen::NoAnswer),
            SendError::Client(_) => (Reason::BadRequest, Seen::Perhaps),
            error if error.is_garbled() => (Reason::AppReset, Seen::Perhaps),
            SendError::Silent(_) | SendError::Broken(_) => (Reason::AppReset, Seen::Broken),
        };
        let answer = match error {
            SendError::Client(_) => Answer::new(reason, error),
            error => Answer::new(reason, format_args!("the app behind this sidecar: {error}")),
        };
        Self { answer, seen }
    }
}

/// Counts a request when its answer has ended or was given up.
struct Count {
    connection: Arc<Connection>,
    begin: Instant,
    method: Method,
    protocol: Protocol,
    status: u16,
    grpc_status: Option<u16>,
    own: Option<&'static str>,
    record: Option<Box<(Box<Begun>, End)>>,
}

impl Guard for Count {
    fn data(&mut self, data: &Bytes) {
        if let Some(record) = &mut self.record {
            record.1.bytes += data.len() as u64;
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let answered = Answered {
            method: self.method,
            protocol: self.protocol,
            status: self.status,
            grpc_status: self.grpc_status,
            elapsed: self.begin.elapsed(),
            own: self.own,
        };
        self.connection.counters.answered(Some(&self.connection.peer.id), answered);
        if let Some((begun, end)) = self.record.take().map(|record| *record) {
            begun.end(&answered, end);
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
