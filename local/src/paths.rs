//! Where things are in the node's file system: all in memory, below `/run/gamut`, and nowhere on the host.

/// Our own executable, in the node and in every container.
pub(crate) const EXECUTABLE: &str = "/run/gamut/bin/gamut";

/// The cluster's objects: `<Kind>/<namespace>.<name>.json`, or `<Kind>/<name>.json` for kinds without namespaces.
pub(crate) const CLUSTER: &str = "/run/gamut/cluster";

/// Statuses that the controller writes: `<Kind>/<namespace>.<name>.json`.
pub(crate) const STATUS: &str = "/run/gamut/status";

/// What containers printed: `<namespace>_<pod>_<uid>/<container>.log`.
pub(crate) const LOGS: &str = "/run/gamut/logs";

/// Each pod's volumes and generated files, by its UID.
pub(crate) const PODS: &str = "/run/gamut/pods";

/// Keys, tokens and state of the CA and the controller.
pub(crate) const COMPONENTS: &str = "/run/gamut/components";
