//! `gamut internal`: the processes that `gamut up` and `gamut exec` are made of.

use std::process::ExitCode;

use gamut_local::internal::Internal;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Internal,
}

/// Must be called while the process has one thread: namespaces are made and entered here.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    Ok(gamut_local::internal::run(args.command))
}
