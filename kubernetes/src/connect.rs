//! From a kubeconfig, or a pod's service account, to a client.

use std::{env, path::Path, time::Duration};

use kube::{
    Client, Config,
    config::{InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

use crate::Cluster;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no client. No request has been made yet.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// `--kubeconfig`.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// In a pod, but without what a pod has.
    #[error("in a pod, but the service account can't be used: {0}; is automountServiceAccountToken off?")]
    InCluster(#[from] InClusterError),
    /// Neither.
    #[error("no cluster to talk to: {0}; set KUBECONFIG, or run in a pod")]
    Nowhere(Box<InferConfigError>),
    /// TLS.
    #[error("the cluster's client settings can't be used: {0}")]
    Settings(#[from] kube::Error),
}

impl Cluster {
    /// A way to the cluster of a kubeconfig's current context; without one, to the cluster that this pod runs in, else to
    /// that of `KUBECONFIG` or `~/.kube/config`.
    ///
    /// # Errors
    /// If none of these is there, or what is there can't be used. Whether the API server answers isn't tried.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        let mut config = match kubeconfig {
            Some(path) => of_file(path).await?,
            // `Config::infer` would look for a file first, and a pod may have one for other purposes.
            None if env::var_os("KUBERNETES_SERVICE_HOST").is_some()
                && env::var_os("KUBECONFIG").is_none() =>
            {
                Config::incluster()?
            }
            None => Config::infer().await.map_err(|error| ConnectError::Nowhere(Box::new(error)))?,
        };
        config.connect_timeout = Some(CONNECT);
        // Whoever asks tries again, each in its own way: a retry below would only hide how long an answer takes.
        config.default_retry = false;
        Ok(Self::over(Client::try_from(config)?))
    }
}

async fn of_file(path: &Path) -> Result<Config, ConnectError> {
    let unusable = |source| ConnectError::Kubeconfig { path: path.display().to_string(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)
}
