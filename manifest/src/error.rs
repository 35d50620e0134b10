//! What can be wrong with manifests, each as one line: where, which object, what, and what to do about it.

use std::{fmt, path::PathBuf};

use thiserror::Error;

use crate::object::{ObjectId, Origin};

/// A problem and its place, printed `file:line:column: Kind namespace/name: problem; remedy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as it was reached from the path given.
    pub file: PathBuf,
    /// Line and column (from 1) of the problem, or of the document that has it; unknown for a file that can't
    /// be read.
    pub at: Option<(u64, Option<u64>)>,
    /// The object, as far as it has a name.
    pub object: Option<ObjectId>,
    /// What is wrong and what to do.
    pub problem: Problem,
}

/// What is wrong, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The file or directory can't be read.
    #[error("can't be read: {0}; check the path and its permissions")]
    Unreadable(String),
    /// It isn't YAML, or isn't JSON.
    #[error("{0}")]
    Syntax(String),
    /// A document that isn't a mapping.
    #[error("is not a Kubernetes object: expected a mapping with apiVersion, kind and metadata, found {0}")]
    NotAnObject(&'static str),
    /// A field that every object needs is missing or empty.
    #[error("{0} is missing; every Kubernetes object needs it")]
    Missing(&'static str),
    /// `metadata.name` is missing.
    #[error("a {kind} without metadata.name; give it a name")]
    Nameless {
        /// The object's kind.
        kind: String,
    },
    /// A field has another type than Kubernetes gives it.
    #[error("{field} must be {expected}, found {found}")]
    WrongType {
        /// The field's path.
        field: String,
        /// The type it should have.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A name that the API server would refuse.
    #[error(
        "{field} {value:?} is not a valid name; use lower-case letters, digits and '-'{}, at most {limit} characters",
        if *.limit > 63 { " or '.'" } else { "" }
    )]
    InvalidName {
        /// `metadata.name` or `metadata.namespace`.
        field: &'static str,
        /// What is there.
        value: String,
        /// The greatest length allowed.
        limit: usize,
    },
    /// Two documents describe the same object. The first one is used.
    #[error("is defined twice; it is already in {first}, which is used; remove or rename one of the two")]
    Duplicate {
        /// The definition that is used.
        first: Origin,
    },
    /// A kind that nothing here has a use for. Only a warning.
    #[error("kind {kind} of {api_version} is not known to Gamut; it is left out{}", remedy_for_kind(.similar))]
    UnknownKind {
        /// The `apiVersion`.
        api_version: String,
        /// The `kind`.
        kind: String,
        /// A known kind that may have been meant.
        similar: Option<String>,
    },
    /// A known kind in a version that neither Gamut nor the API server has.
    #[error("{api_version} has no kind {kind}; write apiVersion: {known}")]
    UnknownVersion {
        /// The `apiVersion`.
        api_version: String,
        /// The `kind`.
        kind: String,
        /// The newest `apiVersion` of it.
        known: String,
    },
    /// A file that was good once isn't any more: what it held before stays in use. Only a warning.
    #[error("keeps its last good version until the errors in this file are mended")]
    KeptLastGood,
}

/// Whether a problem costs an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth saying; nothing that was asked for is lost.
    Warning,
    /// Something that was asked for isn't there.
    Error,
}

fn remedy_for_kind(similar: &Option<String>) -> String {
    similar.as_ref().map(|kind| format!(" (did you mean {kind}?)")).unwrap_or_default()
}

impl ManifestError {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self.problem {
            Problem::UnknownKind { .. } | Problem::KeptLastGood => Severity::Warning,
            _ => Severity::Error,
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.at {
            Some((line, Some(column))) => write!(f, ":{line}:{column}")?,
            Some((line, None)) => write!(f, ":{line}")?,
            None => {}
        }
        f.write_str(": ")?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

impl std::error::Error for ManifestError {}
