//! Endpoint sets: slices joined with pods.
//!
//! A slice says which addresses a Service leads to and in which state they are; the pod behind an address
//! says who it is, where it runs and whether it speaks mTLS. An endpoint whose pod isn't known (any more) is
//! left out: the slice is late, and nobody may be sent plaintext only because we don't know better yet.

use std::{collections::BTreeMap, net::SocketAddr};

use gamut_controller_api::{Endpoint, EndpointSet, ExternalHost, Transport};
use gamut_route::{BackendId, NamespacedName, ServicePort, table::AppProtocol};

use super::{
    Settings,
    pod::Pod,
    pods::Pods,
    slice::{SliceEndpoint, Slices},
};
use crate::{
    compile::{Frontend, Port, Service, World, retry_budget, xbackend_protocol},
    gateway::XBackend,
};

/// The endpoints of a backend; empty for one that doesn't exist.
pub(super) fn endpoint_set(
    settings: &Settings,
    world: &World,
    pods: &Pods,
    slices: &Slices,
    id: &BackendId,
) -> EndpointSet {
    let found = match id {
        BackendId::Service(port) => of_service(settings, world, pods, slices, port),
        BackendId::XBackend(name) => of_xbackend(settings, world, pods, name),
    };
    found.unwrap_or_else(|| EndpointSet {
        id: id.clone(),
        protocol: AppProtocol::default(),
        endpoints: Vec::new(),
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    })
}

fn of_service(
    settings: &Settings,
    world: &World,
    pods: &Pods,
    slices: &Slices,
    id: &ServicePort,
) -> Option<EndpointSet> {
    let service = world.services.get(&id.service)?;
    if let Frontend::ExternalName(host) = &service.frontend {
        return Some(EndpointSet {
            id: BackendId::Service(id.clone()),
            protocol: service.port(id.port).map_or_else(AppProtocol::default, |port| port.protocol),
            endpoints: Vec::new(),
            client_ip_affinity: None,
            retry_budget: retry_budget(world, &id.service),
            external: Some(ExternalHost { host: host.clone(), port: id.port }),
        });
    }
    let port = service.port(id.port)?;
    Some(EndpointSet {
        id: BackendId::Service(id.clone()),
        protocol: port.protocol,
        endpoints: endpoints_of(settings, pods, slices, service, port),
        client_ip_affinity: service.client_ip_affinity,
        retry_budget: retry_budget(world, &id.service),
        external: None,
    })
}

fn endpoints_of(
    settings: &Settings,
    pods: &Pods,
    slices: &Slices,
    service: &Service,
    port: &Port,
) -> Vec<Endpoint> {
    let mut by_address: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in slices.of_service(&service.name) {
        // Slices name the Service's port and hold the target port, already resolved where it is a name.
        let Some(target) = slice.ports.get(&port.name) else { continue };
        for endpoint in &slice.endpoints {
            let Some(endpoint) = joined(settings, pods, endpoint, *target) else { continue };
            // While slices are rearranged, an endpoint may be in two of them for a moment.
            let known = by_address.entry(endpoint.address).or_insert_with(|| endpoint.clone());
            if endpoint.ready && !known.ready {
                *known = endpoint;
            }
        }
    }
    one_family_for_each_pod(by_address, service.prefers_ipv6)
}

fn joined(settings: &Settings, pods: &Pods, endpoint: &SliceEndpoint, port: u16) -> Option<Endpoint> {
    let address = SocketAddr::new(endpoint.address, port);
    let pod = match &endpoint.pod {
        Some((name, uid)) => {
            Some(pods.get(name).filter(|pod| uid.is_none_or(|uid| uid == pod.uid) && !pod.finished)?)
        }
        None => pods.by_address(endpoint.address),
    };
    let terminating = endpoint.terminating || pod.is_some_and(|pod| pod.terminating);
    let reachable = pod.is_none_or(Pod::is_reachable);
    Some(Endpoint {
        address,
        transport: pod.map_or(Transport::Plaintext, |pod| pod.transport(&settings.trust_domain, port)),
        zone: endpoint.zone.clone().or_else(|| pod.and_then(|pod| pod.zone.clone())),
        // A pod that was told to go takes no new traffic, even before its slice says so; but
        // `publishNotReadyAddresses` keeps terminating endpoints ready on purpose.
        ready: endpoint.ready && reachable && (endpoint.terminating || !terminating),
        serving: endpoint.serving && reachable,
        terminating,
        pod: pod.map(Pod::as_seen),
    })
}

/// A dual-stack pod is in the slices of both families: it is one endpoint, not two, and has the Service's
/// first family.
fn one_family_for_each_pod(by_address: BTreeMap<SocketAddr, Endpoint>, prefers_ipv6: bool) -> Vec<Endpoint> {
    let preferred = |endpoint: &Endpoint| endpoint.address.is_ipv6() == prefers_ipv6;
    let uid = |endpoint: &Endpoint| endpoint.pod.as_ref().map(|pod| pod.uid);
    let in_preferred: Vec<_> =
        by_address.values().filter(|endpoint| preferred(endpoint)).filter_map(uid).collect();
    let doubled = |endpoint: &Endpoint| {
        !preferred(endpoint) && uid(endpoint).is_some_and(|uid| in_preferred.contains(&uid))
    };
    by_address.into_values().filter(|endpoint| !doubled(endpoint)).collect()
}

/// Pods chosen by label, without a Service: ready by their own account.
fn of_xbackend(
    settings: &Settings,
    world: &World,
    pods: &Pods,
    name: &NamespacedName,
) -> Option<EndpointSet> {
    let backend = world.xbackends.get(name)?;
    let protocol = xbackend_protocol(backend).ok()?;
    let port = u16::try_from(backend.spec.ok()?.port.number).ok()?;
    let mut endpoints: Vec<Endpoint> = pods
        .in_namespace(&name.namespace)
        .filter(|pod| selects(backend, pod) && !pod.finished && !pod.host_network)
        .filter_map(|pod| Some(own_endpoint(settings, pod, SocketAddr::new(pod.address(false)?, port))))
        .collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    Some(EndpointSet {
        id: BackendId::XBackend(name.clone()),
        protocol,
        endpoints,
        client_ip_affinity: None,
        retry_budget: None,
        external: None,
    })
}

/// Whether an XBackend selects a pod.
pub(super) fn selects(backend: &XBackend, pod: &Pod) -> bool {
    let labels = backend
        .spec
        .ok()
        .and_then(|spec| spec.endpoint_selector.as_ref())
        .map(|selector| &selector.match_labels);
    labels.is_some_and(|labels| {
        !labels.is_empty() && labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
    })
}

/// A pod as an endpoint by itself.
pub(super) fn own_endpoint(settings: &Settings, pod: &Pod, address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        transport: pod.transport(&settings.trust_domain, address.port()),
        zone: pod.zone.clone(),
        ready: pod.is_ready() && !pod.terminating,
        serving: pod.is_ready(),
        terminating: pod.terminating,
        pod: Some(pod.as_seen()),
    }
}
