//! The objects of a cluster: namespaces of twenty Services each, pods with sidecars behind them, a route for every tenth.
//!
//! Twenty is what a team's namespace has. The first three Services stand for those that everybody calls.

use std::net::{IpAddr, Ipv4Addr};

use gamut_route::Uid;
use serde_json::{Value, json};

use crate::api::Api;

/// Services of a namespace.
const OF_A_NAMESPACE: usize = 20;
/// Services that every sidecar uses.
pub(crate) const POPULAR: usize = 3;

const NAMESPACES: &str = "/api/v1/namespaces";
const SERVICES: &str = "/api/v1/services";
const PODS: &str = "/api/v1/pods";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";

/// A cluster, as an API server has it.
pub(crate) struct Cluster {
    api: Api,
    services: Vec<Service>,
    /// Pods that there ever were: what the next one's address and name are made of.
    pods: u32,
}

struct Service {
    pods: Vec<Pod>,
}

struct Pod {
    name: String,
    ip: Ipv4Addr,
}

impl Cluster {
    /// Fills an API server.
    pub(crate) fn fill(api: Api, services: usize, endpoints: usize, subscribers: usize) -> Self {
        let mut cluster = Self { api, services: Vec::new(), pods: 0 };
        for number in 0..services.div_ceil(OF_A_NAMESPACE) {
            let name = format!("team-{number}");
            cluster.api.apply(NAMESPACES, json!({"metadata": {"name": name}}));
        }
        for number in 0..services {
            cluster.api.apply(SERVICES, service(number));
            let pods = (0..endpoints).map(|_| cluster.new_pod(number, 0)).collect();
            cluster.services.push(Service { pods });
            cluster.write_slice(number);
            if number % 10 == 0 {
                cluster.api.apply(ROUTES, route(number, services));
            }
        }
        for number in 0..subscribers {
            let (namespace, name) = (cluster.namespace_of_subscriber(number), subscriber(number));
            let pod =
                pod(&namespace, &name, Ipv4Addr::new(10, 255, (number / 250) as u8, (number % 250) as u8));
            cluster.api.apply(PODS, pod);
        }
        cluster
    }

    /// Puts a new pod in the place of a Service's oldest: what a rollout does, one endpoint at a time. The new pod's name
    /// carries `change`.
    pub(crate) fn replace_endpoint(&mut self, service: usize, change: u64) {
        let new = self.new_pod(service, change);
        let Some(of) = self.services.get_mut(service) else { return };
        of.pods.push(new);
        let old = of.pods.remove(0);
        self.write_slice(service);
        self.api.delete(PODS, &namespace(service), &old.name);
    }

    /// How many Services there are.
    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    /// The namespace of a subscriber: all namespaces have equally many.
    pub(crate) fn namespace_of_subscriber(&self, number: usize) -> String {
        format!("team-{}", number % self.services.len().div_ceil(OF_A_NAMESPACE))
    }

    fn new_pod(&mut self, service: usize, change: u64) -> Pod {
        self.pods += 1;
        // 10.0.0.0/9: eight million pods before an address comes again.
        let ip = Ipv4Addr::from_bits(0x0a00_0000 | (self.pods & 0x007f_ffff));
        let name = format!("web-{service}-{change}-{}", self.pods);
        self.api.apply(PODS, pod(&namespace(service), &name, ip));
        Pod { name, ip }
    }

    fn write_slice(&self, number: usize) {
        let Some(service) = self.services.get(number) else { return };
        let endpoints = service.pods.iter().map(|pod| {
            let target = json!({"kind": "Pod", "namespace": namespace(number), "name": pod.name, "uid": uid(&pod.name)});
            json!({"addresses": [pod.ip], "conditions": {"ready": true, "serving": true}, "targetRef": target, "zone": "a"})
        });
        let slice = json!({
            "addressType": "IPv4",
            "metadata": {
                "namespace": namespace(number),
                "name": format!("web-{number}-1"),
                "labels": {"kubernetes.io/service-name": format!("web-{number}")},
            },
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints.collect::<Vec<_>>(),
        });
        self.api.apply(SLICES, slice);
    }
}

/// The name of a subscriber's pod.
pub(crate) fn subscriber(number: usize) -> String {
    format!("caller-{number}")
}

/// A pod's UID.
pub(crate) fn uid(pod: &str) -> String {
    Uid::of(pod).to_string()
}

/// A Service's cluster IP.
pub(crate) fn cluster_ip(service: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0ac0_0001 + u32::try_from(service).unwrap_or(u32::MAX)))
}

/// The change that a pod's name carries, and its Service.
pub(crate) fn change_of(pod: &str) -> Option<(usize, u64)> {
    let mut parts = pod.strip_prefix("web-")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn namespace(service: usize) -> String {
    format!("team-{}", service / OF_A_NAMESPACE)
}

fn service(number: usize) -> Value {
    let name = format!("web-{number}");
    json!({
        "metadata": {"namespace": namespace(number), "name": name, "uid": uid(&format!("service {name}"))},
        "spec": {
            "clusterIP": cluster_ip(number),
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "http"}],
        },
    })
}

/// A canary: nine tenths to the Service itself, one to the next.
fn route(number: usize, services: usize) -> Value {
    let name = format!("web-{number}");
    let canary = if (number + 1).is_multiple_of(OF_A_NAMESPACE) || number + 1 >= services {
        number
    } else {
        number + 1
    };
    let canary = format!("web-{canary}");
    json!({
        "metadata": {"namespace": namespace(number), "name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": name}],
            "rules": [{"backendRefs": [{"name": name, "port": 80, "weight": 9}, {"name": canary, "port": 80, "weight": 1}]}],
        },
    })
}

fn pod(namespace: &str, name: &str, ip: Ipv4Addr) -> Value {
    let app = name.rsplit_once('-').map_or(name, |(app, _)| app);
    json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": uid(name),
            "labels": {"app": app, "gamut.mesh/injected": "true", "pod-template-hash": "5d4f8c7b9"},
        },
        "spec": {
            "serviceAccountName": "default",
            "containers": [{"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
            "initContainers": [{"name": "gamut-proxy", "image": "gamut-proxy", "restartPolicy": "Always"}],
        },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{
                "name": "gamut-proxy", "ready": true, "started": true, "image": "gamut-proxy", "imageID": "", "restartCount": 0,
            }],
        },
    })
}
