//! Sidecars for pods that should have one: the same patch as the webhook's, with this machine's addresses.

use gamut_injector::{Config, Injection, NamespaceView, Warning, inject};
use serde_json::Value;

use crate::{
    net::addresses::NODE_V4,
    pod::plan::{self, PodPlan},
    up::Traces,
};

/// Where sidecars find the CA.
pub(crate) const CA_PORT: u16 = 15010;
/// Where sidecars find the controller.
pub(crate) const CONTROLLER_PORT: u16 = 15012;

/// A pod that can be run.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The object, with its sidecar if it gets one.
    pub(crate) object: Value,
    pub(crate) plan: PodPlan,
    pub(crate) meshed: bool,
    /// What the author should know.
    pub(crate) warnings: Vec<String>,
}

/// The injector's settings on this machine. Addresses are numbers: sidecars come before anything that needs names.
pub(crate) fn config(trust_domain: &str, traces: &Traces) -> Config {
    Config {
        trust_domain: trust_domain.to_owned(),
        ca_address: format!("{NODE_V4}:{CA_PORT}"),
        controller_address: format!("{NODE_V4}:{CONTROLLER_PORT}"),
        traces_to: traces.to.clone(),
        traces_share: traces.share.clone(),
        ..Config::default()
    }
}

/// Injects a pod where its namespace or itself says so, and plans it. The error is a sentence.
pub(crate) fn prepare(pod: Value, namespace: &NamespaceView, config: &Config) -> Result<Prepared, String> {
    let (object, meshed, warnings) =
        match inject(&pod, namespace, config).map_err(|error| error.to_string())? {
            Injection::Injected(injected) => {
                // What is told with the manifest, whether it is injected or not.
                let is_told = |warning: &Warning| {
                    matches!(warning, Warning::UnknownAnnotation(_) | Warning::DrainLongerThanGrace(_))
                };
                let is_new = |warning: &&Warning| !is_told(warning);
                let warnings = injected.warnings.iter().filter(is_new).map(ToString::to_string).collect();
                (injected.pod, true, warnings)
            }
            Injection::Skipped(_) => (pod, false, Vec::new()),
        };
    let plan = plan::plan(&object).map_err(|error| error.to_string())?;
    Ok(Prepared { object, plan, meshed, warnings })
}
