//! A Service as routing sees it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use gamut_manifest::Object;
use gamut_route::{NamespacedName, ServicePort, Uid, table::AppProtocol};
use k8s_openapi::{
    api::core::v1::{Service as CoreService, ServicePort as CorePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde::Deserialize;

use super::{
    ports::{OPAQUE_PORTS, PortList},
    protocol,
};

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub name: NamespacedName,
    /// What session tokens of its endpoints name.
    pub uid: Uid,
    /// Whether it has a frontend.
    pub frontend: Frontend,
    /// Its TCP ports; for other ports see [`Service::port`].
    pub ports: Vec<Port>,
    /// Ports of UDP or SCTP, which pass the mesh by.
    pub other_ports: Vec<u16>,
    /// The labels of its pods; none: its endpoints are managed by hand.
    pub selector: BTreeMap<String, String>,
    /// `sessionAffinity: ClientIP` and its timeout.
    pub client_ip_affinity: Option<Duration>,
    /// True where its first address family is IPv6: endpoints of dual-stack pods are dialled by that one.
    pub prefers_ipv6: bool,
}

/// How clients address a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frontend {
    /// By cluster IPs, of one family or two.
    ClusterIps(Vec<IpAddr>),
    /// By its endpoints' own addresses: it has no frontend, so there is nothing to attach a route to.
    Headless,
    /// It is another name for this host elsewhere.
    ExternalName(String),
}

/// A TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port that clients address.
    pub number: u16,
    /// Its name; empty where it has none.
    pub name: String,
    /// Where it leads on the pods.
    pub target: Target,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// True where the owner said so (`appProtocol`, annotation); false where it is assumed.
    pub declared: bool,
}

/// A port of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By number.
    Number(u16),
    /// By the name that each pod's container gives it.
    Name(String),
}

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is unset.
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

impl Service {
    /// Reads a Service.
    ///
    /// # Errors
    /// A field of another type than Kubernetes gives it, in one line.
    pub fn read(object: &Object) -> Result<Self, String> {
        let service = CoreService::deserialize(&object.raw).map_err(|error| error.to_string())?;
        let spec = service.spec.unwrap_or_default();
        let opaque = PortList::read(object.annotations.get(OPAQUE_PORTS));
        let (tcp, other): (Vec<CorePort>, Vec<CorePort>) = spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .partition(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
        let affinity = spec
            .session_affinity_config
            .and_then(|config| config.client_ip)
            .and_then(|ip| ip.timeout_seconds);
        let client_ip = spec.session_affinity.as_deref() == Some("ClientIP");
        let cluster_ips = spec.cluster_ips.or_else(|| spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        let families = spec.ip_families.unwrap_or_default();
        let addresses: Vec<IpAddr> = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let prefers_ipv6 = match families.first() {
            Some(family) => family == "IPv6",
            None => addresses.first().is_some_and(IpAddr::is_ipv6),
        };
        Ok(Self {
            name: NamespacedName::new(object.namespace.clone().unwrap_or_default(), object.name.clone()),
            uid: Uid::of(&object.uid),
            frontend: match spec.type_.as_deref() {
                Some("ExternalName") => {
                    let host = spec.external_name.unwrap_or_default();
                    Frontend::ExternalName(host.strip_suffix('.').unwrap_or(&host).to_owned())
                }
                _ if cluster_ips.iter().any(|ip| ip == "None") => Frontend::Headless,
                _ => Frontend::ClusterIps(addresses),
            },
            ports: tcp.iter().filter_map(|port| Port::read(port, &opaque)).collect(),
            other_ports: other.iter().filter_map(|port| port_number(port.port)).collect(),
            selector: spec.selector.unwrap_or_default(),
            client_ip_affinity: client_ip.then(|| {
                affinity
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map_or(DEFAULT_AFFINITY, Duration::from_secs)
            }),
            prefers_ipv6,
        })
    }

    /// The TCP port of a number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The name under which its port has endpoints and tables.
    pub fn service_port(&self, port: u16) -> ServicePort {
        ServicePort { service: self.name.clone(), port }
    }

    /// Its cluster IPs.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.frontend {
            Frontend::ClusterIps(addresses) => addresses,
            Frontend::Headless | Frontend::ExternalName(_) => &[],
        }
    }

    /// True if it selects pods with these labels. A Service without selector selects none.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

impl Port {
    fn read(port: &CorePort, opaque: &PortList) -> Option<Self> {
        let number = port_number(port.port)?;
        let target = match &port.target_port {
            Some(IntOrString::Int(0)) | None => Target::Number(number),
            Some(IntOrString::Int(target)) => Target::Number(port_number(*target)?),
            Some(IntOrString::String(name)) => Target::Name(name.clone()),
        };
        let declared = match opaque.contains(number) {
            true => Some(AppProtocol::Opaque),
            false => port.app_protocol.as_deref().and_then(protocol::of_app_protocol),
        };
        Some(Self {
            number,
            name: port.name.clone().unwrap_or_default(),
            protocol: declared.unwrap_or_else(|| AppProtocol::assumed(number)),
            declared: declared.is_some(),
            target,
        })
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}
