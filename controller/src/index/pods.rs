//! All pods, found by name, UID and address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use gamut_route::{NamespacedName, Uid};

use super::{pod::Pod, slice::remove};

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_name: BTreeMap<NamespacedName, Pod>,
    by_uid: BTreeMap<Uid, NamespacedName>,
    by_address: BTreeMap<IpAddr, BTreeSet<NamespacedName>>,
}

impl Pods {
    /// Puts a pod in place of the one of the same name, which it gives back.
    pub(super) fn replace(&mut self, name: &NamespacedName, pod: Option<Pod>) -> Option<Pod> {
        let before = self.by_name.remove(name);
        if let Some(before) = &before {
            self.by_uid.remove(&before.uid);
            for address in &before.ips {
                remove(&mut self.by_address, address, name);
            }
        }
        if let Some(pod) = pod {
            self.by_uid.insert(pod.uid, name.clone());
            for address in &pod.ips {
                self.by_address.entry(*address).or_default().insert(name.clone());
            }
            self.by_name.insert(name.clone(), pod);
        }
        before
    }

    pub(super) fn get(&self, name: &NamespacedName) -> Option<&Pod> {
        self.by_name.get(name)
    }

    pub(super) fn by_uid(&self, uid: Uid) -> Option<&Pod> {
        self.by_name.get(self.by_uid.get(&uid)?)
    }

    /// The pod that has an address now. Addresses are used again: of several pods the youngest that hasn't finished.
    pub(super) fn by_address(&self, address: IpAddr) -> Option<&Pod> {
        let pods =
            self.by_address.get(&address).into_iter().flatten().filter_map(|name| self.by_name.get(name));
        pods.filter(|pod| !pod.finished).max_by_key(|pod| (!pod.terminating, pod.created, &pod.name))
    }

    /// The pods of a namespace, in the order of their names.
    pub(super) fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let from = NamespacedName::new(namespace, "");
        self.by_name
            .range(from..)
            .take_while(move |(name, _)| name.namespace == namespace)
            .map(|(_, pod)| pod)
    }
}
