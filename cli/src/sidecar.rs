//! `gamut-proxy`: the commands that an injected pod runs, and nothing else. The sidecar's image holds it under the name `gamut`,
//! so that one patch fits images and [`gamut up`](../up.rs) alike.

mod failure;
mod logging;
mod printable;

use std::process::ExitCode;

use clap::Parser;

/// Gives memory back after a crowd has gone; the C library's keeps it (docs/architecture.md, decisions).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What runs in a pod of the mesh
#[derive(Debug, Parser)]
#[command(name = "gamut", version)]
enum Sidecar {
    /// The sidecar
    Proxy(Box<gamut_proxy::ProxyArgs>),
    /// The init container: writes the redirect rules of a pod
    Init(gamut_proxy::init::InitArgs),
    /// The sidecar's preStop hook: tells it that its pod is going away
    Drain,
}

fn main() -> ExitCode {
    let command = Sidecar::parse();
    logging::start(true);
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

fn run(command: Sidecar) -> anyhow::Result<()> {
    match command {
        Sidecar::Proxy(args) => gamut_proxy::run(*args)?,
        Sidecar::Init(args) => gamut_proxy::init::run(args)?,
        Sidecar::Drain => gamut_proxy::drain::notify()?,
    }
    Ok(())
}
