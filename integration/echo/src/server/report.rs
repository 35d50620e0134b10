//! The answer's lines: what was seen of a request, in the order and spelling that the conformance suite reads.

use std::fmt::Write;

use http::{HeaderMap, Version, header::HOST, request::Parts};

use super::{App, Arrival};
use crate::canonical;

/// The lines for an HTTP request; `body` is the request body's length, if it had one.
pub(super) fn http(app: &App, arrival: Arrival, request: &Parts, body: u64) -> String {
    let host = request.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let host = host.or_else(|| request.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let protocol = match request.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    };
    let mut lines = format!(
        "ServiceVersion={}\nServicePort={}\nHost={host}\nURL={path}\nMethod={}\nProto={protocol}\nIP={}\n",
        app.service_version, arrival.port, request.method, arrival.from
    );
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != HOST) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = writeln!(lines, "RequestHeader={}:{value}", canonical(name.as_str()));
    }
    if body > 0 {
        let _ = writeln!(lines, "RequestBytes={body}");
    }
    let _ = writeln!(lines, "Hostname={}", app.hostname);
    lines
}

/// The lines for a gRPC request and one of its messages.
pub(super) fn grpc(app: &App, arrival: Arrival, request: &Parts, message: &str) -> String {
    let authority = request.uri.authority().map(ToString::to_string).unwrap_or_default();
    let mut lines = format!("RequestHeader=:authority:{authority}\nHost={authority}\n");
    write_lower_case(&mut lines, &request.headers);
    let _ = write!(
        lines,
        "StatusCode=200\nServiceVersion={}\nServicePort={}\nURL={}\nMethod={}\nIP={}\nProto=GRPC\nEcho={message}\nHostname={}\n",
        app.service_version,
        arrival.port,
        request.uri.path(),
        request.method,
        arrival.from,
        app.hostname
    );
    lines
}

fn write_lower_case(lines: &mut String, headers: &HeaderMap) {
    for (name, value) in headers {
        let _ = writeln!(lines, "RequestHeader={name}:{}", String::from_utf8_lossy(value.as_bytes()));
    }
}
