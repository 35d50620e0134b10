//! From a kubeconfig, or a pod's service account, to a client.
//!
//! Components take what they are given, or their pod's own account ([`Cluster::connect`]). People mean a context of their
//! kubeconfig, and are told which it was ([`Cluster::of_context`]).

use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

use crate::Cluster;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Set in every pod.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// What a person's request led to, for telling which cluster answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The context's name; in a pod without a kubeconfig, what stands for it.
    pub name: String,
    /// The API server's URL.
    pub server: String,
}

/// Why there is no client. No request has been made yet.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// `--kubeconfig`, `KUBECONFIG` or `~/.kube/config`.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// The same, as a file.
    #[error("kubeconfig {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody names one, and it isn't where it would be.
    #[error("there is no kubeconfig; name one with --kubeconfig or KUBECONFIG")]
    NoKubeconfig,
    /// Nobody names a context.
    #[error("kubeconfig {path} has no current context; choose one of {known:?} with --context")]
    NoContext {
        /// The file.
        path: String,
        /// Its contexts.
        known: Vec<String>,
    },
    /// A context that isn't there.
    #[error("kubeconfig {path} has no context {name:?}; it has {known:?}")]
    UnknownContext {
        /// The file.
        path: String,
        /// The context.
        name: String,
        /// Those that there are.
        known: Vec<String>,
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
        let config = match kubeconfig {
            Some(path) => {
                let (path, kubeconfig) = read_file(path)?;
                let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
                config.map_err(|source| ConnectError::Kubeconfig { path, source })?
            }
            // `Config::infer` would look for a file first, and a pod may have one for other purposes.
            None if env::var_os(IN_CLUSTER).is_some() && env::var_os("KUBECONFIG").is_none() => {
                Config::incluster()?
            }
            None => Config::infer().await.map_err(|error| ConnectError::Nowhere(Box::new(error)))?,
        };
        Self::of_config(config)
    }

    /// A way to the cluster that a person means: of the context that is named, else of the current one; in the kubeconfig that
    /// is named, else in those of `KUBECONFIG`, else in `~/.kube/config`. In a pod without any of these: the cluster around it.
    ///
    /// # Errors
    /// If none of these is there, or what is there can't be used. Whether the API server answers isn't tried.
    pub async fn of_context(
        kubeconfig: Option<&Path>,
        context: Option<&str>,
    ) -> Result<(Self, Context), ConnectError> {
        let (path, kubeconfig) = match read(kubeconfig)? {
            Some(found) => found,
            None if context.is_none() && env::var_os(IN_CLUSTER).is_some() => {
                let config = Config::incluster()?;
                let context =
                    Context { name: "of this pod".to_owned(), server: config.cluster_url.to_string() };
                return Ok((Self::of_config(config)?, context));
            }
            None => return Err(ConnectError::NoKubeconfig),
        };
        let known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
        let current = kubeconfig.current_context.clone().filter(|name| !name.is_empty());
        let Some(name) = context.map(str::to_owned).or(current) else {
            return Err(ConnectError::NoContext { path, known });
        };
        if !known.contains(&name) {
            return Err(ConnectError::UnknownContext { path, name, known });
        }
        let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|source| ConnectError::Kubeconfig { path, source })?;
        let server = config.cluster_url.to_string();
        let context = Context { name, server: server.trim_end_matches('/').to_owned() };
        Ok((Self::of_config(config)?, context))
    }

    fn of_config(mut config: Config) -> Result<Self, ConnectError> {
        config.connect_timeout = Some(CONNECT);
        // Whoever asks tries again, each in its own way: a retry below would only hide how long an answer takes.
        config.default_retry = false;
        Ok(Self::over(Client::try_from(config)?))
    }
}

/// The kubeconfig, and where it is from; `None` where nobody names one and there is none in the usual place.
fn read(named: Option<&Path>) -> Result<Option<(String, Kubeconfig)>, ConnectError> {
    if let Some(path) = named {
        return read_file(path).map(Some);
    }
    let variable = env::var("KUBECONFIG").unwrap_or_default();
    let from_environment = Kubeconfig::from_env()
        .map_err(|source| ConnectError::Kubeconfig { path: variable.clone(), source })?;
    if let Some(kubeconfig) = from_environment {
        return Ok(Some((variable, kubeconfig)));
    }
    let usual = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    match usual.filter(|path| path.exists()) {
        Some(path) => read_file(&path).map(Some),
        None => Ok(None),
    }
}

fn read_file(path: &Path) -> Result<(String, Kubeconfig), ConnectError> {
    let name = path.display().to_string();
    match Kubeconfig::read_from(path) {
        Ok(kubeconfig) => Ok((name, kubeconfig)),
        Err(KubeconfigError::ReadConfig(source, _)) => Err(ConnectError::Unreadable { path: name, source }),
        Err(source) => Err(ConnectError::Kubeconfig { path: name, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TWO: &str = "apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: a, cluster: {server: 'https://10.0.0.1:6443'}}
- {name: b, cluster: {server: 'https://10.0.0.2:6443'}}
contexts:
- {name: one, context: {cluster: a, user: me}}
- {name: two, context: {cluster: b, user: me}}
users:
- {name: me, user: {token: x}}
";

    async fn chosen(kubeconfig: &str, context: Option<&str>) -> Result<Context, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        fs::write(&path, kubeconfig).unwrap();
        let chosen = Cluster::of_context(Some(&path), context).await;
        chosen.map(|(_, context)| context).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_named_context_is_meant_else_the_current_one() {
        let context = chosen(TWO, None).await.unwrap();
        assert_eq!((context.name.as_str(), context.server.as_str()), ("one", "https://10.0.0.1:6443"));
        let context = chosen(TWO, Some("two")).await.unwrap();
        assert_eq!((context.name.as_str(), context.server.as_str()), ("two", "https://10.0.0.2:6443"));
    }

    #[tokio::test]
    async fn a_context_that_is_not_there_is_said_with_those_that_are() {
        let error = chosen(TWO, Some("three")).await.unwrap_err();
        assert!(error.ends_with(r#"has no context "three"; it has ["one", "two"]"#), "{error}");
        let error = chosen(&TWO.replace("current-context: one\n", ""), None).await.unwrap_err();
        assert!(
            error.ends_with(r#"no current context; choose one of ["one", "two"] with --context"#),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_read_is_named() {
        let error = Cluster::of_context(Some(Path::new("/nonexistent/config")), None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "kubeconfig /nonexistent/config can't be read: No such file or directory (os error 2)"
        );
        assert!(chosen("{", None).await.unwrap_err().contains("kubeconfig "));
    }
}
