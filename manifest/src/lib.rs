//! Kubernetes manifests from files: text in, [`Object`]s and [`ManifestError`]s out.
//!
//! ```text
//! paths ─reader→ files ─document→ JSON values with their line ─object→ Objects (named, dated, with a UID)
//!          ↑ watch (inotify): the whole is read again after each change
//! ```
//!
//! What is wrong with one document never costs another one: errors come beside the objects, each a line that
//! names file, object, field and remedy. Objects keep their whole content as JSON ([`Object::raw`]), because
//! different readers want different parts of it and because a field that nobody here knows must survive.
//!
//! Deliberately absent: what kinds mean. This crate knows only which kinds exist and whether they live in a
//! namespace.

mod document;
mod error;
mod kinds;
mod object;
mod reader;
mod similar;
mod watch;

#[doc(hidden)]
pub mod fuzz;

pub use error::{ManifestError, Problem, Severity};
pub use object::{Object, ObjectId, Origin};
pub use reader::{Reader, Reading, STANDARD_INPUT, load};
pub use similar::nearest;
pub use watch::{Watch, WatchError, watch};
