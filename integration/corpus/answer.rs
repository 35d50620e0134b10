//! What became of a request, however it was asked, and whether that is what the case says.

use std::collections::BTreeMap;

use crate::case::{Case, Expect, Question};

/// One answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The gRPC status of a gRPC call.
    pub(crate) grpc: Option<u16>,
    /// The connection was closed without an answer.
    pub(crate) closed: bool,
    /// The app that answered.
    pub(crate) backend: Option<String>,
    /// Path, query and host as it saw them.
    pub(crate) path: String,
    pub(crate) host: String,
    /// Headers as it saw them, names in lower case; several lines joined by a comma.
    pub(crate) seen: BTreeMap<String, String>,
    /// Headers of the answer, as above.
    pub(crate) headers: BTreeMap<String, String>,
    /// Who else got the request; empty where that can't be seen.
    pub(crate) mirrors: Option<Vec<String>>,
}

/// What differs between an answer and what is expected; nothing if all is well.
pub(crate) fn differences(expect: &Expect, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: String, got: String| {
        if expected != got {
            found.push(format!("{what} is {got:?}, expected {expected:?}"));
        }
    };
    compare("closed", expect.closed.to_string(), answer.closed.to_string());
    if expect.closed {
        return found;
    }
    match expect.grpc {
        Some(status) => compare("grpc-status", format!("{:?}", Some(status)), format!("{:?}", answer.grpc)),
        None => compare("status", expect.status.unwrap_or(200).to_string(), answer.status.to_string()),
    }
    let header = |name: &str| answer.headers.get(name).cloned().unwrap_or_default();
    // An answer that isn't expected to be the sidecar's own must not be, whatever its status.
    compare("gamut-answer", expect.reason.clone().unwrap_or_default(), header("gamut-answer"));
    if let Some(backend) = &expect.backend {
        compare("the backend", backend.clone(), answer.backend.clone().unwrap_or_default());
    }
    if let Some(location) = &expect.location {
        compare("location", location.clone(), header("location"));
    }
    if let Some(path) = &expect.path {
        compare("the path", path.clone(), answer.path.clone());
    }
    if let Some(host) = &expect.host {
        compare("the host", host.clone(), answer.host.clone());
    }
    for (place, expected, got) in [
        ("the backend's", &expect.headers, &answer.seen),
        ("the answer's", &expect.response, &answer.headers),
    ] {
        for (name, value) in expected {
            let got = got.get(&name.to_ascii_lowercase());
            compare(&format!("{place} header {name}"), format!("{value:?}"), format!("{:?}", got.cloned()));
        }
    }
    if let Some(mirrors) = &answer.mirrors {
        compare("mirrors", format!("{:?}", expect.mirrors), format!("{mirrors:?}"));
    }
    found
}

/// A request as messages name it.
pub(crate) fn label(case: &Case, question: &Question) -> String {
    let Question { from, method, path, headers, .. } = question;
    let what = match (&question.grpc, &question.sni, question.tcp) {
        (Some(call), ..) => format!("gRPC {call}"),
        (_, Some(name), _) => format!("TLS for {name}"),
        (.., true) => "a connection".to_owned(),
        _ => format!("{method} {path}"),
    };
    format!("{}: {what} {headers:?} from {from}", case.id)
}

/// The service that is dialled: name and namespace.
pub(crate) fn dialled<'a>(case: &'a Case, question: &'a Question) -> (&'a str, &'a str) {
    let to = question.to.as_deref().unwrap_or(case.name());
    to.split_once('.').unwrap_or((to, "shop"))
}
