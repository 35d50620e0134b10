//! One pod: what a Pod object asks for, and everything that makes it run.
//!
//! ```text
//! Pod object ─plan→ PodPlan ─worker→ sandbox (namespaces, addresses) → init containers and sidecars → app containers
//!                                      │ lifecycle: what may start now, what comes after an exit
//!                                      └ status: the Pod's conditions and container statuses
//! ```
//!
//! `plan`, `environment`, `lifecycle` and `status` decide and touch nothing; the others act.

pub(crate) mod actions;
pub(crate) mod container;
pub(crate) mod data;
pub(crate) mod downward;
pub(crate) mod ending;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod lifecycle;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod probes;
pub(crate) mod rootfs;
pub(crate) mod sandbox;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod volumes;
pub(crate) mod worker;
