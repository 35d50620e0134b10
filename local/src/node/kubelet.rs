//! The node's pods: made with addresses and a name, run by a worker each, told to go, forgotten when gone.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use gamut_injector::{Config, NamespaceView};
use gamut_manifest::ObjectId;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{endpoints::Backend, injection, names, rollout::Member, workloads::Workload};
use crate::{
    net::{
        addresses::{AddressError, NODE_V4, NODE_V6, PODS_V4, PODS_V6, Pool},
        links::has_ipv6,
    },
    pod::{
        ending::Stop,
        lifecycle::{Exit, Run},
        plan::PodPlan,
        status::{self, PodState},
        worker::{self, Report, Shared},
    },
};

/// All pods of the node.
pub(crate) struct Kubelet {
    pods: BTreeMap<String, NodePod>,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedSender<Report>,
    pool_v4: Pool,
    pool_v6: Option<Pool>,
    /// Interfaces made so far.
    interfaces: u64,
}

/// One pod.
pub(crate) struct NodePod {
    pub(crate) workload: ObjectId,
    /// Of the template that it was made from.
    hash: String,
    pub(crate) plan: Arc<PodPlan>,
    /// Metadata and spec, as it was created.
    object: Value,
    created: Timestamp,
    order: u64,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) meshed: bool,
    pub(crate) state: PodState,
    status: Value,
    pub(crate) deleted: Option<Timestamp>,
    stop: watch::Sender<Option<Stop>>,
}

/// A container that ended badly.
#[derive(Debug, PartialEq)]
pub(crate) struct Crash {
    pub(crate) container: String,
    pub(crate) exit: Exit,
}

impl Kubelet {
    pub(crate) fn new(
        shared: Arc<Shared>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Self, AddressError> {
        let mut pool_v4 = Pool::new(PODS_V4);
        pool_v4.claim(NODE_V4.into())?;
        let mut pool_v6 = has_ipv6().then(|| Pool::new(PODS_V6));
        if let Some(pool) = &mut pool_v6 {
            pool.claim(NODE_V6.into())?;
        }
        Ok(Self { pods: BTreeMap::new(), shared, reports, pool_v4, pool_v6, interfaces: 0 })
    }

    /// Makes a pod of a workload and starts its worker. The error is a sentence.
    pub(crate) fn create(
        &mut self,
        workload: &Workload,
        name: Option<&str>,
        namespace: &NamespaceView,
        config: &Config,
    ) -> Result<(), String> {
        let now = Timestamp::now();
        let uid = names::random_uid(rand::random());
        let name = name.map_or_else(|| workload.pod_name(rand::random()), str::to_owned);
        let prepared = injection::prepare(workload.pod(&name, &uid, now), namespace, config)?;
        let mut addresses = vec![self.pool_v4.take().map_err(|error| error.to_string())?];
        if let Some(pool) = &mut self.pool_v6 {
            addresses.push(pool.take().map_err(|error| error.to_string())?);
        }
        self.interfaces += 1;
        let interface = format!("pod{}", self.interfaces);
        let plan = Arc::new(prepared.plan);
        let (stop, stopped) = watch::channel(None);
        tokio::spawn(worker::run(
            plan.clone(),
            addresses.clone(),
            interface,
            self.shared.clone(),
            stopped,
            self.reports.clone(),
        ));
        let state = PodState::default();
        let status = status::status(&plan, &state, &addresses, now, None, now);
        let pod = NodePod {
            workload: workload.id.clone(),
            hash: workload.hash.clone(),
            plan,
            object: prepared.object,
            created: now,
            order: self.interfaces,
            addresses,
            meshed: prepared.meshed,
            state,
            status,
            deleted: None,
            stop,
        };
        self.pods.insert(uid, pod);
        Ok(())
    }

    /// Marks a pod as going away; its worker is told by [`Self::stop_deleted`], after everybody else could know.
    pub(crate) fn delete(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid)
            && pod.deleted.is_none()
        {
            pod.deleted = Some(Timestamp::now());
        }
    }

    /// Tells the workers of pods that have been marked.
    pub(crate) fn stop_deleted(&mut self) {
        for pod in self.pods.values().filter(|pod| pod.deleted.is_some() && pod.stop.borrow().is_none()) {
            let deadline = Instant::now() + pod.plan.grace;
            pod.stop.send_replace(Some(Stop { deadline, hooks: true }));
        }
    }

    /// Tells all workers to end within so long, without ceremony.
    pub(crate) fn stop_all(&mut self, grace: Duration) {
        for pod in self.pods.values_mut() {
            pod.deleted.get_or_insert_with(Timestamp::now);
            let deadline = Instant::now() + pod.plan.grace.min(grace);
            pod.stop.send_replace(Some(Stop { deadline, hooks: false }));
        }
    }

    /// Takes in what a worker reports; the containers that have crashed since its last report.
    pub(crate) fn take(&mut self, report: Report) -> Vec<Crash> {
        match report {
            Report::State { uid, state } => {
                let Some(pod) = self.pods.get_mut(&uid) else { return Vec::new() };
                let crashes = if pod.deleted.is_none() { crashes(&pod.state, &state) } else { Vec::new() };
                let now = Timestamp::now();
                pod.status =
                    status::status(&pod.plan, &state, &pod.addresses, pod.created, Some(&pod.status), now);
                pod.state = state;
                crashes
            }
            Report::Gone { uid } => {
                for address in self.pods.remove(&uid).into_iter().flat_map(|pod| pod.addresses) {
                    match (address, &mut self.pool_v6) {
                        (IpAddr::V4(_), _) => self.pool_v4.release(address),
                        (IpAddr::V6(_), Some(pool)) => pool.release(address),
                        (IpAddr::V6(_), None) => {}
                    }
                }
                Vec::new()
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// All pods by UID.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &NodePod)> {
        self.pods.iter().map(|(uid, pod)| (uid.as_str(), pod))
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&NodePod> {
        self.pods.get(uid)
    }

    /// A workload's pods, the oldest first.
    pub(crate) fn members(&self, workload: &ObjectId, hash: &str) -> Vec<Member> {
        let mut pods: Vec<_> = self.pods.iter().filter(|(_, pod)| pod.workload == *workload).collect();
        pods.sort_by_key(|(_, pod)| pod.order);
        let members = pods.into_iter().map(|(uid, pod)| Member {
            uid: uid.clone(),
            name: pod.plan.name.clone(),
            current: pod.hash == hash,
            ready: pod.state.ready(),
            terminating: pod.deleted.is_some(),
            outcome: pod.state.outcome,
        });
        members.collect()
    }

    /// All pods as endpoints: those that have their addresses and haven't ended.
    pub(crate) fn backends(&self) -> Vec<Backend> {
        let pods =
            self.pods.values().filter(|pod| pod.state.sandbox.is_some() && pod.state.outcome.is_none());
        pods.map(NodePod::backend).collect()
    }
}

impl NodePod {
    /// The object as it is now.
    pub(crate) fn object(&self) -> Value {
        let mut object = self.object.clone();
        object["status"] = self.status.clone();
        if let Some(deleted) = self.deleted {
            let deadline = deleted + self.plan.grace;
            object["metadata"]["deletionTimestamp"] = deadline.to_string().into();
            object["metadata"]["deletionGracePeriodSeconds"] = self.plan.grace.as_secs().into();
        }
        object
    }

    /// `Pod namespace/name`.
    pub(crate) fn title(&self) -> String {
        format!("Pod {}/{}", self.plan.namespace, self.plan.name)
    }

    fn backend(&self) -> Backend {
        let spec = self.plan.pod.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let sidecars = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
        let ports = containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let named_ports = ports.filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some(((port.name.clone()?, protocol), u16::try_from(port.container_port).ok()?))
        });
        let host = spec.and_then(|spec| Some((spec.hostname.clone()?, spec.subdomain.clone()?)));
        Backend {
            namespace: self.plan.namespace.clone(),
            name: self.plan.name.clone(),
            uid: self.plan.uid.clone(),
            labels: self.plan.pod.metadata.labels.clone().unwrap_or_default(),
            addresses: self.addresses.clone(),
            ready: self.state.ready(),
            terminating: self.deleted.is_some(),
            named_ports: named_ports.collect(),
            host,
        }
    }

    /// The process of a container that runs, by name or the first of the app's own.
    pub(crate) fn container_process(&self, name: Option<&str>) -> Option<(&str, Option<i32>)> {
        let containers = self.state.containers.iter().zip(&self.plan.containers);
        let mut wanted = containers.filter(|(container, plan)| match name {
            Some(name) => container.name == name,
            None => plan.role == crate::pod::lifecycle::Role::App,
        });
        wanted.next().map(|(container, _)| match container.run {
            Run::Running { process, .. } => (container.name.as_str(), process),
            Run::Waiting { .. } | Run::Ended(_) => (container.name.as_str(), None),
        })
    }
}

/// Containers that have ended with a failure between two reports.
fn crashes(before: &PodState, after: &PodState) -> Vec<Crash> {
    let known = |name: &str| before.containers.iter().find(|container| container.name == name);
    let ended = after.containers.iter().filter_map(|container| {
        let exit = container.last.as_ref().filter(|exit| exit.code != 0)?;
        let told = known(&container.name).is_some_and(|before| before.last.as_ref() == Some(exit));
        (!told).then(|| Crash { container: container.name.clone(), exit: exit.clone() })
    });
    ended.collect()
}
