//! `gamut exec`: any program of the host, inside a pod.

use std::{ffi::OsString, process::ExitCode};

use gamut_local::{Client, ClientError, ExecError, ExecOptions, InstanceName, control::Target};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance to enter
    #[arg(long, value_name = "NAME", env = gamut_local::INSTANCE_VARIABLE, default_value_t)]
    name: InstanceName,

    /// The namespace of the target
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// A container of the pod other than the first
    #[arg(short, long)]
    container: Option<String>,

    /// deploy/NAME, statefulset/NAME, job/NAME, svc/NAME, pod/NAME, NAME (a pod) or node
    target: Target,

    /// The program and its arguments, found as on the host
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Must be called while the process has one thread: it enters namespaces. Exits with the program's status.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { name, namespace, container, target, command } = args;
    let status =
        gamut_local::exec(&Client::new(name), &ExecOptions { target, namespace, container, command });
    let status = status.map_err(|error| match error {
        ExecError::Client(ClientError::NotRunning { .. }) => {
            anyhow::anyhow!("{error}; in a cluster `kubectl exec` is what you want")
        }
        error => error.into(),
    })?;
    Ok(ExitCode::from(status))
}
