//! The controller: objects in, what each sidecar needs out, and what became of them in their statuses.
//!
//! ```text
//! Source (files | API server) ──► Index ──► compile ──► Engine ──► serve (gRPC, mutual TLS) ──► sidecars
//!    ▲                                         │
//!    └────────────── Writer ◄── status ◄───────┘
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`source`] | where objects come from and what is written back |
//! | [`gateway`] | the Gateway API's objects, read leniently |
//! | [`index`] | everything known, joined; what depends on what |
//! | [`compile`] | from routes to tables and conditions: pure functions |
//! | [`engine`] | who subscribes to what; pushes what changed |
//! | [`serve`] | subscriptions over gRPC; who may read what |
//! | [`status`] | what is written back |
//!
//! Every replica compiles and serves. Deliberately absent: anything that a request waits for. With all replicas gone the mesh
//! goes on with what it knows.

mod admin;
pub mod compile;
mod config;
pub mod engine;
pub mod gateway;
pub mod index;
mod metrics;
mod process;
pub mod serve;
pub mod source;
pub mod status;

pub use self::{
    config::{ControllerArgs, Mtls},
    engine::{ControllerStatus, RefusedKey, SettingsStatus, SourceStatus, SubscriberStatus},
    process::{Controller, ControllerError, run},
};
