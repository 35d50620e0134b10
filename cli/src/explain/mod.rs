//! `gamut explain`: which rule a request would meet, where that leads, and why the others lost.
//!
//! ```text
//! manifests, or a running instance's objects ─ world ─> Index ─ the client's RouteTable ─ question ─ decision ─> page
//! ```
//!
//! The controller's own index compiles the table, and the parts that the sidecar is made of decide: this can't say anything
//! that the mesh wouldn't do.

mod decision;
mod page;
mod question;
mod words;
mod world;

use std::{path::PathBuf, process::ExitCode};

use gamut_local::InstanceName;
use http::{HeaderName, HeaderValue, Method};

use crate::output::{self, Colour, Format};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The request's URL: a Service's name in any of its forms, port and path
    url: String,
    /// The client's namespace, which names are relative to and consumer routes belong to
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The client, as deploy/NAME, statefulset/NAME or pod/NAME: says so if it isn't in the mesh
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<String>,
    /// The request's method
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// A header of the request, as in curl; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Kubernetes manifests to explain instead of a running instance
    #[arg(short = 'f', long = "filename", value_name = "DIR|FILE", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// The instance to ask, without -f
    #[arg(long, value_name = "NAME", env = gamut_local::INSTANCE_VARIABLE, default_value_t, hide_env_values = true)]
    name: InstanceName,
    /// Print data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form NAME: VALUE"))?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is not the value of a header"))?;
    Ok((name, value))
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let world = if args.paths.is_empty() {
        world::World::of_instance(&gamut_local::Client::new(args.name.clone()))?
    } else {
        world::World::of_files(&args.paths)
    };
    let answer = question::ask(args, world)?;
    output::print(&answer, args.output, colour, |answer, _| page::page(answer))?;
    Ok(ExitCode::SUCCESS)
}
