//! What a container has printed, and prints: the API server passes on what the kubelet has.

use std::{fmt, pin::Pin};

use futures_util::{AsyncBufRead, AsyncReadExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};

use crate::{ApiError, Cluster, Problem};

/// How much is read at once, in bytes.
const PART: usize = 16 * 1024;

/// What a container prints, part by part.
pub struct Logs {
    stream: Pin<Box<dyn AsyncBufRead + Send>>,
    path: String,
}

/// Which part of what a pod has printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSelection<'a> {
    /// The container; if none is named, the only one or the first app's.
    pub container: Option<&'a str>,
    /// So many of the last lines, in place of all.
    pub tail: Option<i64>,
    /// What it prints from then on as well, until it ends.
    pub follow: bool,
    /// What it printed before it was started again last, in place of what it has printed since.
    pub previous: bool,
}

impl Cluster {
    /// What a container of a pod has printed.
    ///
    /// # Errors
    /// If there is no answer, or the answer is no.
    pub async fn logs(&self, namespace: &str, pod: &str, wanted: LogSelection<'_>) -> Result<Logs, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log");
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let wanted = LogParams {
            container: wanted.container.map(str::to_owned),
            follow: wanted.follow,
            previous: wanted.previous,
            tail_lines: wanted.tail,
            ..LogParams::default()
        };
        match pods.log_stream(pod, &wanted).await {
            Ok(stream) => Ok(Logs { stream: Box::pin(stream), path }),
            Err(error) => Err(ApiError { verb: "GET", path, problem: error.into() }),
        }
    }
}

impl Logs {
    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// If the answer breaks off.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiError> {
        let mut part = vec![0; PART];
        match self.stream.read(&mut part).await {
            Ok(0) => Ok(None),
            Ok(read) => {
                part.truncate(read);
                Ok(Some(part))
            }
            Err(error) => Err(ApiError {
                verb: "GET",
                path: self.path.clone(),
                problem: Problem::NoAnswer(error.to_string()),
            }),
        }
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("path", &self.path).finish_non_exhaustive()
    }
}
