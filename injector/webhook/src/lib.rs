//! The injector: `gamut injector`.
//!
//! ```text
//!  API server ──AdmissionReview (HTTPS)──► serve ─► review ─► admit ─► gamut_injector::inject
//!    ▲  │ watch                                                 ▲
//!    │  ├─ Namespaces ──────────────────► namespaces ───────────┤ labels
//!    │  ├─ pods without a sidecar ──────► reconcile ◄───────────┘ Events, metric, /status
//!    │  ├─ Services, workloads ─────────► faults ► Events on what carries misspelt labels and annotations
//!    │  ├─ ConfigMap gamut-trust-bundle ─┐
//!    │  └─ webhook configuration ────────┴► ca_bundle
//!    └──────────────── caBundle ────────────────┘
//! ```
//! A pod that should have a sidecar gets it or is refused: nothing here lets one through because something is wrong. The
//! patch itself is a pure function elsewhere ([`gamut_injector::inject`]); this crate brings pods to it and carries out what
//! it says. Every replica does the same, and what they write is the same.
//!
//! Deliberately absent: restarting anything (the reconciler tells, people act), and a webhook configuration of our own making
//! (the chart makes it; here only its `caBundle` is filled in).

mod admin;
mod admit;
mod ca_bundle;
mod config;
mod event;
mod faults;
mod follow;
mod installation;
mod metrics;
mod namespaces;
mod pod_security;
mod process;
mod reconcile;
mod review;
mod serve;
mod status;

#[doc(hidden)]
pub mod fuzz;

pub use config::{InjectorArgs, LogFormat, PullPolicy};
pub use installation::{NotUnderstood, sidecars_of};
pub use process::{Injector, InjectorError, run};
pub use status::{CaBundle, Cause, ForbiddingNamespace, InjectorStatus, OwnCertificate, WithoutSidecar};
