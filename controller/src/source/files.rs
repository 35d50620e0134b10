//! Objects from files: what changed between two readings, as events; writes as files.
//!
//! Readings are compared by content, so an editor's save without a change, or a file that moved, is no event.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use gamut_manifest::{Object, ObjectId, Reading, Severity, Watch, WatchError};
use serde_json::Value;
use tokio::{fs, io::AsyncWriteExt as _};

use super::{SourceEvent, Write, WriteError};

/// Where a [`FilesWriter`] writes. `None`: such writes are left out, as when plain manifests are only looked at.
#[derive(Clone, Debug, Default)]
pub struct WriteTo {
    /// Statuses: `<directory>/<Kind>/<namespace>.<name>.json`, the content of the object's `status`.
    pub statuses: Option<PathBuf>,
    /// Objects: `<directory>/<Kind>/<namespace>.<name>.json`, a directory that this source reads as well.
    pub objects: Option<PathBuf>,
}

/// Objects from files and directories that `gamut-manifest` watches.
#[derive(Debug)]
pub struct FilesSource {
    watch: Watch,
    known: HashMap<ObjectId, Object>,
    synced: bool,
    problems: Vec<String>,
    writer: FilesWriter,
}

/// Writes next to the files.
#[derive(Clone, Debug)]
pub struct FilesWriter {
    to: WriteTo,
}

impl FilesSource {
    /// Watches `paths`. The directory of objects is made if it isn't there yet.
    ///
    /// # Errors
    /// A path can't be watched.
    pub fn new(paths: &[PathBuf], to: WriteTo) -> Result<Self, WatchError> {
        if let Some(objects) = &to.objects
            && let Err(error) = std::fs::create_dir_all(objects)
        {
            tracing::warn!("{}: can't be created: {error}", objects.display());
        }
        let watch = gamut_manifest::watch(paths)?;
        Ok(Self {
            watch,
            known: HashMap::new(),
            synced: false,
            problems: Vec::new(),
            writer: FilesWriter { to },
        })
    }

    /// The next batch, never empty. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<SourceEvent>> {
        loop {
            let reading = self.watch.next().await?;
            let events = self.events_of(reading);
            if !events.is_empty() {
                return Some(events);
            }
        }
    }

    pub(super) fn writer(&self) -> FilesWriter {
        self.writer.clone()
    }

    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The newest `resourceVersion` among the objects read last; plain manifests have none.
    pub(super) fn resource_version(&self) -> Option<u64> {
        let versions = self
            .known
            .values()
            .filter_map(|object| object.raw.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok());
        versions.max()
    }

    fn events_of(&mut self, reading: Reading) -> Vec<SourceEvent> {
        self.note_problems(&reading);
        let (mut events, known) = changes(&mut self.known, reading.objects);
        self.known = known;
        if !self.synced {
            self.synced = true;
            events.push(SourceEvent::Synced);
        }
        events
    }

    fn note_problems(&mut self, reading: &Reading) {
        let problems: Vec<String> = reading.errors.iter().map(ToString::to_string).collect();
        for (error, line) in reading.errors.iter().zip(&problems) {
            if self.problems.contains(line) {
                continue;
            }
            match error.severity() {
                Severity::Error => tracing::error!("{line}"),
                Severity::Warning => tracing::warn!("{line}"),
            }
        }
        self.problems = problems;
    }
}

/// What is new, changed or gone; deletions come last, so that what moves from one object to another never
/// lacks in between.
fn changes(
    known: &mut HashMap<ObjectId, Object>,
    objects: Vec<Object>,
) -> (Vec<SourceEvent>, HashMap<ObjectId, Object>) {
    let mut events = Vec::new();
    let mut now = HashMap::with_capacity(objects.len());
    for object in objects {
        let id = object.id();
        if known.remove(&id).is_none_or(|before| before.raw != object.raw) {
            events.push(SourceEvent::Applied(Box::new(object.clone())));
        }
        now.insert(id, object);
    }
    let mut gone: Vec<ObjectId> = known.drain().map(|(id, _)| id).collect();
    gone.sort();
    events.extend(gone.into_iter().map(SourceEvent::Deleted));
    (events, now)
}

impl FilesWriter {
    pub(super) async fn write(&self, write: &Write) -> Result<(), WriteError> {
        let (directory, id) = match write {
            Write::Status { id, .. } => (&self.to.statuses, id.clone()),
            Write::Create(object) | Write::Replace(object) => (&self.to.objects, id_of(object)),
        };
        let Some(directory) = directory else { return Ok(()) };
        let path = file_of(directory, &id);
        let written = match write {
            Write::Status { status: Some(status), .. } => replace(&path, status, 0o644).await,
            Write::Status { status: None, .. } => remove(&path).await,
            Write::Create(object) => create(&path, object).await,
            // Nobody else writes here.
            Write::Replace(object) => replace(&path, object, 0o600).await,
        };
        written.map_err(|source| WriteError::File { what: id.to_string(), path, source })
    }
}

fn id_of(object: &Value) -> ObjectId {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    ObjectId {
        kind: text("/kind").unwrap_or_default(),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name").unwrap_or_default(),
    }
}

fn file_of(directory: &Path, id: &ObjectId) -> PathBuf {
    let namespace = id.namespace.as_deref().map(|namespace| format!("{namespace}.")).unwrap_or_default();
    directory.join(&id.kind).join(format!("{namespace}{}.json", id.name))
}

/// Puts a file in the place of `path`, so that readers see the old content or the new, never a part.
async fn replace(path: &Path, content: &Value, mode: u32) -> io::Result<()> {
    let beside = write_beside(path, content, mode).await?;
    fs::rename(&beside, path).await
}

/// Creates a file that only its owner can read, unless there is one: of two controllers that try, one succeeds.
async fn create(path: &Path, content: &Value) -> io::Result<()> {
    let beside = write_beside(path, content, 0o600).await?;
    // A link fails where a rename would replace.
    let linked = fs::hard_link(&beside, path).await;
    fs::remove_file(&beside).await?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

async fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Writes a hidden file next to `path`, which no reader of the directory looks at.
async fn write_beside(path: &Path, content: &Value, mode: u32) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).await?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside).await?;
    file.write_all(format!("{content:#}\n").as_bytes()).await?;
    file.flush().await?;
    Ok(beside)
}
