//! A cluster that answers from a list of documents, for tests.

use std::collections::BTreeMap;

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

/// A cluster whose clock is right.
pub(crate) fn cluster(documents: Documents) -> Cluster {
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
    Cluster::over(kube::Client::new(service, "default"))
}

pub(crate) fn unreachable() -> World {
    let service = service_fn(|_: Request<Body>| async {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err::<Response<Full<Bytes>>, _>(kube::Error::ReadEvents(refused))
    });
    World::Cluster(Cluster::over(kube::Client::new(service, "default")), context())
}

fn respond(document: &Value) -> Response<Full<Bytes>> {
    let code = match document["kind"] == "Status" {
        true => document["code"].as_u64().unwrap(),
        false => 200,
    };
    let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).unwrap();
    Response::builder()
        .status(u16::try_from(code).unwrap())
        .header(header::DATE, date)
        .body(Full::new(document.to_string().into()))
        .unwrap()
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
