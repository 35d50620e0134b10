//! A question to a port that listens inside a pod only: through the API server, as `kubectl port-forward` goes.
//!
//! ```text
//! GET /status ─► API server ─► kubelet ─► the pod's network namespace ─► 127.0.0.1:PORT
//! ```
//!
//! Who may ask is the API server's to decide (`create` or `get` of `pods/portforward`). The ports need no door of their own.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::Portforwarder};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
    time::timeout,
};

use crate::{Cluster, Problem, error::with_causes};

/// How long an answer may be, in bytes.
const LONGEST: usize = 64 << 20;
/// How long to wait for the reason after a stream has broken off: it comes by another way.
const REASON: Duration = Duration::from_secs(1);

/// What somebody needs who asks pods.
pub const FORWARD_PERMISSION: &str = "the permission to create pods/portforward";

/// Why a pod didn't answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// Roles don't allow it.
    #[error("its port may not be forwarded: {0}; that takes {FORWARD_PERMISSION} in its namespace")]
    Forbidden(Problem),
    /// There is no such pod any more.
    #[error("it is gone")]
    Gone,
    /// The API server doesn't forward, or can't.
    #[error("its port can't be forwarded: {0}")]
    Forward(Problem),
    /// Nobody listens.
    #[error("nothing listens on port {0} inside of it")]
    Refused(u16),
    /// The forwarded connection broke, or didn't speak HTTP.
    #[error("port {port} inside of it: {reason}")]
    Broken {
        /// The port.
        port: u16,
        /// How.
        reason: String,
    },
    /// An answer, but none that was hoped for.
    #[error("port {port} inside of it answered {status}")]
    Status {
        /// The port.
        port: u16,
        /// The status.
        status: StatusCode,
    },
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// A port inside a pod, over one forwarded connection that takes one question after the other. Dropping it ends the forwarding.
pub struct Forwarded {
    port: u16,
    sender: http1::SendRequest<Empty<Bytes>>,
    /// Moves the bytes.
    connection: JoinHandle<()>,
    forwarder: Option<Portforwarder>,
}

impl Cluster {
    /// What a pod answers to a GET on a port of its loopback address.
    ///
    /// # Errors
    /// If the port can't be reached, or the answer isn't 200, is too long, or takes too long.
    pub async fn ask_pod(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
        path: &str,
        within: Duration,
    ) -> Result<Bytes, AskError> {
        let asked = async { self.forward(namespace, pod, port).await?.get(path).await };
        timeout(within, asked).await.unwrap_or(Err(AskError::Late(within)))
    }

    /// A way to a port of a pod's loopback address.
    ///
    /// # Errors
    /// If the API server doesn't forward. Whether anybody listens shows when it is asked.
    pub async fn forward(&self, namespace: &str, pod: &str, port: u16) -> Result<Forwarded, AskError> {
        let pods: Api<Pod> = Api::namespaced(self.client().clone(), namespace);
        let forwarded = pods.portforward(pod, &[port]).await;
        let mut forwarder = forwarded.map_err(|error| AskError::of(error.into()))?;
        let stream = forwarder.take_stream(port).ok_or_else(|| broken(port, "the port wasn't forwarded"))?;
        Forwarded::over(stream, port, Some(forwarder)).await
    }
}

impl AskError {
    fn of(problem: Problem) -> Self {
        match problem {
            Problem::Forbidden(_) => Self::Forbidden(problem),
            Problem::NotFound => Self::Gone,
            other => Self::Forward(other),
        }
    }
}

impl Forwarded {
    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        port: u16,
        forwarder: Option<Portforwarder>,
    ) -> Result<Self, AskError> {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| broken(port, &with_causes(&error)))?;
        // How it ends is told to whoever asks over it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { port, sender, connection, forwarder })
    }

    /// What is answered to a GET.
    ///
    /// # Errors
    /// If the port can't be reached, or the answer isn't 200, or is too long.
    pub async fn get(&mut self, path: &str) -> Result<Bytes, AskError> {
        let (answer, port) = (self.exchange(path).await, self.port);
        let Err(AskError::Broken { .. }) = &answer else { return answer };
        // What the kubelet says is nearer to the cause than how the stream ended.
        let said = self.forwarder.as_mut().and_then(|forwarder| forwarder.take_error(port));
        let Some(said) = said else { return answer };
        match timeout(REASON, said).await.ok().flatten() {
            Some(said) if said.contains("connection refused") => Err(AskError::Refused(port)),
            Some(said) => Err(broken(port, said.trim())),
            None => answer,
        }
    }

    async fn exchange(&mut self, path: &str) -> Result<Bytes, AskError> {
        let port = self.port;
        let failed = |error: hyper::Error| broken(port, &with_causes(&error));
        let request = Request::get(path)
            .header(header::HOST, "localhost")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(port, &error.to_string()))?;
        self.sender.ready().await.map_err(failed)?;
        let answer = self.sender.send_request(request).await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(AskError::Status { port, status: answer.status() });
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|error| broken(port, &error.to_string()))?.to_bytes())
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.connection.abort();
        if let Some(forwarder) = &self.forwarder {
            forwarder.abort();
        }
    }
}

fn broken(port: u16, reason: &str) -> AskError {
    AskError::Broken { port, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What becomes of an exchange in which the other end says this and ends.
    async fn answered(answer: &'static [u8]) -> Result<Bytes, AskError> {
        let (ours, mut theirs) = duplex(1024);
        let pod = async move {
            let mut request = [0; 512];
            let read = theirs.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
            theirs.write_all(answer).await.unwrap();
        };
        let asked = async { Forwarded::over(ours, 15_000, None).await?.get("/status").await };
        tokio::join!(asked, pod).0
    }

    #[tokio::test]
    async fn an_answer_is_its_body() {
        let answer = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
        assert_eq!(answer.unwrap(), "{}");
    }

    #[tokio::test]
    async fn one_connection_takes_one_question_after_the_other() {
        let (ours, theirs) = duplex(1024);
        let pod = async move {
            let (mut theirs, mut request) = (theirs, [0; 512]);
            for answer in ["1", "2"] {
                let read = theirs.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /tap"));
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{answer}");
                theirs.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let asked = async {
            let mut forwarded = Forwarded::over(ours, 15_000, None).await.unwrap();
            [forwarded.get("/tap").await.unwrap(), forwarded.get("/tap?after=1").await.unwrap()]
        };
        assert_eq!(tokio::join!(asked, pod).0, ["1", "2"]);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_said_with_the_port() {
        for (answer, said) in [
            (&b""[..], "port 15000 inside of it: connection closed"),
            (
                b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                "answered 503 Service Unavailable",
            ),
            (b"SSH-2.0\r\n", "port 15000 inside of it: invalid HTTP version"),
        ] {
            let error = answered(answer).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
