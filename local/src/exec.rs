//! `gamut exec`: any program of the host inside a pod.
//!
//! Namespaces can be changed only by a process with one thread, so this runs before anything starts a thread; and a new
//! process namespace takes only children in, so the program is a child, and signals are passed on to it.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::ExitStatus,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use thiserror::Error;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::{
    client::{Client, ClientError},
    control::{ExecUser, Target},
    linux::namespaces,
    paths,
};

/// What to run where.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Where.
    pub target: Target,
    /// The Kubernetes namespace of the target.
    pub namespace: String,
    /// A container other than the first of the pod's own.
    pub container: Option<String>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// The program couldn't be run.
#[derive(Debug, Error)]
pub enum ExecError {
    /// The instance doesn't know where.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Only root may enter namespaces.
    #[error("gamut exec needs root: it enters the pod's namespaces; run it with sudo")]
    NotRoot,
    /// The kernel refused.
    #[error("entering {target}: {source}")]
    Enter {
        /// What was to be entered.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The helper that runs the program couldn't be started.
    #[error("starting a process: {0}")]
    Spawn(#[from] io::Error),
}

/// Runs a program in a target's namespaces, as the user that the container's own program runs as, with this process's standard streams, working directory and environment, the
/// container's environment laid over it. Returns its exit status: 127 when there is no such program, 126 when it can't
/// be executed, 128 + N when signal N ended it.
///
/// # Errors
/// See [`ExecError`].
pub fn exec(client: &Client, options: &ExecOptions) -> Result<u8, ExecError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(ExecError::NotRoot);
    }
    let (entrance, descriptors) =
        client.entrance(options.target.clone(), &options.namespace, options.container.as_deref())?;
    let directory = env::current_dir();
    for (descriptor, kind) in descriptors.iter().zip(&entrance.namespaces) {
        namespaces::enter(descriptor, *kind)
            .map_err(|source| ExecError::Enter { target: entrance.description.clone(), source })?;
    }
    // Entering a mount namespace leads to its root directory.
    if let Ok(directory) = directory {
        let _ = env::set_current_dir(directory);
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut bound =
            bound_command(Path::new(paths::EXECUTABLE), &options.command, entrance.user.as_ref())?;
        for (name, value) in &entrance.environment {
            bound.env(name, value);
        }
        let child = Attended::spawn(&mut bound)?;
        Ok(exit_code(child.wait().await?))
    })
}

/// A command that ends when the calling process does, however that happens.
pub(crate) fn bound_command(
    gamut: &Path,
    command: &[OsString],
    user: Option<&ExecUser>,
) -> io::Result<Command> {
    let mut bound = Command::new(gamut);
    bound.args(["internal", "bound"]);
    if let Some(user) = user {
        bound.arg("--user").arg(serde_json::to_string(user)?);
    }
    bound.arg("--").args(command);
    Ok(bound)
}

/// A child in the foreground: signals that are meant for it reach it and don't end this process first.
pub(crate) struct Attended {
    child: Child,
    signals: [(Signal, tokio::signal::unix::Signal); 4],
}

impl Attended {
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        // Caught (not ignored, which the child would inherit) from before the child exists.
        let signals = [
            (Signal::SIGINT, signal(SignalKind::interrupt())?),
            (Signal::SIGQUIT, signal(SignalKind::quit())?),
            (Signal::SIGTERM, signal(SignalKind::terminate())?),
            (Signal::SIGHUP, signal(SignalKind::hangup())?),
        ];
        Ok(Self { child: command.spawn()?, signals })
    }

    /// Its exit status. From a terminal, Ctrl-C and Ctrl-\ reach the child anyway; all else is passed on.
    pub(crate) async fn wait(mut self) -> io::Result<ExitStatus> {
        let on_terminal = io::stdin().is_terminal();
        loop {
            let [(_, interrupt), (_, quit), (_, terminate), (_, hangup)] = &mut self.signals;
            let received = tokio::select! {
                status = self.child.wait() => return status,
                _ = interrupt.recv() => Signal::SIGINT,
                _ = quit.recv() => Signal::SIGQUIT,
                _ = terminate.recv() => Signal::SIGTERM,
                _ = hangup.recv() => Signal::SIGHUP,
            };
            let keyboard = matches!(received, Signal::SIGINT | Signal::SIGQUIT);
            if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok())
                && !(keyboard && on_terminal)
            {
                kill(Pid::from_raw(id), received)?;
            }
        }
    }
}

/// As shells tell it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_as_shells_do() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
