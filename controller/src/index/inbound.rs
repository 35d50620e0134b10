//! Inbound policies: how a pod takes traffic in, from annotations of its namespace and its own, and from the
//! Services that select it.

use std::collections::BTreeMap;

use gamut_controller_api::{InboundPolicy, InboundPort, MtlsMode};
use gamut_route::table::AppProtocol;

use super::{Settings, pod::Pod};
use crate::compile::{OPAQUE_PORTS, PortList, Service, Target};

const MTLS: &str = "gamut.mesh/mtls";
const PLAINTEXT_PORTS: &str = "gamut.mesh/plaintext-ports";

/// The policy of a pod. `namespace` are its namespace's annotations, which the pod's own go before;
/// `services` are those that select it.
pub(super) fn inbound_policy<'a>(
    settings: &Settings,
    pod: &Pod,
    namespace: &BTreeMap<String, String>,
    services: impl Iterator<Item = &'a Service>,
) -> InboundPolicy {
    let mode = mode(settings, pod, namespace);
    let annotation = |name: &str| pod.annotations.get(name).or_else(|| namespace.get(name));
    let opaque = PortList::read(annotation(OPAQUE_PORTS));
    let plaintext = PortList::read(annotation(PLAINTEXT_PORTS));

    let mut protocols = protocols_of_services(pod, services);
    for port in &pod.ports {
        protocols.entry(*port).or_insert_with(|| AppProtocol::assumed(*port));
    }
    protocols.extend(opaque.iter().map(|port| (port, AppProtocol::Opaque)));
    for port in plaintext.iter() {
        protocols.entry(port).or_insert_with(|| AppProtocol::assumed(port));
    }
    let ports = protocols.into_iter().map(|(port, protocol)| {
        let mode = if plaintext.contains(port) { MtlsMode::Permissive } else { mode };
        (port, InboundPort { mode, protocol })
    });
    let says_something = |port: &InboundPort| port.mode != mode || port.protocol != AppProtocol::Detect;
    InboundPolicy { mode, ports: ports.filter(|(_, port)| says_something(port)).collect() }
}

/// The policy of a pod that nobody knows: closed.
pub(super) fn closed() -> InboundPolicy {
    InboundPolicy { mode: MtlsMode::Strict, ports: BTreeMap::new() }
}

/// A mode that can't be read is strict: whoever writes one wants more than the default.
fn mode(settings: &Settings, pod: &Pod, namespace: &BTreeMap<String, String>) -> MtlsMode {
    match pod
        .annotations
        .get(MTLS)
        .or_else(|| namespace.get(MTLS))
        .map(|mode| mode.trim().to_ascii_lowercase())
    {
        None => settings.mtls,
        Some(mode) if mode == "permissive" => MtlsMode::Permissive,
        Some(mode) => {
            if mode != "strict" {
                tracing::warn!(pod = %pod.name, "annotation {MTLS} is {mode:?}, which isn't known; strict is used; write strict or permissive");
            }
            MtlsMode::Strict
        }
    }
}

/// What the Services that select the pod say about its ports. Two that contradict each other say nothing.
fn protocols_of_services<'a>(
    pod: &Pod,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<u16, AppProtocol> {
    let mut said: BTreeMap<u16, AppProtocol> = BTreeMap::new();
    for port in
        services.flat_map(|service| &service.ports).filter(|port| port.protocol != AppProtocol::Detect)
    {
        let target = match &port.target {
            Target::Number(number) => Some(*number),
            Target::Name(name) => pod.named_ports.get(name).copied(),
        };
        let Some(target) = target else { continue };
        said.entry(target)
            .and_modify(|known| {
                if *known != port.protocol {
                    *known = AppProtocol::Detect;
                }
            })
            .or_insert(port.protocol);
    }
    said
}
