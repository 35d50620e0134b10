//! `gamut internal node`: the API server, the kubelet, kube-proxy and the name server of one machine, in one loop.
//!
//! ```text
//! manifests (files) ──┐
//! pods (workers) ─────┤                        ┌→ objects on disk, for the controller
//! CA, controller ─────┼──> loop ──> Cluster ───┼→ pods, virtual addresses, names
//! control socket ─────┤                        └→ events, replies
//! gamut up (orders) ──┘
//! ```
//!
//! The loop waits for nobody: what takes time happens in tasks and comes back as one more thing that has happened.

mod admission;
mod cluster;
mod components;
mod conditions;
mod control_server;
mod endpoints;
mod event_loop;
mod fields;
mod injection;
mod kubelet;
mod limits;
mod link;
mod names;
mod objects;
mod progress;
mod readings;
mod report;
mod rollout;
mod run;
mod services;
mod sync;
pub(crate) mod tokens;
mod words;
mod workloads;

pub(crate) use run::run;
