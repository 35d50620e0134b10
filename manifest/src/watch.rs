//! Readings that follow the files: one at once, another after each change.
//!
//! Changes arrive from inotify on a thread that does nothing else. It waits until they have been quiet for a
//! moment (an editor writes, renames and removes in one go) and until whoever writes into a file has closed it (half a
//! file is often good YAML, of fewer objects), then reads everything again: manifests are few, and a whole reading can't miss what an event forgot to say. A file is watched through its directory,
//! because editors and `kubectl`-like tools replace files instead of writing into them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::reader::{Reader, Reading};

/// Changes that follow each other by less than this are one.
const QUIET: Duration = Duration::from_millis(8);

/// A change is acted on after this long even if others keep coming.
const PATIENCE: Duration = Duration::from_millis(200);

/// A file that is being written is read after this long even if it isn't closed.
const PATIENCE_WITH_WRITERS: Duration = Duration::from_secs(2);

/// What happened.
enum Change {
    /// Somebody writes into this file and may not be done.
    Written(PathBuf),
    /// Somebody who could write into it has closed it.
    Closed(PathBuf),
    /// Anything else that is a reason to read.
    Other,
}

/// Readings of some paths, as they change. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    readings: mpsc::Receiver<Reading>,
    /// Dropping it closes the channel that the reading thread waits on, and so ends that thread.
    _watcher: RecommendedWatcher,
}

/// A path can't be watched.
#[derive(Debug, Error)]
#[error("{}: can't be watched for changes: {source}; check that it exists and that fs.inotify.max_user_watches isn't used up", path.display())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// Watches files and directories (see [`crate::load`] for which files count).
///
/// # Errors
/// A path doesn't exist, or the system has no watches left.
pub fn watch(paths: &[PathBuf]) -> Result<Watch, WatchError> {
    let (changes, changed) = std_mpsc::channel();
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| WatchError { path, source }
    };
    let first = paths.first().map_or(Path::new("."), PathBuf::as_path);
    let on_event = move |event: notify::Result<notify::Event>| {
        // An error says that events were lost, which is a reason to read as good as any.
        let happened = event.map_or_else(|_| vec![Change::Other], changes_of);
        for change in happened {
            // Nobody receives any more: the watch is being dropped.
            let _ = changes.send(change);
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).map_err(failed(first))?;
    for path in paths {
        let (watched, mode) = match path.is_dir() {
            true => (path.as_path(), RecursiveMode::Recursive),
            false => (directory_of(path), RecursiveMode::NonRecursive),
        };
        watcher.watch(watched, mode).map_err(failed(path))?;
    }

    // Watching began above: what changes during the first reading is seen by the second.
    let reader = Reader::new(paths);
    let (send, readings) = mpsc::channel(1);
    thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || read_on_change(reader, &changed, &send))
        .map_err(|error| failed(first)(notify::Error::io(error)))?;
    Ok(Watch { readings, _watcher: watcher })
}

impl Watch {
    /// The next reading: the first at once, each later one after a change that made a difference. `None` only if the
    /// reading thread has died. Cancel safe.
    pub async fn next(&mut self) -> Option<Reading> {
        self.readings.recv().await
    }
}

fn read_on_change(
    mut reader: Reader,
    changed: &std_mpsc::Receiver<Change>,
    readings: &mpsc::Sender<Reading>,
) {
    let mut last = None;
    loop {
        let reading = reader.read();
        if last.as_ref() != Some(&reading) {
            if readings.blocking_send(reading.clone()).is_err() {
                return;
            }
            last = Some(reading);
        }
        match changed.recv() {
            Ok(first) => await_quiet(first, changed),
            Err(_) => return,
        }
    }
}

/// Waits until changes are over, for now.
fn await_quiet(first: Change, changed: &std_mpsc::Receiver<Change>) {
    let began = Instant::now();
    let mut unfinished = BTreeSet::new();
    let mut next = Some(first);
    while let Some(change) = next {
        match change {
            Change::Written(file) => _ = unfinished.insert(file),
            Change::Closed(file) => _ = unfinished.remove(&file),
            Change::Other => {}
        }
        let (patience, quiet) = match unfinished.is_empty() {
            true => (PATIENCE, QUIET),
            false => (PATIENCE_WITH_WRITERS, PATIENCE_WITH_WRITERS),
        };
        let left = patience.saturating_sub(began.elapsed());
        next = changed.recv_timeout(quiet.min(left)).ok();
    }
}

/// Opening and reading files, as the reader itself does, changes nothing.
fn changes_of(event: notify::Event) -> Vec<Change> {
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) => event.paths.into_iter().map(Change::Written).collect(),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            event.paths.into_iter().map(Change::Closed).collect()
        }
        EventKind::Access(_) => Vec::new(),
        _ => vec![Change::Other],
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
