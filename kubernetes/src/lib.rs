//! The boundary to an API server: connect, ask, watch, hold a Lease. Objects stay JSON.
//!
//! ```text
//! kubeconfig | service account ─connect→ Cluster ─┬─ api: get, list, create, replace, delete (one request each, bounded in time)
//!                                                 ├─ logs: what a container prints
//!                                                 ├─ forward: a question to a pod's own port    (as `kubectl port-forward`)
//!                                                 ├─ Watch: list, then follow           (forever, through every failure)
//!                                                 └─ Campaign: a Lease, held or awaited (who writes what everybody could write)
//! ```
//!
//! Objects are `serde_json::Value`s, because their readers are lenient and read files as well: a field that this crate
//! doesn't know must survive, and one object that is odd must not stop a watch.
//!
//! Deliberately absent: caches (whoever watches keeps what it needs, and nothing twice) and server-side apply (a status list with
//! several writers is atomic; it takes read, merge, replace).

mod api;
mod connect;
mod error;
mod forward;
mod lease;
mod logs;
mod resource;
mod watch;

pub use self::{
    api::{Cluster, Created, Replaced},
    connect::{ConnectError, Context},
    error::{ApiError, Problem},
    forward::{AskError, FORWARD_PERMISSION, Forwarded},
    lease::{Campaign, Leadership, LeaseName},
    logs::{LogSelection, Logs},
    resource::{Resource, Selection, core, routes},
    watch::{Event, Key, Watch},
};

/// The label that is on everything that the control plane creates, so that it can be found and deleted after an
/// uninstallation.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "gamut");
