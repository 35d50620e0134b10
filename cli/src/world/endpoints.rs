//! Backends that nobody answers for: no endpoint of theirs is ready, and why.

use gamut_controller::index::Index;
use gamut_controller_api::{Body, Key};
use gamut_route::BackendId;

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
