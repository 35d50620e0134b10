//! The endpoints of one backend and the choice among them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use gamut_controller_api::{self as api, EndpointSet};
use gamut_route::{BackendId, Uid, table::AppProtocol};
use tokio::time::Instant;

use super::{
    Failed, Settings,
    budget::{Budget, Spent},
    endpoint::{Endpoint, Picked},
    load,
    resolve::Resolver,
    selection::{MayEject, Selection},
};
use crate::telemetry::{EjectedEndpoint, EndpointCounters, Limit};

/// How many endpoints that nobody selects any more are kept for their sessions.
const MOST_UNSELECTED: usize = 1024;

/// A backend's endpoints. Updates swap snapshots; picks load them and never wait.
pub struct Cluster {
    id: BackendId,
    settings: Settings,
    counters: Arc<EndpointCounters>,
    snapshot: ArcSwap<Snapshot>,
    /// Who of the snapshot takes new traffic at the moment.
    selection: ArcSwap<Selection>,
    /// Held by whoever makes a new snapshot or selection. Not on the way of requests, but for those that eject or bring back.
    changing: Mutex<()>,
    /// Where the endpoints are those of a name, who looks it up. Not on the way of requests.
    resolver: Mutex<Option<Resolver>>,
    /// Those that were well until a set left them out, by pod: nobody selects them any more, but sessions that
    /// began there may go on (GEP-1619: a change of the selector).
    unselected: ArcSwap<HashMap<Uid, Arc<Endpoint>>>,
    /// Shared by all rules that lead here.
    budget: ArcSwapOption<Budget>,
}

/// What one [`EndpointSet`] said.
#[derive(Default)]
struct Snapshot {
    /// All that answer, by pod: a session may lead to one that terminates.
    serving: HashMap<Uid, Arc<Endpoint>>,
    /// All that were said, for the next update to find those that stay.
    all: HashMap<Who, Arc<Endpoint>>,
    /// Those with a sidecar that are ready and not about to go, by pod.
    well: HashMap<Uid, Arc<Endpoint>>,
    protocol: AppProtocol,
}

/// Why a backend gets nothing more from this sidecar at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// As many as may be are in flight.
    #[error("{0} requests and connections to it are in flight, which is the most (gamut.mesh/max-requests)")]
    Requests(u32),
    /// As many connections as may be are being opened.
    #[error("{0} connections to it are being opened, which is the most (gamut.mesh/max-connecting)")]
    Connecting(u32),
}

/// What finds an endpoint again in a later set: address and pod. There may be thousands, and most updates are
/// about one.
#[derive(PartialEq, Eq, Hash)]
struct Who(SocketAddr, Option<Uid>);

impl Who {
    fn of(said: &api::Endpoint) -> Self {
        Self(said.address, said.pod.as_ref().map(|pod| pod.uid))
    }
}

impl Cluster {
    /// A backend whose endpoints aren't known yet.
    pub fn new(id: BackendId) -> Arc<Self> {
        Self::with(id, Settings::default(), Arc::default())
    }

    /// The same, with settings other than the documented ones, and counted.
    pub fn with(id: BackendId, settings: Settings, counters: Arc<EndpointCounters>) -> Arc<Self> {
        Arc::new(Self {
            id,
            settings,
            counters,
            snapshot: ArcSwap::default(),
            selection: ArcSwap::default(),
            changing: Mutex::default(),
            resolver: Mutex::default(),
            unselected: ArcSwap::default(),
            budget: ArcSwapOption::default(),
        })
    }

    /// Whose endpoints these are.
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// What the backend's port speaks.
    pub fn protocol(&self) -> AppProtocol {
        self.snapshot.load().protocol
    }

    /// How many endpoints take new traffic, those that are ejected among them.
    pub fn ready(&self) -> usize {
        self.selection.load().eligible().len()
    }

    /// How many endpoints are kept for their sessions alone.
    pub fn unselected(&self) -> usize {
        self.unselected.load().len()
    }

    /// Takes over what the controller says. Endpoints that stay keep their load and their connections, also
    /// when their readiness changes; those that go get no request that is picked after this. A retry budget that
    /// stays keeps its counts, and another one begins anew.
    pub fn update(self: &Arc<Self>, set: &EndpointSet) {
        let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        if self.budget.load().as_ref().map(|budget| budget.limits()) != set.retry_budget {
            let now = Instant::now();
            self.budget.store(set.retry_budget.map(|limits| Arc::new(Budget::new(limits, now))));
        }
        match &set.external {
            Some(_) if resolver.as_ref().is_some_and(|resolver| resolver.is_for(set)) => {}
            Some(external) => {
                *resolver = Some(Resolver::start(Arc::downgrade(self), external.clone(), set.clone()))
            }
            None => {
                *resolver = None;
                self.adopt(set);
            }
        }
    }

    /// Makes these the endpoints.
    pub(super) fn adopt(&self, set: &EndpointSet) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = self.snapshot.load();
        let newcomer = earlier.typical_latency();
        let mut next = Snapshot { protocol: set.protocol, ..Snapshot::default() };
        // Those that take new traffic. Where none is ready: those that terminate and still serve, as kube-proxy has it
        // (KEP-1669).
        let (mut eligible, mut terminating) = (Vec::new(), Vec::new());
        for said in &set.endpoints {
            let known = earlier.all.get(&Who::of(said)).filter(|endpoint| endpoint.is(said));
            let endpoint =
                known.map_or_else(|| Endpoint::new(said, newcomer, Arc::clone(&self.counters)), Arc::clone);
            if said.ready {
                eligible.push(Arc::clone(&endpoint));
            } else if said.serving && said.terminating {
                terminating.push(Arc::clone(&endpoint));
            }
            if let (true, Some(uid)) = (said.ready || said.serving, endpoint.pod_uid()) {
                next.serving.insert(uid, Arc::clone(&endpoint));
                if said.ready && !said.terminating && endpoint.is_meshed() {
                    next.well.insert(uid, Arc::clone(&endpoint));
                }
            }
            next.all.insert(Who::of(said), endpoint);
        }
        if eligible.is_empty() {
            eligible = terminating;
        }
        doubt(&earlier, &eligible);
        let left = left_out(set, self.unselected.load().iter().chain(&earlier.well));
        self.unselected.store(Arc::new(left));
        drop(earlier);
        let now = Instant::now();
        self.welcome(&eligible, now);
        self.snapshot.store(Arc::new(next));
        let affinity = set.client_ip_affinity.is_some();
        self.show(Selection::new(eligible.into(), affinity, &self.settings, now));
    }

    /// Those that take new traffic only now begin slowly, where there are others: a pod that has become ready is well,
    /// whatever it was before, but may still be warming up.
    fn welcome(&self, eligible: &[Arc<Endpoint>], now: Instant) {
        let earlier = self.selection.load();
        let before: HashSet<*const Endpoint> = earlier.eligible().iter().map(Arc::as_ptr).collect();
        if eligible.iter().any(|endpoint| before.contains(&Arc::as_ptr(endpoint))) {
            let newcomers = eligible.iter().filter(|endpoint| !before.contains(&Arc::as_ptr(endpoint)));
            newcomers.for_each(|endpoint| endpoint.health.begin_anew(now));
        }
    }

    /// An endpoint for a request of `client` that none of `tried` has served. `None`: there is no other.
    pub fn pick(&self, client: IpAddr, tried: &[SocketAddr]) -> Option<Picked> {
        let mut selection = self.selection.load();
        if selection.is_over() {
            drop(selection);
            self.bring_back();
            selection = self.selection.load();
        }
        selection.pick(client, tried, &self.settings).map(Picked::new)
    }

    /// Whether the backend may get one more request.
    ///
    /// # Errors
    /// [`Overload`]: it shall be turned away, and is counted so.
    pub fn admit(&self) -> Result<(), Overload> {
        let Settings { max_requests, max_connecting, .. } = self.settings;
        if self.counters.in_flight() >= max_requests {
            self.counters.shed(Limit::Requests);
            return Err(Overload::Requests(max_requests));
        }
        if self.counters.connecting() >= max_connecting {
            self.counters.shed(Limit::Connecting);
            return Err(Overload::Connecting(max_connecting));
        }
        Ok(())
    }

    /// An endpoint has answered: it is well.
    pub fn answered(&self, picked: &Picked) {
        picked.endpoint().health.answered();
    }

    /// An attempt failed through its endpoint's fault. If that was once too often, the endpoint is left aside.
    pub fn failed(&self, picked: &Picked, how: Failed) {
        let Some(limit) = self.settings.eject_after else { return };
        let now = Instant::now();
        let endpoint = picked.endpoint();
        if endpoint.health.failed(how, picked.since(), now) < limit.get() {
            return;
        }
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let selection = self.selection.load();
        match selection.may_eject(endpoint) {
            MayEject::Yes => {
                let until = endpoint.health.eject(now);
                self.counters.ejected();
                self.show(selection.renewed(&self.settings, now));
                let (backend, address) = (&self.id, endpoint.address());
                tracing::info!(%backend, endpoint = %address, r#for = ?until - now, "an endpoint that fails is left aside");
            }
            MayEject::TooMany => self.counters.ejection_refused(),
            MayEject::NotHere => {}
        }
    }

    /// Brings back whose time is over.
    fn bring_back(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = self.selection.load().renewed(&self.settings, Instant::now());
        self.show(renewed);
    }

    /// Puts a selection in force.
    fn show(&self, selection: Selection) {
        let ejected = selection.eligible().iter().filter_map(|endpoint| {
            let until = endpoint.health.ejected_until()?;
            let pod = endpoint.said.pod.as_ref().map(|pod| pod.name.clone());
            Some(EjectedEndpoint { address: endpoint.address(), pod, until })
        });
        self.counters.set_ejected(ejected.collect());
        self.selection.store(Arc::new(selection));
    }

    /// Counts a request, for the budget of its retries.
    pub fn requested(&self) {
        if let Some(budget) = &*self.budget.load() {
            budget.request(Instant::now());
        }
    }

    /// Takes a retry out of the backend's budget, if it has one.
    ///
    /// # Errors
    /// [`Spent`]: it shall not be made.
    pub fn retry(&self) -> Result<(), Spent> {
        self.budget.load().as_ref().map_or(Ok(()), |budget| budget.retry(Instant::now()))
    }

    /// Whether an endpoint that was picked still takes such traffic: anybody's, or that of its sessions.
    pub fn takes(&self, picked: &Picked) -> bool {
        let is_it = |endpoint: &Arc<Endpoint>| Arc::ptr_eq(endpoint, picked.endpoint());
        self.selection.load().active().iter().any(is_it) || self.unselected.load().values().any(is_it)
    }

    /// The endpoint of a pod that a session leads to, as long as it answers. One that is ejected is gone for its sessions:
    /// they move, as the specification has it for endpoints that can't be reached (GEP-1619).
    pub fn by_pod(&self, pod: Uid) -> Option<Picked> {
        let snapshot = self.snapshot.load();
        if let Some(endpoint) = snapshot.serving.get(&pod) {
            if endpoint.health.ejected_until().is_some() && self.selection.load().is_over() {
                self.bring_back();
            }
            let is_ejected = endpoint.health.ejected_until().is_some();
            return (!is_ejected).then(|| Picked::new(Arc::clone(endpoint)));
        }
        self.unselected.load().get(&pod).map(|endpoint| Picked::new(Arc::clone(endpoint)))
    }

    /// The pod couldn't be reached. If it was only kept for its sessions, it is gone.
    pub fn unreachable(&self, pod: Uid) {
        if self.unselected.load().contains_key(&pod) {
            self.unselected.rcu(|kept| {
                let mut kept = HashMap::clone(kept);
                kept.remove(&pod);
                kept
            });
        }
    }
}

/// Has those asked whether they are still there that take no new traffic any more: they may have vanished with what is in flight there.
fn doubt(earlier: &Snapshot, eligible: &[Arc<Endpoint>]) {
    let stays: HashSet<*const Endpoint> = eligible.iter().map(Arc::as_ptr).collect();
    let others = earlier.all.values().filter(|endpoint| !stays.contains(&Arc::as_ptr(endpoint)));
    others.for_each(|endpoint| endpoint.pool.doubt());
}

/// The endpoints that a new set leaves out although nothing was wrong with them: their pods live, and a selector
/// or label has changed. A pod that goes is seen to terminate or to be unready first; one that goes without
/// notice is found out by its first refused connection, which costs nobody a request. Only meshed ones: a
/// handshake proves that it is still that pod, an address doesn't.
fn left_out<'e>(
    set: &EndpointSet,
    well: impl Iterator<Item = (&'e Uid, &'e Arc<Endpoint>)>,
) -> HashMap<Uid, Arc<Endpoint>> {
    let said: HashSet<Uid> =
        set.endpoints.iter().filter_map(|said| said.pod.as_ref().map(|pod| pod.uid)).collect();
    let left = well.filter(|(uid, _)| !said.contains(uid));
    left.take(MOST_UNSELECTED).map(|(uid, endpoint)| (*uid, Arc::clone(endpoint))).collect()
}

impl Snapshot {
    /// What a new endpoint is expected to be like: the others, on average. So it is neither flooded nor left
    /// aside.
    fn typical_latency(&self) -> Duration {
        let now = Instant::now();
        let sum: Duration = self.all.values().map(|endpoint| endpoint.load.estimate(now)).sum();
        u32::try_from(self.all.len()).ok().and_then(|count| sum.checked_div(count)).unwrap_or(load::UNKNOWN)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({}, {} ready)", self.id, self.ready())
    }
}

#[cfg(test)]
mod ejection;
#[cfg(test)]
mod tests;
