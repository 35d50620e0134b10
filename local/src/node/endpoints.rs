//! From Services and pods to EndpointSlices, and from those to what reaches callers without a sidecar: virtual addresses
//! and names. Pure functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use gamut_netfilter::vip::Vip;
use k8s_openapi::{api::discovery::v1::EndpointSlice, apimachinery::pkg::util::intstr::IntOrString};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{
    names,
    services::{Port, Service, ServiceShape},
};
use crate::net::dns::Zone;

/// The label that says whose endpoints a slice has.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A pod as an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Ports of its containers by name and protocol.
    pub(crate) named_ports: BTreeMap<(String, String), u16>,
    /// `spec.hostname` and `spec.subdomain`.
    pub(crate) host: Option<(String, String)>,
}

/// The EndpointSlices of a Service with a selector: for each family one for each set of target ports, for pods may have
/// different numbers for one name.
pub(crate) fn slices(service: &Service, pods: &[Backend]) -> Vec<Value> {
    if service.selector.is_empty() || matches!(service.shape, ServiceShape::ExternalName(_)) {
        return Vec::new();
    }
    let mut groups: BTreeMap<(bool, Vec<Option<u16>>), Vec<Value>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| selects(service, pod)) {
        let ports: Vec<Option<u16>> = service.ports.iter().map(|port| target(port, pod)).collect();
        for v4 in [true, false].into_iter().filter(|v4| if *v4 { service.ipv4 } else { service.ipv6 }) {
            if let Some(address) = pod.addresses.iter().find(|address| address.is_ipv4() == v4) {
                let group = groups.entry((!v4, ports.clone())).or_default();
                group.push(endpoint(service, pod, *address));
            }
        }
    }
    groups.into_iter().map(|((v6, ports), endpoints)| slice(service, v6, &ports, endpoints)).collect()
}

fn selects(service: &Service, pod: &Backend) -> bool {
    pod.namespace == service.namespace
        && service.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

fn target(port: &Port, pod: &Backend) -> Option<u16> {
    match &port.target {
        // Kubernetes' 0 means "as the Service's own".
        IntOrString::Int(0) => Some(port.port),
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            pod.named_ports.get(&(name.clone(), port.protocol_name.clone())).copied()
        }
    }
}

fn endpoint(service: &Service, pod: &Backend, address: IpAddr) -> Value {
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": service.publish_not_ready || (pod.ready && !pod.terminating),
            "serving": pod.ready,
            "terminating": pod.terminating,
        },
        "nodeName": "node",
        "targetRef": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
    });
    if let Some((host, subdomain)) = &pod.host
        && *subdomain == service.name
    {
        endpoint["hostname"] = host.clone().into();
    }
    endpoint
}

fn slice(service: &Service, v6: bool, ports: &[Option<u16>], endpoints: Vec<Value>) -> Value {
    let ports = service.ports.iter().zip(ports).filter_map(|(port, number)| {
        let mut entry = json!({"name": port.name, "port": (*number)?, "protocol": port.protocol_name});
        if let Some(protocol) = &port.app_protocol {
            entry["appProtocol"] = protocol.clone().into();
        }
        Some(entry)
    });
    let ports: Vec<Value> = ports.collect();
    let family = if v6 { "IPv6" } else { "IPv4" };
    // The same group of ports has the same name from one time to the next.
    let name = format!("{}-{}", service.name, &names::hash(&json!([family, ports]))[..5]);
    let headless = service.shape == ServiceShape::Headless;
    let mut labels = json!({
        SERVICE_LABEL: service.name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    });
    if headless {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": service.namespace, "labels": labels,
            "uid": names::derived_uid(&format!("EndpointSlice {}/{name}", service.namespace)),
            "generation": 1,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service.name, "uid": service.uid,
                                 "controller": true, "blockOwnerDeletion": true}],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// What all slices of one Service say, whoever wrote them.
#[derive(Debug, Default)]
struct Published {
    /// Port name, address, ready, serving.
    targets: Vec<(String, SocketAddr, bool, bool)>,
    /// Address and host name of what is ready.
    addresses: BTreeSet<(IpAddr, Option<String>)>,
}

fn published<'a>(slices: impl Iterator<Item = &'a Value>) -> BTreeMap<(String, String), Published> {
    let mut all: BTreeMap<(String, String), Published> = BTreeMap::new();
    for slice in slices.filter_map(|slice| EndpointSlice::deserialize(slice).ok()) {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)).cloned();
        let (Some(service), Some(namespace)) = (service, slice.metadata.namespace) else { continue };
        let of_service = all.entry((namespace, service)).or_default();
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true);
            let serving = conditions.serving.unwrap_or(ready);
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                if ready {
                    of_service.addresses.insert((address, endpoint.hostname.clone()));
                }
                for port in slice.ports.iter().flatten() {
                    let Some(number) = port.port.and_then(|port| u16::try_from(port).ok()) else { continue };
                    let name = port.name.clone().unwrap_or_default();
                    of_service.targets.push((name, SocketAddr::new(address, number), ready, serving));
                }
            }
        }
    }
    all
}

/// Virtual addresses: each goes to what is ready, or, if nothing is, to what still serves while it goes away (as kube-proxy
/// does, KEP-1669).
pub(crate) fn vips<'a>(services: &[Service], slices: impl Iterator<Item = &'a Value>) -> Vec<Vip> {
    let published = published(slices);
    let mut vips = Vec::new();
    for service in services {
        let ServiceShape::ClusterIp(addresses) = &service.shape else { continue };
        let targets = published.get(&(service.namespace.clone(), service.name.clone()));
        let targets = targets.map(|published| published.targets.as_slice()).unwrap_or_default();
        for port in &service.ports {
            let Some(protocol) = port.protocol else { continue };
            for address in addresses {
                let matching = |of_those: fn(bool, bool) -> bool| -> BTreeSet<SocketAddr> {
                    let matching = targets.iter().filter(|(name, target, ready, serving)| {
                        *name == port.name
                            && target.is_ipv4() == address.is_ipv4()
                            && of_those(*ready, *serving)
                    });
                    matching.map(|(_, target, ..)| *target).collect()
                };
                let mut backends = matching(|ready, _| ready);
                if backends.is_empty() {
                    backends = matching(|_, serving| serving);
                }
                let address = SocketAddr::new(*address, port.port);
                vips.push(Vip { address, protocol, backends: backends.into_iter().collect() });
            }
        }
    }
    vips
}

/// All names of the cluster.
pub(crate) fn zone<'a>(services: &[Service], slices: impl Iterator<Item = &'a Value>) -> Zone {
    let published = published(slices);
    let mut zone = Zone::default();
    for service in services {
        let (namespace, name) = (service.namespace.as_str(), service.name.as_str());
        match &service.shape {
            ServiceShape::ClusterIp(addresses) => zone.add_service(namespace, name, addresses.clone()),
            ServiceShape::ExternalName(target) => zone.add_alias(namespace, name, target),
            ServiceShape::Headless => {
                let endpoints = published.get(&(namespace.to_owned(), name.to_owned()));
                let endpoints: Vec<_> =
                    endpoints.into_iter().flat_map(|published| &published.addresses).collect();
                let all: BTreeSet<IpAddr> = endpoints.iter().map(|(address, _)| *address).collect();
                zone.add_service(namespace, name, all.into_iter().collect());
                let hosts: BTreeSet<&String> =
                    endpoints.iter().filter_map(|(_, host)| host.as_ref()).collect();
                for host in hosts {
                    let own = endpoints.iter().filter(|(_, of)| of.as_ref() == Some(host));
                    zone.add_pod(namespace, name, host, own.map(|(address, _)| *address).collect());
                }
            }
        }
    }
    zone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{objects, services::ServiceAddresses};

    fn service(spec: Value) -> Service {
        let id = objects::id("Service", "demo", "web");
        let object = json!({"metadata": {"name": "web", "namespace": "demo"}, "spec": spec});
        ServiceAddresses::new(true).unwrap().read(&id, &object).unwrap()
    }

    fn pod(number: u8, ready: bool, terminating: bool) -> Backend {
        Backend {
            namespace: "demo".into(),
            name: format!("web-{number}"),
            uid: format!("u-{number}"),
            labels: BTreeMap::from([("app".into(), "web".into())]),
            addresses: vec![[10, 244, 0, number].into(), format!("fd00:10:244::{number}").parse().unwrap()],
            ready,
            terminating,
            named_ports: BTreeMap::from([(("http".into(), "TCP".into()), 8000 + u16::from(number))]),
            host: Some((format!("web-{number}"), "web".into())),
        }
    }

    fn web() -> Value {
        json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]})
    }

    fn backends(spec: Value, pods: &[Backend]) -> Vec<Vec<String>> {
        let service = service(spec);
        let slices = slices(&service, pods);
        let vips = vips(&[service], slices.iter());
        vips.iter().map(|vip| vip.backends.iter().map(ToString::to_string).collect()).collect()
    }

    #[test]
    fn a_slice_says_of_each_pod_whether_it_is_ready_serving_or_going() {
        let slices =
            slices(&service(web()), &[pod(2, true, false), pod(3, true, true), pod(4, false, false)]);
        assert_eq!(slices.len(), 1);
        let conditions: Vec<&Value> = slices[0]["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .map(|endpoint| &endpoint["conditions"])
            .collect();
        assert_eq!(
            conditions,
            [
                &json!({"ready": true, "serving": true, "terminating": false}),
                &json!({"ready": false, "serving": true, "terminating": true}),
                &json!({"ready": false, "serving": false, "terminating": false}),
            ]
        );
        assert_eq!(slices[0]["endpoints"][0]["targetRef"]["uid"], "u-2");
        assert_eq!(slices[0]["metadata"]["labels"][SERVICE_LABEL], "web");
    }

    #[test]
    fn pods_of_other_namespaces_and_labels_are_no_endpoints() {
        let mut elsewhere = pod(2, true, false);
        elsewhere.namespace = "other".into();
        let mut unlabelled = pod(3, true, false);
        unlabelled.labels.clear();
        assert!(slices(&service(web()), &[elsewhere, unlabelled]).is_empty());
    }

    #[test]
    fn a_named_port_may_have_another_number_in_each_pod() {
        let spec =
            json!({"selector": {"app": "web"}, "ports": [{"name": "w", "port": 80, "targetPort": "http"}]});
        let pods = [pod(2, true, false), pod(3, true, false)];
        assert_eq!(slices(&service(spec.clone()), &pods).len(), 2);
        assert_eq!(backends(spec, &pods), [["10.244.0.2:8002", "10.244.0.3:8003"]]);
    }

    #[test]
    fn virtual_addresses_lead_to_ready_pods_and_else_to_those_that_still_serve() {
        let pods = [pod(2, true, false), pod(3, true, true), pod(4, false, false)];
        assert_eq!(backends(web(), &pods), [["10.244.0.2:8080"]]);
        assert_eq!(backends(web(), &pods[1..]), [["10.244.0.3:8080"]]);
        assert_eq!(backends(web(), &pods[2..]), [[""; 0]]);
    }

    #[test]
    fn each_family_has_its_own_backends() {
        let mut spec = web();
        spec["ipFamilyPolicy"] = "PreferDualStack".into();
        assert_eq!(backends(spec, &[pod(2, true, false)]), [["10.244.0.2:8080"], ["[fd00:10:244::2]:8080"]]);
    }

    #[test]
    fn slices_written_by_hand_count_for_a_service_without_a_selector() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let slice = json!({
            "metadata": {"namespace": "demo", "name": "web-hand", "labels": {SERVICE_LABEL: "web"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"name": "", "port": 7}]
        });
        assert!(slices(&service, &[pod(2, true, false)]).is_empty());
        assert_eq!(vips(&[service], [&slice].into_iter())[0].backends, ["192.0.2.1:7".parse().unwrap()]);
    }

    #[test]
    fn pods_of_a_headless_service_have_names() {
        let mut spec = web();
        spec["clusterIP"] = "None".into();
        let service = service(spec);
        let slices = slices(&service, &[pod(2, true, false), pod(3, false, false)]);
        let zone = format!("{:?}", zone(&[service], slices.iter()));
        assert!(zone.contains("\"web-2.web.demo.svc.cluster.local\": Addresses([10.244.0.2])"), "{zone}");
        assert!(!zone.contains("web-3"), "not ready: {zone}");
    }
}
