//! Where the report comes from: the node's own account, with every sidecar's and the controller's inside.
//!
//! Whether a sidecar has the newest tables takes both: it knows what it holds and uses, the controller what it was sent.

use gamut_controller::{ControllerStatus, SubscriberStatus};
use gamut_local::control::{PodReport, Status};
use gamut_proxy::{
    admin::{CertificateStatus, ProxyStatus},
    tables::{SubscriptionState, TableState},
};
use gamut_route::Uid;
use jiff::Timestamp;

use super::{Certificate, Component, KnownSidecar, Pod, Report, Sidecar, Tables};
use crate::instance::Selection;

/// Asks the instance.
///
/// # Errors
/// There is no such instance, or it broke off.
pub(super) fn report(selection: &Selection) -> anyhow::Result<Report> {
    Ok(of(selection.client().status()?, selection))
}

fn of(status: Status, selection: &Selection) -> Report {
    let controller =
        status.controller.and_then(|value| serde_json::from_value::<ControllerStatus>(value).ok());
    let subscribers = controller.map(|controller| controller.subscribers).unwrap_or_default();
    let shown = status.pods.into_iter().filter(|pod| selection.has(&pod.namespace));
    let component = |report: gamut_local::control::ComponentReport| Component {
        name: report.name,
        ready: report.ready,
        restarts: report.restarts,
    };
    Report {
        instance: status.instance,
        started: status.started,
        paths: status.paths.iter().map(|path| path.display().to_string()).collect(),
        components: status.components.into_iter().map(component).collect(),
        pods: shown.map(|pod| self::pod(pod, &subscribers)).collect(),
        problems: status.problems,
        waiting_for: status.waiting_for,
    }
}

fn pod(pod: PodReport, subscribers: &[SubscriberStatus]) -> Pod {
    let subscriber = subscribers.iter().find(|subscriber| subscriber.uid == Uid::of(&pod.uid));
    let sidecar = pod.meshed.then(|| sidecar(&pod, subscriber));
    let restarts = pod.containers.iter().map(|container| container.restarts).sum();
    let phase = if pod.terminating { "Terminating".to_owned() } else { pod.phase };
    Pod { namespace: pod.namespace, name: pod.name, ips: pod.ips, phase, ready: pod.ready, restarts, sidecar }
}

/// What the sidecar of a meshed pod says, or why it says nothing.
fn sidecar(pod: &PodReport, subscriber: Option<&SubscriberStatus>) -> Sidecar {
    let Some(status) = &pod.proxy else {
        let reason = pod.proxy_error.clone().unwrap_or_else(|| "its sidecar hasn't started yet".to_owned());
        return Sidecar::Silent(reason);
    };
    match serde_json::from_value::<ProxyStatus>(status.clone()) {
        Ok(status) => Sidecar::Known(known(status, subscriber)),
        Err(error) => Sidecar::Silent(format!("its sidecar speaks another version of /status: {error}")),
    }
}

fn known(status: ProxyStatus, subscriber: Option<&SubscriberStatus>) -> KnownSidecar {
    let mut tables = Tables { subscribed: status.tables.len(), ..Tables::default() };
    for table in status.tables {
        match table.state {
            TableState::Active => {}
            TableState::Pending { missing } if missing == [table.key.as_str()] => {
                tables.behind.push(table.key)
            }
            TableState::Pending { missing } => {
                tables.behind.push(format!("{} (until it has {})", table.key, missing.join(", ")));
            }
            TableState::Refused { reason } => tables.refused.push(format!("{}: {reason}", table.key)),
        }
    }
    for key in subscriber.iter().flat_map(|subscriber| &subscriber.behind) {
        if !tables.behind.contains(key) {
            tables.behind.push(key.clone());
        }
    }
    tables.controller_away = match status.controller {
        Some(SubscriptionState::Connected { .. }) => None,
        Some(SubscriptionState::Away { address, seconds, reason }) => {
            Some(format!("the controller at {address} is away for {seconds}s: {reason}"))
        }
        None => Some("the sidecar is shutting down".to_owned()),
    };
    KnownSidecar {
        identity: status.identity,
        certificate: status.certificate.and_then(|certificate| self::certificate(&certificate)),
        renewal_error: status.certificate_problem,
        tables,
    }
}

/// A certificate begins before it was issued, by what the CA allows clocks to differ.
fn certificate(status: &CertificateStatus) -> Option<Certificate> {
    let time = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
    let issued = time(status.not_before.saturating_add(gamut_ca::authority::BACKDATE.as_secs()))?;
    Some(Certificate { issued, expires: time(status.not_after)? })
}
