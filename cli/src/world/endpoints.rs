//! Backends that nobody answers for: no endpoint of theirs is ready, and why. And those whose pods are outside of the mesh.

use std::collections::BTreeSet;

use gamut_controller::index::Index;
use gamut_controller_api::{Body, Key, Transport};
use gamut_route::{BackendId, NamespacedName};

/// Why requests to a backend find no endpoint; `None` where one takes them, or where the backend isn't there at all, which
/// conditions say. The index must know pods and EndpointSlices.
pub(crate) fn silence(index: &Index, backend: &BackendId) -> Option<String> {
    let Body::EndpointSet(set) = index.body(&Key::EndpointSet(backend.clone())) else { return None };
    if set.external.is_some() || set.endpoints.iter().any(|endpoint| endpoint.ready || endpoint.serving) {
        return None;
    }
    let none_ready = |pods: usize| format!("no ready endpoint: none of {pods} pods is ready");
    let world = index.world();
    let why = match backend {
        BackendId::Service(port) => {
            let service = world.services.get(&port.service)?;
            service.port(port.port)?;
            let labels: Vec<String> =
                service.selector.iter().map(|(name, value)| format!("{name}={value}")).collect();
            match index.selected(service) {
                _ if labels.is_empty() => {
                    "no ready endpoint: it has no selector, and no EndpointSlice names one".to_owned()
                }
                0 => format!("no ready endpoint: selector {} matches no pod", labels.join(",")),
                pods => none_ready(pods),
            }
        }
        BackendId::XBackend(name) => {
            world.xbackends.get(name)?;
            match set.endpoints.len() {
                0 => "no ready endpoint: its endpointSelector matches no pod".to_owned(),
                pods => none_ready(pods),
            }
        }
    };
    Some(why)
}

/// How many of a backend's pods that take requests have no sidecar, leaving out those of whom it is `meant`; `None` where all
/// have one. The index must know pods and EndpointSlices.
pub(crate) fn without_sidecar(
    index: &Index,
    backend: &BackendId,
    meant: &BTreeSet<NamespacedName>,
) -> Option<String> {
    let Body::EndpointSet(set) = index.body(&Key::EndpointSet(backend.clone())) else { return None };
    let taking = set.endpoints.iter().filter(|endpoint| endpoint.ready);
    let pods: Vec<_> =
        taking.filter_map(|endpoint| Some((endpoint.pod.as_ref()?, &endpoint.transport))).collect();
    let bare = pods.iter().filter(|(pod, transport)| {
        **transport == Transport::Plaintext
            && !meant.contains(&NamespacedName::new(pod.namespace.as_str(), pod.name.as_str()))
    });
    match bare.count() {
        0 => None,
        bare => Some(format!("no sidecar at {bare} of {} pods: they are sent plaintext", pods.len())),
    }
}
