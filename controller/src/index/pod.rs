//! A pod as endpoints, addresses and policies see it.

use std::{collections::BTreeMap, net::IpAddr};

use gamut_controller_api::{self as api, Transport};
use gamut_identity::SpiffeId;
use gamut_manifest::Object;
use gamut_route::{NamespacedName, Uid};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as CorePod, PodSpec, PodStatus};
use serde::Deserialize;

use crate::compile::PortList;

/// The sidecar's container, as the injector names it.
const SIDECAR: &str = "gamut-proxy";

/// The label of pods that the injector has patched.
const INJECTED_LABEL: &str = "gamut.mesh/injected";

/// Ports that the redirect rules of a meshed pod leave alone.
const SKIP_INBOUND: &str = "gamut.mesh/skip-inbound-ports";

/// The sidecar's own ports, which it serves without mTLS: nobody's traffic to them is the mesh's.
const OWN_PORTS: std::ops::RangeInclusive<u16> = 15_000..=15_021;

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pod {
    /// Namespace and name.
    pub(crate) name: NamespacedName,
    pub(crate) uid: Uid,
    pub(crate) created: Timestamp,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Its own addresses; none before it has some, or where they are its node's.
    pub(crate) ips: Vec<IpAddr>,
    /// It has its node's network, and so no sidecar and no address of its own.
    pub(crate) host_network: bool,
    service_account: String,
    workload: String,
    pub(crate) zone: Option<String>,
    sidecar: Sidecar,
    /// `Ready` in its conditions.
    ready: bool,
    /// It has been told to go.
    pub(crate) terminating: bool,
    /// Its containers have ended for good: its address may be another's by now.
    pub(crate) finished: bool,
    /// Container ports by name.
    pub(crate) named_ports: BTreeMap<String, u16>,
    /// Container ports that are declared.
    pub(crate) ports: Vec<u16>,
}

/// Whether a pod speaks mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sidecar {
    /// There is none: the pod is reached as the app sent it.
    None,
    /// There is one, which hasn't started: nobody may be sent there, and not in plaintext either.
    Starting,
    /// There is one that works.
    Started,
}

impl Pod {
    /// Reads a pod.
    ///
    /// # Errors
    /// A field of another type than Kubernetes gives it, in one line.
    pub(crate) fn read(object: &Object) -> Result<Self, String> {
        let pod = CorePod::deserialize(&object.raw).map_err(|error| error.to_string())?;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let host_network = spec.host_network == Some(true);
        let owner = pod
            .metadata
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|owner| owner.controller == Some(true));
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let ports: Vec<_> = containers.flat_map(|container| container.ports.iter().flatten()).collect();
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        let named_ports =
            ports.iter().filter_map(|port| Some((port.name.clone()?, number(port.container_port)?)));
        Ok(Self {
            name: NamespacedName::new(object.namespace.clone().unwrap_or_default(), object.name.clone()),
            uid: Uid::of(&object.uid),
            created: object.created,
            labels: object.labels.clone(),
            annotations: object.annotations.clone(),
            ips: if host_network { Vec::new() } else { addresses(&status) },
            host_network,
            service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
            workload: workload(object, owner.map(|owner| (owner.kind, owner.name))),
            zone: object.labels.get("topology.kubernetes.io/zone").cloned(),
            sidecar: sidecar(object, &spec, &status),
            ready: status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            named_ports: named_ports.collect(),
            ports: ports.iter().filter_map(|port| number(port.container_port)).collect(),
        })
    }

    /// The pod as others see it.
    pub(crate) fn as_seen(&self) -> api::Pod {
        api::Pod {
            namespace: self.name.namespace.clone(),
            name: self.name.name.clone(),
            uid: self.uid,
            workload: self.workload.clone(),
        }
    }

    /// How a port of it is reached.
    pub(crate) fn transport(&self, trust_domain: &str, port: u16) -> Transport {
        let skipped = PortList::read(self.annotations.get(SKIP_INBOUND));
        if self.sidecar == Sidecar::None || OWN_PORTS.contains(&port) || skipped.contains(port) {
            return Transport::Plaintext;
        }
        match SpiffeId::new(trust_domain, &self.name.namespace, &self.service_account) {
            Ok(identity) => Transport::Mesh(identity),
            Err(error) => {
                tracing::warn!(pod = %self.name, "has a sidecar, but can't have an identity: {error}");
                Transport::Plaintext
            }
        }
    }

    /// True for one of the sidecar's own ports.
    pub(crate) fn is_own_port(&self, port: u16) -> bool {
        self.sidecar != Sidecar::None && OWN_PORTS.contains(&port)
    }

    /// False while a sidecar is there that can't take traffic yet.
    pub(crate) fn is_reachable(&self) -> bool {
        self.sidecar != Sidecar::Starting && !self.finished
    }

    /// Ready by its own account, where no EndpointSlice says more.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready && self.is_reachable()
    }

    /// Its address of the preferred family, else of the other.
    pub(crate) fn address(&self, ipv6: bool) -> Option<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv6() == ipv6).or(self.ips.first()).copied()
    }
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let first = status.pod_ip.as_deref();
    let mut ips: Vec<IpAddr> = first.into_iter().chain(all).filter_map(|ip| ip.parse().ok()).collect();
    let mut seen = Vec::new();
    ips.retain(|ip| {
        !seen.contains(ip) && {
            seen.push(*ip);
            true
        }
    });
    ips
}

/// From the pod's real state: the label alone could be anybody's.
fn sidecar(object: &Object, spec: &PodSpec, status: &PodStatus) -> Sidecar {
    let labelled = object.labels.get(INJECTED_LABEL).is_some_and(|value| value == "true");
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    if !labelled || spec.host_network == Some(true) || !containers.any(|container| container.name == SIDECAR)
    {
        return Sidecar::None;
    }
    // A native sidecar has passed its startup probe when `started` is true.
    let mut statuses =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let started = |status: &ContainerStatus| status.started == Some(true) || status.ready;
    match statuses.any(|status| status.name == SIDECAR && started(status)) {
        true => Sidecar::Started,
        false => Sidecar::Starting,
    }
}

/// The workload's name from its owner's: a ReplicaSet's is its Deployment's and a hash, a CronJob's Job's
/// ends in a time.
fn workload(object: &Object, owner: Option<(String, String)>) -> String {
    let Some((kind, name)) = owner else { return object.name.clone() };
    let stem = match kind.as_str() {
        "ReplicaSet" => {
            let hash = object.labels.get("pod-template-hash");
            hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
        }
        "Job" => name
            .rsplit_once('-')
            .filter(|(_, end)| end.len() >= 8 && end.bytes().all(|c| c.is_ascii_digit()))
            .map(|(stem, _)| stem),
        _ => None,
    };
    stem.map_or_else(|| name.clone(), str::to_owned)
}
