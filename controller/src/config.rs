//! `gamut controller`'s command line and environment.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use gamut_controller_api::MtlsMode;
use gamut_identity::MeshArgs;

/// Settings of `gamut controller`.
#[derive(Args, Clone, Debug)]
pub struct ControllerArgs {
    /// Where sidecars subscribe (gRPC over mutual TLS)
    #[arg(long, env = "GAMUT_CONTROLLER_LISTEN", default_value = "[::]:15012", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where /healthz, /ready, /metrics and /status answer (plain HTTP)
    #[arg(
        long,
        env = "GAMUT_CONTROLLER_ADMIN",
        default_value = "127.0.0.1:15014",
        value_name = "ADDRESS:PORT"
    )]
    pub admin: SocketAddr,
    /// Which mesh it belongs to
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// The cluster to read and write, if not the one that this pod runs in, or KUBECONFIG's
    #[arg(long, env = "GAMUT_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Objects as files instead of a cluster's, KIND/NAMESPACE.NAME.json: read, watched, and written to for the
    /// controller's own
    #[arg(long, env = "GAMUT_CLUSTER_DIR", value_name = "DIR", conflicts_with = "kubeconfig")]
    pub cluster_dir: Option<PathBuf>,
    /// This replica's name in the Lease of the one that writes statuses: the pod's
    #[arg(long, env = "GAMUT_POD_NAME", default_value = "gamut-controller", value_name = "NAME")]
    pub replica: String,
    /// Where statuses are written, as files of the same names
    #[arg(long, env = "GAMUT_STATUS_DIR", default_value = "/run/gamut/status", value_name = "DIR")]
    pub status_dir: PathBuf,
    /// Whether pods and namespaces that don't say serve plaintext callers
    #[arg(long, env = "GAMUT_MTLS", default_value = "permissive", value_name = "MODE")]
    pub mtls: Mtls,
    /// A backendRef to another namespace needs a ReferenceGrant there
    #[arg(long, env = "GAMUT_REQUIRE_REFERENCE_GRANT")]
    pub require_reference_grant: bool,
}

/// As [`MtlsMode`], on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mtls {
    /// Mesh peers only.
    Strict,
    /// Everybody; mesh peers over mTLS.
    Permissive,
}

impl From<Mtls> for MtlsMode {
    fn from(mode: Mtls) -> Self {
        match mode {
            Mtls::Strict => Self::Strict,
            Mtls::Permissive => Self::Permissive,
        }
    }
}
