//! Where objects come from and where the controller writes back: the one boundary to the world of objects.
//!
//! ```text
//! files (inotify) ────┐                                 ┌→ status of routes
//!                     ├→ batches of SourceEvent → Index  │
//! API server (watch) ─┘                          Write ─┴→ Secret gamut-system/gamut-session-keys
//! ```
//!
//! A batch is what was seen at one moment and is applied as one. `Synced` comes once, behind everything that existed
//! at the start: before it, an object that is missing may only be late.
//!
//! Files have one reader, who writes. An API server has several: each reads, and the one that leads writes statuses.

mod files;
mod kubernetes;

use std::path::PathBuf;

use gamut_manifest::{Object, ObjectId, WatchError};
use serde_json::Value;
use thiserror::Error;

use crate::status::Entry;
pub use files::{FilesSource, FilesWriter, WriteTo};
pub use kubernetes::{KubernetesSource, KubernetesWriteError, KubernetesWriter, keep_mesh, read};

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceEvent {
    /// It is there, with this content: new, or changed.
    Applied(Box<Object>),
    /// It is gone.
    Deleted(ObjectId),
    /// All that existed at the start has been told. Comes once.
    Synced,
    /// This replica writes statuses from now on, or doesn't any more. Only of a source that [is shared](Source::is_shared).
    Leads(bool),
}

/// A place that objects come from.
#[derive(Debug)]
pub enum Source {
    /// A directory of files, one object each: "the API server" of one machine; or plain manifests.
    Files(FilesSource),
    /// An API server.
    Kubernetes(KubernetesSource),
}

/// Writes what the controller owns. Clones write to the same place.
#[derive(Clone, Debug)]
pub enum Writer {
    /// Next to the files.
    Files(FilesWriter),
    /// To the API server.
    Kubernetes(KubernetesWriter),
}

/// Something for a [`Writer`] to write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The `status` of an object of a route kind.
    Status {
        /// The object.
        id: ObjectId,
        /// The whole `status`; `None` where the object is gone, and what was written about it must go too.
        status: Option<Value>,
        /// Our part of it, for a place where others may have changed the rest by now. `None` where the object is gone.
        said: Option<Said>,
    },
    /// An object that belongs to the controller, created unless it exists.
    Create(Value),
    /// Such an object in place of the one that it was made from, unless somebody else has changed that since.
    Replace(Value),
}

/// What we say about an object, before it is merged with what others say.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The list in `status`: `parents` or `ancestors`.
    pub list: &'static str,
    /// Our entries in it.
    pub entries: Vec<Entry>,
    /// The `metadata.generation` that they are about.
    pub generation: i64,
}

/// Writing failed.
#[derive(Debug, Error)]
pub enum WriteError {
    /// To a file.
    #[error("{what} can't be written to {}: {source}", path.display())]
    File {
        /// The object.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// To the API server.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesWriteError),
}

impl Source {
    /// Objects from files and directories, and files to write to.
    ///
    /// # Errors
    /// A path can't be watched.
    pub fn files(paths: &[PathBuf], writes: WriteTo) -> Result<Self, WatchError> {
        FilesSource::new(paths, writes).map(Self::Files)
    }

    /// The next batch, never empty; `None` when the source has ended for good. Cancel safe.
    pub async fn next(&mut self) -> Option<Vec<SourceEvent>> {
        match self {
            Self::Files(files) => files.next().await,
            Self::Kubernetes(kubernetes) => kubernetes.next().await,
        }
    }

    /// A handle for what the controller writes.
    pub fn writer(&self) -> Writer {
        match self {
            Self::Files(files) => Writer::Files(files.writer()),
            Self::Kubernetes(kubernetes) => Writer::Kubernetes(kubernetes.writer()),
        }
    }

    /// Whether others write to it as well. It then shows what became of our writes and theirs, and says with
    /// [`SourceEvent::Leads`] which of us writes statuses.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Kubernetes(_))
    }

    /// What can't be read at present, one line each, for `status` and logs.
    pub fn problems(&self) -> &[String] {
        match self {
            Self::Files(files) => files.problems(),
            Self::Kubernetes(kubernetes) => kubernetes.problems(),
        }
    }

    /// The newest `resourceVersion` that was read, where versions are comparable: in files that one writer numbers.
    pub fn resource_version(&self) -> Option<u64> {
        match self {
            Self::Files(files) => files.resource_version(),
            Self::Kubernetes(_) => None,
        }
    }
}

impl Writer {
    /// Carries out one write.
    ///
    /// # Errors
    /// The place can't be written to; the write may be tried again.
    pub async fn write(&self, write: &Write) -> Result<(), WriteError> {
        match self {
            Self::Files(files) => files.write(write).await,
            Self::Kubernetes(kubernetes) => Ok(kubernetes.write(write).await?),
        }
    }
}
