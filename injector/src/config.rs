//! What an installation says about its sidecars, and what the patch looks at beside the pod.

use std::collections::BTreeMap;

/// An installation's settings. Annotations of a pod win over those that they name.
#[derive(Clone, Debug)]
pub struct Config {
    /// The image of both containers: the one with what sidecars need and nothing else.
    pub image: String,
    /// `imagePullPolicy` of both; Kubernetes' default if `None`.
    pub image_pull_policy: Option<String>,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// The CA, `host:port`.
    pub ca_address: String,
    /// The controller, `host:port`.
    pub controller_address: String,
    /// Our own namespace, whose pods never get a sidecar: they start what sidecars need.
    pub system_namespace: String,
    /// What sidecars log: a level, or `tracing` directives.
    pub log_level: String,
    /// `text` or `json`.
    pub log_format: String,
    /// Where sidecars send spans, `grpc://HOST:PORT` or `http://HOST:PORT/PATH`; nowhere if `None`.
    pub traces_to: Option<String>,
    /// The share of traces beginning at sidecars that is exported, 0 to 1; sidecars' own default if `None`.
    pub traces_share: Option<String>,
    /// How long what is in flight may take to end when a pod goes; a duration like `30s`.
    pub drain_time: String,
    /// How long a service account token is good, in seconds; the kubelet replaces it at 80 %.
    pub token_lifetime: i64,
    /// Requests and limits of both containers.
    pub resources: Resources,
}

/// Requests and limits, as Kubernetes quantities; what is `None` isn't set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `requests.cpu`.
    pub cpu_request: Option<String>,
    /// `requests.memory`.
    pub memory_request: Option<String>,
    /// `limits.cpu`. A limit on CPU is paid in tail latency.
    pub cpu_limit: Option<String>,
    /// `limits.memory`.
    pub memory_limit: Option<String>,
}

/// The pod's namespace, as far as injection looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: concat!("gamut.mesh/gamut-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: None,
            trust_domain: "cluster.local".to_owned(),
            ca_address: "gamut-ca.gamut-system.svc:15010".to_owned(),
            controller_address: "gamut-controller.gamut-system.svc:15012".to_owned(),
            system_namespace: "gamut-system".to_owned(),
            log_level: "info".to_owned(),
            log_format: "text".to_owned(),
            traces_to: None,
            traces_share: None,
            drain_time: "30s".to_owned(),
            token_lifetime: 3600,
            resources: Resources {
                cpu_request: Some("10m".to_owned()),
                memory_request: Some("32Mi".to_owned()),
                ..Resources::default()
            },
        }
    }
}
