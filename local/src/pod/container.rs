//! `gamut internal container`: enters a pod's namespaces, arranges its file system, becomes the container's program.
//!
//! It has one thread from beginning to end. Standard input is a socket: what to become is read from it, and what goes wrong
//! before the program runs is written to it. It closes by itself when the program is executed, so its end without a word
//! means that the program runs.

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt as _},
    },
    process::{Command, Stdio},
};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command as TokioCommand},
};

use super::{
    plan::UserPlan,
    rootfs::{self, RootPlan},
};
use crate::{
    control::Namespace,
    internal::not_executed,
    linux::{capabilities, namespaces},
    paths,
};

/// What to become; comes as JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) namespaces: Namespaces,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) working_directory: Option<String>,
    pub(crate) user: UserPlan,
}

/// Where the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Namespaces {
    /// In the namespaces of a pod's sandbox, with mounts of its own.
    New { sandbox: i32, root: RootPlan },
    /// Beside a process that runs in a container.
    Of { process: i32 },
}

/// A container's process that was just started.
#[derive(Debug)]
pub(crate) struct Starting {
    /// The process, with its output piped if that was asked for.
    pub(crate) child: Child,
    channel: UnixStream,
}

impl Starting {
    /// Starts the process that becomes the container.
    pub(crate) async fn spawn(spec: &ContainerSpec, output: fn() -> Stdio) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut channel = UnixStream::from_std(ours)?;
        let mut command = TokioCommand::new(paths::EXECUTABLE);
        command.args(["internal", "container"]).stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = command.stdout(output()).stderr(output()).kill_on_drop(true).spawn()?;
        // The command holds the other end as well, whose closing is waited for.
        drop(command);
        channel.write_all(&serde_json::to_vec(spec)?).await?;
        channel.shutdown().await?;
        Ok(Self { child, channel })
    }

    /// Waits until the program runs, or it is clear why it can't. Cancel safe.
    pub(crate) async fn refusal(&mut self) -> Option<String> {
        let mut refusal = String::new();
        // What isn't text can't come from there.
        let _ = self.channel.read_to_string(&mut refusal).await;
        (!refusal.is_empty()).then_some(refusal)
    }
}

/// The process itself. Exit statuses of its own are 126 and above, as shells have them.
pub(crate) fn run() -> u8 {
    let mut channel = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(channel) => StdUnixStream::from(channel),
        Err(error) => {
            eprintln!("gamut: a container has no standard input: {error}");
            return 126;
        }
    };
    let (code, refusal) = match read(&mut channel) {
        Ok(spec) => match prepare(&spec) {
            Ok(()) => execute(&spec),
            Err(problem) => (126, problem),
        },
        Err(error) => (126, format!("its settings can't be read: {error}")),
    };
    if let Err(error) = channel.write_all(refusal.as_bytes()) {
        eprintln!("gamut: {refusal} ({error})");
    }
    code
}

fn read(channel: &mut StdUnixStream) -> io::Result<ContainerSpec> {
    let mut bytes = Vec::new();
    channel.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Everything up to the program; the error is a sentence.
fn prepare(spec: &ContainerSpec) -> Result<(), String> {
    match &spec.namespaces {
        Namespaces::New { sandbox, root } => {
            enter(*sandbox, &[Namespace::Net, Namespace::Uts, Namespace::Ipc])?;
            namespaces::unshare(&[Namespace::Mnt])
                .map_err(|error| format!("a new mount namespace: {error}"))?;
            rootfs::arrange(root).map_err(|error| error.to_string())?;
        }
        Namespaces::Of { process } => {
            enter(*process, &[Namespace::Net, Namespace::Uts, Namespace::Ipc, Namespace::Mnt])?;
        }
    }
    // A session of its own: signals meant for `gamut up` don't reach it, and all of it can be ended at once.
    setsid().map_err(|error| format!("a new session: {error}"))?;
    let directory = spec.working_directory.as_deref().unwrap_or("/");
    std::env::set_current_dir(directory).map_err(|error| format!("workingDir {directory:?}: {error}"))?;
    become_user(&spec.user).map_err(|error| format!("securityContext: {error}"))
}

fn enter(process: i32, kinds: &[Namespace]) -> Result<(), String> {
    let failed = |error: io::Error| format!("entering the pod's namespaces: {error}");
    let opened = kinds.iter().map(|kind| Ok((namespaces::open(process, *kind)?, *kind)));
    // All are opened before the first one is entered: afterwards /proc may be another one.
    let opened: Vec<_> = opened.collect::<io::Result<_>>().map_err(failed)?;
    opened.iter().try_for_each(|(namespace, kind)| namespaces::enter(namespace, *kind)).map_err(failed)
}

fn become_user(user: &UserPlan) -> io::Result<()> {
    capabilities::keep_only(user.capabilities)?;
    if user.no_new_privileges {
        nix::sys::prctl::set_no_new_privs()?;
    }
    let groups: Vec<Gid> = user.more_groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let (id, group) = (Uid::from_raw(user.user), Gid::from_raw(user.group));
    setresgid(group, group, group)?;
    Ok(setresuid(id, id, id)?)
}

/// Comes back only when it fails: the exit status and why.
fn execute(spec: &ContainerSpec) -> (u8, String) {
    let Some((program, arguments)) = spec.arguments.split_first() else {
        return (127, "the command is empty; name a program".to_owned());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(spec.environment.iter().map(|(name, value)| (name, value)));
    let error = command.stdin(Stdio::null()).exec();
    let (code, problem) = not_executed(&error);
    (code, format!("command {program:?}: {problem}; containers run programs of this machine"))
}
