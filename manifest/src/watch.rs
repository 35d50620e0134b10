//! Readings that follow the files: one at once, another after each change.
//!
//! Changes arrive from inotify on a thread that does nothing else. It waits until they have been quiet for a
//! moment (an editor writes, renames and removes in one go), then reads everything again: manifests are few,
//! and a whole reading can't miss what an event forgot to say. A file is watched through its directory,
//! because editors and `kubectl`-like tools replace files instead of writing into them.

use std::{
    path::{Path, PathBuf},
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::reader::{Reader, Reading};

/// Changes that follow each other by less than this are one.
const QUIET: Duration = Duration::from_millis(8);

/// A change is acted on after this long even if others keep coming.
const PATIENCE: Duration = Duration::from_millis(200);

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
        if event.map_or(true, |event| is_change(event.kind)) {
            // Nobody receives any more: the watch is being dropped.
            let _ = changes.send(());
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

fn read_on_change(mut reader: Reader, changed: &std_mpsc::Receiver<()>, readings: &mpsc::Sender<Reading>) {
    let mut last = None;
    loop {
        let reading = reader.read();
        if last.as_ref() != Some(&reading) {
            if readings.blocking_send(reading.clone()).is_err() {
                return;
            }
            last = Some(reading);
        }
        if changed.recv().is_err() {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && changed.recv_timeout(QUIET).is_ok() {}
    }
}

/// Opening and reading files, as the reader itself does, changes nothing.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
