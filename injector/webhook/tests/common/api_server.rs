//! An API server over HTTP, as far as the injector talks to one: lists, watches, gets, creations and replacements of objects that
//! are kept by the path of their list. Versions are counted; a replacement of an old one is a conflict.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::broadcast, time::timeout};

use super::PATIENCE;

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone)]
pub(crate) struct ApiServer {
    address: SocketAddr,
    store: Arc<Store>,
}

/// Objects, by their list's path, and their namespace and name.
type Objects = BTreeMap<(String, String), Value>;

struct Store {
    /// Every object, and the version of the newest.
    objects: Mutex<(Objects, u64)>,
    /// What changes: the list's path, and the event.
    changes: broadcast::Sender<(String, Value)>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Store { objects: Mutex::default(), changes: broadcast::Sender::new(64) });
        let server = store.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let store = server.clone();
                let service = service_fn(move |request| {
                    let store = store.clone();
                    async move { Ok::<_, Infallible>(store.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, store }
    }

    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: \"http://{}\"}}}}]\nusers: [{{name: a, user: {{}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\ncurrent-context: a\n",
            self.address
        )
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, list: &str, object: Value) {
        self.store.put(list, object);
    }

    /// The objects of a list.
    pub(crate) fn list(&self, list: &str) -> Vec<Value> {
        self.store.list(list).0
    }

    /// Waits until the objects of a list are such.
    pub(crate) async fn until(&self, list: &str, mut holds: impl FnMut(&[Value]) -> bool) {
        let mut changes = self.store.changes.subscribe();
        while !holds(&self.list(list)) {
            let changed = timeout(PATIENCE, changes.recv()).await;
            changed.unwrap_or_else(|_| panic!("{list} stays as it is: {:?}", self.list(list))).unwrap();
        }
    }
}

impl Store {
    fn put(&self, list: &str, mut object: Value) -> Value {
        let mut objects = self.objects.lock().unwrap();
        objects.1 += 1;
        object["metadata"]["resourceVersion"] = objects.1.to_string().into();
        let known = objects.0.insert((list.to_owned(), key(&object)), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        // Nobody may be watching.
        let _ = self.changes.send((list.to_owned(), json!({"type": kind, "object": object})));
        object
    }

    fn list(&self, list: &str) -> (Vec<Value>, u64) {
        let objects = self.objects.lock().unwrap();
        let of_list = objects.0.iter().filter(|((of, _), _)| of == list);
        (of_list.map(|(_, object)| object.clone()).collect(), objects.1)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (list, key) = addressed(request.uri().path());
        let watches = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        match (request.method(), key) {
            (&Method::GET, None) if watches => self.watch(list),
            (&Method::GET, None) => {
                let (items, version) = self.list(&list);
                let metadata = json!({"resourceVersion": version.to_string()});
                document(StatusCode::OK, &json!({"kind": "List", "metadata": metadata, "items": items}))
            }
            (&Method::GET, Some(name)) => match self.objects.lock().unwrap().0.get(&(list, name)) {
                Some(object) => document(StatusCode::OK, object),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            },
            (&Method::POST, _) => {
                let object = body(request).await;
                let exists = self.objects.lock().unwrap().0.contains_key(&(list.clone(), self::key(&object)));
                match exists {
                    true => failure(StatusCode::CONFLICT, "AlreadyExists"),
                    false => document(StatusCode::CREATED, &self.put(&list, object)),
                }
            }
            (&Method::PUT, Some(name)) => {
                let object = body(request).await;
                let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
                let now = self.objects.lock().unwrap().0.get(&(list.clone(), name)).map(version);
                match now == Some(version(&object)) {
                    true => document(StatusCode::OK, &self.put(&list, object)),
                    false => failure(StatusCode::CONFLICT, "Conflict"),
                }
            }
            (method, _) => panic!("unexpected: {method} {}", request.uri()),
        }
    }

    /// All that is there, as a watch from an old version would begin, then what changes.
    fn watch(&self, list: String) -> Response<Body> {
        let changes = self.changes.subscribe();
        let (items, _) = self.list(&list);
        let known = items.into_iter().map(|object| json!({"type": "MODIFIED", "object": object}));
        let changes = stream::unfold((changes, list), |(mut changes, list)| async move {
            loop {
                let (of, event) = changes.recv().await.ok()?;
                if of == list {
                    return Some((event, (changes, list)));
                }
            }
        });
        let lines =
            stream::iter(known).chain(changes).map(|event| Ok(Frame::data(format!("{event}\n").into())));
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// The path of a list of all namespaces, and the key of the object, if it is one's.
fn addressed(path: &str) -> (String, Option<String>) {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let groups = if segments[0] == "api" { 2 } else { 3 };
    let (root, rest) = segments.split_at(groups);
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let list = format!("/{}/{}", root.join("/"), rest[0]);
    (list, rest.get(1).map(|name| format!("{namespace}/{name}")))
}

fn key(object: &Value) -> String {
    let text = |field| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

async fn body(request: Request<Incoming>) -> Value {
    serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

fn document(status: StatusCode, document: &Value) -> Response<Body> {
    let body = Full::from(document.to_string()).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn failure(status: StatusCode, reason: &str) -> Response<Body> {
    let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": status.as_u16()});
    document(status, &failure)
}
