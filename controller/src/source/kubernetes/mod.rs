//! Objects from an API server: a watch of each kind, and writes back.
//!
//! ```text
//! Watch (a task each) ─┐
//! Watch ───────────────┼─ bounded queue ─► batches of SourceEvent
//! Watch ───────────────┘                     ▲
//! Lease ── Leads(true | false) ──────────────┘
//! ```
//!
//! `Synced` comes when every kind has been listed once, or isn't served. After that no failure takes anything away: what was known
//! stays, watches go on from where they were, and what changed meanwhile comes as changes.

mod features;
mod kinds;
mod mesh;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use gamut_identity::SYSTEM_NAMESPACE;
use gamut_kubernetes::{ApiError, Cluster, Event, Key, Leadership, Problem, Resource, Watch};
use gamut_manifest::{Object, ObjectId, Origin};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{info, warn};

use self::{kinds::Kind, write::Served};
pub use self::{
    mesh::keep as keep_mesh,
    write::{KubernetesWriteError, KubernetesWriter},
};
use super::SourceEvent;

/// How many tellings of watches wait for the index; each is a page or less.
const QUEUE: usize = 8;
/// From this many events on a batch is handed over without looking for more.
const BATCH: usize = 2_000;

/// Objects from an API server.
#[derive(Debug)]
pub struct KubernetesSource {
    told: mpsc::Receiver<Told>,
    /// Kinds that haven't been listed yet.
    awaited: BTreeSet<&'static str>,
    leadership: Leadership,
    leads: bool,
    writer: KubernetesWriter,
    troubles: Troubles,
    /// The watches; they end with this.
    _watches: JoinSet<()>,
}

/// Something that the watch of a kind says.
#[derive(Debug)]
struct Told {
    kind: &'static str,
    news: News,
}

#[derive(Debug)]
enum News {
    Events(Vec<SourceEvent>),
    /// All that exists has been told.
    Complete,
    Trouble(Problem),
}

/// What goes wrong at present, told once for each reason and not once for each kind.
#[derive(Debug, Default)]
struct Troubles {
    by_kind: BTreeMap<&'static str, String>,
    lines: Vec<String>,
}

impl KubernetesSource {
    /// Begins to watch. `leadership` says whether this replica writes statuses.
    pub fn new(cluster: &Cluster, system_namespace: &str, leadership: Leadership) -> Self {
        let (tell, told) = mpsc::channel(QUEUE);
        let served = Served::default();
        let (mut watches, mut awaited) = (JoinSet::new(), BTreeSet::new());
        for Kind { versions, selection } in kinds::watched(system_namespace) {
            awaited.extend(versions.first().map(|resource| resource.kind));
            let watch = Watch::of_versions(cluster.clone(), versions, selection);
            watches.spawn(follow(watch, served.clone(), tell.clone()));
        }
        let writer = KubernetesWriter::new(cluster.clone(), leadership.clone(), served);
        let troubles = Troubles::default();
        Self { told, awaited, leadership, leads: false, writer, troubles, _watches: watches }
    }

    /// The next batch, never empty. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<SourceEvent>> {
        loop {
            tokio::select! {
                differs = self.leadership.differs_from(self.leads) => {
                    // Nobody tries for the Lease any more: the process is about to end.
                    self.leads = differs && !self.leads;
                    if !differs {
                        return None;
                    }
                    return Some(vec![SourceEvent::Leads(self.leads)]);
                }
                told = self.told.recv() => {
                    let mut events = self.take(told?);
                    while events.len() < BATCH
                        && let Ok(told) = self.told.try_recv()
                    {
                        events.extend(self.take(told));
                    }
                    if !events.is_empty() {
                        return Some(events);
                    }
                }
            }
        }
    }

    pub(super) fn writer(&self) -> KubernetesWriter {
        self.writer.clone()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.troubles.lines
    }

    fn take(&mut self, Told { kind, news }: Told) -> Vec<SourceEvent> {
        match news {
            News::Trouble(problem) => {
                self.troubles.note(kind, Some(problem.to_string()));
                Vec::new()
            }
            News::Events(events) => {
                self.troubles.note(kind, None);
                events
            }
            News::Complete => {
                self.troubles.note(kind, None);
                match self.awaited.remove(kind) && self.awaited.is_empty() {
                    true => vec![SourceEvent::Synced],
                    false => Vec::new(),
                }
            }
        }
    }
}

impl Troubles {
    fn note(&mut self, kind: &'static str, problem: Option<String>) {
        if self.by_kind.get(kind) == problem.as_ref() {
            return;
        }
        let before = std::mem::take(&mut self.lines);
        let had_some = !self.by_kind.is_empty();
        match &problem {
            Some(problem) => self.by_kind.insert(kind, problem.clone()),
            None => self.by_kind.remove(kind),
        };
        if let Some(problem) = problem
            && !before.iter().any(|line| line.ends_with(&problem))
        {
            warn!("can't watch {kind} objects, and maybe others: {problem}; what was known stays in force");
        }
        if had_some && self.by_kind.is_empty() {
            info!("all kinds are watched again");
        }
        let mut kinds: BTreeMap<&String, Vec<&str>> = BTreeMap::new();
        for (kind, problem) in &self.by_kind {
            kinds.entry(problem).or_default().push(kind);
        }
        self.lines =
            kinds.into_iter().map(|(problem, kinds)| format!("{}: {problem}", kinds.join(", "))).collect();
    }
}

/// All objects of a kind that the index reads, as they are now and as the source would tell them; `None` if the cluster doesn't
/// serve the kind.
///
/// # Errors
/// If there is no answer, or the answer is no.
pub async fn read(cluster: &Cluster, kind: &str) -> Result<Option<Vec<Object>>, ApiError> {
    let watched = kinds::watched(SYSTEM_NAMESPACE).into_iter();
    let of_kind = watched.filter(|watched| watched.versions.iter().any(|resource| resource.kind == kind));
    for Kind { versions, selection } in of_kind {
        for resource in versions {
            if let Some(objects) = cluster.list(&resource, &selection).await? {
                let origin = origin(resource);
                let objects = objects.into_iter().filter_map(|object| self::object(object, &origin));
                return Ok(Some(objects.collect()));
            }
        }
    }
    Ok(None)
}

/// Tells what a watch says, for as long as somebody listens.
async fn follow(mut watch: Watch, served: Served, tell: mpsc::Sender<Told>) {
    while let Some(resource) = watch.resource() {
        let kind = resource.kind;
        let news = match watch.next().await {
            Ok(events) => news_of(events, watch.resource().unwrap_or(resource), &served),
            Err(error) => vec![News::Trouble(error.problem)],
        };
        for news in news {
            if tell.send(Told { kind, news }).await.is_err() {
                return;
            }
        }
    }
}

fn news_of(events: Vec<Event>, resource: Resource, served: &Served) -> Vec<News> {
    let origin = origin(resource);
    let (mut changes, mut complete) = (Vec::new(), false);
    for event in events {
        match event {
            Event::Applied(object) => {
                let object = self::object(object, &origin);
                changes.extend(object.map(|object| SourceEvent::Applied(Box::new(object))));
            }
            Event::Deleted(key) => changes.push(SourceEvent::Deleted(id_of(resource.kind, key))),
            Event::Complete => {
                served.set(resource.kind, Some(resource));
                complete = true;
            }
            Event::NotServed => {
                served.set(resource.kind, None);
                complete = true;
            }
        }
    }
    let changes = Some(changes).filter(|changes| !changes.is_empty()).map(News::Events);
    changes.into_iter().chain(complete.then_some(News::Complete)).collect()
}

fn origin(resource: Resource) -> Origin {
    Origin { file: Arc::new(PathBuf::from(resource.path(None))), document: 0, line: 0 }
}

/// An object as the index reads it; one that is no object at all is left out, and said.
fn object(mut object: Value, origin: &Origin) -> Option<Object> {
    kinds::trim(&mut object);
    match Object::from_value(object, origin) {
        Ok(object) => Some(object),
        Err(problem) => {
            warn!("{problem}; the object is left out");
            None
        }
    }
}

fn id_of(kind: &str, key: Key) -> ObjectId {
    ObjectId {
        kind: kind.to_owned(),
        namespace: key.namespace.map(String::from),
        name: String::from(key.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_however_many_kinds_it_concerns() {
        let mut troubles = Troubles::default();
        let refused = || Some("no answer: connection refused".to_owned());
        troubles.note("Pod", refused());
        troubles.note("Service", refused());
        troubles.note("Secret", Some("not allowed".to_owned()));
        assert_eq!(troubles.lines, ["Pod, Service: no answer: connection refused", "Secret: not allowed"]);
        troubles.note("Pod", None);
        troubles.note("Secret", None);
        assert_eq!(troubles.lines, ["Service: no answer: connection refused"]);
    }
}
