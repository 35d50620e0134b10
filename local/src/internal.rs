//! `gamut internal ...`: the processes that `gamut up` is made of, each the same executable.
//!
//! Namespaces are made and entered here, before a process has a second thread. What each process needs to know comes as
//! JSON in its first argument or on its standard input; these commands are no interface for people.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use clap::Subcommand;
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, getppid, setgroups, sethostname, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    control::{Event, ExecUser, Namespace},
    exec::exit_code,
    linux::{mounts, namespaces},
    node, paths, pod,
    up::Traces,
};

/// One of the processes that `gamut up` is made of.
#[derive(Clone, Debug, Subcommand)]
pub enum Internal {
    /// Makes the outer namespaces and starts pid 1 in them.
    Machine {
        /// The machine's settings, as JSON.
        config: String,
    },
    /// Pid 1: lays out the node's file system, starts the node, reaps processes.
    Init {
        /// The machine's settings, as JSON.
        config: String,
    },
    /// API server, kubelet, kube-proxy and DNS.
    Node {
        /// The machine's settings, as JSON.
        config: String,
    },
    /// Holds a pod's namespaces open.
    Sandbox,
    /// Enters a pod's namespaces and becomes a container.
    Container,
    /// Becomes a program that ends with its parent.
    Bound {
        /// Who to become first, as JSON.
        #[arg(long)]
        user: Option<String>,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What the machine's processes hand down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachineConfig {
    /// The instance's name.
    pub(crate) instance: String,
    /// The manifests: files and directories, as they were typed.
    pub(crate) paths: Vec<PathBuf>,
    /// Whether events carry what containers print.
    pub(crate) verbose: bool,
    /// The trust domain of all identities.
    pub(crate) trust_domain: String,
    /// Where sidecars send spans.
    pub(crate) traces: Traces,
    /// The process that started the machine.
    pub(crate) parent: i32,
}

/// The machine couldn't be made.
#[derive(Debug, Error)]
enum MachineError {
    #[error("the machine's settings can't be read: {0}")]
    Config(#[from] serde_json::Error),
    #[error(
        "new namespaces can't be made ({0}); gamut up needs root with CAP_SYS_ADMIN, in a container: --privileged"
    )]
    Unshare(io::Error),
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error("{doing}: {source}")]
    System { doing: &'static str, source: io::Error },
}

/// Runs one of them. The exit status is for the process that started it.
pub fn run(internal: Internal) -> ExitCode {
    let outcome = match internal {
        Internal::Machine { config } => told(machine(&config)),
        Internal::Init { config } => told(init(&config)),
        Internal::Node { config } => told(read(&config).map(|config| node::run(&config))),
        Internal::Sandbox => pod::sandbox::run(),
        Internal::Container => pod::container::run(),
        Internal::Bound { user, command } => bound(user.as_deref(), &command),
    };
    ExitCode::from(outcome)
}

/// An error of the processes that come before the node goes the way that the node's events go.
fn told(outcome: Result<u8, MachineError>) -> u8 {
    outcome.unwrap_or_else(|error| {
        let event = Event::Fatal { text: error.to_string() };
        let line = serde_json::to_string(&event).unwrap_or_default();
        // Standard output is the socket to `gamut up`; without it nobody is left to tell.
        let _ = writeln!(io::stdout(), "{line}");
        1
    })
}

fn machine(config: &str) -> Result<u8, MachineError> {
    let parent = read(config)?.parent;
    system("asking to end with gamut up", prctl::set_pdeathsig(Signal::SIGKILL))?;
    if getppid().as_raw() != parent {
        return Ok(1);
    }
    namespaces::unshare(&[Namespace::Mnt, Namespace::Net, Namespace::Pid, Namespace::Ipc, Namespace::Uts])
        .map_err(MachineError::Unshare)?;
    let mut init = Command::new("/proc/self/exe");
    init.arg0("gamut").args(["internal", "init", config]);
    let status = system("starting pid 1", init.status())?;
    Ok(exit_code(status))
}

fn init(config: &str) -> Result<u8, MachineError> {
    system("asking to end with gamut up", prctl::set_pdeathsig(Signal::SIGKILL))?;
    mounts::make_private()?;
    mounts::proc(Path::new("/proc"))?;
    system("naming the node", sethostname("node"))?;
    lay_out_run()?;

    let mut node = Command::new(paths::EXECUTABLE);
    let node = system("starting the node", node.args(["internal", "node", config]).spawn())?;
    reap_until(node.id())
}

/// A `/run` of the node's own, so that nothing is created on the host's file system.
fn lay_out_run() -> Result<(), MachineError> {
    mounts::tmpfs(Path::new("/run"), 0o755)?;
    for directory in [paths::CLUSTER, paths::STATUS, paths::LOGS, paths::PODS, paths::COMPONENTS] {
        system("making directories in /run", fs::create_dir_all(directory))?;
    }
    // As systemd's tmpfiles have it; /var/lock leads here.
    system("making /run/lock", fs::create_dir("/run/lock"))?;
    system("making /run/lock", fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777)))?;
    let executable = Path::new(paths::EXECUTABLE);
    system("making a place for the executable", mounts::file_to_mount_on(executable))?;
    // By its path: /proc/self/exe leads into the mount namespace that was left, and from there nothing can be bound.
    let image = system("finding the executable", fs::read_link("/proc/self/exe"))?;
    mounts::bind(&image, executable, false)?;
    Ok(())
}

/// Pid 1 inherits every orphan of the node's and of the pods' processes; it ends when the node does.
fn reap_until(node: u32) -> Result<u8, MachineError> {
    loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw().cast_unsigned() == node => {
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw().cast_unsigned() == node => {
                let text = format!("the node was ended by {signal}");
                return Err(MachineError::System {
                    doing: "running the node",
                    source: io::Error::other(text),
                });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return system("waiting for processes", Err(error)),
        }
    }
}

fn bound(user: Option<&str>, command: &[OsString]) -> u8 {
    let Some((program, arguments)) = command.split_first() else { return 2 };
    if let Err(error) = user.map_or(Ok(()), become_user) {
        eprintln!("gamut: becoming the container's user: {error}");
        return 126;
    }
    // Only now: another user's process has to ask anew.
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGKILL) {
        eprintln!("gamut: {error}");
        return 126;
    }
    // `exec` comes back only when it fails.
    let error = Command::new(program).args(arguments).exec();
    let (code, remedy) = not_executed(&error);
    eprintln!("gamut: {}: {remedy}", program.display());
    code
}

fn become_user(user: &str) -> io::Result<()> {
    let user: ExecUser = serde_json::from_str(user)?;
    let groups: Vec<Gid> = user.more_groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    let (id, group) = (Uid::from_raw(user.user), Gid::from_raw(user.group));
    setresgid(group, group, group)?;
    Ok(setresuid(id, id, id)?)
}

/// The exit status and the words that shells have for a program that couldn't be executed.
pub(crate) fn not_executed(error: &io::Error) -> (u8, String) {
    match error.kind() {
        io::ErrorKind::NotFound => (127, "there is no such program".to_owned()),
        io::ErrorKind::PermissionDenied => (126, "not executable (permission denied)".to_owned()),
        _ => (126, format!("can't be executed: {error}")),
    }
}

fn read(config: &str) -> Result<MachineConfig, MachineError> {
    Ok(serde_json::from_str(config)?)
}

fn system<T, E: Into<io::Error>>(doing: &'static str, outcome: Result<T, E>) -> Result<T, MachineError> {
    outcome.map_err(|error| MachineError::System { doing, source: error.into() })
}
