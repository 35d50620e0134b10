//! `gamut logs`: what a container has printed.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use gamut_local::{Client, ClientError, InstanceName, control::Target};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The instance to ask
    #[arg(long, value_name = "NAME", env = gamut_local::INSTANCE_VARIABLE, default_value_t, hide_env_values = true)]
    name: InstanceName,

    /// The namespace of the target
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// A container of the pod other than the first: gamut-proxy is the sidecar
    #[arg(short, long)]
    container: Option<String>,

    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,

    /// NAME (a pod), pod/NAME, deploy/NAME, statefulset/NAME, job/NAME, or node with -c ca or -c controller
    target: Target,
}

/// How often somebody who follows is looked after.
const INTERVAL: Duration = Duration::from_millis(200);

/// Until all is printed; who follows, until the pod or the instance is gone.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::new(args.name);
    let logs = |after| client.logs(args.target.clone(), &args.namespace, args.container.as_deref(), after);
    let mut part = logs(None)?;
    loop {
        let mut stream = io::stdout().lock();
        match stream.write_all(part.text.as_bytes()).and_then(|()| stream.flush()) {
            // Who reads has seen enough: `| head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            printed => printed?,
        }
        drop(stream);
        if !args.follow {
            break;
        }
        thread::sleep(INTERVAL);
        part = match logs(part.place) {
            Ok(part) => part,
            Err(ClientError::Refused(_) | ClientError::NotRunning { .. } | ClientError::Broken { .. }) => {
                break;
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(ExitCode::SUCCESS)
}
