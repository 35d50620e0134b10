//! Counting: what each backend, rule and caller got, for dashboards and for `gamut status`.
//!
//! ```text
//! activation of a table --register--> Telemetry --Arc<BackendCounters>--> the data path: relaxed atomic adds
//!                                         |
//!                          scrape, on the admin thread --> text
//! ```
//!
//! Label values come from tables and certificates, never from what a client sends, and every family is bounded: what
//! exceeds the bound is counted under `other`, or isn't shown if it is a rule's or a backend's. Counters outlive the tables that registered them, so that a changed
//! weight doesn't set a graph back to zero.
//!
//! `istio_*` metrics carry the label set that existing dashboards read, `http_*` metrics the names of OpenTelemetry's
//! semantic conventions; `gamut_*` metrics are our own. docs/reference/metrics.md lists them, and a test compares.

mod endpoints;
mod family;
mod histogram;
mod inbound;
mod render;
mod requests;
mod semantic;
mod sessions;
mod tcp;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use self::tests::exercised;

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use gamut_route::{BackendId, ServicePort, table::RuleOrigin};

use serde::{Deserialize, Serialize};

use self::family::Family;
pub(crate) use self::render::rule_text;
pub use self::{
    endpoints::{EjectedEndpoint, EndpointCounters, Limit},
    histogram::{BOUNDS_MS, Histogram},
    inbound::InboundCounters,
    requests::{Answered, BackendCounters, Method, Protocol, RouteKey, StatusClasses},
    sessions::{SessionCounters, SessionKey, SessionOutcome},
    tcp::TcpConnection,
};
use crate::record::Recorder;

/// The most routes, rules and backends that are counted apart.
const MAX_ROUTES: usize = 8192;

/// The most ports of our own pod that are counted apart.
const MAX_PORTS: usize = 64;

/// The most reasons of own answers that are counted apart. They are constants of the code, far fewer than this.
const MAX_REASONS: usize = 64;

/// Whose proxy counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// What owns the pod, a Deployment's name for example.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// Its SPIFFE ID.
    pub principal: String,
}

/// Which way a connection goes, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From our app.
    Outbound,
    /// To our app.
    Inbound,
}

/// The handle. Clones count into the same place.
#[derive(Clone)]
pub struct Telemetry(Arc<Registry>);

struct Registry {
    own: Workload,
    recorder: Recorder,
    routes: Mutex<HashMap<RouteKey, Arc<BackendCounters>>>,
    sessions: Mutex<HashMap<SessionKey, Arc<SessionCounters>>>,
    endpoints: Mutex<HashMap<BackendId, Arc<EndpointCounters>>>,
    ports: Family<u16, Arc<InboundCounters>>,
    own_answers: Family<(Direction, &'static str), AtomicU64>,
    http2_closed: Family<(Direction, &'static str), AtomicU64>,
    outbound: Connections,
    inbound: Connections,
}

/// Connections of one direction.
#[derive(Debug, Default)]
struct Connections {
    opened: AtomicU64,
    closed: AtomicU64,
    detect_timeouts: AtomicU64,
}

/// An open connection: dropping it counts the connection as closed.
#[must_use = "dropping it counts the connection as closed"]
pub struct OpenConnection {
    registry: Arc<Registry>,
    direction: Direction,
}

impl Telemetry {
    /// Counters at zero, and no records.
    pub fn new(own: Workload) -> Self {
        Self::recording(own, Recorder::off())
    }

    /// Counters at zero. Single requests are told to the recorder.
    pub fn recording(own: Workload, recorder: Recorder) -> Self {
        Self(Arc::new(Registry {
            own,
            recorder,
            routes: Mutex::default(),
            sessions: Mutex::default(),
            endpoints: Mutex::default(),
            ports: Family::new(MAX_PORTS, 0, |_| Arc::default()),
            own_answers: Family::new(MAX_REASONS, (Direction::Outbound, "other"), |_| AtomicU64::new(0)),
            http2_closed: Family::new(MAX_REASONS, (Direction::Outbound, "other"), |_| AtomicU64::new(0)),
            outbound: Connections::default(),
            inbound: Connections::default(),
        }))
    }

    /// Who is told about single requests.
    pub fn recorder(&self) -> &Recorder {
        &self.0.recorder
    }

    /// The counters of what a rule sends to a backend. `origin` is none where a Service has no routes.
    pub fn backend(
        &self,
        origin: Option<&RuleOrigin>,
        parent: &ServicePort,
        backend: &BackendId,
    ) -> Arc<BackendCounters> {
        self.route(origin, parent, Some(backend))
    }

    /// The counters of what a rule answers without a backend (a redirect, an invalid one); without an origin, of what
    /// no rule of the parent matched.
    pub fn route(
        &self,
        origin: Option<&RuleOrigin>,
        parent: &ServicePort,
        backend: Option<&BackendId>,
    ) -> Arc<BackendCounters> {
        let key = RouteKey { origin: origin.cloned(), parent: parent.clone(), backend: backend.cloned() };
        register(&self.0.routes, key)
    }

    /// The counters of what became of the sessions of a rule or, with scope `backend`, of a backend.
    pub fn session(
        &self,
        origin: Option<&RuleOrigin>,
        parent: &ServicePort,
        scope: &str,
    ) -> Arc<SessionCounters> {
        let key = SessionKey { origin: origin.cloned(), parent: parent.clone(), scope: scope.to_owned() };
        register(&self.0.sessions, key)
    }

    /// The counters of a backend's endpoints.
    pub fn endpoints(&self, backend: &BackendId) -> Arc<EndpointCounters> {
        register(&self.0.endpoints, backend.clone())
    }

    /// The counters of a port of our own pod.
    pub fn inbound(&self, port: u16) -> Arc<InboundCounters> {
        self.0.ports.with(|known| *known == port, || port, Arc::clone)
    }

    /// Counts an answer that the proxy made itself. `reason` is one of [`crate::http::answer`]'s.
    pub fn own_answer(&self, direction: Direction, reason: &'static str) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        self.0.own_answers.with(|known| *known == (direction, reason), || (direction, reason), add);
    }

    /// Counts a connection of HTTP/2, or one that another sidecar opened, that was closed for what came over it.
    pub fn http2_closed(&self, direction: Direction, code: h2::Reason) {
        let code = http2_code(code);
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        self.0.http2_closed.with(|known| *known == (direction, code), || (direction, code), add);
    }

    /// Counts a connection that said nothing while the proxy waited for its first bytes.
    pub fn detect_timeout(&self, direction: Direction) {
        self.0.connections(direction).detect_timeouts.fetch_add(1, Ordering::Relaxed);
    }

    /// All connections that said nothing in time, of both directions.
    pub fn detect_timeouts(&self) -> u64 {
        let of = |direction| self.0.connections(direction).detect_timeouts.load(Ordering::Relaxed);
        of(Direction::Inbound) + of(Direction::Outbound)
    }

    /// Counts a connection as open until the returned value is dropped.
    pub fn connection(&self, direction: Direction) -> OpenConnection {
        self.0.connections(direction).opened.fetch_add(1, Ordering::Relaxed);
        OpenConnection { registry: self.0.clone(), direction }
    }

    /// How many connections of a direction have been opened, and how many of them are open.
    pub fn connections(&self, direction: Direction) -> (u64, u64) {
        let Connections { opened, closed, .. } = self.0.connections(direction);
        // Closed first: one that is opened and closed in between is missed, and nothing is negative.
        let closed = closed.load(Ordering::Relaxed);
        let opened = opened.load(Ordering::Relaxed);
        (opened, opened.saturating_sub(closed))
    }

    /// All counters of rules and backends, in a stable order.
    pub fn routes(&self) -> Vec<(RouteKey, Arc<BackendCounters>)> {
        sorted(&self.0.routes)
    }

    /// All counters of endpoints, by backend.
    pub fn all_endpoints(&self) -> Vec<(BackendId, Arc<EndpointCounters>)> {
        sorted(&self.0.endpoints)
    }

    /// All counters of sessions, in a stable order.
    pub fn sessions(&self) -> Vec<(SessionKey, Arc<SessionCounters>)> {
        sorted(&self.0.sessions)
    }
}

impl Registry {
    fn connections(&self, direction: Direction) -> &Connections {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }
}

impl OpenConnection {
    /// How many connections of its direction are open, this one included.
    pub fn open(&self) -> u64 {
        let Connections { opened, closed, .. } = self.registry.connections(self.direction);
        let closed = closed.load(Ordering::Relaxed);
        opened.load(Ordering::Relaxed).saturating_sub(closed)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.registry.connections(self.direction).closed.fetch_add(1, Ordering::Relaxed);
    }
}

impl Direction {
    /// As metrics and records name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// An error code of HTTP/2 (RFC 9113 section 7) as a label: those that a connection is closed with.
fn http2_code(code: h2::Reason) -> &'static str {
    match code {
        h2::Reason::PROTOCOL_ERROR => "protocol-error",
        h2::Reason::INTERNAL_ERROR => "internal-error",
        h2::Reason::FLOW_CONTROL_ERROR => "flow-control-error",
        h2::Reason::STREAM_CLOSED => "stream-closed",
        h2::Reason::FRAME_SIZE_ERROR => "frame-size-error",
        h2::Reason::COMPRESSION_ERROR => "compression-error",
        h2::Reason::ENHANCE_YOUR_CALM => "enhance-your-calm",
        _ => "other",
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("own", &self.0.own).finish_non_exhaustive()
    }
}

/// A map's lock. What is behind it is never half written, so a poisoned one is as good as any.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The counters of a key; those that no table uses any more make room when there are too many.
fn register<K, V>(map: &Mutex<HashMap<K, Arc<V>>>, key: K) -> Arc<V>
where
    K: Eq + Hash,
    V: Default,
{
    let mut map = lock(map);
    if let Some(counters) = map.get(&key) {
        return counters.clone();
    }
    if map.len() >= MAX_ROUTES {
        map.retain(|_, counters| Arc::strong_count(counters) > 1);
    }
    let counters = Arc::<V>::default();
    // With everything in use these are counted, but not shown: a scrape of more would hurt more than it tells.
    if map.len() < MAX_ROUTES {
        map.insert(key, counters.clone());
    }
    counters
}

fn sorted<K: Clone + Ord, V>(map: &Mutex<HashMap<K, Arc<V>>>) -> Vec<(K, Arc<V>)> {
    let mut all: Vec<_> = lock(map).iter().map(|(key, counters)| (key.clone(), counters.clone())).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}
