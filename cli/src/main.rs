//! `gamut`: one executable for people and for every component.
//!
//! People meet `up`, `exec`, `logs`, `status`, `routes`, `dash`, `explain`, `tap`, `identity`, `check`, `inject`, `completions` and `version`; images and the local runtime start the
//! hidden commands ([`components`]). A command is a module with `Args` and `run`. Which of them may start threads
//! matters: `exec` and `internal` enter namespaces, which only a process of one thread can do, so nothing here starts a
//! runtime before a command does.

mod check;
mod cleanup;
mod completions;
mod components;
mod dash;
mod exec;
mod explain;
mod failure;
mod identity;
mod inject;
mod internal;
mod logging;
mod logs;
mod output;
mod printable;
#[cfg(test)]
mod reference;
mod routes;
mod secrets;
mod status;
mod tap;
mod tips;
mod up;
mod version;
mod world;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Gives memory back after a crowd has gone; the C library's keeps it (docs/architecture.md, decisions).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed, and standard error says why; `check`: something is missing
  2  the command line can't be understood
`exec` and `up -- CMD` exit with what the program did: 126 and 127 if it can't be run, 128 + N after signal N.
After a CMD that succeeds `up` exits with 1 if it had complaints of routes, unless --keep-going is there.";

/// A service mesh whose routing language is the Kubernetes Gateway API
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    /// When to colour what is printed
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        hide_possible_values = true
    )]
    color: output::Colour,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run manifests on this machine: pods, mesh and all
    Up(up::Args),
    /// Run a program of this machine inside a pod
    Exec(exec::Args),
    /// Print what a container has printed
    Logs(logs::Args),
    /// Show pods, identities, certificates, and whether every sidecar has the newest tables
    Status(status::Args),
    /// Show routes: where they are attached, their conditions, and what share of requests each backend got
    Routes(routes::Args),
    /// Serve the live page of a mesh to a browser: rates, splits as they turn out, sidecars
    Dash(dash::Args),
    /// Show which rule a request would meet, and why the others lost
    Explain(explain::Args),
    /// Show requests as they happen
    Tap(tap::Args),
    /// Show who workloads are, what proves it and until when, and the roots they trust
    Identity(identity::Args),
    /// Print manifests as the mesh injects them
    Inject(inject::Args),
    /// Find out whether the mesh works in a cluster, or `up` can on this machine, and what to do if not
    Check(check::Args),
    /// Print what a shell needs to complete command lines
    Completions(completions::Args),
    /// Print the version of this program
    Version(version::Args),
    #[command(flatten)]
    Component(components::Component),
    #[command(hide = true)]
    Internal(internal::Args),
}

fn main() -> ExitCode {
    let parsed = Cli::try_parse();
    let Cli { color, command } =
        parsed.unwrap_or_else(|error| tips::added(error, &Cli::command(), std::env::args_os()).exit());
    logging::start(matches!(command, Command::Component(_)));
    let done = match command {
        Command::Up(args) => up::run(args, color),
        Command::Exec(args) => exec::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Status(args) => status::run(&args, color),
        Command::Routes(args) => routes::run(&args, color),
        Command::Dash(args) => dash::run(&args),
        Command::Explain(args) => explain::run(&args, color),
        Command::Tap(args) => tap::run(&args, color),
        Command::Identity(args) => identity::run(&args, color),
        Command::Inject(args) => inject::run(&args),
        Command::Check(args) => check::run(&args, color),
        Command::Completions(args) => completions::run(&args),
        Command::Version(args) => version::run(&args, color),
        Command::Component(component) => components::run(component),
        Command::Internal(args) => internal::run(args),
    };
    done.unwrap_or_else(|error| failure::report(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_what_people_use_and_nothing_else() {
        insta::assert_snapshot!(Cli::command().term_width(100).render_help());
    }
}
