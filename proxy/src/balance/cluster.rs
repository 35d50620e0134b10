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
    affinity,
    budget::{Budget, Spent},
    endpoint::{Endpoint, Picked},
    load,
    resolve::Resolver,
};

/// How many endpoints that nobody selects any more are kept for their sessions.
const MOST_UNSELECTED: usize = 1024;

/// A backend's endpoints. Updates swap a snapshot; picks load it and never wait.
pub struct Cluster {
    id: BackendId,
    snapshot: ArcSwap<Snapshot>,
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
    /// Those that take new traffic. Where none is ready: those that terminate and still serve, as kube-proxy
    /// has it (KEP-1669).
    eligible: Vec<Arc<Endpoint>>,
    /// All that answer, by pod: a session may lead to one that terminates.
    serving: HashMap<Uid, Arc<Endpoint>>,
    /// All that were said, for the next update to find those that stay.
    all: HashMap<Who, Arc<Endpoint>>,
    /// Those with a sidecar that are ready and not about to go, by pod.
    well: HashMap<Uid, Arc<Endpoint>>,
    protocol: AppProtocol,
    affinity: bool,
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
        Arc::new(Self {
            id,
            snapshot: ArcSwap::default(),
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

    /// How many endpoints take new traffic now.
    pub fn ready(&self) -> usize {
        self.snapshot.load().eligible.len()
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
        let earlier = self.snapshot.load();
        let newcomer = earlier.typical_latency();
        let mut next = Snapshot {
            protocol: set.protocol,
            affinity: set.client_ip_affinity.is_some(),
            ..Snapshot::default()
        };
        let mut terminating = Vec::new();
        for said in &set.endpoints {
            let known = earlier.all.get(&Who::of(said)).filter(|endpoint| endpoint.is(said));
            let endpoint = known.map_or_else(|| Endpoint::new(said, newcomer), Arc::clone);
            if said.ready {
                next.eligible.push(Arc::clone(&endpoint));
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
        if next.eligible.is_empty() {
            next.eligible = terminating;
        }
        let left = left_out(set, self.unselected.load().iter().chain(&earlier.well));
        self.unselected.store(Arc::new(left));
        drop(earlier);
        self.snapshot.store(Arc::new(next));
    }

    /// An endpoint for a request of `client` that none of `tried` has served. `None`: there is no other.
    pub fn pick(&self, client: IpAddr, tried: &[SocketAddr]) -> Option<Picked> {
        let snapshot = self.snapshot.load();
        let picked = if snapshot.affinity {
            let untried = snapshot.eligible.iter().filter(|endpoint| !tried.contains(&endpoint.address()));
            affinity::choose(untried, client)
        } else if tried.is_empty() {
            two_choices(&snapshot.eligible)
        } else {
            let mut untried = snapshot.eligible.clone();
            untried.retain(|endpoint| !tried.contains(&endpoint.address()));
            return two_choices(&untried).map(|endpoint| Picked::new(Arc::clone(endpoint)));
        };
        picked.map(|endpoint| Picked::new(Arc::clone(endpoint)))
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
        self.snapshot.load().eligible.iter().any(is_it) || self.unselected.load().values().any(is_it)
    }

    /// The endpoint of a pod that a session leads to, as long as it answers.
    pub fn by_pod(&self, pod: Uid) -> Option<Picked> {
        let serving =
            self.snapshot.load().serving.get(&pod).map(|endpoint| Picked::new(Arc::clone(endpoint)));
        serving.or_else(|| self.unselected.load().get(&pod).map(|endpoint| Picked::new(Arc::clone(endpoint))))
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

/// The power of two choices (Mitzenmacher, 2001): of two endpoints drawn at random the one with less load, or
/// rather, each with a chance in inverse proportion to the square of its cost. A plain "less wins" sends
/// everything to one of two endpoints whose latencies differ by noise, for as long as nobody else calls; this
/// way twice the cost means a fifth of the requests, ten times a hundredth.
fn two_choices(endpoints: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    let (first, second) = match endpoints {
        [] | [_] => return endpoints.first(),
        several => {
            let first = rand::random_range(0..several.len());
            let second = (first + rand::random_range(1..several.len())) % several.len();
            (several.get(first)?, several.get(second)?)
        }
    };
    let now = Instant::now();
    let (cost_first, cost_second) = (first.load.cost(now).powi(2), second.load.cost(now).powi(2));
    let first_wins = rand::random::<f64>() * (cost_first + cost_second) < cost_second;
    Some(if first_wins { first } else { second })
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
mod tests;
