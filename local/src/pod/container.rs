//! `gamut internal container`: enters a pod's namespaces, arranges its file system, becomes the container's program.
//!
//! It has one thread from beginning to end. What goes wrong before the program runs is written to a file that was opened
//! while the node's file system was still in sight.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid, setsid};
use serde::{Deserialize, Serialize};

use super::{
    plan::UserPlan,
    rootfs::{self, RootPlan},
};
use crate::{
    control::Namespace,
    internal::not_executed,
    linux::{capabilities, namespaces},
};

/// What to become; comes as JSON on standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerSpec {
    pub(crate) namespaces: Namespaces,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) working_directory: Option<String>,
    pub(crate) user: UserPlan,
    /// Where to say why the program doesn't run.
    pub(crate) error_file: PathBuf,
}

/// Where the program runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Namespaces {
    /// In the namespaces of a pod's sandbox, with mounts of its own.
    New { sandbox: i32, root: RootPlan },
    /// Beside a process that runs in a container.
    Of { process: i32 },
}

/// Exit statuses of its own are 126 and above, as shells have them; they come with a line in the error file.
pub(crate) fn run() -> u8 {
    let spec: ContainerSpec = match serde_json::from_reader(io::stdin()) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("gamut: a container's settings can't be read: {error}");
            return 126;
        }
    };
    let mut errors = match File::create(&spec.error_file) {
        Ok(errors) => errors,
        Err(error) => {
            eprintln!("gamut: {}: {error}", spec.error_file.display());
            return 126;
        }
    };
    let (code, problem) = match prepare(&spec) {
        Ok(()) => execute(&spec),
        Err(problem) => (126, problem),
    };
    if let Err(error) = writeln!(errors, "{problem}") {
        eprintln!("gamut: {problem} ({error})");
    }
    code
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
