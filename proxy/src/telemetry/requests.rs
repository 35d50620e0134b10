//! Requests that our app sent: by rule and backend, below that by the workload that answered and by status.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gamut_controller_api::{Endpoint, Transport};
use gamut_route::{BackendId, ServicePort, table::RuleOrigin};
use serde::{Deserialize, Serialize};

use super::{
    family::Family,
    histogram::Histogram,
    tcp::{TcpConnection, TcpCounters},
};

/// The most workloads behind one backend, and reasons of own answers, that are counted apart.
const MAX_WORKLOADS: usize = 32;

/// The most pairs of method and status in one series whose latencies are told apart.
const MAX_EXCHANGES: usize = 32;

/// gRPC has the codes 0 to 16; the last place is for any other.
const GRPC_CODES: usize = 18;

/// What a rule's counters are registered under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteKey {
    /// The rule; none where a Service has no routes, or none matched.
    pub origin: Option<RuleOrigin>,
    /// The Service and port that the app addressed.
    pub parent: ServicePort,
    /// Where the request went; none where the rule answered by itself.
    pub backend: Option<BackendId>,
}

/// What the requests speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC, whose outcome is in the trailers.
    Grpc,
}

/// A request's method. What RFC 9110 and RFC 5789 don't have is one, so that nobody can fill a page with methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// CONNECT.
    Connect,
    /// DELETE.
    Delete,
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// PATCH.
    Patch,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// TRACE.
    Trace,
    /// Any other.
    Other,
}

/// An answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// The request's method.
    pub method: Method,
    /// What was spoken.
    pub protocol: Protocol,
    /// The HTTP status.
    pub status: u16,
    /// gRPC's status, where there was one.
    pub grpc_status: Option<u16>,
    /// From the request's head to the end of the answer.
    pub elapsed: Duration,
    /// Why the proxy answered in the backend's place, if it did.
    pub own: Option<&'static str>,
}

/// Requests by class of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusClasses {
    /// 1xx that ended a request: 101.
    pub informational: u64,
    /// 2xx.
    pub success: u64,
    /// 3xx.
    pub redirection: u64,
    /// 4xx.
    pub client_error: u64,
    /// 5xx.
    pub server_error: u64,
}

/// The counters of one rule and backend.
pub struct BackendCounters {
    series: Family<Labels, Series>,
    tcp: Family<Labels, std::sync::Arc<TcpCounters>>,
    retries: AtomicU64,
    refused_retries: AtomicU64,
    connect_failures: AtomicU64,
}

/// Who answered, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) workload: String,
    pub(super) namespace: String,
    pub(super) principal: String,
    pub(super) mesh: bool,
    pub(super) protocol: Option<Protocol>,
    pub(super) own: Option<&'static str>,
}

/// Requests with one set of labels.
pub(super) struct Series {
    /// By hundreds; a block is made when the first of its hundred is counted.
    statuses: [OnceLock<Box<[AtomicU64; 100]>>; 5],
    grpc: OnceLock<Box<[AtomicU64; GRPC_CODES]>>,
    /// By method and status; a status of 0 is any beyond [`MAX_EXCHANGES`].
    durations: Family<(Method, u16), Histogram>,
}

impl Default for Series {
    fn default() -> Self {
        let durations = Family::new(MAX_EXCHANGES, (Method::Other, 0), |_| Histogram::default());
        Self { statuses: Default::default(), grpc: OnceLock::new(), durations }
    }
}

impl Default for BackendCounters {
    fn default() -> Self {
        Self {
            series: Family::new(MAX_WORKLOADS, Labels::other(), |_| Series::default()),
            tcp: Family::new(MAX_WORKLOADS, Labels::other(), |_| std::sync::Arc::default()),
            retries: AtomicU64::new(0),
            refused_retries: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
        }
    }
}

impl BackendCounters {
    /// Counts a request that was answered, by `endpoint` or, without one, by the proxy.
    pub fn answered(&self, endpoint: Option<&Endpoint>, answered: Answered) {
        self.series.with(
            |labels| labels.are_of(endpoint, Some(answered.protocol), answered.own),
            || Labels::of(endpoint, Some(answered.protocol), answered.own),
            |series| series.add(&answered),
        );
    }

    /// Counts a try beyond the first.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a retry that the backend's budget left no room for.
    pub fn retry_refused(&self) {
        self.refused_retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection to an endpoint that didn't come about.
    pub fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection of opaque bytes to `endpoint` until the returned value is dropped.
    pub fn tcp(&self, endpoint: &Endpoint) -> TcpConnection {
        self.tcp.with(
            |labels| labels.are_of(Some(endpoint), None, None),
            || Labels::of(Some(endpoint), None, None),
            TcpConnection::open,
        )
    }

    /// How often was tried beyond the first time.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// How many retries the backend's budget left no room for.
    pub fn refused_retries(&self) -> u64 {
        self.refused_retries.load(Ordering::Relaxed)
    }

    /// How many connections didn't come about.
    pub fn connect_failures(&self) -> u64 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// All requests by class.
    pub fn by_class(&self) -> StatusClasses {
        let mut classes = StatusClasses::default();
        self.series.each(|_, series| series.each_status(|status, count| classes.add(status, count)));
        classes
    }

    /// How many requests took how long: one count for each of [`super::BOUNDS_MS`], and one for what is above them all.
    pub fn durations(&self) -> Vec<u64> {
        let all = Histogram::default();
        self.series.each(|_, series| all.absorb(&series.duration()));
        all.counts().collect()
    }

    /// How many connections of opaque bytes there were.
    pub fn tcp_connections(&self) -> u64 {
        let mut connections = 0;
        self.tcp.each(|_, counters| connections += counters.opened());
        connections
    }

    pub(super) fn each_series(&self, f: impl FnMut(&Labels, &Series)) {
        self.series.each(f);
    }

    pub(super) fn each_tcp(&self, mut f: impl FnMut(&Labels, &TcpCounters)) {
        self.tcp.each(|labels, counters| f(labels, counters));
    }
}

impl Series {
    pub(super) fn add(&self, answered: &Answered) {
        // An upstream may answer with any three digits; what is no class of RFC 9110 counts as 500 does.
        let status = if (100..600).contains(&answered.status) { answered.status } else { 500 };
        match (answered.protocol, answered.grpc_status) {
            (Protocol::Grpc, Some(code)) => {
                let codes = self.grpc.get_or_init(|| Box::new([const { AtomicU64::new(0) }; GRPC_CODES]));
                if let Some(counter) = codes.get(usize::from(code).min(GRPC_CODES - 1)) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {
                let (hundreds, rest) = (usize::from(status / 100), usize::from(status % 100));
                let block = self.statuses.get(hundreds.wrapping_sub(1));
                let block =
                    block.map(|block| block.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100])));
                if let Some(counter) = block.and_then(|block| block.get(rest)) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let exchange = (answered.method, status);
        self.durations.with(
            |known| *known == exchange,
            || exchange,
            |duration| duration.observe(answered.elapsed),
        );
    }

    /// How long all of them took.
    pub(super) fn duration(&self) -> Histogram {
        let all = Histogram::default();
        self.durations.each(|_, duration| all.absorb(duration));
        all
    }

    /// Calls `f` with every pair of method and status, and how long its requests took.
    pub(super) fn each_duration(&self, mut f: impl FnMut(Method, u16, &Histogram)) {
        self.durations.each(|(method, status), duration| f(*method, *status, duration));
    }

    /// Calls `f` with every status that was counted and how often. gRPC answers count as the HTTP 200 that they are,
    /// except those that mean a server's failure (UNKNOWN, INTERNAL, UNAVAILABLE, DATA_LOSS), which count as 500.
    fn each_status(&self, mut f: impl FnMut(u16, u64)) {
        self.each_code(|status, grpc, count| match grpc {
            Some(2 | 13 | 14 | 15) => f(500, count),
            _ => f(status, count),
        });
    }

    /// Calls `f` with every pair of HTTP and gRPC status that was counted and how often.
    pub(super) fn each_code(&self, mut f: impl FnMut(u16, Option<u16>, u64)) {
        for (status, block) in (100_u16..).step_by(100).zip(&self.statuses) {
            for (status, counter) in (status..).zip(block.get().into_iter().flat_map(|block| block.iter())) {
                match counter.load(Ordering::Relaxed) {
                    0 => {}
                    count => f(status, None, count),
                }
            }
        }
        for (code, counter) in (0..).zip(self.grpc.get().into_iter().flat_map(|codes| codes.iter())) {
            match counter.load(Ordering::Relaxed) {
                0 => {}
                count => f(200, Some(code), count),
            }
        }
    }
}

impl Method {
    /// As metrics and traces name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Trace => "TRACE",
            Self::Other => "_OTHER",
        }
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        match method.as_str() {
            "CONNECT" => Self::Connect,
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }
}

impl StatusClasses {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.informational + self.success + self.redirection + self.client_error + self.server_error
    }

    /// The classes with the names that metrics and tables give them.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("1xx", self.informational),
            ("2xx", self.success),
            ("3xx", self.redirection),
            ("4xx", self.client_error),
            ("5xx", self.server_error),
        ]
    }

    fn add(&mut self, status: u16, count: u64) {
        *match status / 100 {
            1 => &mut self.informational,
            2 => &mut self.success,
            3 => &mut self.redirection,
            4 => &mut self.client_error,
            _ => &mut self.server_error,
        } += count;
    }
}

impl Labels {
    fn other() -> Self {
        Self {
            workload: "other".to_owned(),
            namespace: "other".to_owned(),
            principal: "other".to_owned(),
            mesh: false,
            protocol: None,
            own: None,
        }
    }

    fn of(endpoint: Option<&Endpoint>, protocol: Option<Protocol>, own: Option<&'static str>) -> Self {
        let (workload, namespace) = workload(endpoint);
        let (workload, namespace) = (workload.to_owned(), namespace.to_owned());
        let (principal, mesh) = match endpoint.map(|endpoint| &endpoint.transport) {
            Some(Transport::Mesh(identity)) => (identity.to_string(), true),
            Some(Transport::Plaintext) | None => ("unknown".to_owned(), false),
        };
        Self { workload, namespace, principal, mesh, protocol, own }
    }

    /// Whether these are the labels that [`Labels::of`] would make. A workload's pods can differ in their service
    /// account only while it is changed; they are counted under the first that was seen.
    fn are_of(
        &self,
        endpoint: Option<&Endpoint>,
        protocol: Option<Protocol>,
        own: Option<&'static str>,
    ) -> bool {
        let mesh = matches!(endpoint.map(|endpoint| &endpoint.transport), Some(Transport::Mesh(_)));
        (self.mesh, self.protocol, self.own) == (mesh, protocol, own)
            && (self.workload.as_str(), self.namespace.as_str()) == workload(endpoint)
    }
}

/// The workload that an endpoint belongs to, and its namespace.
fn workload(endpoint: Option<&Endpoint>) -> (&str, &str) {
    match endpoint.and_then(|endpoint| endpoint.pod.as_ref()) {
        Some(pod) => (&pod.workload, &pod.namespace),
        None => ("unknown", "unknown"),
    }
}

impl PartialOrd for RouteKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RouteKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |key: &Self| key.origin.as_ref().map(|origin| (origin.route.clone(), origin.index));
        let name = |key: &Self| key.origin.as_ref().and_then(|origin| origin.name.clone());
        (&self.parent, place(self), name(self), &self.backend).cmp(&(
            &other.parent,
            place(other),
            name(other),
            &other.backend,
        ))
    }
}

impl std::fmt::Debug for BackendCounters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendCounters").field("by_class", &self.by_class()).finish_non_exhaustive()
    }
}
