//! Spans on their way to a collector, by OTLP over gRPC or HTTP.
//!
//! They are sent in batches. What a collector doesn't take within its time is given up: traces are samples, and a sidecar
//! must not grow because a collector is away.

mod message;
mod span;

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::{client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use self::message::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue, Resource,
    ResourceSpans, ScopeSpans, Span,
};
use super::Record;
use crate::telemetry::Workload;

/// How many spans wait to be sent.
const QUEUE: usize = 2048;
/// How many are sent at once.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const SENDING: Duration = Duration::from_secs(5);
/// The one call.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    protocol: Protocol,
    address: Uri,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// A text that names no collector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is not a collector's address such as grpc://collector.observability:4317 or http://collector.observability:4318/v1/traces"
)]
pub struct NotACollector(String);

/// Why a batch wasn't taken.
#[derive(Debug, Error)]
enum ExportError {
    #[error("it can't be reached: {0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(http::StatusCode),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{0}")]
    Grpc(#[from] tonic::Status),
    #[error("no request can be made: {0}")]
    Request(#[from] http::Error),
    #[error("it took longer than {} s", SENDING.as_secs())]
    TimedOut,
}

impl FromStr for Collector {
    type Err = NotACollector;

    fn from_str(text: &str) -> Result<Self, NotACollector> {
        let error = || NotACollector(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let protocol = match scheme {
            "grpc" => Protocol::Grpc,
            "http" => Protocol::Http,
            _ => return Err(error()),
        };
        let address: Uri = format!("http://{rest}").parse().map_err(|_| error())?;
        match address.port_u16() {
            Some(_) => Ok(Self { protocol, address }),
            None => Err(error()),
        }
    }
}

/// A way to the task that sends.
#[derive(Debug)]
pub(super) struct Exporter(mpsc::Sender<Span>);

/// The task that sends.
#[derive(Debug)]
pub(super) struct Exporting {
    spans: mpsc::Receiver<Span>,
    collector: Collector,
    resource: Resource,
}

impl Exporter {
    /// An exporter of spans of this workload, and its task.
    pub(super) fn new(collector: Collector, source: &Workload) -> (Self, Exporting) {
        let (sender, spans) = mpsc::channel(QUEUE);
        let attributes = vec![
            KeyValue::string("service.name", &source.name),
            KeyValue::string("service.namespace", &source.namespace),
        ];
        (Self(sender), Exporting { spans, collector, resource: Resource { attributes } })
    }

    /// Has a record's span sent; false if there was no room for it.
    pub(super) fn export(&self, record: &Record) -> bool {
        span::of(record).is_none_or(|span| self.0.try_send(span).is_ok())
    }
}

impl Exporting {
    /// Sends for as long as there is an [`Exporter`], and then what is left.
    pub(super) async fn run(mut self) {
        let mut fails = false;
        loop {
            let mut spans = Vec::new();
            if self.spans.recv_many(&mut spans, BATCH).await == 0 {
                return;
            }
            let gather = async {
                while spans.len() < BATCH {
                    match self.spans.recv().await {
                        Some(span) => spans.push(span),
                        None => break,
                    }
                }
            };
            tokio::select! {
                () = gather => {}
                () = sleep(GATHER) => {}
            }
            let count = spans.len();
            let sent = timeout(SENDING, self.send(spans)).await.unwrap_or(Err(ExportError::TimedOut));
            let failed = sent.is_err();
            match sent {
                Ok(()) if fails => tracing::info!("the collector of traces takes spans again"),
                Ok(()) => {}
                // Once, and not for each batch.
                Err(error) if !fails => {
                    let address = &self.collector.address;
                    tracing::warn!(%address, spans = count, "the collector of traces doesn't take spans: {error}");
                }
                Err(_) => {}
            }
            fails = failed;
        }
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), ExportError> {
        let scope =
            InstrumentationScope { name: "gamut".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        let request = ExportTraceServiceRequest { resource_spans };
        match self.collector.protocol {
            Protocol::Grpc => grpc(&self.collector.address, request).await,
            Protocol::Http => over_http(&self.collector.address, &request).await,
        }
    }
}

/// A connection for each batch: one a second at most, and none that a collector's restart could leave half open.
async fn grpc(address: &Uri, request: ExportTraceServiceRequest) -> Result<(), ExportError> {
    let mut client = Grpc::new(Endpoint::from(address.clone()).connect().await?);
    client.ready().await?;
    let codec = ProstCodec::<_, ExportTraceServiceResponse>::default();
    let path = PathAndQuery::from_static(EXPORT);
    let response = client.unary(tonic::Request::new(request), path, codec).await?;
    if let Some(partial) = response.into_inner().partial_success
        && partial.rejected_spans > 0
    {
        return Err(tonic::Status::invalid_argument(partial.error_message).into());
    }
    Ok(())
}

async fn over_http(address: &Uri, request: &ExportTraceServiceRequest) -> Result<(), ExportError> {
    let host = address.authority().map_or("", |authority| authority.as_str());
    let stream = TcpStream::connect(host).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = match address.path() {
        "" | "/" => "/v1/traces",
        path => path,
    };
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
        .body(Full::new(Bytes::from(request.encode_to_vec())))?;
    let sending = sender.send_request(request);
    let response = tokio::select! {
        response = sending => response?,
        // The connection ends only after its answer was read, unless it breaks, which is the request's error too.
        Err(error) = connection => return Err(error.into()),
    };
    match response.status() {
        status if status.is_success() => Ok(()),
        status => Err(ExportError::Status(status)),
    }
}

#[cfg(test)]
mod tests;
