//! `gamut explain`: which rule a request would meet, where that leads, and why the others lost.
//!
//! ```text
//! manifests, or a world's objects ─ Objects ─> Index ─ the client's RouteTable ─ question ─ decision ─> page
//! ```
//!
//! The controller's own index compiles the table, and the parts that the sidecar is made of decide: this can't say anything
//! that the mesh wouldn't do.

mod decision;
mod page;
mod question;
mod remark;
mod session;
mod words;

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use http::{HeaderName, HeaderValue, Method};

use crate::{
    output::{self, Colour, Format},
    world::{self, Choice, Objects, World},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The request's URL: a Service's name in any of its forms, port and path
    url: String,
    /// The client's namespace, which names are relative to and consumer routes belong to [default: that of the kubeconfig's context, or
    /// `default`]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The client, as deploy/NAME, statefulset/NAME or pod/NAME: says so if it isn't in the mesh
    #[arg(long, value_name = "KIND/NAME")]
    from: Option<Client>,
    /// The request's method
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// A header of the request, as in curl; may be given several times. Session tokens in it are opened
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Kubernetes manifests to explain instead of what runs; may be given several times
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "DIR|FILE",
        conflicts_with_all = ["name", "context", "kubeconfig"]
    )]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Print data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// A workload that sends requests.
#[derive(Clone, Debug)]
struct Client {
    /// As it was written.
    text: String,
    /// Its kind.
    kind: &'static str,
    /// Its name.
    name: String,
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').unwrap_or(("pod", text));
        let kind = match kind {
            "deploy" | "deployment" => "Deployment",
            "sts" | "statefulset" => "StatefulSet",
            "job" => "Job",
            "pod" => "Pod",
            _ => {
                return Err(format!(
                    "{text:?} is no client; use deploy/NAME, statefulset/NAME, job/NAME or pod/NAME (-n says in which namespace)"
                ));
            }
        };
        Ok(Self { text: text.to_owned(), kind, name: name.to_owned() })
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form NAME: VALUE"))?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is not the value of a header"))?;
    Ok((name, value))
}

/// The client's namespace, and what is needed to answer.
async fn gather(args: &Args, world: &World) -> anyhow::Result<(String, Objects)> {
    let namespace = world.namespace(args.namespace.as_deref()).to_owned();
    let mut objects = Objects::of_world(world).await?;
    if let Some(Client { kind, name, .. }) = &args.from {
        objects.add_workload(world, kind, &namespace, name).await?;
    }
    objects.add_endpoints(world).await;
    if !args.headers.is_empty() {
        objects.add_what_opens_tokens(world).await;
    }
    Ok((namespace, objects))
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let (namespace, objects) = if args.paths.is_empty() {
        world::ask(async { gather(args, &args.choice.world().await?).await })?
    } else {
        (args.namespace.clone().unwrap_or_else(|| "default".to_owned()), Objects::of_files(&args.paths))
    };
    let line = objects.line();
    let answer = question::ask(args, &namespace, objects)?;
    output::print(&answer, args.output, colour, |answer, _| page::page(answer, &line))?;
    Ok(ExitCode::SUCCESS)
}
