//! One machine as a cluster: `gamut up`, `gamut exec`, and what runs between them.
//!
//! ```text
//! gamut up ──spawns──> internal machine ──unshares, spawns──> internal init (pid 1) ──> internal node
//!   │  ▲                                                                                   │
//!   │  └─ events, orders (a socket pair; its end is the end) ──────────────────────────────┤
//!   └──── control socket \0gamut/<name>, answered by the node <── gamut exec, status       │
//!                                                                                          ▼
//!   node: API server, kubelet, kube-proxy, DNS ──spawns──> ca, controller, and for each pod
//!                                                          internal sandbox, internal container...
//! ```
//!
//! - Host side: [`Machine`] (start, events, stop), [`exec`](exec()), [`Client`].
//! - Node: `node/` keeps the objects and decides what should run, `pod/` makes one pod run, `net/` gives addresses, names and
//!   virtual addresses.
//! - `linux/` is all that touches namespaces, mounts and capabilities.
//!
//! Everything that the node makes lives in its own namespaces and dies with its pid 1, which dies with `gamut up`: the
//! kernel cleans up, whatever happened.
//!
//! Deliberately absent: images (containers run programs of the host), cgroups (requests and limits aren't enforced), a
//! way out of the node's network. `docs/reference/local.md` has the list.

mod client;
pub mod control;
mod exec;
mod instance;
pub mod internal;
mod linux;
mod net;
mod node;
mod paths;
mod pod;
mod up;

#[doc(hidden)]
pub mod fuzz;

pub use client::{Client, ClientError};
pub use exec::{ExecError, ExecOptions, exec};
pub use instance::{INSTANCE_VARIABLE, InstanceName, InvalidName, running};
pub use up::{Machine, Traces, UpError, UpOptions};
