//! The tests of a cluster: [`Facts`] are read first, each by itself, and judged afterwards.
//!
//! ```text
//! API server ─ Facts ─┬─ server        version, nodes, permissions
//!                     ├─ gateway_api   definitions, what sessions can be written as, XMesh
//!                     ├─ control_plane components, Lease and clocks
//!                     ├─ webhook       its configuration, Service and roots
//!                     ├─ admission     the policy for what the control plane creates
//!                     ├─ annotations   of ours that are unknown or can't be read
//!                     └─ pods          namespaces, pods without sidecars
//! ```
//!
//! What can't be read is unknown, and the other tests go on.

mod admission;
mod annotations;
mod control_plane;
mod facts;
mod gateway_api;
mod pods;
mod server;
#[cfg(test)]
mod tests;
mod webhook;

use gamut_kubernetes::{Cluster, Context};

use self::facts::{Facts, Read};
use super::{
    finding::{Finding, Purpose, Remedy, Report},
    restarts, routes, sidecars,
};
use crate::{
    output::{count, few},
    world::{self, Place, World},
};

/// Whether Gamut can be installed.
///
/// # Errors
/// The API server doesn't answer.
pub(super) async fn before(cluster: &Cluster, context: &Context) -> anyhow::Result<Report> {
    let world = Place::cluster(cluster, context).await?;
    let facts = Facts::read(cluster).await;
    let mut findings = server::version(&world, &facts);
    findings.push(server::permissions(cluster).await);
    findings.push(control_plane::absent(&facts));
    findings.extend(gateway_api::definitions(&facts, Purpose::Install));
    findings.extend(pods::pod_security_anywhere(&facts));
    findings.extend(control_plane::local_clock(&facts));
    Ok(Report { world, purpose: Purpose::Install, findings })
}

/// Whether what is installed works.
///
/// # Errors
/// The API server doesn't answer.
pub(super) async fn now(cluster: &Cluster, context: &Context) -> anyhow::Result<Report> {
    let world = Place::cluster(cluster, context).await?;
    let facts = Facts::read(cluster).await;
    let mut findings = server::version(&world, &facts);
    findings.extend(control_plane::local_clock(&facts));
    let components = control_plane::components(&facts);
    findings.extend(control_plane::ready(&facts, &components));
    if components.as_ref().is_ok_and(Vec::is_empty) {
        // Nothing is installed: everything else would only say so again.
        return Ok(Report { world, purpose: Purpose::Operate, findings });
    }
    findings.extend(control_plane::lease(&facts));
    findings.extend(webhook::all(&facts));
    findings.extend(admission::policy(&facts));
    findings.extend(gateway_api::definitions(&facts, Purpose::Operate));
    findings.extend(gateway_api::mesh(&facts));
    findings.extend(pods::namespaces(&facts));
    findings.extend(annotations::all(&facts));
    findings.extend(pods::roots(&facts));
    findings.extend(pods::pod_security(&facts));
    findings.extend(pods::without_sidecar(&facts));
    if let Ok(components) = &components {
        findings.extend(control_plane::own(&world::OwnStatus::ask(cluster, components).await, facts.time));
    }
    if let Ok(objects) = &facts.pods {
        let mesh = world::Mesh::of_pods(cluster, world.clone(), objects, components).await;
        findings.extend(control_plane::controllers(&mesh));
        findings.extend(sidecars::all(mesh, facts.time));
    }
    let asked = World::Cluster(cluster.clone(), context.clone());
    findings.extend(routes::all(&asked, None).await);
    findings.extend(routes::backends(&asked, &world, None).await);
    Ok(Report { world, purpose: Purpose::Operate, findings })
}

/// A test that couldn't be made, if what it needs wasn't read.
fn unread<T>(what: &'static str, read: &Read<T>) -> Option<Finding> {
    read.as_ref().err().map(|reason| unknown(what, reason))
}

fn unknown(what: &'static str, reason: &str) -> Finding {
    Finding::unknown(
        what,
        format!("can't be examined: {reason}"),
        "ask as somebody who has the role for it (docs/reference/cli.md), or try again",
    )
}
