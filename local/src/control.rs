//! What is said over an instance's control socket: a request is one line of JSON, and so is its reply.
//!
//! The reply to [`Request::Namespaces`] carries file descriptors beside its first byte (`SCM_RIGHTS`). Only root is
//! listened to: the socket tells who is at the other end, and abstract sockets have no permissions of their own.

use std::{fmt, path::PathBuf, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// A question or an order to the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// What runs and how: [`Status`].
    Status,
    /// All objects of a kind, each with its status: a list of JSON objects.
    Objects {
        /// `Pod`, `HTTPRoute` and so on.
        kind: String,
    },
    /// The namespaces of a target: [`Entrance`] and its file descriptors.
    Namespaces {
        /// Whose.
        target: Target,
        /// The Kubernetes namespace that the target is in.
        namespace: String,
        /// A container other than the first of the pod's own.
        container: Option<String>,
    },
    /// What a container has printed lately: [`LogPart`].
    Logs {
        /// Whose.
        target: Target,
        /// The Kubernetes namespace that the target is in.
        namespace: String,
        /// A container other than the first of the pod's own.
        container: Option<String>,
        /// Only what was printed since: the [`LogPart::place`] of an earlier reply.
        after: Option<LogPlace>,
    },
    /// What the sidecar of a pod answers on its admin address: JSON.
    Sidecar {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
        /// `/status`, `/tap?after=12`.
        path: String,
    },
    /// Replies when it is so, or with an error when time is up, which says what is missing.
    Wait {
        /// What for.
        what: Wait,
        /// Patience, in milliseconds.
        milliseconds: u64,
    },
}

/// What to wait for. Files saved before the request are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// All pods that should run do, and are ready; rollouts are over, what was to go is gone.
    Pods,
    /// Besides, all proxies have the newest tables.
    Ready,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// What was asked for.
    Ok(Value),
    /// Why not, in one line.
    Error(String),
}

/// What `gamut exec` enters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The node: the outer namespaces.
    Node,
    /// A pod by name.
    Pod(String),
    /// A pod of a workload: one that runs, and is ready if there is such; of a StatefulSet the first.
    Workload {
        /// `Deployment`, `StatefulSet` or `Job`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A pod that a Service selects: one that runs, and is ready if there is such.
    Service(String),
}

/// A target that can't be read.
#[derive(Debug, Error)]
#[error(
    "{0:?} is no target; use deploy/NAME, statefulset/NAME, job/NAME, svc/NAME, pod/NAME, NAME (a pod) or node"
)]
pub struct InvalidTarget(String);

/// Beside the file descriptors of [`Request::Namespaces`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entrance {
    /// What each file descriptor is, in order: `mnt`, `net`, `uts`, `ipc`, `pid`.
    pub namespaces: Vec<Namespace>,
    /// The environment that the container's manifest gives it.
    pub environment: Vec<(String, String)>,
    /// Who the container's program runs as, if not root.
    pub user: Option<ExecUser>,
    /// What was entered: `pod web-1, container app`.
    pub description: String,
}

/// A user that isn't root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecUser {
    /// The user id.
    pub user: u32,
    /// The group id.
    pub group: u32,
    /// Other groups.
    pub more_groups: Vec<u32>,
}

/// A part of what a container has printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPart {
    /// The text.
    pub text: String,
    /// Where it ends, to ask for what comes after it; none before anything was printed.
    pub place: Option<LogPlace>,
}

/// A place in what a container prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// Which file, as the node knows it.
    pub file: u64,
    /// How much of it, in bytes.
    pub length: u64,
}

/// A kind of namespace that processes enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Namespace {
    /// Mounts.
    Mnt,
    /// Network.
    Net,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Processes.
    Pid,
}

/// What runs and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The instance's name.
    pub instance: String,
    /// When it was started.
    pub started: Timestamp,
    /// The files and directories it reads.
    pub paths: Vec<PathBuf>,
    /// The CA and the controller.
    pub components: Vec<ComponentReport>,
    /// The pods, by namespace and name.
    pub pods: Vec<PodReport>,
    /// What the controller's admin address says at `/status`.
    pub controller: Option<Value>,
    /// What is wrong, a line each: manifests that can't be used, pods that can't start.
    pub problems: Vec<String>,
    /// What is in the manifests and does nothing, a line each: misspelt annotations, kinds that nobody knows.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What isn't ready yet, a line each. Empty: everything is.
    pub waiting_for: Vec<String>,
}

/// A process of the mesh's own that is no pod's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComponentReport {
    /// `ca` or `controller`.
    pub name: String,
    /// Its process, as a number of the node's process namespace (`gamut exec node -- kill PID`).
    pub pid: Option<i32>,
    /// How often it has died.
    pub restarts: u32,
    /// It answers.
    pub ready: bool,
}

/// A pod, and what its sidecar says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The workload that it belongs to: `Deployment web`.
    pub workload: Option<String>,
    /// Its addresses, IPv4 first.
    pub ips: Vec<String>,
    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub phase: String,
    /// Takes traffic.
    pub ready: bool,
    /// Is going away.
    pub terminating: bool,
    /// Has a sidecar.
    pub meshed: bool,
    /// Its containers, in the order of the manifest, the init containers first.
    pub containers: Vec<ContainerReport>,
    /// What the sidecar's admin address says at `/status`.
    pub proxy: Option<Value>,
    /// Why `proxy` is missing from a pod with a sidecar that has started.
    pub proxy_error: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerReport {
    /// Its name.
    pub name: String,
    /// `init`, `sidecar` or `app`.
    pub role: String,
    /// `waiting: REASON`, `running`, `exited: REASON`.
    pub state: String,
    /// Its process, as a number of the node's process namespace.
    pub pid: Option<i32>,
    /// How often it was started again.
    pub restarts: u32,
    /// Its readiness probe succeeds.
    pub ready: bool,
}

/// What a node tells `gamut up` while it runs, and what `gamut up` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// What the first start still waits for; repeated when it changes.
    Waiting {
        /// A line each.
        what: Vec<String>,
    },
    /// The manifests were read for the first time, and what is wrong with them was told.
    Read {
        /// How many errors that was.
        errors: usize,
    },
    /// Everything that could be taken is ready for the first time.
    Ready(Summary),
    /// Files were saved and the change was taken up.
    Reloaded {
        /// `changed HTTPRoute demo/web`, a line each.
        changes: Vec<String>,
    },
    /// Everything is ready again after a reload.
    Settled {
        /// Since the files were read, in milliseconds.
        milliseconds: u64,
    },
    /// Something to know that isn't an error.
    Notice {
        /// One line.
        text: String,
    },
    /// Something that somebody asked for can't be done.
    Problem {
        /// One line: file, object, field, remedy.
        text: String,
    },
    /// A problem that was told is no more.
    Mended {
        /// The problem's line.
        text: String,
    },
    /// A line that a container or component printed, where `--verbose` asks for them.
    Output {
        /// `namespace/pod/container`, or the component's name.
        source: String,
        /// The line.
        line: String,
    },
    /// The node can't go on.
    Fatal {
        /// One line.
        text: String,
    },
    /// All pods have ended after an order to stop; the node ends now.
    Stopped,
}

/// What has become ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Since the start, in milliseconds.
    pub milliseconds: u64,
    /// Running pods.
    pub pods: usize,
    /// Those with a sidecar.
    pub meshed: usize,
    /// The namespaces that the manifests' objects are in.
    pub namespaces: Vec<String>,
    /// Services of the manifests, as far as they were taken.
    pub services: usize,
    /// Routes of the manifests.
    pub routes: usize,
    /// What the manifests have and isn't there, because it was refused.
    pub errors: usize,
    /// What was told of routes, policies and XBackends that are there: bad conditions, and what was hardly meant.
    pub conditions: usize,
    /// A command that shows traffic, if there is a client and a Service to call.
    pub example: Option<String>,
}

/// What `gamut up` orders from its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// End all pods, then yourself.
    Stop,
}

impl Target {
    /// How a workload's pods are asked for, as `deploy/web`; `None` for kinds that have no word.
    pub fn written(kind: &str, name: &str) -> Option<String> {
        let kind = kind.to_lowercase().replace("deployment", "deploy");
        let written = format!("{kind}/{name}");
        written.parse::<Self>().is_ok().then_some(written)
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let (kind, name) = text.split_once('/').unwrap_or(("", text));
        if name.is_empty() || name.contains('/') {
            return Err(InvalidTarget(text.to_owned()));
        }
        let workload = |kind: &str| Ok(Self::Workload { kind: kind.to_owned(), name: name.to_owned() });
        match kind {
            "" if name == "node" => Ok(Self::Node),
            "" | "pod" | "pods" | "po" => Ok(Self::Pod(name.to_owned())),
            "deploy" | "deployment" | "deployments" => workload("Deployment"),
            "sts" | "statefulset" | "statefulsets" => workload("StatefulSet"),
            "ds" | "daemonset" | "daemonsets" => workload("DaemonSet"),
            "job" | "jobs" => workload("Job"),
            "svc" | "service" | "services" => Ok(Self::Service(name.to_owned())),
            _ => Err(InvalidTarget(text.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Workload { kind, name } => write!(f, "{kind} {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
        }
    }
}

#[cfg(test)]
mod tests;
