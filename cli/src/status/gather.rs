//! Where the report comes from: what the world says of its mesh, with every sidecar's account and the controllers' inside.
//!
//! Whether a sidecar has the newest tables takes both: it knows what it holds and uses, the controller what it was sent.

use std::{collections::BTreeMap, time::Duration};

use gamut_controller::SubscriberStatus;
use gamut_local::control::PodReport;
use gamut_proxy::{
    admin::{CertificateStatus, EndpointsStatus, ProxyStatus},
    tables::{SubscriptionState, TableState},
};
use gamut_route::Uid;
use jiff::Timestamp;

use super::{Certificate, Ejected, KnownSidecar, Pod, Report, Sessions, Sidecar, Tables};
use crate::world::{Mesh, Selection, World};

/// Asks a world.
///
/// # Errors
/// Nobody answers.
pub(super) async fn report(world: &World, selection: &Selection) -> anyhow::Result<Report> {
    let mesh = world.mesh(selection.namespace.as_deref()).await?;
    Ok(of(mesh, |namespace| selection.has(namespace)))
}

/// What a mesh's answers say about the pods of some namespaces.
pub(crate) fn of(mesh: Mesh, shown: impl Fn(&str) -> bool) -> Report {
    let subscribers: Vec<SubscriberStatus> =
        mesh.controllers.into_iter().flat_map(|controller| controller.subscribers).collect();
    let pods: Vec<PodReport> = mesh.pods.into_iter().filter(|pod| shown(&pod.namespace)).collect();
    Report {
        sessions: sessions(&pods),
        world: mesh.world,
        components: mesh.components,
        pods: pods.into_iter().map(|pod| self::pod(pod, &subscribers)).collect(),
        problems: mesh.problems.into_iter().chain(mesh.unasked).collect(),
        warnings: mesh.warnings,
        waiting_for: mesh.waiting_for,
    }
}

/// What all these sidecars counted, of the rules that had requests.
fn sessions(pods: &[PodReport]) -> Vec<Sessions> {
    let mut by_rule: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let proxies = pods.iter().filter_map(|pod| pod.proxy.clone());
    let proxies = proxies.filter_map(|proxy| serde_json::from_value::<ProxyStatus>(proxy).ok());
    for session in proxies.flat_map(|proxy| proxy.sessions) {
        let of = match session.route.is_empty() {
            true => format!("service/{}", session.parent),
            false => format!("{}, rule {}", session.route, session.rule),
        };
        let outcomes = by_rule.entry(of).or_default();
        for (outcome, count) in session.outcomes {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    by_rule.retain(|_, outcomes| outcomes.values().any(|count| *count > 0));
    by_rule.into_iter().map(|(of, outcomes)| Sessions { of, outcomes }).collect()
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
    if let Some(subscriber) = subscriber {
        add_unsaid(&mut tables.behind, &subscriber.behind);
    }
    tables.controller_away = match status.controller {
        Some(SubscriptionState::Connected { .. }) => None,
        Some(SubscriptionState::Away { address, seconds, reason }) => {
            Some(format!("the controller at {address} is away for {seconds}s: {reason}"))
        }
        None => Some("the sidecar is shutting down".to_owned()),
    };
    let ejected = ejected(status.endpoints, Timestamp::now());
    KnownSidecar {
        identity: status.identity,
        mtls: status.mtls,
        certificate: status.certificate.and_then(|certificate| self::certificate(&certificate)),
        renewal_error: status.certificate_problem,
        tables,
        ejected,
    }
}

/// Adds what the controller says is on its way: what the sidecar says it waits for, with what is missing, isn't said again without.
fn add_unsaid(behind: &mut Vec<String>, keys: &[String]) {
    for key in keys {
        let is_it = |said: &String| {
            said.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(" ("))
        };
        if !behind.iter().any(is_it) {
            behind.push(key.clone());
        }
    }
}

/// Sidecars say for how much longer. Those whose time is over at `now` get requests again.
fn ejected(endpoints: Vec<EndpointsStatus>, now: Timestamp) -> Vec<Ejected> {
    let of = |EndpointsStatus { backend, ejected, .. }: EndpointsStatus| {
        ejected.into_iter().filter_map(move |endpoint| {
            let until = now.checked_add(Duration::from_millis(endpoint.milliseconds_left)).ok()?;
            Some(Ejected { backend: backend.clone(), address: endpoint.address, pod: endpoint.pod, until })
        })
    };
    endpoints.into_iter().flat_map(of).collect()
}

/// A certificate begins before it was issued, by what the CA allows clocks to differ.
pub(crate) fn certificate(status: &CertificateStatus) -> Option<Certificate> {
    let time = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
    let issued = time(status.not_before.saturating_add(gamut_ca::authority::BACKDATE.as_secs()))?;
    Some(Certificate { issued, expires: time(status.not_after)? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        status::page,
        world::scripted::{self, component, list},
    };

    #[tokio::test]
    async fn a_cluster_is_shown_like_an_instance_and_silent_sidecars_with_their_reason() {
        let meshed = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "1"},
            "spec": {
                "initContainers": [{"name": "gamut-proxy", "restartPolicy": "Always"}],
                "containers": [{"name": "app"}],
            },
            "status": {
                "phase": "Running", "podIPs": [{"ip": "10.244.0.7"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "initContainerStatuses": [{"name": "gamut-proxy", "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"name": "app", "restartCount": 2, "state": {"running": {}}}],
            },
        });
        let job = json!({
            "metadata": {"namespace": "shop", "name": "job-1"}, "spec": {}, "status": {"phase": "Succeeded"},
        });
        let plain = json!({
            "metadata": {"namespace": "shop", "name": "legacy"},
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Pending"},
        });
        let pods = [component("controller", true), component("ca", false), meshed, job, plain];
        let world = scripted::world(vec![
            ("/version", json!({"gitVersion": "v1.34.4"})),
            ("/api/v1/pods", list(&pods)),
        ]);
        let report = report(&world, &Selection::default()).await.unwrap();
        let page = page::page(&report, "2026-01-31T12:00:00Z".parse().unwrap(), false);
        insta::assert_snapshot!(page.render(false));
        let data = serde_json::to_value(&report).unwrap();
        let expected = json!({"kind": "cluster", "context": "test", "server": "https://10.0.0.10:6443", "version": "v1.34.4"});
        assert_eq!(data["world"], expected);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_answer_is_one_line_with_its_context() {
        let world = scripted::unreachable();
        let error = report(&world, &Selection::default()).await.unwrap_err();
        let line = crate::failure::one_line(&error);
        assert_eq!(
            line,
            "context test (https://10.0.0.10:6443): GET /version: no answer: Error reading events stream: connection refused"
        );
    }

    fn counted(rule: &str, kept: u64, moved: u64) -> serde_json::Value {
        json!({
            "route": "httproute/shop/web", "rule": rule, "parent": "shop/web:80",
            "outcomes": [["kept", kept], ["moved", moved]],
        })
    }

    fn pod(sessions: &[serde_json::Value]) -> PodReport {
        serde_json::from_value(json!({
            "namespace": "shop", "name": "client", "uid": "1", "workload": "client", "node": "", "ips": [], "phase": "Running", "ready": true,
            "terminating": false, "meshed": true, "containers": [],
            "proxy": {
                "identity": "spiffe://cluster.local/ns/shop/sa/client", "ready": {"ready": true}, "tables": [], "backends": [],
                "sessions": sessions,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_table_that_waits_for_another_is_behind_once() {
        let waits = "RouteTable shop/web:80 for shop (until it has EndpointSet shop/new:80)".to_owned();
        let mut behind = vec![waits.clone()];
        let keys = ["RouteTable shop/web:80 for shop", "RouteTable shop/web:8"].map(str::to_owned);
        add_unsaid(&mut behind, &keys);
        assert_eq!(behind, [waits, keys[1].clone()]);
    }

    #[test]
    fn an_ejected_endpoint_is_told_with_its_backend_its_pod_and_its_end() {
        let endpoints = json!([
            {"backend": "shop/api:80", "inFlight": 1, "connecting": 0, "shed": 0, "ejections": 0, "ejected": []},
            {"backend": "shop/web:80", "inFlight": 0, "connecting": 0, "shed": 0, "ejections": 2, "ejected": [
                {"address": "10.244.0.5:8080", "pod": "web-1", "millisecondsLeft": 5200},
                {"address": "192.0.2.7:80", "millisecondsLeft": 180_000},
            ]},
        ]);
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        let told = serde_json::to_value(ejected(serde_json::from_value(endpoints).unwrap(), now)).unwrap();
        let expected = json!([
            {"backend": "shop/web:80", "address": "10.244.0.5:8080", "pod": "web-1", "until": "2026-01-31T12:00:05.2Z"},
            {"backend": "shop/web:80", "address": "192.0.2.7:80", "pod": null, "until": "2026-01-31T12:03:00Z"},
        ]);
        assert_eq!(told, expected);
    }

    #[test]
    fn the_sessions_of_a_rule_are_those_of_all_sidecars_and_rules_without_any_are_left_out() {
        let pods = [pod(&[counted("split", 10, 1), counted("quiet", 0, 0)]), pod(&[counted("split", 5, 0)])];
        let outcomes = BTreeMap::from([("kept".to_owned(), 15), ("moved".to_owned(), 1)]);
        let of = "httproute/shop/web, rule split".to_owned();
        assert_eq!(sessions(&pods), [Sessions { of, outcomes }]);
    }
}
