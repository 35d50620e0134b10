//! One endpoint: where it is, how it is reached, and what this sidecar has learnt about it.

use std::{fmt, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use gamut_controller_api::{self as api, Transport};
use gamut_route::Uid;
use tokio::time::Instant;

use super::{
    health::Health,
    load::{self, Load},
};
use crate::{
    http::{Pool, PoolLimits},
    telemetry::EndpointCounters,
};

/// An endpoint. Dropping the last handle closes its idle connections.
pub struct Endpoint {
    /// What the controller said when it was first heard of. Its conditions have moved on since; who it is and
    /// how it is reached have not, or it would be another endpoint.
    pub said: api::Endpoint,
    /// How busy it is.
    pub load: Load,
    /// Whether it answers.
    pub(super) health: Health,
    /// The connections to it.
    pub pool: Arc<Pool>,
    /// What goes on at its backend.
    counters: Arc<EndpointCounters>,
}

/// A connection that is being opened, until dropped.
pub struct Connecting<'a>(&'a EndpointCounters);

/// An endpoint that was chosen for one request or connection. It counts as in flight until this is dropped.
pub struct Picked {
    endpoint: Arc<Endpoint>,
    since: Instant,
}

/// One pod that an app dials by its own address: no routes, no choice.
#[derive(Debug)]
pub struct PodTarget {
    endpoint: Arc<Endpoint>,
}

impl Endpoint {
    /// An endpoint that nothing is known about but what the controller says.
    pub(super) fn new(
        endpoint: &api::Endpoint,
        estimate: Duration,
        counters: Arc<EndpointCounters>,
    ) -> Arc<Self> {
        let limits = match endpoint.transport {
            Transport::Mesh(_) => PoolLimits::MESH,
            Transport::Plaintext => PoolLimits::APP,
        };
        Arc::new(Self {
            said: endpoint.clone(),
            load: Load::new(estimate),
            health: Health::new(Instant::now()),
            pool: Pool::new(limits),
            counters,
        })
    }

    /// Pod IP and target port.
    pub fn address(&self) -> SocketAddr {
        self.said.address
    }

    /// The UID of the pod behind it.
    pub fn pod_uid(&self) -> Option<Uid> {
        self.said.pod.as_ref().map(|pod| pod.uid)
    }

    /// Whether there is a sidecar in front of it.
    pub fn is_meshed(&self) -> bool {
        matches!(self.said.transport, Transport::Mesh(_))
    }

    /// Counts a connection as being opened, until what is returned is dropped.
    pub fn connecting(&self) -> Connecting<'_> {
        self.counters.begin_connecting();
        Connecting(&self.counters)
    }

    /// Whether this is the same process as `other` describes, reached the same way. An address alone says
    /// nothing: it is used again.
    pub(super) fn is(&self, other: &api::Endpoint) -> bool {
        self.said.address == other.address
            && self.pod_uid() == other.pod.as_ref().map(|pod| pod.uid)
            && self.said.transport == other.transport
    }
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.begin();
        endpoint.counters.begin();
        Self { endpoint, since: Instant::now() }
    }

    /// The same endpoint, for something more that goes on there.
    pub fn again(&self) -> Self {
        Self::new(Arc::clone(&self.endpoint))
    }

    /// When it was chosen.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The answer's head is here. Says how long it took.
    pub fn answered(&self) -> Duration {
        let now = Instant::now();
        let latency = now.duration_since(self.since);
        self.endpoint.load.answered(latency, now);
        latency
    }

    /// There was no answer, or one that says that the endpoint can't serve.
    pub fn failed(&self) {
        self.endpoint.load.failed(Instant::now());
    }
}

impl PodTarget {
    /// The target for an address that the controller says is this pod's.
    pub fn new(endpoint: &api::Endpoint) -> Arc<Self> {
        Arc::new(Self { endpoint: Endpoint::new(endpoint, load::UNKNOWN, Arc::default()) })
    }

    /// The pod, for one connection.
    pub fn pick(&self) -> Picked {
        Picked::new(Arc::clone(&self.endpoint))
    }
}

impl Deref for Picked {
    type Target = Endpoint;

    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.load.end();
        self.endpoint.counters.end();
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.end_connecting();
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.said.address)
            .field("pod", &self.pod_uid())
            .field("transport", &self.said.transport)
            .field("in_flight", &self.load.in_flight())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.endpoint, f)
    }
}
