//! The words of injection: labels, annotations, container and volume names, ports, the proxy's user.
//!
//! `docs/reference/annotations.md` explains each label and annotation to users; a test holds that page to this list.

/// Label of namespaces and pods: whether pods get a sidecar. The pod's wins. A label, because webhook selectors can't see
/// annotations.
pub const INJECT: &str = "gamut.mesh/inject";
/// Label of a pod that has its sidecar.
pub const INJECTED: &str = "gamut.mesh/injected";

/// What the names of all our annotations begin with.
pub const PREFIX: &str = "gamut.mesh/";
/// Destination ports that the app reaches without the sidecar.
pub const SKIP_OUTBOUND_PORTS: &str = "gamut.mesh/skip-outbound-ports";
/// Ports of the pod that are reached without the sidecar.
pub const SKIP_INBOUND_PORTS: &str = "gamut.mesh/skip-inbound-ports";
/// Ports whose bytes are carried without being looked at.
pub const OPAQUE_PORTS: &str = "gamut.mesh/opaque-ports";
/// Ports of the pod that take plaintext even under strict mTLS.
pub const PLAINTEXT_PORTS: &str = "gamut.mesh/plaintext-ports";
/// What the sidecar logs.
pub const LOG_LEVEL: &str = "gamut.mesh/log-level";
/// Which requests the sidecar logs.
pub const ACCESS_LOG: &str = "gamut.mesh/access-log";
/// The sidecar's image.
pub const IMAGE: &str = "gamut.mesh/image";
/// Whether plaintext from outside the mesh is served.
pub const MTLS: &str = "gamut.mesh/mtls";
/// How long what is in flight may take to end when the pod goes.
pub const DRAIN_TIME: &str = "gamut.mesh/drain-time";
/// A pause before the app's containers are told to stop.
pub const APP_STOP_DELAY: &str = "gamut.mesh/app-stop-delay";
/// After how many failures in a row an endpoint gets nothing for a while.
pub const EJECT_AFTER: &str = "gamut.mesh/eject-after";
/// How long a new endpoint takes to get its full share.
pub const SLOW_START: &str = "gamut.mesh/slow-start";
/// The most that may be in flight to a backend.
pub const MAX_REQUESTS: &str = "gamut.mesh/max-requests";
/// The most connections to a backend that may be under way without being open yet.
pub const MAX_CONNECTING: &str = "gamut.mesh/max-connecting";
/// The most connections that the app may have open, and the most that its callers may.
pub const MAX_CONNECTIONS: &str = "gamut.mesh/max-connections";
/// The sidecar's CPU request.
pub const CPU_REQUEST: &str = "gamut.mesh/cpu-request";
/// The sidecar's memory request.
pub const MEMORY_REQUEST: &str = "gamut.mesh/memory-request";
/// The sidecar's CPU limit.
pub const CPU_LIMIT: &str = "gamut.mesh/cpu-limit";
/// The sidecar's memory limit.
pub const MEMORY_LIMIT: &str = "gamut.mesh/memory-limit";

/// Every annotation that a pod may carry.
pub const POD_ANNOTATIONS: &[&str] = &[
    SKIP_OUTBOUND_PORTS,
    SKIP_INBOUND_PORTS,
    OPAQUE_PORTS,
    PLAINTEXT_PORTS,
    LOG_LEVEL,
    ACCESS_LOG,
    IMAGE,
    MTLS,
    DRAIN_TIME,
    APP_STOP_DELAY,
    EJECT_AFTER,
    SLOW_START,
    MAX_REQUESTS,
    MAX_CONNECTING,
    MAX_CONNECTIONS,
    CPU_REQUEST,
    MEMORY_REQUEST,
    CPU_LIMIT,
    MEMORY_LIMIT,
];

/// Session settings of a route without a field for them.
pub const SESSION_PERSISTENCE: &str = "gamut.mesh/session-persistence";
/// Whether a session wins over the weights.
pub const SESSION_SCOPE: &str = "gamut.mesh/session-scope";

/// Every annotation that a namespace may carry.
pub const NAMESPACE_ANNOTATIONS: &[&str] = &[MTLS, PLAINTEXT_PORTS, OPAQUE_PORTS];
/// Every label that a namespace may carry.
pub const NAMESPACE_LABELS: &[&str] = &[INJECT];
/// Every label that a pod may carry.
pub const POD_LABELS: &[&str] = &[INJECT, INJECTED];
/// Every annotation that a Service may carry.
pub const SERVICE_ANNOTATIONS: &[&str] = &[OPAQUE_PORTS];
/// Every annotation that a route for requests may carry.
pub const ROUTE_ANNOTATIONS: &[&str] = &[SESSION_PERSISTENCE, SESSION_SCOPE];

/// The namespace of what Kubernetes itself runs.
pub const KUBE_SYSTEM: &str = "kube-system";

/// The container that writes the redirect rules.
pub const INIT_CONTAINER: &str = "gamut-init";
/// The sidecar.
pub const PROXY_CONTAINER: &str = "gamut-proxy";
/// The volume with the service account token for the CA.
pub const TOKEN_VOLUME: &str = "gamut-token";
/// The volume with the mesh's roots.
pub const ROOTS_VOLUME: &str = "gamut-roots";
/// The ConfigMap that the roots come from, in the pod's own namespace.
pub const ROOTS_CONFIG_MAP: &str = "gamut-trust-bundle";
/// Its key, and the file's name.
pub const ROOTS_KEY: &str = "root.pem";
/// Where the token is mounted.
pub const TOKEN_DIRECTORY: &str = "/var/run/secrets/gamut.mesh/token";
/// Where the roots are mounted.
pub const ROOTS_DIRECTORY: &str = "/var/run/secrets/gamut.mesh/roots";
/// Who the token is for: the CA. As `gamut_ca_api::AUDIENCE`.
pub const TOKEN_AUDIENCE: &str = "gamut.mesh/ca";
/// The sidecar's environment variable with the probes that were rewritten.
pub const PROBES_VARIABLE: &str = "GAMUT_PROBES";

/// The user that the sidecar runs as, whose connections aren't redirected. So no container of an app may run as it.
pub const PROXY_UID: i64 = 15001;
/// The sidecar's port for metrics.
pub const METRICS_PORT: u16 = 15020;
/// The sidecar's port for its own readiness and the app's rewritten probes.
pub const PROBE_PORT: u16 = 15021;
/// Every port that the sidecar takes. An app that listens on one of them can't be reached there.
pub const OWN_PORTS: std::ops::RangeInclusive<u16> = 15000..=15021;
