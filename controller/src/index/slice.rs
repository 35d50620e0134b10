//! EndpointSlices: which addresses a Service leads to, as the cluster says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gamut_manifest::Object;
use gamut_route::{NamespacedName, Uid};
use k8s_openapi::api::discovery::v1::{Endpoint as CoreEndpoint, EndpointSlice};
use serde::Deserialize;

/// The label that ties a slice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A slice of a Service's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slice {
    /// The Service; none for a slice that belongs to nobody.
    pub(super) service: Option<NamespacedName>,
    /// TCP target ports by the Service port's name (empty where it has none).
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) endpoints: Vec<SliceEndpoint>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SliceEndpoint {
    pub(super) address: IpAddr,
    /// The pod that it is, where the slice says so.
    pub(super) pod: Option<(NamespacedName, Option<Uid>)>,
    pub(super) zone: Option<String>,
    /// Takes new traffic. True as well for pods that aren't ready, where the Service has `publishNotReadyAddresses`.
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
}

impl Slice {
    /// Reads a slice.
    ///
    /// # Errors
    /// A field of another type than Kubernetes gives it, in one line.
    pub(super) fn read(object: &Object) -> Result<Self, String> {
        let slice = EndpointSlice::deserialize(&object.raw).map_err(|error| error.to_string())?;
        let namespace = object.namespace.clone().unwrap_or_default();
        let ports = slice.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
            let number = port.port.and_then(|number| u16::try_from(number).ok()).filter(|_| tcp)?;
            Some((port.name.unwrap_or_default(), number))
        });
        let service = object
            .labels
            .get(SERVICE_LABEL)
            .map(|name| NamespacedName::new(namespace.as_str(), name.as_str()));
        let endpoints =
            slice.endpoints.iter().filter_map(|endpoint| SliceEndpoint::read(endpoint, &namespace));
        Ok(Self { service, ports: ports.collect(), endpoints: endpoints.collect() })
    }

    /// The pods that it names.
    pub(super) fn pods(&self) -> BTreeSet<&NamespacedName> {
        self.endpoints.iter().filter_map(|endpoint| Some(&endpoint.pod.as_ref()?.0)).collect()
    }

    /// The addresses of endpoints that it doesn't say the pod of.
    pub(super) fn bare_addresses(&self) -> BTreeSet<IpAddr> {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.pod.is_none())
            .map(|endpoint| endpoint.address)
            .collect()
    }
}

impl SliceEndpoint {
    /// `None` for an endpoint without an IP address (a slice of host names).
    fn read(endpoint: &CoreEndpoint, namespace: &str) -> Option<Self> {
        // Several addresses are one endpoint; kube-proxy and everybody else dials the first.
        let address = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        // Unset is true for ready, and as `ready` for serving (EndpointConditions).
        let ready = conditions.ready.unwrap_or(true);
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        Some(Self {
            address,
            pod: pod.and_then(|target| {
                let namespace = target.namespace.as_deref().unwrap_or(namespace);
                let name = NamespacedName::new(namespace, target.name.as_deref()?);
                Some((name, target.uid.as_deref().map(Uid::of)))
            }),
            zone: endpoint.zone.clone(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
        })
    }
}

/// All slices, and which Services have an interest in a pod or address.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_name: BTreeMap<NamespacedName, Slice>,
    of_service: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    of_pod: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    of_address: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
}

impl Slices {
    /// Puts a slice in place of the one of the same name; gives the Services whose endpoints may differ now.
    pub(super) fn replace(&mut self, name: NamespacedName, slice: Option<Slice>) -> Vec<NamespacedName> {
        let before = self.by_name.remove(&name);
        if before == slice {
            if let Some(slice) = slice {
                self.by_name.insert(name, slice);
            }
            return Vec::new();
        }
        let mut services: Vec<NamespacedName> = Vec::new();
        if let Some(before) = &before {
            self.unlink(&name, before);
            services.extend(before.service.clone());
        }
        if let Some(slice) = slice {
            self.link(&name, &slice);
            services.extend(slice.service.clone());
            self.by_name.insert(name, slice);
        }
        services
    }

    /// The slices of a Service, in the order of their names.
    pub(super) fn of_service(&self, service: &NamespacedName) -> impl Iterator<Item = &Slice> {
        let names = self.of_service.get(service).into_iter().flatten();
        names.filter_map(|name| self.by_name.get(name))
    }

    /// The Services that have a pod among their endpoints.
    pub(super) fn services_with_pod(&self, pod: &NamespacedName) -> Vec<NamespacedName> {
        self.services(self.of_pod.get(pod))
    }

    /// The Services that have an address among their endpoints without saying whose it is.
    pub(super) fn services_with_address(&self, address: IpAddr) -> Vec<NamespacedName> {
        self.services(self.of_address.get(&address))
    }

    fn services(&self, slices: Option<&BTreeSet<NamespacedName>>) -> Vec<NamespacedName> {
        let slices = slices.into_iter().flatten().filter_map(|name| self.by_name.get(name));
        slices.filter_map(|slice| slice.service.clone()).collect()
    }

    fn link(&mut self, name: &NamespacedName, slice: &Slice) {
        if let Some(service) = &slice.service {
            self.of_service.entry(service.clone()).or_default().insert(name.clone());
        }
        for pod in slice.pods() {
            self.of_pod.entry(pod.clone()).or_default().insert(name.clone());
        }
        for address in slice.bare_addresses() {
            self.of_address.entry(address).or_default().insert(name.clone());
        }
    }

    fn unlink(&mut self, name: &NamespacedName, slice: &Slice) {
        if let Some(service) = &slice.service {
            remove(&mut self.of_service, service, name);
        }
        for pod in slice.pods() {
            remove(&mut self.of_pod, pod, name);
        }
        for address in slice.bare_addresses() {
            remove(&mut self.of_address, &address, name);
        }
    }
}

/// Takes a value out of a map of sets, and the set with it when it is empty.
pub(super) fn remove<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
