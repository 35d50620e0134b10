//! What is told about single requests: the access log, spans, and what `/tap` shows.
//!
//! ```text
//! request's head --begin--> Begun (what came) --end, with the answer--> Record --bounded queue--> admin thread
//!                                                                                  |-> access log's thread -> standard output
//!                                                                                  |-> spans -> a collector, by OTLP
//!                                                                                  `-> the newest few, for taps
//! ```
//!
//! While nobody wants records, [`Recorder::begin`] is one load and one branch, and nothing is made. Otherwise a request costs
//! the data path the making of its record and never a wait: what doesn't fit into a queue is dropped and counted.
//!
//! What came from the wire is cleaned ([`clean`]) when it is taken in, so that no reader can be fooled by it.

pub mod access_log;
mod hub;
pub mod otlp;
pub mod tap;
pub mod trace;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use gamut_route::{ServicePort, table::RuleOrigin};
use http::{Request, header::HOST};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::hub::{Hub, Settings};
use self::trace::Trace;
use crate::telemetry::{Answered, Direction, Protocol, SessionOutcome, rule_text};

/// The longest text that is taken from the wire, in bytes.
const LONGEST: usize = 1024;

/// A request that was answered, as people and collectors are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When its head came.
    pub time: Timestamp,
    /// Which way it went, seen from the pod.
    pub direction: Direction,
    /// Its method.
    pub method: String,
    /// Its host, as the client wrote it.
    pub host: String,
    /// Its path, without the query: queries hold secrets.
    pub path: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// gRPC's status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// From its head to the end of the answer, in milliseconds.
    pub duration_ms: f64,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The Service and port that the app addressed; empty inbound.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// The route, as `kind/namespace/name`; empty where there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// The rule's name or index.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// Where the rule sent it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The pod that answered, as `namespace/name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The other side's identity; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Why the sidecar answered in the app's place, in a word; empty if it didn't.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What became of its session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionOutcome>,
    /// Its trace, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// Its span, if one is to be exported.
    #[serde(skip)]
    pub span: Option<Trace>,
}

/// Where records come from. Clones lead to the same place.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Whether anybody wants records.
    on: AtomicBool,
    /// How spans are sampled; `None`: there are none.
    spans: Option<trace::Sampling>,
    queue: mpsc::Sender<Record>,
    lost: AtomicU64,
}

/// A request whose record is being made.
#[derive(Clone, Debug)]
pub struct Begun {
    recorder: Recorder,
    record: Record,
}

/// How a request ended.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The Service and port that the app addressed.
    pub parent: Option<ServicePort>,
    /// The rule.
    pub origin: Option<RuleOrigin>,
    /// As [`Record::backend`].
    pub backend: String,
    /// As [`Record::endpoint`].
    pub endpoint: Option<SocketAddr>,
    /// As [`Record::pod`].
    pub pod: String,
    /// As [`Record::peer`].
    pub peer: String,
    /// As [`Record::why`].
    pub why: String,
    /// As [`Record::session`].
    pub session: Option<SessionOutcome>,
    /// As [`Record::bytes`].
    pub bytes: u64,
}

impl Recorder {
    /// One that nobody listens to.
    pub fn off() -> Self {
        Self::new(None).0
    }

    fn new(spans: Option<trace::Sampling>) -> (Self, mpsc::Receiver<Record>) {
        let (queue, records) = mpsc::channel(hub::QUEUE);
        let (on, lost) = (AtomicBool::new(spans.is_some()), AtomicU64::new(0));
        (Self(Arc::new(Shared { on, spans, queue, lost })), records)
    }

    /// Takes in a request's head, if anybody wants to know, and says in it which span is its parent from here on.
    pub fn begin<B>(&self, direction: Direction, request: &mut Request<B>) -> Option<Box<Begun>> {
        self.0.on.load(Relaxed).then(|| Box::new(Begun::new(self, direction, request)))
    }

    /// Records that no queue had room for.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    fn lose(&self, records: u64) {
        self.0.lost.fetch_add(records, Relaxed);
    }
}

impl Begun {
    fn new<B>(recorder: &Recorder, direction: Direction, request: &mut Request<B>) -> Self {
        let sampling = recorder.0.spans.as_ref();
        let span = sampling.map(|sampling| Trace::begin(request.headers_mut(), sampling));
        let trace_id = match &span {
            Some(span) => span.trace_id_text(),
            None => {
                trace::Parent::of(request.headers()).map_or(String::new(), |parent| parent.trace_id_text())
            }
        };
        let host = request.uri().authority().map(|authority| authority.as_str().as_bytes());
        let host = host.or_else(|| Some(request.headers().get(HOST)?.as_bytes())).unwrap_or_default();
        let record = Record {
            time: Timestamp::now(),
            direction,
            method: clean(request.method().as_str().as_bytes()),
            host: clean(host),
            path: clean(request.uri().path().as_bytes()),
            status: 0,
            grpc_status: None,
            duration_ms: 0.0,
            bytes: 0,
            parent: String::new(),
            route: String::new(),
            rule: String::new(),
            backend: String::new(),
            endpoint: None,
            pod: String::new(),
            peer: String::new(),
            reason: String::new(),
            why: String::new(),
            session: None,
            trace_id,
            span,
        };
        Self { recorder: recorder.clone(), record }
    }

    /// Completes the record and hands it over.
    pub fn end(self, answered: &Answered, end: End) {
        let Self { recorder, record } = self;
        let (route, rule) = rule_text(end.origin.as_ref());
        let record = Record {
            status: answered.status,
            grpc_status: answered.grpc_status.filter(|_| answered.protocol == Protocol::Grpc),
            duration_ms: (answered.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            bytes: end.bytes,
            parent: end.parent.map_or(String::new(), |parent| parent.to_string()),
            route,
            rule,
            backend: end.backend,
            endpoint: end.endpoint,
            pod: end.pod,
            peer: end.peer,
            reason: answered.own.unwrap_or_default().to_owned(),
            why: clean(end.why.as_bytes()),
            session: end.session,
            ..record
        };
        if recorder.0.queue.try_send(record).is_err() {
            recorder.lose(1);
        }
    }
}

impl Record {
    /// Whether a person who looks for failures wants to see it: a server's failure, or an answer that the sidecar gave because
    /// the app didn't.
    pub fn is_error(&self) -> bool {
        let grpc_failed = self.grpc_status.is_some_and(|code| matches!(code, 2 | 13 | 14 | 15));
        let own = !self.reason.is_empty() && self.reason != crate::http::Reason::Rule.as_str();
        self.status >= 500 || grpc_failed || own
    }
}

/// What came from the wire as plain ASCII without control characters, at most [`LONGEST`] bytes of it: other bytes are written
/// `%XX`, and what was cut off leaves `...`.
pub fn clean(text: &[u8]) -> String {
    let mut cleaned = String::with_capacity(text.len().min(LONGEST));
    for &byte in text.iter().take(LONGEST) {
        match byte {
            b' '..=b'~' => cleaned.push(byte.into()),
            _ => cleaned.push_str(&format!("%{byte:02X}")),
        }
    }
    if text.len() > LONGEST {
        cleaned.push_str("...");
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::Method;

    pub(super) fn request() -> Request<()> {
        let host = http::HeaderValue::from_bytes(b"web\xc2\x9b2J").unwrap();
        Request::builder().uri("/a%0Ab?token=secret").header(HOST, host).body(()).unwrap()
    }

    pub(super) fn answered(status: u16, own: Option<&'static str>) -> Answered {
        let elapsed = Duration::from_micros(1500);
        Answered { method: Method::Get, protocol: Protocol::Http, status, grpc_status: None, elapsed, own }
    }

    #[test]
    fn while_nobody_wants_records_none_is_made() {
        assert!(Recorder::off().begin(Direction::Outbound, &mut request()).is_none());
    }

    #[test]
    fn what_came_from_the_wire_is_plain_text_without_its_query() {
        let (recorder, mut records) = Recorder::new(None);
        recorder.0.on.store(true, Relaxed);
        let begun = recorder.begin(Direction::Inbound, &mut request()).unwrap();
        begun.end(&answered(200, None), End { why: "a\nb\u{1b}[31m".to_owned(), ..End::default() });
        let record = records.try_recv().unwrap();
        assert_eq!((record.host.as_str(), record.path.as_str()), ("web%C2%9B2J", "/a%0Ab"));
        assert_eq!((record.why.as_str(), record.duration_ms), ("a%0Ab%1B[31m", 1.5));
        assert_eq!(clean(&[b'x'; 2000]).len(), LONGEST + 3);
    }

    #[test]
    fn a_full_queue_costs_records_which_are_counted_and_never_a_wait() {
        let (recorder, records) = Recorder::new(None);
        recorder.0.on.store(true, Relaxed);
        for _ in 0..hub::QUEUE + 3 {
            let begun = recorder.begin(Direction::Outbound, &mut request()).unwrap();
            begun.end(&answered(200, None), End::default());
        }
        assert_eq!((records.len(), recorder.lost()), (hub::QUEUE, 3));
    }

    #[test]
    fn a_failure_is_a_servers_or_an_answer_in_the_apps_place_but_no_redirect() {
        let (recorder, mut records) = Recorder::new(None);
        recorder.0.on.store(true, Relaxed);
        for (status, own, error) in [
            (200, None, false),
            (404, None, false),
            (500, None, true),
            (404, Some("no-route"), true),
            (302, Some(crate::http::Reason::Rule.as_str()), false),
        ] {
            let begun = recorder.begin(Direction::Outbound, &mut request()).unwrap();
            begun.end(&answered(status, own), End::default());
            assert_eq!(records.try_recv().unwrap().is_error(), error, "{status} {own:?}");
        }
    }
}
