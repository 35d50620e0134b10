//! Address answers, endpoint sets and inbound policies on the wire.

use std::collections::BTreeMap;

use gamut_route::table::AppProtocol;

use super::error::{WireError, each, enumerated, list, narrow, optional, parsed, required, uid};
use crate::{
    AddressAnswer, Endpoint, EndpointSet, ExternalHost, InboundPolicy, InboundPort, MtlsMode, Pod,
    RetryBudget, Transport, proto,
};

impl From<&AddressAnswer> for proto::AddressAnswer {
    fn from(answer: &AddressAnswer) -> Self {
        use proto::address_answer::Answer as Wire;
        let answer = match answer {
            AddressAnswer::Service(service) => Wire::Service(service.to_string()),
            AddressAnswer::Pod(endpoint) => Wire::Pod(endpoint.into()),
            AddressAnswer::NotOurs => Wire::NotOurs(proto::NotOurs {}),
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<proto::AddressAnswer> for AddressAnswer {
    type Error = WireError;

    fn try_from(answer: proto::AddressAnswer) -> Result<Self, WireError> {
        use proto::address_answer::Answer as Wire;
        Ok(match answer.answer.ok_or_else(|| WireError::missing("answer"))? {
            Wire::Service(service) => Self::Service(parsed("service", &service)?),
            Wire::Pod(endpoint) => Self::Pod(required("pod", Some(endpoint))?),
            Wire::NotOurs(proto::NotOurs {}) => Self::NotOurs,
        })
    }
}

impl From<&EndpointSet> for proto::EndpointSet {
    fn from(set: &EndpointSet) -> Self {
        Self {
            id: set.id.to_string(),
            protocol: proto::AppProtocol::from(set.protocol).into(),
            endpoints: list(&set.endpoints),
            client_ip_affinity: set.client_ip_affinity.as_ref().map(Into::into),
            retry_budget: set.retry_budget.as_ref().map(Into::into),
            external: set.external.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::EndpointSet> for EndpointSet {
    type Error = WireError;

    fn try_from(set: proto::EndpointSet) -> Result<Self, WireError> {
        Ok(Self {
            id: parsed("id", &set.id)?,
            protocol: enumerated::<proto::AppProtocol, _>("protocol", set.protocol)?,
            endpoints: each("endpoints", set.endpoints)?,
            client_ip_affinity: optional("client_ip_affinity", set.client_ip_affinity)?,
            retry_budget: optional("retry_budget", set.retry_budget)?,
            external: optional("external", set.external)?,
        })
    }
}

impl From<&ExternalHost> for proto::ExternalHost {
    fn from(external: &ExternalHost) -> Self {
        Self { host: external.host.clone(), port: external.port.into() }
    }
}

impl TryFrom<proto::ExternalHost> for ExternalHost {
    type Error = WireError;

    fn try_from(external: proto::ExternalHost) -> Result<Self, WireError> {
        Ok(Self { host: external.host, port: narrow("port", external.port)? })
    }
}

impl From<&RetryBudget> for proto::RetryBudget {
    fn from(budget: &RetryBudget) -> Self {
        Self {
            percent: budget.percent.into(),
            interval: Some((&budget.interval).into()),
            min_retries: budget.min_retries,
            min_interval: Some((&budget.min_interval).into()),
        }
    }
}

impl TryFrom<proto::RetryBudget> for RetryBudget {
    type Error = WireError;

    fn try_from(budget: proto::RetryBudget) -> Result<Self, WireError> {
        Ok(Self {
            percent: narrow("percent", budget.percent)?,
            interval: required("interval", budget.interval)?,
            min_retries: budget.min_retries,
            min_interval: required("min_interval", budget.min_interval)?,
        })
    }
}

impl From<&Endpoint> for proto::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            address: endpoint.address.to_string(),
            pod: endpoint.pod.as_ref().map(Into::into),
            transport: Some((&endpoint.transport).into()),
            zone: endpoint.zone.clone(),
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
        }
    }
}

impl TryFrom<proto::Endpoint> for Endpoint {
    type Error = WireError;

    fn try_from(endpoint: proto::Endpoint) -> Result<Self, WireError> {
        Ok(Self {
            address: parsed("address", &endpoint.address)?,
            pod: optional("pod", endpoint.pod)?,
            transport: required("transport", endpoint.transport)?,
            zone: endpoint.zone,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
        })
    }
}

impl From<&Pod> for proto::Pod {
    fn from(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.0.to_vec(),
            workload: pod.workload.clone(),
        }
    }
}

impl TryFrom<proto::Pod> for Pod {
    type Error = WireError;

    fn try_from(pod: proto::Pod) -> Result<Self, WireError> {
        let uid = uid("uid", &pod.uid)?;
        Ok(Self { namespace: pod.namespace, name: pod.name, uid, workload: pod.workload })
    }
}

impl From<&Transport> for proto::Transport {
    fn from(transport: &Transport) -> Self {
        use proto::transport::Transport as Wire;
        let transport = match transport {
            Transport::Mesh(identity) => Wire::Mesh(identity.to_string()),
            Transport::Plaintext => Wire::Plaintext(proto::Plaintext {}),
        };
        Self { transport: Some(transport) }
    }
}

impl TryFrom<proto::Transport> for Transport {
    type Error = WireError;

    fn try_from(transport: proto::Transport) -> Result<Self, WireError> {
        use proto::transport::Transport as Wire;
        Ok(match transport.transport.ok_or_else(|| WireError::missing("transport"))? {
            Wire::Mesh(identity) => Self::Mesh(parsed("mesh", &identity)?),
            Wire::Plaintext(proto::Plaintext {}) => Self::Plaintext,
        })
    }
}

impl From<&InboundPolicy> for proto::InboundPolicy {
    fn from(policy: &InboundPolicy) -> Self {
        let ports = policy.ports.iter().map(|(port, settings)| proto::InboundPort {
            port: u32::from(*port),
            mode: proto::MtlsMode::from(settings.mode).into(),
            protocol: proto::AppProtocol::from(settings.protocol).into(),
        });
        Self { mode: proto::MtlsMode::from(policy.mode).into(), ports: ports.collect() }
    }
}

impl TryFrom<proto::InboundPolicy> for InboundPolicy {
    type Error = WireError;

    fn try_from(policy: proto::InboundPolicy) -> Result<Self, WireError> {
        let mode = enumerated::<proto::MtlsMode, _>("mode", policy.mode)?;
        let mut ports = BTreeMap::new();
        for PortSettings(port, settings) in each("ports", policy.ports)? {
            if ports.insert(port, settings).is_some() {
                return Err(WireError::invalid("ports", format_args!("name port {port} twice")));
            }
        }
        Ok(Self { mode, ports })
    }
}

/// A port and its settings: one entry of the repeated field.
struct PortSettings(u16, InboundPort);

impl TryFrom<proto::InboundPort> for PortSettings {
    type Error = WireError;

    fn try_from(port: proto::InboundPort) -> Result<Self, WireError> {
        let settings = InboundPort {
            mode: enumerated::<proto::MtlsMode, _>("mode", port.mode)?,
            protocol: enumerated::<proto::AppProtocol, _>("protocol", port.protocol)?,
        };
        Ok(Self(narrow("port", port.port)?, settings))
    }
}

impl From<AppProtocol> for proto::AppProtocol {
    fn from(protocol: AppProtocol) -> Self {
        match protocol {
            AppProtocol::Detect => Self::Detect,
            AppProtocol::Http => Self::Http,
            AppProtocol::Http2 => Self::Http2,
            AppProtocol::Tls => Self::Tls,
            AppProtocol::Opaque => Self::Opaque,
        }
    }
}

impl TryFrom<proto::AppProtocol> for AppProtocol {
    type Error = WireError;

    fn try_from(protocol: proto::AppProtocol) -> Result<Self, WireError> {
        Ok(match protocol {
            proto::AppProtocol::Unspecified => return Err(WireError::missing("protocol")),
            proto::AppProtocol::Detect => Self::Detect,
            proto::AppProtocol::Http => Self::Http,
            proto::AppProtocol::Http2 => Self::Http2,
            proto::AppProtocol::Tls => Self::Tls,
            proto::AppProtocol::Opaque => Self::Opaque,
        })
    }
}

impl From<MtlsMode> for proto::MtlsMode {
    fn from(mode: MtlsMode) -> Self {
        match mode {
            MtlsMode::Strict => Self::Strict,
            MtlsMode::Permissive => Self::Permissive,
        }
    }
}

impl TryFrom<proto::MtlsMode> for MtlsMode {
    type Error = WireError;

    fn try_from(mode: proto::MtlsMode) -> Result<Self, WireError> {
        Ok(match mode {
            proto::MtlsMode::Unspecified => return Err(WireError::missing("mode")),
            proto::MtlsMode::Strict => Self::Strict,
            proto::MtlsMode::Permissive => Self::Permissive,
        })
    }
}
