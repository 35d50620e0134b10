//! A record as a span.
//!
//! Attributes are those of the Gateway API's dictionary (GEP-5253), which are OpenTelemetry's stable ones; what only a mesh
//! knows follows under `gamut.`.

use super::{
    super::Record,
    message::{KeyValue, Span, Status},
};
use crate::telemetry::Direction;

/// `SPAN_KIND_SERVER` and `SPAN_KIND_CLIENT`.
const KINDS: [i32; 2] = [2, 3];
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;

/// The span of a record; none if it has none.
pub(super) fn of(record: &Record) -> Option<Span> {
    let trace = record.span?;
    let [server, client] = KINDS;
    let start = u64::try_from(record.time.as_nanosecond()).unwrap_or(0);
    // Milliseconds with three decimals: a whole number of microseconds.
    let elapsed = (record.duration_ms * 1e6).round() as u64;
    let is_failed = match record.direction {
        // The conventions count a client's request that was answered 4xx as failed, and a server's not.
        Direction::Outbound => record.is_error() || record.status >= 400,
        Direction::Inbound => record.is_error(),
    };
    Some(Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: trace.span_id.to_be_bytes().to_vec(),
        parent_span_id: trace.parent.map_or(Vec::new(), |parent| parent.to_be_bytes().to_vec()),
        name: match record.route.as_str() {
            "" => record.method.clone(),
            route => format!("{} {route}", record.method),
        },
        kind: if record.direction == Direction::Inbound { server } else { client },
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(elapsed),
        attributes: attributes(record, is_failed),
        status: is_failed.then(|| Status { message: record.why.clone(), code: ERROR }),
        flags: u32::from(trace.is_sampled()),
    })
}

fn attributes(record: &Record, is_failed: bool) -> Vec<KeyValue> {
    let (host, port) = match record.host.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (record.host.as_str(), None),
    };
    let mut attributes = vec![
        KeyValue::string("http.request.method", &record.method),
        KeyValue::string("url.scheme", "http"),
        KeyValue::string("url.path", &record.path),
        KeyValue::string("server.address", host),
        KeyValue::int("http.response.status_code", record.status),
    ];
    attributes.extend(port.map(|port| KeyValue::int("server.port", port)));
    if let Some(endpoint) = record.endpoint {
        attributes.push(KeyValue::string("network.peer.address", endpoint.ip().to_string()));
        attributes.push(KeyValue::int("network.peer.port", endpoint.port()));
    }
    if is_failed {
        let status = record.status.to_string();
        let why = if record.reason.is_empty() { status } else { record.reason.clone() };
        attributes.push(KeyValue::string("error.type", why));
    }
    attributes.extend(record.grpc_status.map(|code| KeyValue::int("rpc.grpc.status_code", code)));
    let session = record.session.map_or("", |session| session.as_str());
    for (key, value) in [
        ("gamut.parent", record.parent.as_str()),
        ("gamut.route", &record.route),
        ("gamut.rule", &record.rule),
        ("gamut.backend", &record.backend),
        ("gamut.pod", &record.pod),
        ("gamut.peer", &record.peer),
        ("gamut.session", session),
        ("gamut.reason", &record.reason),
    ] {
        if !value.is_empty() {
            attributes.push(KeyValue::string(key, value));
        }
    }
    attributes
}
