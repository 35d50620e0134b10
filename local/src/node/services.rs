//! Services as the node reads them: their addresses assigned, defaults filled in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gamut_manifest::ObjectId;
use gamut_netfilter::Protocol;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use serde::Deserialize as _;
use serde_json::{Value, json};
use thiserror::Error;

use crate::net::addresses::{AddressError, DNS_V4, Pool, SERVICES_V4, SERVICES_V6};

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) shape: ServiceShape,
    /// Its pods; empty: its endpoints are somebody else's to write.
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<Port>,
    /// The families of its addresses and endpoints.
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    /// Endpoints are published before they are ready.
    pub(crate) publish_not_ready: bool,
}

/// How a Service is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServiceShape {
    /// By addresses of its own.
    ClusterIp(Vec<IpAddr>),
    /// By its endpoints' addresses.
    Headless,
    /// By another name.
    ExternalName(String),
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: IntOrString,
    /// `None`: a protocol that isn't translated here (SCTP).
    pub(crate) protocol: Option<Protocol>,
    pub(crate) protocol_name: String,
    pub(crate) app_protocol: Option<String>,
}

/// A Service that can't be had as it is.
#[derive(Debug, PartialEq, Error)]
pub(crate) enum ServiceError {
    #[error("can't be read: {0}")]
    Unreadable(String),
    #[error("spec.clusterIP: {0}")]
    Address(#[from] AddressError),
    #[error("spec.clusterIPs has {0:?}, which is no IP address")]
    NoAddress(String),
    #[error("spec.ports[{0}].port {1} is no port; use 1 to 65535")]
    Port(usize, i32),
    #[error("spec.type {0:?} is unknown; use ClusterIP, NodePort, LoadBalancer or ExternalName")]
    Type(String),
    #[error("spec.type ExternalName needs spec.externalName")]
    NoExternalName,
    #[error("spec.ipFamilies asks for IPv6, which this machine's kernel doesn't have; use IPv4")]
    NoIpv6,
}

/// The addresses of all Services, kept for as long as a Service is there.
#[derive(Debug)]
pub(crate) struct ServiceAddresses {
    pool_v4: Pool,
    pool_v6: Pool,
    held: BTreeMap<ObjectId, Vec<IpAddr>>,
    has_ipv6: bool,
}

impl ServiceAddresses {
    pub(crate) fn new(has_ipv6: bool) -> Result<Self, AddressError> {
        let mut pool_v4 = Pool::new(SERVICES_V4);
        pool_v4.claim(DNS_V4.into())?;
        Ok(Self { pool_v4, pool_v6: Pool::new(SERVICES_V6), held: BTreeMap::new(), has_ipv6 })
    }

    /// Gives back what Services hold that aren't there any more.
    pub(crate) fn retain(&mut self, present: &BTreeSet<ObjectId>) {
        let gone: Vec<ObjectId> = self.held.keys().filter(|id| !present.contains(id)).cloned().collect();
        gone.iter().for_each(|id| self.release(id));
    }

    /// Reads a Service and gives it its addresses: those it asks for, those it has had before, or new ones.
    ///
    /// # Errors
    /// See [`ServiceError`]; it holds no addresses then.
    pub(crate) fn read(&mut self, id: &ObjectId, object: &Value) -> Result<Service, ServiceError> {
        let service = core::Service::deserialize(object)
            .map_err(|error| ServiceError::Unreadable(error.to_string()))?;
        let spec = service.spec.unwrap_or_default();
        let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
        if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
            return Err(ServiceError::Type(kind.to_owned()));
        }
        let (ipv4, ipv6) = self.families(&spec)?;
        let asked =
            spec.cluster_ips.clone().filter(|ips| !ips.is_empty()).or(spec.cluster_ip.map(|ip| vec![ip]));
        let asked: Vec<String> = asked.into_iter().flatten().filter(|ip| !ip.is_empty()).collect();
        let shape = if kind == "ExternalName" {
            ServiceShape::ExternalName(spec.external_name.clone().ok_or(ServiceError::NoExternalName)?)
        } else if asked.iter().any(|ip| ip == "None") {
            ServiceShape::Headless
        } else {
            ServiceShape::ClusterIp(self.assign(id, &asked, ipv4, ipv6)?)
        };
        if !matches!(shape, ServiceShape::ClusterIp(_)) {
            self.release(id);
        }
        let ports = spec.ports.iter().flatten().enumerate().map(|(index, port)| read_port(index, port));
        Ok(Service {
            namespace: id.namespace.clone().unwrap_or_default(),
            name: id.name.clone(),
            uid: service.metadata.uid.unwrap_or_default(),
            shape,
            selector: spec.selector.unwrap_or_default(),
            ports: ports.collect::<Result<_, _>>()?,
            ipv4,
            ipv6,
            publish_not_ready: spec.publish_not_ready_addresses == Some(true),
        })
    }

    fn families(&self, spec: &core::ServiceSpec) -> Result<(bool, bool), ServiceError> {
        let families = spec.ip_families.as_deref().unwrap_or_default();
        let policy = spec.ip_family_policy.as_deref();
        let dual = matches!(policy, Some("PreferDualStack" | "RequireDualStack")) || families.len() > 1;
        let wants_ipv6 = dual || families.iter().any(|family| family == "IPv6");
        let wants_ipv4 = dual || !wants_ipv6;
        if wants_ipv6 && !self.has_ipv6 && (policy == Some("RequireDualStack") || !wants_ipv4) {
            return Err(ServiceError::NoIpv6);
        }
        Ok((wants_ipv4, wants_ipv6 && self.has_ipv6))
    }

    fn assign(
        &mut self,
        id: &ObjectId,
        asked: &[String],
        ipv4: bool,
        ipv6: bool,
    ) -> Result<Vec<IpAddr>, ServiceError> {
        let parse = |ip: &String| ip.parse::<IpAddr>().map_err(|_| ServiceError::NoAddress(ip.clone()));
        let asked = asked.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let held = self.held.get(id).cloned().unwrap_or_default();
        let wanted = |v4: bool| asked.iter().chain(&held).copied().find(|ip| ip.is_ipv4() == v4);
        let wanted = [(ipv4, true), (ipv6, false)].map(|(family, v4)| family.then(|| wanted(v4)));

        self.release(id);
        let mut taken = Vec::new();
        for (choice, v4) in wanted.into_iter().zip([true, false]) {
            let Some(choice) = choice else { continue };
            let pool = if v4 { &mut self.pool_v4 } else { &mut self.pool_v6 };
            let outcome = match choice {
                Some(address) => pool.claim(address).map(|()| address),
                None => pool.take(),
            };
            match outcome {
                Ok(address) => taken.push(address),
                Err(error) => {
                    self.held.insert(id.clone(), taken);
                    self.release(id);
                    return Err(error.into());
                }
            }
        }
        self.held.insert(id.clone(), taken.clone());
        Ok(taken)
    }

    fn release(&mut self, id: &ObjectId) {
        for address in self.held.remove(id).into_iter().flatten() {
            let pool = if address.is_ipv4() { &mut self.pool_v4 } else { &mut self.pool_v6 };
            pool.release(address);
        }
    }
}

fn read_port(index: usize, port: &core::ServicePort) -> Result<Port, ServiceError> {
    let number = u16::try_from(port.port).ok().filter(|number| *number > 0);
    let protocol_name = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    Ok(Port {
        name: port.name.clone().unwrap_or_default(),
        port: number.ok_or(ServiceError::Port(index, port.port))?,
        target: port.target_port.clone().unwrap_or(IntOrString::Int(port.port)),
        protocol: match protocol_name.as_str() {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            _ => None,
        },
        protocol_name,
        app_protocol: port.app_protocol.clone(),
    })
}

/// The object as the API server would show it: with what was assigned and the usual defaults.
pub(crate) fn complete(object: &Value, service: &Service) -> Value {
    let mut complete = object.clone();
    let mut set = |key: &str, value: Value, overwrite: bool| {
        if let Some(spec) = complete.get_mut("spec").and_then(Value::as_object_mut)
            && (overwrite || !spec.contains_key(key))
        {
            spec.insert(key.to_owned(), value);
        }
    };
    let families = [(service.ipv4, "IPv4"), (service.ipv6, "IPv6")];
    let families: Vec<&str> =
        families.into_iter().filter(|(has, _)| *has).map(|(_, family)| family).collect();
    match &service.shape {
        ServiceShape::ClusterIp(addresses) => {
            set("clusterIP", json!(addresses.first()), true);
            set("clusterIPs", json!(addresses), true);
        }
        ServiceShape::Headless => {
            set("clusterIP", json!("None"), true);
            set("clusterIPs", json!(["None"]), true);
        }
        ServiceShape::ExternalName(_) => {}
    }
    if !matches!(service.shape, ServiceShape::ExternalName(_)) {
        let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
        set("ipFamilyPolicy", json!(policy), false);
        set("ipFamilies", json!(families), true);
    }
    set("type", json!("ClusterIP"), false);
    set("sessionAffinity", json!("None"), false);
    let ports = service.ports.iter().map(|port| {
        let mut complete =
            json!({"protocol": port.protocol_name, "port": port.port, "targetPort": port.target});
        if !port.name.is_empty() {
            complete["name"] = port.name.clone().into();
        }
        if let Some(protocol) = &port.app_protocol {
            complete["appProtocol"] = protocol.clone().into();
        }
        complete
    });
    if !service.ports.is_empty() {
        set("ports", ports.collect(), true);
    }
    complete
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::objects;

    fn manifest(name: &str, spec: Value) -> (ObjectId, Value) {
        let object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        (objects::id("Service", "demo", name), object)
    }

    fn addresses(all: &mut ServiceAddresses, name: &str, spec: Value) -> Result<Vec<String>, ServiceError> {
        let (id, object) = manifest(name, spec);
        match all.read(&id, &object)?.shape {
            ServiceShape::ClusterIp(addresses) => Ok(addresses.iter().map(IpAddr::to_string).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_keeps_its_address_for_as_long_as_it_is_there() {
        let mut all = ServiceAddresses::new(true).unwrap();
        assert_eq!(addresses(&mut all, "a", json!({})).unwrap(), ["10.96.0.16"]);
        assert_eq!(addresses(&mut all, "b", json!({})).unwrap(), ["10.96.0.17"]);
        assert_eq!(addresses(&mut all, "a", json!({"ports": []})).unwrap(), ["10.96.0.16"]);
        all.retain(&BTreeSet::from([objects::id("Service", "demo", "b")]));
        assert_eq!(addresses(&mut all, "c", json!({"clusterIP": "10.96.0.16"})).unwrap(), ["10.96.0.16"]);
        let taken = addresses(&mut all, "d", json!({"clusterIP": "10.96.0.17"})).unwrap_err();
        assert!(matches!(taken, ServiceError::Address(AddressError::Taken(_))), "{taken}");
        let dns = addresses(&mut all, "d", json!({"clusterIP": "10.96.0.10"})).unwrap_err();
        assert!(matches!(dns, ServiceError::Address(AddressError::Taken(_))), "{dns}");
    }

    #[test]
    fn both_families_are_given_where_they_are_asked_for_and_there() {
        let mut all = ServiceAddresses::new(true).unwrap();
        let prefer = json!({"ipFamilyPolicy": "PreferDualStack"});
        assert_eq!(addresses(&mut all, "a", prefer.clone()).unwrap(), ["10.96.0.16", "fd00:10:96::10"]);
        assert_eq!(addresses(&mut all, "b", json!({"ipFamilies": ["IPv6"]})).unwrap(), ["fd00:10:96::11"]);
        let mut only_v4 = ServiceAddresses::new(false).unwrap();
        assert_eq!(addresses(&mut only_v4, "a", prefer).unwrap(), ["10.96.0.16"]);
        let require = json!({"ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(addresses(&mut only_v4, "b", require), Err(ServiceError::NoIpv6));
    }

    #[test]
    fn the_object_shows_what_was_assigned() {
        let mut all = ServiceAddresses::new(true).unwrap();
        let (id, object) = manifest("a", json!({"ports": [{"port": 80, "targetPort": "http"}]}));
        let complete = complete(&object, &all.read(&id, &object).unwrap());
        assert_eq!(
            complete["spec"],
            json!({
                "ports": [{"protocol": "TCP", "port": 80, "targetPort": "http"}],
                "clusterIP": "10.96.0.16", "clusterIPs": ["10.96.0.16"], "ipFamilyPolicy": "SingleStack",
                "ipFamilies": ["IPv4"], "type": "ClusterIP", "sessionAffinity": "None",
            })
        );
    }
}
