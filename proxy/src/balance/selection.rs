//! Who of a backend's endpoints takes new traffic at the moment, and who of them gets the next request.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::time::Instant;

use super::{Settings, affinity, endpoint::Endpoint};

/// The endpoints that the controller says take new traffic, without those that are ejected. It never changes; whoever
/// is ejected or comes back makes a new one.
#[derive(Default)]
pub(super) struct Selection {
    /// All that would take new traffic.
    eligible: Arc<[Arc<Endpoint>]>,
    /// Those of them that aren't ejected: at least half.
    active: Arc<[Arc<Endpoint>]>,
    /// When the first of the others comes back.
    returns: Option<Instant>,
    /// Whether clients stay with an endpoint (`sessionAffinity: ClientIP`).
    affinity: bool,
}

/// Whether an endpoint may be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayEject {
    Yes,
    /// It would be more than half of all: then something else is the matter.
    TooMany,
    /// It is already, or takes no new traffic.
    NotHere,
}

impl Selection {
    /// Brings back whose time is over. Where more than half of those that are left are ejected, because the others have
    /// gone, those whose time is over first come back too.
    pub(super) fn new(
        eligible: Arc<[Arc<Endpoint>]>,
        affinity: bool,
        settings: &Settings,
        now: Instant,
    ) -> Self {
        let mut ejected: Vec<(Instant, &Arc<Endpoint>)> =
            eligible.iter().filter_map(|at| Some((at.health.ejected_until()?, at))).collect();
        if ejected.is_empty() {
            return Self { active: Arc::clone(&eligible), eligible, returns: None, affinity };
        }
        ejected.sort_unstable_by_key(|(until, endpoint)| (*until, endpoint.address()));
        let over = ejected.partition_point(|(until, _)| *until <= now);
        let too_many = ejected.len().saturating_sub(most_ejected(eligible.len()));
        let staying = ejected.split_off(over.max(too_many));
        ejected.iter().for_each(|(_, endpoint)| endpoint.health.bring_back(now, settings));
        let returns = staying.first().map(|(until, _)| *until);
        let active = eligible.iter().filter(|endpoint| endpoint.health.ejected_until().is_none());
        Self { active: active.cloned().collect(), eligible, returns, affinity }
    }

    /// The same, looked at again.
    pub(super) fn renewed(&self, settings: &Settings, now: Instant) -> Self {
        Self::new(Arc::clone(&self.eligible), self.affinity, settings, now)
    }

    /// Whether somebody has to be brought back.
    pub(super) fn is_over(&self) -> bool {
        self.returns.is_some_and(|returns| returns <= Instant::now())
    }

    /// All that would take new traffic.
    pub(super) fn eligible(&self) -> &[Arc<Endpoint>] {
        &self.eligible
    }

    /// Those of them that aren't ejected.
    pub(super) fn active(&self) -> &[Arc<Endpoint>] {
        &self.active
    }

    /// Whether an endpoint may be ejected.
    pub(super) fn may_eject(&self, endpoint: &Arc<Endpoint>) -> MayEject {
        let ejected = self.eligible.len() - self.active.len();
        if !self.active.iter().any(|active| Arc::ptr_eq(active, endpoint)) {
            MayEject::NotHere
        } else if ejected < most_ejected(self.eligible.len()) {
            MayEject::Yes
        } else {
            MayEject::TooMany
        }
    }

    /// An endpoint for a request of `client` that none of `tried` has served. Where all others were tried, an ejected one
    /// is better than none.
    pub(super) fn pick(
        &self,
        client: IpAddr,
        tried: &[SocketAddr],
        settings: &Settings,
    ) -> Option<Arc<Endpoint>> {
        if tried.is_empty() {
            return self.choose(&self.active, client, settings).cloned();
        }
        [&self.active, &self.eligible].into_iter().find_map(|from| {
            let untried = from.iter().filter(|endpoint| !tried.contains(&endpoint.address()));
            let untried: Vec<Arc<Endpoint>> = untried.cloned().collect();
            self.choose(&untried, client, settings).cloned()
        })
    }

    fn choose<'a>(
        &self,
        from: &'a [Arc<Endpoint>],
        client: IpAddr,
        settings: &Settings,
    ) -> Option<&'a Arc<Endpoint>> {
        if self.affinity { affinity::choose(from.iter(), client) } else { two_choices(from, settings) }
    }
}

/// How many of so many endpoints may be ejected: half of them, and never the only one.
fn most_ejected(endpoints: usize) -> usize {
    endpoints / 2
}

/// The power of two choices (Mitzenmacher, 2001): of two endpoints drawn at random the one with less load, or
/// rather, each with a chance in inverse proportion to the square of its cost. A plain "less wins" sends
/// everything to one of two endpoints whose latencies differ by noise, for as long as nobody else calls; this
/// way twice the cost means a fifth of the requests, ten times a hundredth.
fn two_choices<'a>(endpoints: &'a [Arc<Endpoint>], settings: &Settings) -> Option<&'a Arc<Endpoint>> {
    let (first, second) = match endpoints {
        [] | [_] => return endpoints.first(),
        several => {
            let first = rand::random_range(0..several.len());
            let second = (first + rand::random_range(1..several.len())) % several.len();
            (several.get(first)?, several.get(second)?)
        }
    };
    let now = Instant::now();
    let cost = |endpoint: &Endpoint| endpoint.load.cost(now).powi(2) / endpoint.health.weight(now, settings);
    let (cost_first, cost_second) = (cost(first), cost(second));
    let first_wins = rand::random::<f64>() * (cost_first + cost_second) < cost_second;
    Some(if first_wins { first } else { second })
}
