//! Attachment: which ports of a Service a route's parentRef means, and which clients its routes are for.

use std::collections::BTreeSet;

use gamut_route::{NamespacedName, RouteKind, table::AppProtocol};

use super::{
    protocol,
    report::{Problem, Reason},
    route::{CompiledRoute, client_ip_problem},
    service::{Frontend, Port, Service},
    world::World,
};
use crate::gateway::ParentRef;

/// Where a parentRef attaches its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The Service.
    pub service: NamespacedName,
    /// The ports, never none.
    pub ports: BTreeSet<u16>,
    /// Ports that the parentRef means but that don't carry requests.
    pub left_out: Vec<(u16, AppProtocol)>,
}

/// Which clients a route is for: each set replaces the next one, and routes merge inside a set only (GEP-1294).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients<'a> {
    /// Of this namespace, which has consumer routes.
    Of(&'a str),
    /// Of every namespace without consumer routes.
    Everywhere,
}

/// Finds what a parentRef means.
///
/// # Errors
/// Why the route can't be attached there.
pub fn attach(world: &World, route: &CompiledRoute, parent: &ParentRef) -> Result<Attachment, Problem> {
    let attachment = find(world, route, parent)?;
    match world.services.get(&attachment.service) {
        Some(service) if is_excluded(route, service) => Err(client_ip_problem(&attachment.service)),
        _ => Ok(attachment),
    }
}

/// Whether a Service keeps clients by their address and a route by sessions, so that the route isn't accepted there.
pub(super) fn is_excluded(route: &CompiledRoute, service: &Service) -> bool {
    route.has_sessions && service.client_ip_affinity.is_some()
}

/// What a parentRef means, apart from what the Service does about sessions.
pub(super) fn find(world: &World, route: &CompiledRoute, parent: &ParentRef) -> Result<Attachment, Problem> {
    let target = parent.target(route.namespace());
    let refuse = |message: String| Err(Problem { reason: Reason::NoMatchingParent, message });
    let Some(service) = world.services.get(&target) else {
        return refuse(format!("Service {target} doesn't exist; create it or correct parentRefs"));
    };
    match &service.frontend {
        Frontend::ClusterIps(_) => {}
        Frontend::Headless => {
            return refuse(format!(
                "Service {target} is headless: clients address its pods, so there is no traffic for a route; \
                 use a Service with a cluster IP"
            ));
        }
        Frontend::ExternalName(_) => {
            return refuse(format!(
                "Service {target} is of type ExternalName: clients address another host, so there is no traffic for a route; \
                 use a Service with a cluster IP"
            ));
        }
    }
    let meant: Vec<&Port> = service.ports.iter().filter(|port| is_meant(parent, port)).collect();
    if meant.is_empty() {
        let message = match (wanted(parent), service.ports.as_slice()) {
            (_, []) => format!("Service {target} has no TCP ports; give it one"),
            (wanted, ports) => format!("Service {target} has no TCP port {wanted}; it has {}", listed(ports)),
        };
        return refuse(message);
    }
    let named = parent.port.is_some() || parent.section_name.is_some();
    let (suitable, unsuitable): (Vec<&Port>, Vec<&Port>) =
        meant.into_iter().partition(|port| is_suitable(route.kind(), port, named));
    if suitable.is_empty() {
        let ports: Vec<String> = unsuitable
            .iter()
            .map(|port| format!("{} ({})", port.number, protocol::name(port.protocol)))
            .collect();
        return refuse(format!(
            "no port of Service {target} that the parentRef means carries requests: {}; \
             change its appProtocol, or use a TLSRoute or TCPRoute",
            ports.join(", ")
        ));
    }
    Ok(Attachment {
        service: target,
        ports: suitable.iter().map(|port| port.number).collect(),
        left_out: unsuitable.iter().map(|port| (port.number, port.protocol)).collect(),
    })
}

/// Without `port` and `sectionName` all ports are meant; with both, both must match.
fn is_meant(parent: &ParentRef, port: &Port) -> bool {
    parent.port.is_none_or(|number| number == i64::from(port.number))
        && parent.section_name.as_ref().is_none_or(|name| *name == port.name)
}

/// Requests can't be routed where the owner declares other bytes. What is only assumed gives way to a
/// parentRef that names the port.
fn is_suitable(kind: RouteKind, port: &Port, named: bool) -> bool {
    let requests = matches!(kind, RouteKind::Http | RouteKind::Grpc);
    let other_bytes = matches!(port.protocol, AppProtocol::Tls | AppProtocol::Opaque);
    !(requests && other_bytes && (port.declared || !named))
}

fn wanted(parent: &ParentRef) -> String {
    match (parent.port, &parent.section_name) {
        (Some(number), Some(name)) => format!("{number} named {name:?}"),
        (Some(number), None) => number.to_string(),
        (None, Some(name)) => format!("named {name:?}"),
        (None, None) => "at all".to_owned(),
    }
}

fn listed(ports: &[Port]) -> String {
    let port = |port: &Port| match port.name.as_str() {
        "" => port.number.to_string(),
        name => format!("{} ({name})", port.number),
    };
    ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

/// Which set a route belongs to, seen from a Service.
pub fn clients_of<'a>(route: &'a CompiledRoute, service: &NamespacedName) -> Clients<'a> {
    match route.namespace() == service.namespace {
        true => Clients::Everywhere,
        false => Clients::Of(route.namespace()),
    }
}
