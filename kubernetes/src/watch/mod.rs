//! One resource, listed and then followed, through every failure.
//!
//! ```text
//! Stale ──page, page, ...──► Listed ──watch──► Following ──events, bookmarks──┐
//!   ▲                          ▲                 │   ▲────────────────────────┘
//!   └── version expired ───────┴── stream ended ─┘
//! ```
//!
//! Pages bound what is in memory at once; bookmarks keep the version young where nothing changes, so that a stream that
//! ended (the server ends each after some minutes, or goes away) is taken up where it was. Only when that isn't possible, all is
//! listed again, and compared by `resourceVersion` with what is known: whoever follows sees differences, never the list twice.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, mem, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use kube::{
    api::WatchParams,
    core::{WatchEvent, request},
};
use rand::RngExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{ApiError, Cluster, Problem, Resource, Selection, api::PAGE};

/// How many events are told at once at most.
const BATCH: usize = 500;
/// How long the server keeps a stream, in seconds: some time in this range, so that not all end at once.
const STREAM: std::ops::Range<u32> = 240..300;
/// How long a stream may be silent before its connection counts as dead. Bookmarks come once a minute.
const SILENCE: Duration = Duration::from_secs(90);
/// How long to wait after the first failure in a row; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long to wait at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a resource may be unknown to the server before the objects that were known of it count as gone.
const MISLAID: Duration = Duration::from_secs(30);

/// Namespace (none for what is the cluster's) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: Option<Box<str>>,
    /// `metadata.name`.
    pub name: Box<str>,
}

/// Something that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An object is there, with this content: new, or changed. `managedFields` are left out.
    Applied(Value),
    /// An object is gone.
    Deleted(Key),
    /// All that exists has been told. Comes once after each listing.
    Complete,
    /// The API server doesn't serve this resource (yet, or any more): there are no objects of it. Told each time that it
    /// is found out, after the deletion of what was known.
    NotServed,
}

/// A watch of one resource.
pub struct Watch {
    cluster: Cluster,
    /// The same resource in the versions that its reader knows, the preferred one first.
    versions: Vec<Resource>,
    /// Which of them is in use.
    at: usize,
    selection: Selection,
    /// What has been told, with its `resourceVersion`.
    known: HashMap<Key, Box<str>>,
    state: State,
    failures: u32,
    /// Since when no version is served.
    not_served: Option<Instant>,
}

enum State {
    /// Nothing is known that could be continued.
    Stale,
    /// Some pages have been read. `before`: what was known and hasn't come along yet.
    Listing { next: String, before: HashMap<Key, Box<str>> },
    /// All that existed at this version is known.
    Listed { version: String },
    /// All that existed at this version is known, and what comes after it arrives by the stream. `fruitful`: something has.
    Following { version: String, stream: Stream, fruitful: bool },
}

type Stream = BoxStream<'static, kube::Result<WatchEvent<Value>>>;

impl Watch {
    /// Begins with the first call of [`Watch::next`].
    pub fn new(cluster: Cluster, resource: Resource, selection: Selection) -> Self {
        Self::of_versions(cluster, vec![resource], selection)
    }

    /// A watch of a resource that clusters may serve in one of several versions, or not at all: the first that is served.
    pub fn of_versions(cluster: Cluster, versions: Vec<Resource>, selection: Selection) -> Self {
        let (known, state) = (HashMap::new(), State::Stale);
        Self { cluster, versions, at: 0, selection, known, state, failures: 0, not_served: None }
    }

    /// What it watches now; `None` only if it was made without a version.
    pub fn resource(&self) -> Option<Resource> {
        self.versions.get(self.at).copied()
    }

    /// Waits for what happens next. After a failure the next call pauses first, longer each time. Not cancel safe: a call that is
    /// dropped may lose what it had read, so the watch must be dropped with it.
    ///
    /// # Errors
    /// If a request fails. That is for information: the next call goes on from there.
    pub async fn next(&mut self) -> Result<Vec<Event>, ApiError> {
        if self.failures > 0 {
            sleep(pause(self.failures)).await;
        }
        let Some(mut resource) = self.resource() else { return std::future::pending().await };
        loop {
            let stepped = match mem::replace(&mut self.state, State::Stale) {
                State::Stale => {
                    let before = mem::take(&mut self.known);
                    self.list(&resource, None, before).await
                }
                State::Listing { next, before } => self.list(&resource, Some(next), before).await,
                State::Listed { version } => self.open(&resource, version).await,
                State::Following { version, stream, fruitful } => {
                    self.follow(&resource, version, stream, fruitful).await
                }
            };
            match stepped {
                Ok(events) if events.is_empty() => {}
                Ok(events) => return Ok(events),
                Err(Problem::NotFound) if self.at + 1 < self.versions.len() => self.at += 1,
                Err(problem) => {
                    self.at = if matches!(problem, Problem::NotFound) { 0 } else { self.at };
                    self.failures = self.failures.saturating_add(1);
                    let path = resource.path(self.selection.namespace.as_deref());
                    return self.failed(ApiError { verb: "WATCH", path, problem });
                }
            }
            resource = self.resource().unwrap_or(resource);
        }
    }

    /// A failure is an error, or, if nothing of the kind is served, an event: at once where nothing was known, else when that
    /// has lasted. Who deletes a definition deletes its objects first, and we would have been told; a server that has
    /// only mislaid it for a moment must not take everybody's routes away.
    fn failed(&mut self, error: ApiError) -> Result<Vec<Event>, ApiError> {
        if !error.is_not_found() {
            return Err(error);
        }
        let since = *self.not_served.get_or_insert_with(Instant::now);
        if !self.known.is_empty() && since.elapsed() < MISLAID {
            return Err(error);
        }
        let gone = mem::take(&mut self.known).into_keys().map(Event::Deleted);
        Ok(gone.chain([Event::NotServed]).collect())
    }

    /// Reads a page.
    async fn list(
        &mut self,
        resource: &Resource,
        from: Option<String>,
        mut before: HashMap<Key, Box<str>>,
    ) -> Result<Vec<Event>, Problem> {
        let page = match self.cluster.page(resource, &self.selection, PAGE, from).await {
            Ok(page) => page,
            Err(problem) => {
                self.known.extend(before);
                return Err(problem);
            }
        };
        (self.failures, self.not_served) = (0, None);
        let mut events = Vec::new();
        for object in page.items.unwrap_or_default() {
            let Some((key, version)) = identified(&object) else { continue };
            if before.remove(&key).as_ref() != Some(&version) {
                events.push(Event::Applied(completed(object, resource)));
            }
            self.known.insert(key, version);
        }
        if page.metadata.r#continue.is_empty() {
            events.extend(before.into_keys().map(Event::Deleted));
            events.push(Event::Complete);
            self.state = State::Listed { version: page.metadata.resource_version };
        } else {
            self.state = State::Listing { next: page.metadata.r#continue, before };
        }
        Ok(events)
    }

    /// Opens a stream from a version on.
    async fn open(&mut self, resource: &Resource, version: String) -> Result<Vec<Event>, Problem> {
        let params = WatchParams {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(rand::rng().random_range(STREAM)),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = request::Request::new(resource.path(self.selection.namespace.as_deref()));
        let request = match self.selection.metadata_only {
            true => request.watch_metadata(&params, &version),
            false => request.watch(&params, &version),
        };
        let opened = async { Ok(self.cluster.client().request_events::<Value>(request?).await?) };
        let opened = timeout(SILENCE, opened)
            .await
            .unwrap_or_else(|_| Err(Problem::NoAnswer("none in time".to_owned())));
        match opened {
            Ok(stream) => {
                self.state = State::Following { version, stream: stream.boxed(), fruitful: false };
                Ok(Vec::new())
            }
            Err(problem) => self.interrupted(version, Vec::new(), problem),
        }
    }

    /// Takes from the stream what is there, waiting for the first.
    async fn follow(
        &mut self,
        resource: &Resource,
        mut version: String,
        mut stream: Stream,
        mut fruitful: bool,
    ) -> Result<Vec<Event>, Problem> {
        let mut events = Vec::new();
        let Ok(mut next) = timeout(SILENCE, stream.next()).await else {
            tracing::debug!("the watch of {} was silent for too long; it is opened anew", resource.plural);
            self.state = State::Listed { version };
            return Ok(events);
        };
        loop {
            match next {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    if let Some((key, now)) = identified(&object) {
                        version = now.to_string();
                        // A stream that is taken up again may begin with what is known.
                        if self.known.insert(key, now.clone()).as_ref() != Some(&now) {
                            events.push(Event::Applied(completed(object, resource)));
                        }
                    }
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    if let Some((key, now)) = identified(&object) {
                        version = now.to_string();
                        self.known.remove(&key);
                        events.push(Event::Deleted(key));
                    }
                }
                Some(Ok(WatchEvent::Bookmark(bookmark))) => version = bookmark.metadata.resource_version,
                Some(Ok(WatchEvent::Error(status))) => {
                    return self.interrupted(version, events, Problem::of_status(&status));
                }
                Some(Err(error)) => return self.interrupted(version, events, error.into()),
                // The server ends streams as a matter of course, but not before anything has come.
                None if fruitful => {
                    self.state = State::Listed { version };
                    return Ok(events);
                }
                None => {
                    let problem = Problem::NoAnswer("the stream ended before anything came".to_owned());
                    return self.interrupted(version, events, problem);
                }
            }
            (fruitful, self.failures) = (true, 0);
            if events.len() >= BATCH {
                break;
            }
            match stream.next().now_or_never() {
                Some(more) => next = more,
                None => break,
            }
        }
        self.state = State::Following { version, stream, fruitful };
        Ok(events)
    }

    /// After a failure: what had come is told first, and the watch goes on from there; if that is too long ago, from the start.
    fn interrupted(
        &mut self,
        version: String,
        events: Vec<Event>,
        problem: Problem,
    ) -> Result<Vec<Event>, Problem> {
        self.state = match problem {
            Problem::Expired | Problem::NotFound => State::Stale,
            _ => State::Listed { version },
        };
        match (events.is_empty(), problem) {
            (true, Problem::NotFound) => Ok(events),
            (true, problem) => Err(problem),
            (false, _) => Ok(events),
        }
    }
}

/// How long to pause after so many failures in a row: jittered, because everybody lost the same server.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::rng().random_range(0.5..1.0))
}

/// An object's key and `resourceVersion`.
fn identified(object: &Value) -> Option<(Key, Box<str>)> {
    let metadata = object.get("metadata")?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).map(Box::from);
    Some((Key { namespace: text("namespace"), name: text("name")? }, text("resourceVersion")?))
}

/// An object with what the items of a list lack, and without what is only the API server's bookkeeping.
pub(crate) fn completed(mut object: Value, resource: &Resource) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), resource.api_version().into());
        fields.insert("kind".to_owned(), resource.kind.into());
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("managedFields");
    }
    object
}
