//! The components as commands: what images and the local runtime start.

use std::process::ExitCode;

use clap::Subcommand;

use crate::{cleanup, secrets};

/// A process of the mesh. Settings come from flags or the environment, and logs go to standard error.
#[derive(Debug, Subcommand)]
pub(crate) enum Component {
    /// The sidecar
    #[command(hide = true)]
    Proxy(Box<gamut_proxy::ProxyArgs>),
    /// The init container: writes the redirect rules of a pod
    #[command(hide = true)]
    Init(gamut_proxy::init::InitArgs),
    /// The sidecar's preStop hook: tells it that its pod is going away
    #[command(hide = true)]
    Drain,
    /// The controller
    #[command(hide = true)]
    Controller(gamut_controller::ControllerArgs),
    /// The certificate authority
    #[command(hide = true)]
    Ca(gamut_ca::CaArgs),
    /// The end of an uninstallation: deletes what the control plane has created by itself
    #[command(hide = true)]
    Cleanup(cleanup::Args),
    /// The injector: gives pods their sidecars as the API server creates them
    #[command(hide = true)]
    Injector(Box<gamut_webhook::InjectorArgs>),
    /// The echo app of examples and tests
    #[command(hide = true, disable_version_flag = true)]
    Echo(Box<gamut_echo::Args>),
}

impl Component {
    /// Whether there are keys in its memory.
    fn has_keys(&self) -> bool {
        match self {
            Self::Proxy(_) | Self::Controller(_) | Self::Ca(_) | Self::Injector(_) => true,
            Self::Init(_) | Self::Drain | Self::Cleanup(_) | Self::Echo(_) => false,
        }
    }
}

/// Runs a component until it is told to stop.
///
/// # Errors
/// Whatever keeps it from starting or going on.
pub(crate) fn run(component: Component) -> anyhow::Result<ExitCode> {
    if component.has_keys() {
        secrets::keep()?;
    }
    match component {
        Component::Proxy(args) => gamut_proxy::run(*args)?,
        Component::Init(args) => gamut_proxy::init::run(args)?,
        Component::Drain => gamut_proxy::drain::notify()?,
        Component::Controller(args) => runtime()?.block_on(gamut_controller::run(args))?,
        Component::Ca(args) => runtime()?.block_on(gamut_ca::run(args))?,
        Component::Cleanup(args) => runtime()?.block_on(cleanup::run(args))?,
        Component::Injector(args) => runtime()?.block_on(gamut_webhook::run(*args))?,
        Component::Echo(args) => return Ok(runtime()?.block_on(gamut_echo::run(*args))?),
    }
    Ok(ExitCode::SUCCESS)
}

/// One thread: these components wait far more than they work.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
