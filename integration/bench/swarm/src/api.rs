//! As much of an API server as a controller asks of one: list (in pages), watch, get, create, replace, over plain HTTP.
//!
//! It validates nothing and forgets nothing: each collection keeps its events, so that a watch can begin anywhere.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server's objects. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    version: u64,
    /// By the path that lists all of them, such as `/api/v1/pods`.
    collections: HashMap<String, Collection>,
}

#[derive(Default)]
struct Collection {
    /// By namespace (empty for what is the cluster's) and name.
    objects: BTreeMap<(String, String), Value>,
    events: Vec<Event>,
    watchers: Vec<(Selection, mpsc::UnboundedSender<Bytes>)>,
}

struct Event {
    version: u64,
    key: (String, String),
    line: Bytes,
}

/// Which objects of a collection.
#[derive(Clone, Default)]
struct Selection {
    namespace: Option<String>,
    name: Option<String>,
}

/// A path of the API, taken apart.
struct Place {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Api {
    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let api = self.clone();
            let service = service_fn(move |request| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            });
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                // A client that leaves in the middle is no failure.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    /// Puts an object in place of the one of its name, or adds it.
    pub(crate) fn apply(&self, collection: &str, object: Value) -> Value {
        self.store().apply(collection, object)
    }

    /// Takes an object away.
    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        self.store().delete(collection, &(namespace.to_owned(), name.to_owned()));
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(place) = Place::of(request.uri().path()) else { return failure(StatusCode::NOT_FOUND) };
        let query: HashMap<String, String> = query_of(request.uri().query().unwrap_or_default());
        match (request.method(), &place.name) {
            (&Method::GET, None) if query.contains_key("watch") => self.watch(&place, &query),
            (&Method::GET, None) => document(StatusCode::OK, &self.list(&place, &query)),
            (&Method::GET, Some(_)) => match self.store().get(&place) {
                Some(object) => document(StatusCode::OK, &object),
                None => failure(StatusCode::NOT_FOUND),
            },
            (&Method::POST, None) | (&Method::PUT, Some(_)) => {
                let creates = request.method() == Method::POST;
                let Ok(body) = request.into_body().collect().await else {
                    return failure(StatusCode::BAD_REQUEST);
                };
                match serde_json::from_slice(&body.to_bytes()) {
                    Ok(object) => self.write(&place, object, creates),
                    Err(_) => failure(StatusCode::BAD_REQUEST),
                }
            }
            _ => failure(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn write(&self, place: &Place, object: Value, creates: bool) -> Response<Body> {
        let mut store = self.store();
        let key = key_of(&object);
        let there = store.collections.get(&place.collection).and_then(|all| all.objects.get(&key));
        match (there, creates) {
            (Some(_), true) => failure(StatusCode::CONFLICT),
            (None, false) => failure(StatusCode::NOT_FOUND),
            (None, true) => document(StatusCode::CREATED, &store.apply(&place.collection, object)),
            (Some(there), false) if version_of(there) == version_of(&object) => {
                document(StatusCode::OK, &store.apply(&place.collection, object))
            }
            (Some(_), false) => failure(StatusCode::CONFLICT),
        }
    }

    fn list(&self, place: &Place, query: &HashMap<String, String>) -> Value {
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (from, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
        let store = self.store();
        let selection = place.selection(query);
        let collection = store.collections.get(&place.collection);
        let all = collection.into_iter().flat_map(|collection| &collection.objects);
        let mut selected = all.filter(|(key, _)| selection.takes(key)).map(|(_, object)| object).skip(from);
        let items: Vec<&Value> = selected.by_ref().take(limit).collect();
        let more = if selected.next().is_some() { (from + limit).to_string() } else { String::new() };
        json!({"kind": "List", "metadata": {"resourceVersion": store.version.to_string(), "continue": more}, "items": items})
    }

    fn watch(&self, place: &Place, query: &HashMap<String, String>) -> Response<Body> {
        let from = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut store = self.store();
        let selection = place.selection(query);
        let collection = store.collections.entry(place.collection.clone()).or_default();
        let (tell, told) = mpsc::unbounded_channel();
        let since = collection.events.partition_point(|event| event.version <= from);
        for event in collection.events.iter().skip(since).filter(|event| selection.takes(&event.key)) {
            // The receiver is in our hands.
            let _ = tell.send(event.line.clone());
        }
        collection.watchers.push((selection, tell));
        let frames = UnboundedReceiverStream::new(told).map(|line| Ok(Frame::data(line)));
        answer(StatusCode::OK, StreamBody::new(frames).boxed_unsync())
    }
}

impl Store {
    fn apply(&mut self, collection: &str, mut object: Value) -> Value {
        self.version += 1;
        let version = self.version;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        let key = key_of(&object);
        let collection = self.collections.entry(collection.to_owned()).or_default();
        let before = collection.objects.insert(key.clone(), object.clone());
        let what = if before.is_some() { "MODIFIED" } else { "ADDED" };
        collection.tell(version, key, what, &object);
        object
    }

    fn delete(&mut self, collection: &str, key: &(String, String)) {
        self.version += 1;
        let version = self.version;
        let Some(collection) = self.collections.get_mut(collection) else { return };
        let Some(mut object) = collection.objects.remove(key) else { return };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), version.to_string().into());
        }
        collection.tell(version, key.clone(), "DELETED", &object);
    }

    fn get(&self, place: &Place) -> Option<Value> {
        let key = (place.namespace.clone().unwrap_or_default(), place.name.clone()?);
        self.collections.get(&place.collection)?.objects.get(&key).cloned()
    }
}

impl Collection {
    fn tell(&mut self, version: u64, key: (String, String), what: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({"type": what, "object": object})));
        self.watchers.retain(|(selection, tell)| !selection.takes(&key) || tell.send(line.clone()).is_ok());
        self.events.push(Event { version, key, line });
    }
}

impl Place {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`, then `namespaces/NAMESPACE/` or not, the plural, a name, a subresource.
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let root = if parts.first() == Some(&"api") { 2 } else { 3 };
        let (root, rest) = parts.split_at_checked(root)?;
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, rest) = rest.split_first()?;
        Some(Self {
            collection: format!("/{}/{plural}", root.join("/")),
            namespace: namespace.map(str::to_owned),
            name: rest.first().map(|name| (*name).to_owned()),
        })
    }

    fn selection(&self, query: &HashMap<String, String>) -> Selection {
        let name = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("metadata.name="));
        Selection { namespace: self.namespace.clone(), name: name.map(str::to_owned) }
    }
}

impl Selection {
    fn takes(&self, (namespace, name): &(String, String)) -> bool {
        self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| wanted == name)
    }
}

fn key_of(object: &Value) -> (String, String) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/metadata/namespace"), text("/metadata/name"))
}

fn version_of(object: &Value) -> Option<&str> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
}

/// Of percent-encoding only `=` occurs in what a controller asks.
fn query_of(query: &str) -> HashMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.replace("%3D", "="))).collect()
}

fn document(status: StatusCode, document: &Value) -> Response<Body> {
    let once = stream::once(std::future::ready(Ok(Frame::data(Bytes::from(document.to_string())))));
    answer(status, StreamBody::new(once).boxed_unsync())
}

fn failure(status: StatusCode) -> Response<Body> {
    let reason = match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "AlreadyExists",
        _ => "BadRequest",
    };
    let said = json!({"kind": "Status", "status": "Failure", "code": status.as_u16(), "reason": reason, "message": reason});
    document(status, &said)
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
