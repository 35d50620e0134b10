//! The other end of an instance's control socket, for `gamut exec`, `gamut status` and tests.
//!
//! Blocking, one connection for each request: `gamut exec` must have no other thread, and nobody asks often.

use std::{
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::{
    control::{Entrance, LogPart, LogPlace, Reply, Request, Status, Target, Wait},
    instance::{self, InstanceName},
    linux::descriptors,
};

/// A request that wasn't answered as hoped.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens by this name.
    #[error("no instance {name:?} is running{}; start one with `gamut up -f DIR`", others(.running))]
    NotRunning {
        /// The name asked for.
        name: String,
        /// The names that would be answered.
        running: Vec<InstanceName>,
    },
    /// Instances talk to root alone.
    #[error("this needs root: instance {0:?} answers nobody else; run it with sudo")]
    NotRoot(String),
    /// The connection broke: the instance has probably ended.
    #[error("instance {name:?} broke off: {source}")]
    Broken {
        /// The instance.
        name: String,
        /// How.
        source: io::Error,
    },
    /// The reply isn't what this version understands.
    #[error(
        "instance {name:?} gave a reply that this gamut doesn't understand: {problem}; is it of another version?"
    )]
    Reply {
        /// The instance.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The node says no, and why.
    #[error("{0}")]
    Refused(String),
}

/// A running instance to ask.
#[derive(Clone, Debug)]
pub struct Client {
    name: InstanceName,
}

fn others(running: &[InstanceName]) -> String {
    let names: Vec<&str> = running.iter().map(InstanceName::as_str).collect();
    match names.is_empty() {
        true => String::new(),
        false => {
            format!(" (running: {}; choose with --name or {})", names.join(", "), instance::INSTANCE_VARIABLE)
        }
    }
}

impl Client {
    /// A client of the instance of this name, which need not run yet.
    pub fn new(name: InstanceName) -> Self {
        Self { name }
    }

    /// What runs and how.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<Status, ClientError> {
        self.ask(&Request::Status)
    }

    /// All objects of a kind (`HTTPRoute`), each with its status.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn objects(&self, kind: &str) -> Result<Vec<Value>, ClientError> {
        self.ask(&Request::Objects { kind: kind.to_owned() })
    }

    /// What a container has printed lately, or since a place of an earlier reply.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn logs(
        &self,
        target: Target,
        namespace: &str,
        container: Option<&str>,
        after: Option<LogPlace>,
    ) -> Result<LogPart, ClientError> {
        let (namespace, container) = (namespace.to_owned(), container.map(str::to_owned));
        self.ask(&Request::Logs { target, namespace, container, after })
    }

    /// What the sidecar of a pod answers to a GET on its admin address (`/tap`).
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] if there is no such sidecar, or it doesn't answer.
    pub fn sidecar(&self, namespace: &str, pod: &str, path: &str) -> Result<Value, ClientError> {
        let (namespace, pod, path) = (namespace.to_owned(), pod.to_owned(), path.to_owned());
        self.ask(&Request::Sidecar { namespace, pod, path })
    }

    /// Waits until it is so.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Refused`] with what is missing when `patience` is over.
    pub fn wait(&self, what: Wait, patience: Duration) -> Result<(), ClientError> {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.ask(&Request::Wait { what, milliseconds })
    }

    /// The namespaces of a target, open, with what else is needed to run something there.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn entrance(
        &self,
        target: Target,
        namespace: &str,
        container: Option<&str>,
    ) -> Result<(Entrance, Vec<OwnedFd>), ClientError> {
        let (namespace, container) = (namespace.to_owned(), container.map(str::to_owned));
        self.ask_with_descriptors(&Request::Namespaces { target, namespace, container })
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        self.ask_with_descriptors(request).map(|(answer, _)| answer)
    }

    fn ask_with_descriptors<T: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(T, Vec<OwnedFd>), ClientError> {
        let stream = self.connect()?;
        let (line, descriptors) = exchange(stream, request)
            .map_err(|source| ClientError::Broken { name: self.name.to_string(), source })?;
        let misunderstood = |error: serde_json::Error| ClientError::Reply {
            name: self.name.to_string(),
            problem: error.to_string(),
        };
        match serde_json::from_slice(&line).map_err(misunderstood)? {
            Reply::Ok(value) => Ok((serde_json::from_value(value).map_err(misunderstood)?, descriptors)),
            Reply::Error(text) => Err(ClientError::Refused(text)),
        }
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let name = self.name.to_string();
        if !nix::unistd::geteuid().is_root() {
            return Err(ClientError::NotRoot(name));
        }
        self.name.connect().map_err(|source| match source.kind() {
            io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { name, running: instance::running().unwrap_or_default() }
            }
            _ => ClientError::Broken { name, source },
        })
    }
}

/// One line there, one line back.
fn exchange(mut stream: UnixStream, request: &Request) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;

    let (mut reply, mut descriptors) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = descriptors::receive(&stream, &mut buffer, &mut descriptors)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reply.extend(buffer.iter().take(received));
        if reply.ends_with(b"\n") {
            return Ok((reply, descriptors));
        }
    }
}
