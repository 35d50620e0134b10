//! The report as a page.

use gamut_proxy::telemetry::SessionOutcome;
use jiff::Timestamp;

use super::{Certificate, Ejected, KnownSidecar, Pod, Report, Sidecar};
use crate::output::{Age, Cell, Page, Tone};

/// `now` is what ages are counted from.
pub(super) fn page(report: &Report, now: Timestamp, wide: bool) -> Page {
    let mut page = Page::default();
    page.say(report.world.line(now), Tone::Faint);
    page.gap();
    if !report.components.is_empty() {
        components(report, &mut page);
        page.gap();
    }
    let heading = ["NAMESPACE", "POD", "READY", "RESTARTS", "IDENTITY", "CERTIFICATE", "TABLES", "ADDRESSES"];
    let columns = if wide { heading.len() } else { heading.len() - 1 };
    let rows = report.pods.iter().map(|pod| {
        let mut row = row(pod, now);
        row.truncate(columns);
        row
    });
    page.table(0, heading.get(..columns).unwrap_or(&heading), rows);
    sessions(report, &mut page);
    lists(report, now, &mut page);
    page.gap();
    verdict(report, now, &mut page);
    page
}

/// In a cluster each has a pod.
fn components(report: &Report, page: &mut Page) {
    let in_pods = report.components.iter().any(|component| component.pod.is_some());
    let heading: &[&str] = match in_pods {
        true => &["COMPONENT", "READY", "RESTARTS", "POD"],
        false => &["COMPONENT", "READY", "RESTARTS"],
    };
    let rows = report.components.iter().map(|component| {
        vec![
            Cell::from(&component.name),
            yes_or(component.ready, Tone::Bad),
            restarts(component.restarts),
            Cell::from(component.pod.as_deref().unwrap_or_default()),
        ]
    });
    page.table(0, heading, rows);
}

fn row(pod: &Pod, now: Timestamp) -> Vec<Cell> {
    let mut row = vec![
        Cell::from(&pod.namespace),
        Cell::from(&pod.name),
        if pod.phase == "Running" {
            yes_or(pod.ready, Tone::Doubtful)
        } else {
            match pod.phase.as_str() {
                "Succeeded" => Cell::new("Completed", Tone::Faint),
                phase => Cell::new(phase, Tone::Doubtful),
            }
        },
        restarts(pod.restarts),
    ];
    match &pod.sidecar {
        _ if has_ended(pod) => row.extend(["".into(), "".into(), "".into()]),
        None => row.extend([Cell::new("not in the mesh", Tone::Faint), "".into(), "".into()]),
        Some(Sidecar::Silent(_)) => row.extend([Cell::new("unknown", Tone::Bad), "".into(), "".into()]),
        Some(Sidecar::Known(sidecar)) => row.extend([
            Cell::from(&sidecar.identity),
            certificate(sidecar.certificate.as_ref(), now),
            tables(sidecar),
        ]),
    }
    row.push(Cell::from(pod.ips.join(",")));
    row
}

/// What became of sessions; nothing where there were none.
fn sessions(report: &Report, page: &mut Page) {
    if report.sessions.is_empty() {
        return;
    }
    let names = SessionOutcome::ALL.map(SessionOutcome::as_str);
    let heading: Vec<String> =
        std::iter::once("sessions of").chain(names).map(str::to_ascii_uppercase).collect();
    let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
    let rows = report.sessions.iter().map(|sessions| {
        let counts = names.map(|name| Cell::from(sessions.outcomes.get(name).copied().unwrap_or_default()));
        std::iter::once(Cell::from(&sessions.of)).chain(counts).collect()
    });
    page.gap();
    page.table(0, &heading, rows);
}

/// How long a certificate is still good.
pub(crate) fn certificate(certificate: Option<&Certificate>, now: Timestamp) -> Cell {
    match certificate {
        None => Cell::new("none yet", Tone::Bad),
        Some(certificate) if certificate.expires <= now => {
            Cell::new(format!("expired {} ago", Age::between(certificate.expires, now)), Tone::Bad)
        }
        Some(certificate) => {
            let (age, left) = (Age::between(certificate.issued, now), Age::between(now, certificate.expires));
            Cell::new(format!("{age} old, {left} left"), Tone::Plain)
        }
    }
}

fn tables(sidecar: &KnownSidecar) -> Cell {
    let tables = &sidecar.tables;
    match (tables.refused.len(), tables.behind.len(), &tables.controller_away) {
        (0, 0, None) if tables.subscribed == 0 => Cell::new("none yet", Tone::Bad),
        (0, 0, None) => Cell::new(format!("newest ({})", tables.subscribed), Tone::Good),
        (0, 0, Some(_)) => Cell::new(format!("last known ({})", tables.subscribed), Tone::Doubtful),
        (0, behind, _) => Cell::new(format!("{behind} of {} behind", tables.subscribed), Tone::Doubtful),
        (refused, _, _) => Cell::new(format!("{refused} of {} refused", tables.subscribed), Tone::Bad),
    }
}

/// Everything that doesn't fit into a column, a line each.
fn lists(report: &Report, now: Timestamp, page: &mut Page) {
    let mut lines = Vec::new();
    for pod in report.pods.iter().filter(|pod| !has_ended(pod)) {
        let pod_name = format!("{}/{}", pod.namespace, pod.name);
        match &pod.sidecar {
            Some(Sidecar::Silent(reason)) => lines.push((format!("{pod_name}: {reason}"), Tone::Bad)),
            Some(Sidecar::Known(sidecar)) => {
                let renewal = sidecar
                    .renewal_error
                    .iter()
                    .map(|why| (format!("{pod_name}: renewing the certificate: {why}"), Tone::Bad));
                let refused = sidecar
                    .tables
                    .refused
                    .iter()
                    .map(|table| (format!("{pod_name}: refused {table}"), Tone::Bad));
                let behind = sidecar
                    .tables
                    .behind
                    .iter()
                    .map(|table| (format!("{pod_name}: waits for {table}"), Tone::Doubtful));
                let away = sidecar
                    .tables
                    .controller_away
                    .iter()
                    .map(|why| (format!("{pod_name}: {why}"), Tone::Doubtful));
                let ejected = sidecar
                    .ejected
                    .iter()
                    .map(|endpoint| (format!("{pod_name}: {}", left_aside(endpoint, now)), Tone::Doubtful));
                lines.extend(renewal.chain(refused).chain(behind).chain(away).chain(ejected));
            }
            None => {}
        }
    }
    lines.extend(report.problems.iter().map(|problem| (problem.clone(), Tone::Bad)));
    lines.extend(report.waiting_for.iter().map(|what| (format!("waiting for {what}"), Tone::Doubtful)));
    for (i, (line, tone)) in lines.into_iter().enumerate() {
        if i == 0 {
            page.gap();
        }
        page.say(line, tone);
    }
}

/// `web-1 (10.244.0.5:8080) of shop/web:80 gets nothing for 12s: requests to it failed`.
fn left_aside(endpoint: &Ejected, now: Timestamp) -> String {
    let Ejected { backend, address, pod, until } = endpoint;
    let name = pod.as_ref().map_or_else(|| address.to_string(), |pod| format!("{pod} ({address})"));
    format!("{name} of {backend} gets nothing for {}: requests to it failed", Age::between(now, *until))
}

fn has_expired(sidecar: &Sidecar, now: Timestamp) -> bool {
    match sidecar {
        Sidecar::Known(known) => known.certificate.as_ref().is_some_and(|it| it.expires <= now),
        Sidecar::Silent(_) => false,
    }
}

fn verdict(report: &Report, now: Timestamp, page: &mut Page) {
    let live = report.pods.iter().filter(|pod| !has_ended(pod));
    let sidecars = live.filter_map(|pod| pod.sidecar.as_ref());
    let newest = |sidecar: &Sidecar| matches!(sidecar, Sidecar::Known(known) if known.tables.newest());
    let (good, behind): (Vec<&Sidecar>, Vec<&Sidecar>) = sidecars.partition(|sidecar| newest(sidecar));
    let expired = good.iter().filter(|sidecar| has_expired(sidecar, now)).count();
    match (good.len(), behind.len()) {
        (0, 0) => page.say("no sidecars", Tone::Doubtful),
        (good, 0) if expired > 0 => page.say(
            format!("the certificates of {expired} of {good} sidecars have expired; `gamut check --proxy` says what to do"),
            Tone::Bad,
        ),
        (good, 0) => page.say(format!("all {good} sidecars have the newest tables"), Tone::Good),
        (good, behind) => page.say(
            format!("{behind} of {} sidecars don't have the newest tables", good + behind),
            Tone::Doubtful,
        ),
    }
}

/// A pod of a Job that is over, or one that goes and whose sidecar has gone ahead: nobody waits for it.
fn has_ended(pod: &Pod) -> bool {
    match pod.phase.as_str() {
        "Succeeded" | "Failed" => true,
        "Terminating" => matches!(pod.sidecar, Some(Sidecar::Silent(_))),
        _ => false,
    }
}

fn yes_or(yes: bool, otherwise: Tone) -> Cell {
    if yes { Cell::new("yes", Tone::Good) } else { Cell::new("no", otherwise) }
}

fn restarts(count: u32) -> Cell {
    Cell::new(count, if count == 0 { Tone::Plain } else { Tone::Doubtful })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        status::{Sessions, Tables},
        world::{Component, Place},
    };

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, sidecar: Option<Sidecar>) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            ips: vec!["10.244.0.7".to_owned(), "fd00:244::7".to_owned()],
            phase: "Running".to_owned(),
            ready: true,
            restarts: 0,
            sidecar,
        }
    }

    fn sidecar(certificate: Option<(&str, &str)>, tables: Tables) -> Option<Sidecar> {
        Some(Sidecar::Known(KnownSidecar {
            identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
            certificate: certificate.map(|(from, to)| Certificate {
                issued: from.parse().unwrap(),
                expires: to.parse().unwrap(),
            }),
            renewal_error: None,
            tables,
            ejected: Vec::new(),
        }))
    }

    fn report(pods: Vec<Pod>) -> Report {
        let component = |name: &str| Component {
            name: name.to_owned(),
            pod: None,
            ready: true,
            restarts: 0,
            died_of: None,
            trouble: None,
            runs: true,
        };
        Report {
            world: Place::Instance {
                name: "default".to_owned(),
                started: "2026-01-31T11:47:10Z".parse().unwrap(),
                paths: vec!["examples/canary".to_owned()],
            },
            components: vec![component("ca"), component("controller")],
            pods,
            sessions: Vec::new(),
            problems: Vec::new(),
            waiting_for: Vec::new(),
        }
    }

    const GOOD: Option<(&str, &str)> = Some(("2026-01-31T11:48:00Z", "2026-02-01T11:48:00Z"));
    const EXPIRED: Option<(&str, &str)> = Some(("2026-01-30T10:00:00Z", "2026-01-31T10:00:00Z"));

    #[test]
    fn a_healthy_mesh_is_a_table_and_one_good_line() {
        let newest = Tables { subscribed: 9, ..Tables::default() };
        let report = report(vec![
            pod("web-1", sidecar(GOOD, newest.clone())),
            pod("web-2", sidecar(GOOD, newest)),
            pod("legacy", None),
        ]);
        insta::assert_snapshot!(page(&report, now(), false).render(false));
        insta::assert_snapshot!("wide", page(&report, now(), true).render(false));
    }

    #[test]
    fn a_clusters_components_are_shown_with_their_pods() {
        let newest = Tables { subscribed: 9, ..Tables::default() };
        let mut report = report(vec![pod("web-1", sidecar(GOOD, newest))]);
        report.world = Place::Cluster {
            context: "kind".to_owned(),
            server: "https://10.0.0.10:6443".to_owned(),
            version: "v1.34.4".to_owned(),
        };
        for component in &mut report.components {
            component.pod = Some(format!("gamut-{}-5d4f-x", component.name));
        }
        insta::assert_snapshot!(page(&report, now(), false).render(false));
    }

    #[test]
    fn pods_that_are_over_are_shown_as_such_and_not_waited_for() {
        let newest = Tables { subscribed: 9, ..Tables::default() };
        let mut done = pod("job-1", Some(Sidecar::Silent("its sidecar hasn't started yet".to_owned())));
        done.phase = "Succeeded".to_owned();
        let mut going =
            pod("web-0", Some(Sidecar::Silent("its sidecar can't be asked: pod not found".to_owned())));
        going.phase = "Terminating".to_owned();
        let pods = vec![pod("web-1", sidecar(GOOD, newest)), done, going];
        let text = page(&report(pods), now(), false).render(false);
        assert!(text.contains("job-1  Completed"), "{text}");
        assert!(text.contains("all 1 sidecars have the newest tables"), "{text}");
        assert!(!text.contains("hasn't started") && !text.contains("not found"), "{text}");
    }

    #[test]
    fn sidecars_with_the_newest_tables_and_an_old_certificate_are_not_said_to_be_well() {
        let newest = Tables { subscribed: 9, ..Tables::default() };
        let pods = vec![pod("web-1", sidecar(GOOD, newest.clone())), pod("web-2", sidecar(EXPIRED, newest))];
        let text = page(&report(pods), now(), false).render(false);
        assert!(text.contains("the certificates of 1 of 2 sidecars have expired"), "{text}");
        assert!(!text.contains("all 2 sidecars"), "{text}");
    }

    #[test]
    fn whatever_is_wrong_has_its_line() {
        let behind = Tables {
            subscribed: 9,
            behind: vec!["RouteTable shop/web:80 for shop".to_owned()],
            refused: vec!["RouteTable shop/api:80 for shop: rule 3 has no backend".to_owned()],
            controller_away: None,
        };
        let away = Tables {
            subscribed: 9,
            controller_away: Some("the controller is away for 4s".to_owned()),
            ..Tables::default()
        };
        let expired = Some(("2026-01-30T10:00:00Z", "2026-01-31T10:00:00Z"));
        let mut report = report(vec![
            pod("behind", sidecar(GOOD, behind)),
            pod("away", sidecar(expired, away)),
            pod("new", sidecar(None, Tables::default())),
            pod("silent", Some(Sidecar::Silent("its sidecar doesn't answer".to_owned()))),
        ]);
        report.pods[2].ready = false;
        report.pods[3].phase = "Pending".to_owned();
        report.components[1].ready = false;
        report.components[1].restarts = 2;
        report.problems =
            vec!["web.yaml:3: Deployment shop/web: spec.replicas: \"two\" is no number".to_owned()];
        report.waiting_for = vec!["pod shop/new".to_owned()];
        insta::assert_snapshot!(page(&report, now(), false).render(false));
    }

    #[test]
    fn endpoints_that_get_nothing_are_told_with_whose_they_are_and_for_how_long() {
        let mut calling = sidecar(GOOD, Tables { subscribed: 9, ..Tables::default() });
        let Some(Sidecar::Known(known)) = &mut calling else { panic!("a sidecar") };
        let ejected = |pod: Option<&str>, seconds: i64| Ejected {
            backend: "shop/web:80".to_owned(),
            address: "10.244.0.5:8080".parse().unwrap(),
            pod: pod.map(str::to_owned),
            until: now() + jiff::SignedDuration::from_secs(seconds),
        };
        known.ejected = vec![ejected(Some("web-1"), 12), ejected(None, 180)];
        let text = page(&report(vec![pod("client", calling)]), now(), false).render(false);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("gets nothing")).collect();
        assert_eq!(
            lines,
            [
                "shop/client: web-1 (10.244.0.5:8080) of shop/web:80 gets nothing for 12s: requests to it failed",
                "shop/client: 10.244.0.5:8080 of shop/web:80 gets nothing for 3m: requests to it failed",
            ]
        );
    }

    #[test]
    fn sessions_have_a_table_of_their_own_where_there_were_any() {
        let mut report = report(Vec::new());
        let outcomes = [("kept", 1890), ("started", 12), ("moved", 3), ("foreign", 1)];
        report.sessions = vec![Sessions {
            of: "httproute/shop/web, rule split".to_owned(),
            outcomes: outcomes.map(|(name, count)| (name.to_owned(), count)).into(),
        }];
        let page = page(&report, now(), false).render(false);
        let lines: Vec<&str> =
            page.lines().filter(|line| line.contains("MOVED") || line.contains("split")).collect();
        assert_eq!(
            lines,
            [
                "SESSIONS OF                     KEPT  STARTED  MOVED  EXPIRED  MALFORMED  FOREIGN",
                "httproute/shop/web, rule split  1890  12       3      0        0          1",
            ]
        );
    }
}
