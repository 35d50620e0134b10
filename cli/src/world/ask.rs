//! Questions to sidecars and to the mesh's own processes in a cluster. Their admin ports listen inside their pods, so they are asked through the
//! API server, a few at a time.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gamut_kubernetes::{AskError, Cluster, Forwarded};
use gamut_local::{Client, control::PodReport};
use gamut_proxy::config::ports;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{SYSTEM_NAMESPACE, World, pod};

/// How many pods are asked at the same time.
const AT_ONCE: usize = 16;
/// How long one may take.
const EACH: Duration = Duration::from_secs(5);
/// How long all may take; those that weren't asked by then are shown as such.
const ALL: Duration = Duration::from_secs(60);

/// The admin ports of the mesh's own processes.
pub(super) mod admin {
    /// The controller's.
    pub(crate) const CONTROLLER: u16 = 15014;
    /// The CA's.
    pub(crate) const CA: u16 = 15011;
    /// The injector's.
    pub(crate) const INJECTOR: u16 = 15017;
}

/// Asks the sidecars of all pods that have one running, and notes what they say, or why they don't.
pub(super) async fn sidecars(cluster: &Cluster, pods: &mut [PodReport]) {
    let deadline = Instant::now() + ALL;
    let meshed = pods.iter_mut().filter(|pod| pod.meshed && pod::sidecar_runs(pod));
    let asked = stream::iter(meshed).for_each_concurrent(AT_ONCE, |pod| async move {
        let left = deadline.saturating_duration_since(Instant::now()).min(EACH);
        if left.is_zero() {
            pod.proxy_error = Some(format!("not asked, because {} s were over", ALL.as_secs()));
            return;
        }
        match status(cluster, &pod.namespace, &pod.name, ports::ADMIN, left).await {
            Ok(status) => pod.proxy = Some(status),
            Err(reason) => pod.proxy_error = Some(format!("its sidecar can't be asked: {reason}")),
        }
    });
    asked.await;
}

/// What a pod of the mesh's own says on its admin port.
///
/// # Errors
/// Why it says nothing, in one line.
pub(super) async fn own<T: DeserializeOwned>(cluster: &Cluster, pod: &str, port: u16) -> Result<T, String> {
    let status = status(cluster, SYSTEM_NAMESPACE, pod, port, EACH).await?;
    serde_json::from_value(status).map_err(|error| format!("it speaks another version of /status: {error}"))
}

/// A way to the admin port of one pod's sidecar, for who asks again and again.
pub(crate) enum Line {
    /// By the control socket of a `gamut up`.
    Instance {
        /// Whose.
        client: Client,
        /// The pod's namespace and name.
        pod: (String, String),
    },
    /// Through the API server, over one forwarded connection.
    Cluster(Box<Forwarded>),
}

impl World {
    /// A way to a pod's sidecar.
    ///
    /// # Errors
    /// Why there is none, in one line: the API server doesn't forward ports for who asks, say.
    pub(crate) async fn line(&self, namespace: &str, pod: &str) -> Result<Line, String> {
        match self {
            Self::Instance(client) => {
                Ok(Line::Instance { client: client.clone(), pod: (namespace.to_owned(), pod.to_owned()) })
            }
            Self::Cluster(cluster, _) => {
                let forwarded = timeout(EACH, cluster.forward(namespace, pod, ports::ADMIN)).await;
                let forwarded = forwarded.map_err(|_| AskError::Late(EACH).to_string())?;
                Ok(Line::Cluster(Box::new(forwarded.map_err(|error| error.to_string())?)))
            }
        }
    }
}

impl Line {
    /// What the sidecar answers to a GET.
    ///
    /// # Errors
    /// Why it doesn't, in one line. The line is of no more use then.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, String> {
        let value: Value = match self {
            Self::Instance { client, pod } => {
                // Its client waits for the reply, and others mustn't.
                let (client, (namespace, name), path) = (client.clone(), pod.clone(), path.to_owned());
                let asked = spawn_blocking(move || client.sidecar(&namespace, &name, &path)).await;
                asked.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?
            }
            Self::Cluster(forwarded) => {
                let answer = timeout(EACH, forwarded.get(path)).await;
                let answer =
                    answer.unwrap_or(Err(AskError::Late(EACH))).map_err(|error| error.to_string())?;
                serde_json::from_slice(&answer).map_err(|error| format!("its answer isn't JSON: {error}"))?
            }
        };
        serde_json::from_value(value).map_err(|error| format!("it speaks another version of {path}: {error}"))
    }
}

async fn status(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    within: Duration,
) -> Result<Value, String> {
    let answer = cluster.ask_pod(namespace, pod, port, "/status", within).await;
    let answer = answer.map_err(|error: AskError| error.to_string())?;
    serde_json::from_slice(&answer).map_err(|error| format!("its answer isn't JSON: {error}"))
}
