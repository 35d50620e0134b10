//! The page that a scraper gets.

use std::sync::atomic::Ordering;

use gamut_metrics::{Kind, Page};
use gamut_route::{BackendId, NamespacedName};
use tokio::time::Instant;

use super::{
    Direction, Telemetry,
    endpoints::EndpointCounters,
    histogram::{BOUNDS_MS, Histogram},
    inbound::{Caller, CallerLabels, InboundCounters},
    requests::{BackendCounters, Labels, Protocol, RouteKey},
    tcp::TcpCounters,
};

/// The labels that `istio_*` metrics have in common, in the order of their documentation. What a sidecar can't know is
/// `unknown`, as there.
const COMMON_LABELS: usize = 20;

type Common<'a> = [(&'static str, &'a str); COMMON_LABELS];

impl Telemetry {
    /// Writes every counter.
    pub fn render(&self, page: &mut Page) {
        let routes = self.routes();
        let mut ports = Vec::new();
        self.0.ports.each(|port, counters| ports.push((*port, counters.clone())));
        self.requests(page, &routes, &ports);
        self.durations(page, &routes, &ports);
        self.semantic(page, &routes, &ports);
        self.tcp(page, &routes, &ports);
        render_routes(page, &routes);
        self.render_endpoints(page);
        self.render_sessions(page);
        self.render_connections(page);
    }

    fn requests(&self, page: &mut Page, routes: &[(RouteKey, Routes)], ports: &[(u16, Ports)]) {
        const NAME: &str = "istio_requests_total";
        page.family(NAME, Kind::Counter, "Requests that were answered.");
        self.each_request_series(routes, ports, |common, protocol, own, series| {
            series.each_code(|status, grpc, count| {
                let (status, grpc) =
                    (status.to_string(), grpc.map_or(String::new(), |code| code.to_string()));
                let mut labels = common.to_vec();
                labels.push(("request_protocol", protocol_name(protocol)));
                labels.push(("response_code", &status));
                labels.push(("grpc_response_status", &grpc));
                labels.push(("response_flags", own.unwrap_or("-")));
                page.sample(NAME, &labels, count);
            });
        });
    }

    fn durations(&self, page: &mut Page, routes: &[(RouteKey, Routes)], ports: &[(u16, Ports)]) {
        const NAME: &str = "istio_request_duration_milliseconds";
        page.family(NAME, Kind::Histogram, "From a request's head to the end of its answer.");
        self.each_request_series(routes, ports, |common, protocol, own, series| {
            let mut labels = common.to_vec();
            labels.push(("request_protocol", protocol_name(protocol)));
            labels.push(("response_flags", own.unwrap_or("-")));
            histogram(page, NAME, &labels, &series.duration(), 1.0);
        });
    }

    /// Calls `f` with every series of requests, ours and those of our callers.
    fn each_request_series(
        &self,
        routes: &[(RouteKey, Routes)],
        ports: &[(u16, Ports)],
        mut f: impl FnMut(&Common<'_>, Option<Protocol>, Option<&'static str>, &super::requests::Series),
    ) {
        for (key, counters) in routes {
            let service = Service::of(key);
            counters.each_series(|labels, series| {
                f(&self.source(labels, &service), labels.protocol, labels.own, series);
            });
        }
        for (_, counters) in ports {
            counters.each_series(|labels, series| {
                let caller = CallerText::of(labels);
                f(&self.destination(&caller), labels.protocol, labels.own, series);
            });
        }
    }

    fn tcp(&self, page: &mut Page, routes: &[(RouteKey, Routes)], ports: &[(u16, Ports)]) {
        type Read = fn(&TcpCounters) -> u64;
        let families: [(&str, &str, Read); 4] = [
            ("istio_tcp_connections_opened_total", "Connections of opaque bytes.", TcpCounters::opened),
            ("istio_tcp_connections_closed_total", "Such connections that have ended.", TcpCounters::closed),
            ("istio_tcp_sent_bytes_total", "Bytes from server to client.", TcpCounters::bytes_sent),
            ("istio_tcp_received_bytes_total", "Bytes from client to server.", TcpCounters::bytes_received),
        ];
        for (name, help, read) in families {
            page.family(name, Kind::Counter, help);
            for (key, counters) in routes {
                let service = Service::of(key);
                counters.each_tcp(|labels, tcp| {
                    let mut labels = self.source(labels, &service).to_vec();
                    labels.extend([("request_protocol", "tcp"), ("response_flags", "-")]);
                    page.sample(name, &labels, read(tcp));
                });
            }
            for (_, counters) in ports {
                counters.each_tcp(|labels, tcp| {
                    let caller = CallerText::of(labels);
                    let mut labels = self.destination(&caller).to_vec();
                    labels.extend([("request_protocol", "tcp"), ("response_flags", "-")]);
                    page.sample(name, &labels, read(tcp));
                });
            }
        }
    }

    fn render_sessions(&self, page: &mut Page) {
        const NAME: &str = "gamut_sessions_total";
        page.family(
            NAME,
            Kind::Counter,
            "Requests of rules with session persistence, by what became of the session.",
        );
        for (key, counters) in self.sessions() {
            let (route, rule) = rule_text(key.origin.as_ref());
            let parent = key.parent.to_string();
            for (outcome, count) in counters.counts() {
                let labels =
                    [("route", &*route), ("rule", &rule), ("parent", &parent), ("outcome", outcome.as_str())];
                page.sample(NAME, &labels, count);
            }
        }
    }

    /// What goes on at each backend's endpoints.
    fn render_endpoints(&self, page: &mut Page) {
        type Read = fn(&EndpointCounters) -> u64;
        let families: [(&str, Kind, &str, Read); 5] = [
            (
                "gamut_backend_in_flight",
                Kind::Gauge,
                "Requests that aren't answered to their end, and connections of other bytes.",
                |counters| counters.in_flight().into(),
            ),
            ("gamut_backend_connecting", Kind::Gauge, "Connections that are being opened.", |counters| {
                counters.connecting().into()
            }),
            (
                "gamut_backend_ejected_endpoints",
                Kind::Gauge,
                "Endpoints that get nothing for a while, because requests to them failed.",
                |counters| counters.ejected_at(Instant::now()).len() as u64,
            ),
            ("gamut_backend_ejections_total", Kind::Counter, "Ejections of endpoints.", |counters| {
                counters.ejections()
            }),
            (
                "gamut_backend_ejections_refused_total",
                Kind::Counter,
                "Failures that ejected nobody, because half of the endpoints were ejected already.",
                |counters| counters.refused_ejections(),
            ),
        ];
        let backends: Vec<_> = self.all_endpoints().into_iter().map(|(id, c)| (id.to_string(), c)).collect();
        for (name, kind, help, read) in families {
            page.family(name, kind, help);
            for (backend, counters) in &backends {
                page.sample(name, &[("backend", backend)], read(counters));
            }
        }
        const SHED: &str = "gamut_backend_shed_total";
        page.family(SHED, Kind::Counter, "Requests that a limit of the sidecar turned away.");
        for (backend, counters) in &backends {
            for (limit, count) in counters.all_shed() {
                page.sample(SHED, &[("backend", backend), ("limit", limit.as_str())], count);
            }
        }
    }

    fn render_connections(&self, page: &mut Page) {
        const OWN: &str = "gamut_own_answers_total";
        page.family(OWN, Kind::Counter, "Answers that the sidecar made itself, by reason.");
        self.0.own_answers.each(|(direction, reason), counter| {
            let labels = [("direction", direction.as_str()), ("reason", reason)];
            page.sample(OWN, &labels, counter.load(Ordering::Relaxed));
        });
        let directions = [Direction::Outbound, Direction::Inbound];
        page.family(
            "gamut_connections_opened_total",
            Kind::Counter,
            "Connections that the sidecar accepted.",
        );
        for direction in directions {
            let opened = self.0.connections(direction).opened.load(Ordering::Relaxed);
            page.sample("gamut_connections_opened_total", &[("direction", direction.as_str())], opened);
        }
        page.family("gamut_connections_closed_total", Kind::Counter, "Such connections that have ended.");
        for direction in directions {
            let closed = self.0.connections(direction).closed.load(Ordering::Relaxed);
            page.sample("gamut_connections_closed_total", &[("direction", direction.as_str())], closed);
        }
        const CLOSED: &str = "gamut_http2_closed_total";
        page.family(
            CLOSED,
            Kind::Counter,
            "HTTP/2 connections, and those that other sidecars opened, that were closed for what came over them, by error code.",
        );
        self.0.http2_closed.each(|(direction, code), counter| {
            let labels = [("code", *code), ("direction", direction.as_str())];
            page.sample(CLOSED, &labels, counter.load(Ordering::Relaxed));
        });
        const LOST: &str = "gamut_records_lost_total";
        page.family(
            LOST,
            Kind::Counter,
            "Lines of the access log and spans that were dropped, because they came faster than they are taken.",
        );
        page.sample(LOST, &[], self.recorder().lost());
        const DETECT: &str = "gamut_detect_timeouts_total";
        page.family(
            DETECT,
            Kind::Counter,
            "Connections whose protocol didn't show in time; taken as opaque bytes.",
        );
        for direction in directions {
            let timeouts = self.0.connections(direction).detect_timeouts.load(Ordering::Relaxed);
            page.sample(DETECT, &[("direction", direction.as_str())], timeouts);
        }
    }

    /// The labels of what our app sent.
    fn source<'a>(&'a self, to: &'a Labels, service: &'a Service) -> Common<'a> {
        let own = &self.0.own;
        common(
            "source",
            Party { workload: &own.name, namespace: &own.namespace, principal: &own.principal },
            Party { workload: &to.workload, namespace: &to.namespace, principal: &to.principal },
            service,
            to.mesh,
        )
    }

    /// The labels of what came to our app.
    fn destination<'a>(&'a self, from: &'a CallerText) -> Common<'a> {
        let own = &self.0.own;
        common(
            "destination",
            Party { workload: "unknown", namespace: &from.namespace, principal: &from.principal },
            Party { workload: &own.name, namespace: &own.namespace, principal: &own.principal },
            &from.service,
            from.mesh,
        )
    }
}

pub(super) type Routes = std::sync::Arc<BackendCounters>;
/// One of its counters.
type Count = fn(&BackendCounters) -> u64;
pub(super) type Ports = std::sync::Arc<InboundCounters>;

/// One side of a request.
struct Party<'a> {
    workload: &'a str,
    namespace: &'a str,
    principal: &'a str,
}

/// A Service's name as apps write it, with the domain that clusters have unless somebody chose another: what dashboards
/// that know `istio_requests_total` expect.
pub(super) fn service_host(service: &NamespacedName) -> String {
    format!("{}.{}.svc.cluster.local", service.name, service.namespace)
}

/// The Service that a request went to: the backend's, or the parent's where no backend was reached.
pub(super) struct Service {
    pub(super) host: String,
    name: String,
    namespace: String,
}

/// A caller's labels in their printed form.
pub(super) struct CallerText {
    namespace: String,
    pub(super) principal: String,
    mesh: bool,
    service: Service,
}

impl Service {
    pub(super) fn of(key: &RouteKey) -> Self {
        let name = match &key.backend {
            Some(BackendId::Service(port)) => &port.service,
            Some(BackendId::XBackend(name)) => name,
            None => &key.parent.service,
        };
        Self { host: service_host(name), name: name.name.clone(), namespace: name.namespace.clone() }
    }

    fn unknown() -> Self {
        let unknown = || "unknown".to_owned();
        Self { host: unknown(), name: unknown(), namespace: unknown() }
    }
}

impl CallerText {
    pub(super) fn of(labels: &CallerLabels) -> Self {
        let (namespace, principal, mesh) = match &labels.caller {
            Caller::Mesh(id) => (id.namespace().to_owned(), id.to_string(), true),
            Caller::Plaintext => ("unknown".to_owned(), "unknown".to_owned(), false),
            Caller::Other => ("other".to_owned(), "other".to_owned(), false),
        };
        Self { namespace, principal, mesh, service: Service::unknown() }
    }
}

fn common<'a>(
    reporter: &'static str,
    source: Party<'a>,
    destination: Party<'a>,
    service: &'a Service,
    mesh: bool,
) -> Common<'a> {
    [
        ("reporter", reporter),
        ("source_workload", source.workload),
        ("source_canonical_service", source.workload),
        ("source_canonical_revision", "latest"),
        ("source_workload_namespace", source.namespace),
        ("source_principal", source.principal),
        ("source_app", source.workload),
        ("source_version", "unknown"),
        ("source_cluster", "Kubernetes"),
        ("destination_workload", destination.workload),
        ("destination_canonical_service", destination.workload),
        ("destination_canonical_revision", "latest"),
        ("destination_workload_namespace", destination.namespace),
        ("destination_principal", destination.principal),
        ("destination_app", destination.workload),
        ("destination_cluster", "Kubernetes"),
        ("destination_service", &service.host),
        ("destination_service_name", &service.name),
        ("destination_service_namespace", &service.namespace),
        ("connection_security_policy", if mesh { "mutual_tls" } else { "none" }),
    ]
}

/// What each rule sent where: the share that a weight really had.
fn render_routes(page: &mut Page, routes: &[(RouteKey, Routes)]) {
    const REQUESTS: &str = "gamut_route_requests_total";
    page.family(REQUESTS, Kind::Counter, "Requests by rule, backend and class of the answer's status.");
    for (key, counters) in routes {
        let labels = RouteText::of(key);
        for (class, count) in counters.by_class().named() {
            let mut labels = labels.labels().to_vec();
            labels.push(("class", class));
            page.sample(REQUESTS, &labels, count);
        }
    }
    let families: [(&str, &str, Count); 3] = [
        (
            "gamut_route_retries_total",
            "Tries beyond the first, by rule and backend.",
            BackendCounters::retries,
        ),
        (
            "gamut_route_retry_budget_exhausted_total",
            "Requests that the backend's retry budget kept from another try, by rule and backend.",
            BackendCounters::refused_retries,
        ),
        (
            "gamut_route_connect_failures_total",
            "Connections to endpoints that didn't come about, by rule and backend.",
            BackendCounters::connect_failures,
        ),
    ];
    for (name, help, count) in families {
        page.family(name, Kind::Counter, help);
        for (key, counters) in routes {
            page.sample(name, &RouteText::of(key).labels(), count(counters));
        }
    }
}

/// A rule's labels in their printed form.
pub(super) struct RouteText {
    route: String,
    rule: String,
    parent: String,
    backend: String,
}

impl RouteText {
    pub(super) fn of(key: &RouteKey) -> Self {
        let (route, rule) = rule_text(key.origin.as_ref());
        let backend = key.backend.as_ref().map_or(String::new(), ToString::to_string);
        Self { route, rule, parent: key.parent.to_string(), backend }
    }

    pub(super) fn labels(&self) -> [(&'static str, &str); 4] {
        [("route", &self.route), ("rule", &self.rule), ("parent", &self.parent), ("backend", &self.backend)]
    }
}

/// A rule's route, and its name or, without one, its index.
pub(crate) fn rule_text(origin: Option<&gamut_route::table::RuleOrigin>) -> (String, String) {
    let Some(origin) = origin else { return (String::new(), String::new()) };
    (origin.route.to_string(), origin.name.clone().unwrap_or_else(|| origin.index.to_string()))
}

fn protocol_name(protocol: Option<Protocol>) -> &'static str {
    match protocol {
        Some(Protocol::Http) => "http",
        Some(Protocol::Grpc) => "grpc",
        None => "unknown",
    }
}

/// Writes a histogram whose bounds and sum are `unit` milliseconds each.
pub(super) fn histogram(
    page: &mut Page,
    name: &str,
    labels: &[(&str, &str)],
    histogram: &Histogram,
    unit: f64,
) {
    let (bucket, mut count) = (format!("{name}_bucket"), 0);
    let bounds = BOUNDS_MS.iter().map(|bound| (bound / unit).to_string()).chain(["+Inf".to_owned()]);
    for (bound, cumulative) in bounds.zip(histogram.cumulative()) {
        let mut labels = labels.to_vec();
        labels.push(("le", &bound));
        page.sample(&bucket, &labels, cumulative);
        count = cumulative;
    }
    page.sample(&format!("{name}_sum"), labels, histogram.sum_ms() / unit);
    page.sample(&format!("{name}_count"), labels, count);
}
