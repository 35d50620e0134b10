//! `gamut check`: whether the mesh works, or could, and what to do if not.
//!
//! | of | tests |
//! |---|---|
//! | a cluster | whether what is installed works: control plane, webhook, clocks, pods and their sidecars |
//! | a cluster, `--pre` | whether Gamut can be installed: version, permissions, definitions, Pod Security |
//! | a cluster or a `gamut up`, `--proxy` | whether the sidecars are in order, and the routes that they follow |
//! | this machine | whether `gamut up` can work: does what the mesh does, in namespaces that end with the test |
//!
//! Each test says what it found and the remedy.

mod cluster;
mod finding;
mod machine;
mod restarts;
mod routes;
mod sessions;
mod sidecars;

use std::{path::PathBuf, process::ExitCode};

use gamut_local::InstanceName;
use jiff::Timestamp;

use self::finding::{Finding, Purpose, Report};
use crate::{
    output::{self, Colour, Format},
    world::{self, Choice, Place, World},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Find out whether Gamut can be installed in the cluster
    #[arg(long, conflicts_with = "name")]
    pre: bool,
    /// Find out whether the sidecars are in order: identities, certificates, roots, tables, and the routes they follow
    #[arg(long, conflicts_with_all = ["pre", "machine", "crds"])]
    proxy: bool,
    /// With --proxy: only sidecars and routes of this namespace
    #[arg(short, long, value_name = "NAMESPACE", requires = "proxy")]
    namespace: Option<String>,
    /// Examine this machine, for `gamut up`. This is also done where an instance is asked, and where there is neither
    /// instance nor kubeconfig
    #[arg(long, conflicts_with_all = ["pre", "context", "kubeconfig"])]
    machine: bool,
    #[command(flatten)]
    choice: Choice,
    /// CRDs of a cluster (`kubectl get crd -o yaml`), to say which ways to set sessions work there
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["pre", "context", "kubeconfig"])]
    crds: Vec<PathBuf>,
    /// Print data instead of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let report = world::ask(report(args))?.typed_as(&args.choice.kubectl());
    output::print(&report, args.output, colour, |report, _| report.page(Timestamp::now()))?;
    Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn report(args: &Args) -> anyhow::Result<Report> {
    if args.proxy {
        let (world, namespace) = (args.choice.world().await?, args.namespace.as_deref());
        world.require(namespace).await?;
        return of_proxies(&world, namespace).await;
    }
    let cluster_named = args.pre || args.choice.names_cluster();
    if args.machine || !args.crds.is_empty() || (!cluster_named && args.choice.instance()?.is_some()) {
        let mut report = of_machine(&args.crds);
        let instance = args.choice.instance()?.filter(|_| !args.machine && args.crds.is_empty());
        report.findings.extend(instance.map(|name| not_examined(&name)));
        return Ok(report);
    }
    match args.choice.try_cluster().await? {
        Some((cluster, context)) if args.pre => cluster::before(&cluster, &context).await,
        Some((cluster, context)) => cluster::now(&cluster, &context).await,
        None if args.pre => Err(no_cluster()),
        None => Ok(of_machine(&args.crds)),
    }
}

/// That there is a mesh, which these tests aren't of.
fn not_examined(instance: &InstanceName) -> Finding {
    Finding::ok("instance", format!("{instance}: gamut check --proxy examines its sidecars and routes"))
}

/// Only a cluster can be asked whether something can be installed in it.
fn no_cluster() -> anyhow::Error {
    anyhow::anyhow!(
        "--pre asks a cluster, and there is no kubeconfig; name one with --kubeconfig, KUBECONFIG or ~/.kube/config, or leave \
         --pre out to examine this machine"
    )
}

async fn of_proxies(world: &World, namespace: Option<&str>) -> anyhow::Result<Report> {
    let mut mesh = world.mesh(namespace).await?;
    let place = mesh.world.clone();
    mesh.pods.retain(|pod| namespace.is_none_or(|wanted| pod.namespace == wanted));
    let mut findings = sidecars::all(mesh, Timestamp::now());
    findings.extend(routes::all(world, namespace).await);
    findings.extend(routes::backends(world, &place, namespace).await);
    Ok(Report { world: place, purpose: Purpose::Proxies, findings })
}

fn of_machine(crds: &[PathBuf]) -> Report {
    let mut findings = machine::examine();
    findings.push(if crds.is_empty() {
        sessions::of_files()
    } else {
        let (objects, errors) = gamut_manifest::load(crds);
        errors.iter().for_each(output::tell);
        let crds = objects.iter().filter(|object| object.kind == "CustomResourceDefinition");
        sessions::of_crds(crds.map(|crd| &crd.raw))
    });
    Report { world: Place::Machine, purpose: Purpose::Up, findings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_that_was_not_examined_is_named_with_what_examines_it() {
        let findings = vec![not_examined(&InstanceName::default())];
        let report = Report { world: Place::Machine, purpose: Purpose::Up, findings };
        let page = report.page(Timestamp::UNIX_EPOCH).render(false);
        assert!(page.contains("default: gamut check --proxy examines"), "{page}");
        assert!(page.ends_with("gamut up works here\n"), "{page}");
    }

    #[test]
    fn who_asks_for_an_installation_without_a_cluster_is_told_that_a_cluster_is_missing() {
        let error = no_cluster().to_string();
        assert!(error.contains("--pre asks a cluster") && error.contains("--kubeconfig"), "{error}");
    }
}
