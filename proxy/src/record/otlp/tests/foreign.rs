//! Spans at a receiver that isn't ours (`integration/otlp/receiver.py`): every field that is sent is one of the protocol's, and says what
//! was meant.
//!
//! Runs where `GAMUT_OTLP_PYTHON` names a Python that has what the receiver needs (`integration/otlp/install` prints one), and says so where
//! it doesn't.

use std::{path::Path, process::Stdio, time::Duration};

use gamut_route::{ServicePort, table::RuleOrigin};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use super::*;
use crate::telemetry::{Answered, Protocol, SessionOutcome};

/// How long the receiver may take to begin, and to print what it got.
const PATIENCE: Duration = Duration::from_secs(60);

/// The receiver; it ends with this.
struct Foreign {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    ports: Value,
}

impl Foreign {
    /// One that listens; `None` where there is no Python for it.
    async fn start() -> Option<Self> {
        let Ok(python) = std::env::var("GAMUT_OTLP_PYTHON") else {
            println!(
                "skipped: GAMUT_OTLP_PYTHON isn't set; integration/otlp/install prints what it is to be"
            );
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/otlp/receiver.py");
        let mut command = Command::new(python);
        command.arg("-B").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut foreign = Self { _process: process, lines, ports: Value::Null };
        foreign.ports = foreign.next().await;
        Some(foreign)
    }

    /// The next line that it prints.
    async fn next(&mut self) -> Value {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("the receiver's line");
        serde_json::from_str(&line.unwrap().expect("the receiver runs")).unwrap()
    }

    /// What it gets of these records by `grpc` or `http`.
    async fn exported(&mut self, scheme: &str, records: &[Record]) -> Value {
        let collector = format!("{scheme}://127.0.0.1:{}", self.ports[scheme]);
        export(&collector, records).await;
        self.next().await
    }
}

/// A call with everything that a record can have: answered by the sidecar, below a caller's span.
fn full() -> Record {
    let (recorder, mut records) = Recorder::new(Some(Sampling(0.0)));
    let request =
        Request::post("/shop.Cart/Add?token=secret").header("host", "web:80").header("traceparent", PARENT);
    let begun = Begun::new(&recorder, Direction::Outbound, &mut request.body(()).unwrap());
    let route = "grpcroute/shop/web".parse().unwrap();
    let origin = RuleOrigin { route, name: Some("add".to_owned()), index: 2 };
    let end = End {
        parent: Some(ServicePort::new("shop", "web", 80)),
        origin: Some(origin),
        backend: "service/shop/web-v2:80".to_owned(),
        endpoint: Some("10.244.0.17:8080".parse().unwrap()),
        pod: "shop/web-v2-abc".to_owned(),
        peer: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
        why: "nobody answered".to_owned(),
        session: Some(SessionOutcome::Kept),
        bytes: 7,
    };
    let answered = Answered {
        grpc_status: Some(14),
        protocol: Protocol::Grpc,
        ..answered(200, Some("upstream-connect"))
    };
    begun.end(&answered, end);
    records.try_recv().unwrap()
}

/// A request that was served well, and began its trace.
fn plain() -> Record {
    let (recorder, mut records) = Recorder::new(Some(Sampling(1.0)));
    let mut request = Request::get("/").header("host", "web").body(()).unwrap();
    Begun::new(&recorder, Direction::Inbound, &mut request).end(&answered(404, None), End::default());
    records.try_recv().unwrap()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Protobuf's JSON has 64 bits as text.
fn number(key: &str, value: u16) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

/// What a receiver is to get of these two.
fn expected(full: &Record, plain: &Record) -> Value {
    let (called, began) = (full.span.unwrap(), plain.span.unwrap());
    let times = |record: &Record| {
        let start = record.time.as_nanosecond();
        (start.to_string(), (start + 1_500_000).to_string())
    };
    let ((full_start, full_end), (plain_start, plain_end)) = (times(full), times(plain));
    let full = json!({
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        "spanId": format!("{:016x}", called.span_id),
        "parentSpanId": "00f067aa0ba902b7",
        "name": "POST grpcroute/shop/web",
        "kind": "SPAN_KIND_CLIENT",
        "startTimeUnixNano": full_start,
        "endTimeUnixNano": full_end,
        "attributes": [
            text("http.request.method", "POST"),
            text("url.scheme", "http"),
            text("url.path", "/shop.Cart/Add"),
            text("server.address", "web"),
            number("http.response.status_code", 200),
            number("server.port", 80),
            text("network.peer.address", "10.244.0.17"),
            number("network.peer.port", 8080),
            text("error.type", "upstream-connect"),
            number("rpc.grpc.status_code", 14),
            text("gamut.parent", "shop/web:80"),
            text("gamut.route", "grpcroute/shop/web"),
            text("gamut.rule", "add"),
            text("gamut.backend", "service/shop/web-v2:80"),
            text("gamut.pod", "shop/web-v2-abc"),
            text("gamut.peer", "spiffe://cluster.local/ns/shop/sa/web"),
            text("gamut.session", "kept"),
            text("gamut.reason", "upstream-connect"),
        ],
        "status": {"message": "nobody answered", "code": "STATUS_CODE_ERROR"},
        "flags": 1,
    });
    let plain = json!({
        "traceId": format!("{:032x}", began.trace_id),
        "spanId": format!("{:016x}", began.span_id),
        "name": "GET",
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": plain_start,
        "endTimeUnixNano": plain_end,
        "attributes": [
            text("http.request.method", "GET"),
            text("url.scheme", "http"),
            text("url.path", "/"),
            text("server.address", "web"),
            number("http.response.status_code", 404),
        ],
        "flags": 1,
    });
    let resource = json!({"attributes": [text("service.name", "client"), text("service.namespace", "shop")]});
    let scope = json!({"name": "gamut", "version": env!("CARGO_PKG_VERSION")});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [full, plain]}]}]})
}

#[tokio::test]
async fn a_foreign_receiver_knows_every_field_and_reads_what_was_meant_over_grpc_and_http() {
    let Some(mut foreign) = Foreign::start().await else { return };
    let (full, plain) = (full(), plain());
    for scheme in ["grpc", "http"] {
        let got = foreign.exported(scheme, &[full.clone(), plain.clone()]).await;
        assert_eq!(got["unknown"], json!([]), "{scheme}: fields that the protocol doesn't have");
        assert_eq!(got["export"], expected(&full, &plain), "{scheme}");
    }
}
