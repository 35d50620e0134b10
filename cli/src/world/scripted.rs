//! A cluster that answers from a list of documents, for tests.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    thread,
};

use bytes::Bytes;
use gamut_kubernetes::{Cluster, Context};
use http::{Method, Request, Response, header};
use http_body_util::Full;
use jiff::{Timestamp, fmt::rfc2822};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::World;

/// Documents by path. One of kind `Status` is answered with its code; what isn't there, with 404.
pub(crate) type Documents = Vec<(&'static str, Value)>;

/// What a review of permissions is answered with.
pub(crate) const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

pub(crate) fn context() -> Context {
    Context { name: "test".to_owned(), server: "https://10.0.0.10:6443".to_owned() }
}

pub(crate) fn world(documents: Documents) -> World {
    World::Cluster(cluster(documents), context())
}

/// One whose context names this namespace.
pub(crate) fn world_of(namespace: &str, documents: Documents) -> World {
    World::Cluster(cluster_of(namespace, documents), context())
}

/// A cluster whose clock is right.
pub(crate) fn cluster(documents: Documents) -> Cluster {
    cluster_of("default", documents)
}

/// An API server of these documents on a port of this machine, for as long as the test: its address. For what begins with a kubeconfig.
pub(crate) fn server(documents: Documents) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut head, mut line) = (String::new(), String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                head.push_str(&std::mem::take(&mut line));
            }
            let path = head.split([' ', '?']).nth(1).unwrap_or_default();
            let document = documents.iter().find(|(at, _)| *at == path).map(|(_, document)| document.clone());
            let document = document.unwrap_or_else(|| failure(404, "NotFound", "not found"));
            let (code, body) = (code(&document), document.to_string());
            let head =
                format!("HTTP/1.1 {code} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.get_mut().write_all((head + &body).as_bytes()).unwrap();
        }
    });
    address
}

fn cluster_of(namespace: &str, documents: Documents) -> Cluster {
    let documents: BTreeMap<&str, Value> = documents.into_iter().collect();
    let service = service_fn(move |request: Request<Body>| {
        let path = request.uri().path();
        let document = match (request.method(), documents.get(path)) {
            (&Method::GET | &Method::POST, Some(document)) => document.clone(),
            _ if path.ends_with("/portforward") => forbidden("pods/portforward is forbidden for you"),
            _ => failure(404, "NotFound", "not found"),
        };
        async move { Ok::<_, kube::Error>(respond(&document)) }
    });
    Cluster::over(kube::Client::new(service, namespace))
}

pub(crate) fn unreachable() -> World {
    let service = service_fn(|_: Request<Body>| async {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err::<Response<Full<Bytes>>, _>(kube::Error::ReadEvents(refused))
    });
    World::Cluster(Cluster::over(kube::Client::new(service, "default")), context())
}

fn respond(document: &Value) -> Response<Full<Bytes>> {
    let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).unwrap();
    Response::builder()
        .status(code(document))
        .header(header::DATE, date)
        .body(Full::new(document.to_string().into()))
        .unwrap()
}

fn code(document: &Value) -> u16 {
    match document["kind"] == "Status" {
        true => u16::try_from(document["code"].as_u64().unwrap()).unwrap(),
        false => 200,
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}

pub(crate) fn forbidden(message: &str) -> Value {
    failure(403, "Forbidden", message)
}

pub(crate) fn list(objects: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": "1"}, "items": objects})
}

/// A pod of the control plane.
pub(crate) fn component(name: &str, ready: bool) -> Value {
    let ready = if ready { "True" } else { "False" };
    json!({
        "metadata": {"namespace": "gamut-system", "name": format!("gamut-{name}-5d4f-x")},
        "spec": {"serviceAccountName": format!("gamut-{name}"), "containers": [{"name": "gamut"}]},
        "status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{"name": "gamut", "restartCount": 0, "ready": ready == "True", "state": {"running": {}}}],
        },
    })
}
