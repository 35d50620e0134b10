//! Spans at a receiver over real sockets; [`foreign`] has one that isn't ours.

mod foreign;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    task::{Context, Poll},
};

use http_body_util::BodyExt as _;
use hyper::{body::Incoming, server, service::service_fn};
use tokio::{net::TcpListener, sync::mpsc::UnboundedSender};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    body::Body,
    server::{Grpc as Server, NamedService, UnaryService},
};

use super::{
    super::{Begun, End, Recorder, tests::answered, trace::Sampling},
    *,
};
use crate::telemetry::Direction;

type Received = ExportTraceServiceRequest;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The trace service.
#[derive(Clone)]
struct Receiver(UnboundedSender<Received>);

impl NamedService for Receiver {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Received> for Receiver {
    type Response = ExportTraceServiceResponse;
    type Future = Ready<Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<Received>) -> Self::Future {
        self.0.send(request.into_inner()).unwrap();
        ready(Ok(tonic::Response::new(ExportTraceServiceResponse::default())))
    }
}

impl tower::Service<Request<Body>> for Receiver {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), EXPORT);
        let receiver = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<ExportTraceServiceResponse, Received>::default();
            Ok(Server::new(codec).unary(receiver, request).await)
        })
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A record of a request that came with [`PARENT`].
fn record(status: u16, own: Option<&'static str>) -> Record {
    let (recorder, mut records) = Recorder::new(Some(Sampling(0.0)));
    let request = Request::get("/cart?token=secret").header("host", "web:80").header("traceparent", PARENT);
    let begun = Begun::new(&recorder, Direction::Outbound, &mut request.body(()).unwrap());
    let end =
        End { backend: "service/shop/web-v2:80".to_owned(), why: "nobody".to_owned(), ..End::default() };
    begun.end(&answered(status, own), end);
    records.try_recv().unwrap()
}

/// Sends a collector these records, to the last.
async fn export(collector: &str, records: &[Record]) {
    let workload =
        Workload { name: "client".to_owned(), namespace: "shop".to_owned(), principal: String::new() };
    let (exporter, exporting) = Exporter::new(collector.parse().unwrap(), &workload);
    assert!(records.iter().all(|record| exporter.export(record)));
    drop(exporter);
    exporting.run().await;
}

/// The first batch that a receiver gets of these records.
async fn exported(
    collector: &str,
    records: &[Record],
    mut received: mpsc::UnboundedReceiver<Received>,
) -> Received {
    export(collector, records).await;
    received.recv().await.unwrap()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a message::Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn string(text: &str) -> message::Value {
    message::Value::String(text.to_owned())
}

fn check(received: &Received) {
    let of = &received.resource_spans[0];
    let resource = &of.resource.as_ref().unwrap().attributes;
    assert_eq!(value(resource, "service.name"), Some(&string("client")));
    let [good, bad] = of.scope_spans[0].spans.as_slice() else { panic!("{of:?}") };
    assert_eq!(good.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(good.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((good.kind, good.status.as_ref(), good.flags), (3, None, 1));
    assert_eq!(good.end_time_unix_nano - good.start_time_unix_nano, 1_500_000);
    assert_eq!(value(&good.attributes, "url.path"), Some(&string("/cart")));
    assert_eq!(value(&good.attributes, "server.address"), Some(&string("web")));
    assert_eq!(value(&good.attributes, "server.port"), Some(&message::Value::Int(80)));
    assert_eq!(value(&good.attributes, "http.response.status_code"), Some(&message::Value::Int(200)));
    assert_eq!(value(&good.attributes, "gamut.backend"), Some(&string("service/shop/web-v2:80")));
    assert_eq!(value(&good.attributes, "error.type"), None);
    assert_eq!(bad.status.as_ref().unwrap().message, "nobody");
    assert_eq!(value(&bad.attributes, "error.type"), Some(&string("no-endpoint")));
    assert_ne!(good.span_id, bad.span_id);
}

fn records() -> [Record; 2] {
    [record(200, None), record(503, Some("no-endpoint"))]
}

#[tokio::test]
async fn a_grpc_receiver_gets_spans_with_the_dictionarys_attributes() {
    let (listener, address) = listen().await;
    let (sender, received) = mpsc::unbounded_channel();
    let router = tonic::transport::Server::builder().add_service(Receiver(sender));
    let server = tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    check(&exported(&format!("grpc://{address}"), &records(), received).await);
    server.abort();
}

#[tokio::test]
async fn an_http_receiver_gets_the_same() {
    let (listener, address) = listen().await;
    let (sender, received) = mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                assert_eq!(request.uri().path(), "/v1/traces");
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                sender.send(Received::decode(body).unwrap()).unwrap();
                Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::new())))
            }
        });
        let _ = server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    check(&exported(&format!("http://{address}"), &records(), received).await);
    server.abort();
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (listener, address) = listen().await;
    drop(listener);
    let workload = Workload::default();
    let (exporter, exporting) = Exporter::new(format!("grpc://{address}").parse().unwrap(), &workload);
    assert!(exporter.export(&record(200, None)));
    drop(exporter);
    exporting.run().await;
}

#[test]
fn a_full_queue_is_told_and_never_waits() {
    let (exporter, _exporting) = Exporter::new("grpc://127.0.0.1:1".parse().unwrap(), &Workload::default());
    let record = record(200, None);
    let taken = (0..QUEUE + 5).filter(|_| exporter.export(&record)).count();
    assert_eq!(taken, QUEUE);
}

#[test]
fn a_collector_has_a_scheme_of_ours_and_a_port() {
    for text in ["", "collector:4317", "https://collector:4318", "grpc://collector", "grpc://a b:1"] {
        assert!(text.parse::<Collector>().is_err(), "{text}");
    }
    for text in ["grpc://collector.observability:4317", "http://[::1]:4318/v1/traces"] {
        assert!(text.parse::<Collector>().is_ok(), "{text}");
    }
}
