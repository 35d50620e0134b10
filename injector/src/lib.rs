//! The sidecar patch: a pod in, the same pod with its sidecar out. No clock, no network, no randomness.
//!
//! ```text
//! pod, namespace, config -> decide --Skipped(reason)
//!                             |
//!                             +--> settings (annotations) -> probes (rewritten) -> containers, volumes -> Injected
//! ```
//! Beside it, [`faults`]: what is wrong with our labels and annotations on any object, whether it is injected or not.
//!
//! The webhook, `gamut inject` and `gamut up` all call [`inject`]. Doing it twice is doing it once, so that a webhook may be
//! called again after others have changed the pod, and a manifest that was patched by hand is patched no further.

mod config;
mod containers;
mod decide;
mod inject;
mod names;
mod probes;
mod settings;
pub mod values;
mod words;

pub use config::{Config, NamespaceView, Resources};
pub use decide::Skipped;
pub use inject::{InjectError, Injected, Injection, inject};
pub use names::*;
pub use settings::{LongDrain, SettingError, SettingErrors, Warning, check_namespace};
pub use words::{Fault, Problem, Sort, Unknown, faults};
