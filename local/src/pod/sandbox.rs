//! `gamut internal sandbox`: holds a pod's namespaces while its containers come and go ("pause").
//!
//! ```text
//! node                          sandbox
//!  ├─ settings ──────────────────> unshares network, mounts, host name, IPC
//!  │  <──────────────── Unshared ─┤
//!  ├─ makes the veth pair         │
//!  ├─ go ────────────────────────> addresses, routes, host name, /etc/resolv.conf
//!  │  <────────────────── Ready ──┤
//!  ├─ (closes) ──────────────────> ends
//! ```

use std::{
    io::{self, Write as _},
    net::IpAddr,
    process::Stdio,
};

use nix::unistd::sethostname;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::rootfs::{self, RootPlan};
use crate::{
    control::Namespace,
    linux::namespaces,
    net::links::{self, LinkError, Links},
    paths,
};

/// A pod's surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxSpec {
    pub(crate) host_name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) root: RootPlan,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Progress {
    Unshared,
    Ready,
    Failed(String),
}

/// A pod's namespaces couldn't be made.
#[derive(Debug, Error)]
pub(crate) enum SandboxError {
    #[error("starting the sandbox: {0}")]
    Io(#[from] io::Error),
    #[error("the sandbox ended too early")]
    Ended,
    #[error("the pod's namespaces: {0}")]
    Inside(String),
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A pod's namespaces. Dropping it gives them up: they vanish with the last container.
#[derive(Debug)]
pub(crate) struct Sandbox {
    /// Its process, whose namespaces are the pod's.
    pub(crate) process: i32,
    child: Child,
    _stdin: ChildStdin,
}

impl Sandbox {
    /// Makes a pod's namespaces, with its addresses and names.
    pub(crate) async fn start(
        spec: &SandboxSpec,
        interface: &str,
        links: &Links,
    ) -> Result<Self, SandboxError> {
        let mut command = Command::new(paths::EXECUTABLE);
        command.args(["internal", "sandbox"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let process = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(SandboxError::Ended)?;
        let mut stdin = child.stdin.take().ok_or(SandboxError::Ended)?;
        let mut progress = BufReader::new(child.stdout.take().ok_or(SandboxError::Ended)?).lines();

        let mut settings = serde_json::to_vec(spec).map_err(io::Error::from)?;
        settings.push(b'\n');
        stdin.write_all(&settings).await?;
        expect(&mut progress, Progress::Unshared).await?;
        links.attach(interface, process, &spec.addresses).await?;
        stdin.write_all(b"go\n").await?;
        expect(&mut progress, Progress::Ready).await?;
        Ok(Self { process, child, _stdin: stdin })
    }

    /// Waits until its process has ended, which isn't its own doing. The namespaces are left to the containers that run.
    pub(crate) async fn ended(&mut self) {
        // It can't fail: nobody else reaps this child.
        let _ = self.child.wait().await;
    }
}

async fn expect(lines: &mut Lines<BufReader<ChildStdout>>, expected: Progress) -> Result<(), SandboxError> {
    let line = lines.next_line().await?.ok_or(SandboxError::Ended)?;
    match serde_json::from_str(&line).map_err(io::Error::from)? {
        progress if progress == expected => Ok(()),
        Progress::Failed(problem) => Err(SandboxError::Inside(problem)),
        Progress::Unshared | Progress::Ready => Err(SandboxError::Ended),
    }
}

/// The sandbox's own process.
pub(crate) fn run() -> u8 {
    let mut lines = io::stdin().lines();
    let outcome = set_up(&mut lines);
    if let Err(problem) = &outcome {
        say(&Progress::Failed(problem.clone()));
    }
    // Until the node closes its end.
    lines.for_each(drop);
    u8::from(outcome.is_err())
}

fn set_up(lines: &mut io::Lines<io::StdinLock<'static>>) -> Result<(), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let settings = lines.next().ok_or("no settings")?.map_err(|error| text(&error))?;
    let spec: SandboxSpec = serde_json::from_str(&settings).map_err(|error| text(&error))?;
    namespaces::unshare(&[Namespace::Net, Namespace::Mnt, Namespace::Uts, Namespace::Ipc])
        .map_err(|error| text(&error))?;
    links::prepare_namespace(false).map_err(|error| text(&error))?;
    sethostname(&spec.host_name).map_err(|error| text(&error))?;
    rootfs::arrange(&spec.root).map_err(|error| text(&error))?;
    say(&Progress::Unshared);

    let _go = lines.next().ok_or("the node is gone")?.map_err(|error| text(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| text(&error))?.block_on(async {
        let links = Links::connect().map_err(|error| text(&error))?;
        links.set_up_pod(&spec.addresses).await.map_err(|error| text(&error))
    })?;
    say(&Progress::Ready);
    Ok(())
}

fn say(progress: &Progress) {
    let line = serde_json::to_string(progress).unwrap_or_default();
    // If nobody listens any more, the end of standard input says so next.
    let _ = writeln!(io::stdout(), "{line}");
}
