//! The sidecar's own account of itself: what `/status` answers and `gamut status` reads.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gamut_controller_api::{InboundPolicy, MtlsMode};
use gamut_identity::Identity;
use gamut_route::BackendId;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    tables::{SubscriptionState, TableState, TableStatus, Tables},
    telemetry::{Direction, EjectedEndpoint, EndpointCounters, StatusClasses, Telemetry, rule_text},
};

/// Everything that a sidecar tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// Who it is.
    pub identity: String,
    /// What proves it; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// Why the newest try to get a certificate failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_problem: Option<String>,
    /// The roots that it trusts; none before its first certificate.
    #[serde(default)]
    pub roots: Vec<RootStatus>,
    /// Whether it takes traffic.
    pub ready: Readiness,
    /// Who may call its app, by the policy that is in force; none before it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsStatus>,
    /// How it stands with the controller; none while it is shutting down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<SubscriptionState>,
    /// What it holds of what the controller serves.
    pub tables: Vec<TableStatus>,
    /// What each rule sent where.
    pub backends: Vec<BackendStatus>,
    /// What goes on at each backend's endpoints, whichever rule sent it.
    #[serde(default)]
    pub endpoints: Vec<EndpointsStatus>,
    /// What became of sessions.
    pub sessions: Vec<SessionStatus>,
    /// Connections that were kept waiting, because neither side said by which protocol it speaks.
    #[serde(default)]
    pub detect_timeouts: u64,
    /// Connections that our app opened.
    #[serde(default)]
    pub outbound: ConnectionsStatus,
    /// Connections that were opened to our app.
    #[serde(default)]
    pub inbound: ConnectionsStatus,
}

/// The connections of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionsStatus {
    /// Those since the sidecar started.
    pub opened: u64,
    /// Those that are open now.
    pub open: u64,
}

/// Who may call an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MtlsStatus {
    /// The mode of every port but those below.
    pub mode: MtlsMode,
    /// Ports of the other mode.
    pub except: Vec<u16>,
}

/// A certificate's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it began, in seconds since 1970.
    pub not_before: u64,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
}

/// A root that is trusted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// Whose it is.
    pub subject: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
}

/// Whether the sidecar takes traffic, and what it waits for if not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// True once there are a certificate, the inbound policy and the tables of the own namespace.
    pub ready: bool,
    /// What is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
}

/// What a rule sent to one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendStatus {
    /// The route, as `kind/namespace/name`; empty where the Service has none.
    pub route: String,
    /// The rule's name or, without one, its index.
    pub rule: String,
    /// The Service and port that the app addressed.
    pub parent: String,
    /// Where the requests went; empty for those that the rule, or no rule, answered by itself.
    pub backend: String,
    /// All of them.
    pub requests: u64,
    /// The same by class of status.
    pub by_class: StatusClasses,
    /// The same by how long they took: as many in each bucket of [`crate::telemetry::BOUNDS_MS`], zeros at the end left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub durations: Vec<u64>,
    /// Connections of opaque bytes.
    pub connections: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Connections to endpoints that didn't come about.
    pub connect_failures: u64,
}

/// What goes on at the endpoints of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsStatus {
    /// The backend.
    pub backend: String,
    /// Requests that aren't answered to their end, and connections of other bytes.
    pub in_flight: u32,
    /// Connections that are being opened.
    pub connecting: u32,
    /// Requests that a limit turned away.
    pub shed: u64,
    /// How often an endpoint was ejected because requests to it failed.
    pub ejections: u64,
    /// Who is ejected now.
    pub ejected: Vec<EjectedStatus>,
}

/// An endpoint that gets nothing for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EjectedStatus {
    /// Its address.
    pub address: SocketAddr,
    /// Its pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// For how much longer, in milliseconds.
    pub milliseconds_left: u64,
}

/// What became of the sessions of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// As [`BackendStatus::route`].
    pub route: String,
    /// As [`BackendStatus::rule`].
    pub rule: String,
    /// The Service and port that the app addressed.
    pub parent: String,
    /// How often each outcome was, by name.
    pub outcomes: Vec<(String, u64)>,
}

impl ProxyStatus {
    /// Asks everybody.
    pub async fn collect(identity: &Identity, tables: &Tables, telemetry: &Telemetry) -> Self {
        let held = tables.status().await;
        let (controller, held) = held.map_or((None, Vec::new()), |held| (Some(held.controller), held.tables));
        Self {
            identity: identity.id().to_string(),
            certificate: certificate(identity),
            certificate_problem: identity.status().borrow().problem.as_ref().map(ToString::to_string),
            roots: roots(identity),
            ready: readiness(identity, tables),
            mtls: tables.policy().map(|policy| mtls(&policy)),
            controller,
            tables: held,
            backends: backends(telemetry),
            endpoints: endpoints(telemetry),
            sessions: sessions(telemetry),
            detect_timeouts: telemetry.detect_timeouts(),
            outbound: connections(telemetry, Direction::Outbound),
            inbound: connections(telemetry, Direction::Inbound),
        }
    }

    /// True when nothing that the controller sent is waiting or refused.
    pub fn in_sync(&self) -> bool {
        self.tables.iter().all(|table| table.state == TableState::Active)
    }
}

/// Whether the sidecar takes traffic, and what it waits for if not.
pub fn readiness(identity: &Identity, tables: &Tables) -> Readiness {
    let wanted = [
        (identity.certificate().is_some(), "a certificate from the CA"),
        (tables.policy().is_some(), "the inbound policy from the controller"),
        (tables.loaded(), "the tables of its namespace from the controller"),
    ];
    let waiting_for: Vec<String> =
        wanted.into_iter().filter(|(is_there, _)| !is_there).map(|(_, what)| what.to_owned()).collect();
    Readiness { ready: waiting_for.is_empty(), waiting_for }
}

fn mtls(policy: &InboundPolicy) -> MtlsStatus {
    let others = policy.ports.iter().filter(|(_, port)| port.mode != policy.mode);
    MtlsStatus { mode: policy.mode, except: others.map(|(number, _)| *number).collect() }
}

fn certificate(identity: &Identity) -> Option<CertificateStatus> {
    let certificate = identity.certificate()?;
    Some(CertificateStatus {
        serial: certificate.serial().to_owned(),
        not_before: seconds(certificate.not_before()),
        not_after: seconds(certificate.not_after()),
    })
}

fn roots(identity: &Identity) -> Vec<RootStatus> {
    let roots = identity.roots().map(|roots| roots.described()).unwrap_or_default();
    let root = |root: gamut_identity::Root| RootStatus {
        subject: root.subject,
        serial: root.serial,
        not_after: root.not_after.try_into().unwrap_or(0),
    };
    roots.into_iter().map(root).collect()
}

/// Seconds since 1970; 0 before.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn backends(telemetry: &Telemetry) -> Vec<BackendStatus> {
    let of =
        |(key, counters): (crate::telemetry::RouteKey, std::sync::Arc<crate::telemetry::BackendCounters>)| {
            let (route, rule) = rule_text(key.origin.as_ref());
            let by_class = counters.by_class();
            BackendStatus {
                route,
                rule,
                parent: key.parent.to_string(),
                backend: key.backend.map_or(String::new(), |backend| backend.to_string()),
                requests: by_class.total(),
                by_class,
                durations: without_last_zeros(counters.durations()),
                connections: counters.tcp_connections(),
                retries: counters.retries(),
                connect_failures: counters.connect_failures(),
            }
        };
    telemetry.routes().into_iter().map(of).collect()
}

fn without_last_zeros(mut counts: Vec<u64>) -> Vec<u64> {
    counts.truncate(counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
    counts
}

fn connections(telemetry: &Telemetry, direction: Direction) -> ConnectionsStatus {
    let (opened, open) = telemetry.connections(direction);
    ConnectionsStatus { opened, open }
}

fn endpoints(telemetry: &Telemetry) -> Vec<EndpointsStatus> {
    let now = Instant::now();
    let ejected = |ejected: EjectedEndpoint| EjectedStatus {
        address: ejected.address,
        pod: ejected.pod,
        milliseconds_left: u64::try_from((ejected.until - now).as_millis()).unwrap_or(u64::MAX),
    };
    let of = |(backend, counters): (BackendId, Arc<EndpointCounters>)| EndpointsStatus {
        backend: backend.to_string(),
        in_flight: counters.in_flight(),
        connecting: counters.connecting(),
        shed: counters.all_shed().map(|(_, count)| count).sum(),
        ejections: counters.ejections(),
        ejected: counters.ejected_at(now).into_iter().map(ejected).collect(),
    };
    telemetry.all_endpoints().into_iter().map(of).collect()
}

fn sessions(telemetry: &Telemetry) -> Vec<SessionStatus> {
    let of = |(key, counters): (
        crate::telemetry::SessionKey,
        std::sync::Arc<crate::telemetry::SessionCounters>,
    )| {
        let (route, rule) = rule_text(key.origin.as_ref());
        let outcomes = counters.counts().map(|(outcome, count)| (outcome.as_str().to_owned(), count));
        SessionStatus { route, rule, parent: key.parent.to_string(), outcomes: outcomes.collect() }
    };
    telemetry.sessions().into_iter().map(of).collect()
}
