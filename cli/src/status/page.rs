//! The report as a page.

use std::collections::BTreeMap;

use gamut_injector::INJECT;
use gamut_proxy::{admin::MtlsStatus, telemetry::SessionOutcome};
use jiff::Timestamp;

use super::{Certificate, Ejected, KnownSidecar, Pod, Report, Sidecar};
use crate::{
    output::{Age, Cell, Page, Tone},
    world::{Place, SYSTEM_NAMESPACE},
};

/// `now` is what ages are counted from.
pub(super) fn page(report: &Report, now: Timestamp, wide: bool) -> Page {
    let mut page = Page::default();
    page.say(report.world.line(now), Tone::Faint);
    page.gap();
    if !report.components.is_empty() {
        components(report, &mut page);
        page.gap();
    }
    let heading =
        ["NAMESPACE", "POD", "READY", "RESTARTS", "IDENTITY", "CERTIFICATE", "TABLES", "MTLS", "ADDRESSES"];
    let columns = if wide { heading.len() } else { heading.len() - 2 };
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
        _ if has_ended(pod) => row.extend(["", "", "", ""].map(Cell::from)),
        None => row.extend([Cell::new("not in the mesh", Tone::Faint), "".into(), "".into(), "".into()]),
        Some(Sidecar::Silent(_)) => {
            row.extend([Cell::new("unknown", Tone::Bad), "".into(), "".into(), "".into()])
        }
        Some(Sidecar::Known(sidecar)) => row.extend([
            Cell::from(&sidecar.identity),
            certificate(sidecar.certificate.as_ref(), now),
            tables(sidecar),
            mtls(sidecar.mtls.as_ref()),
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

/// Who may call a pod: `strict` is mesh peers alone, `strict but 9090` everybody else on that port as well.
pub(crate) fn mtls(status: Option<&MtlsStatus>) -> Cell {
    let Some(MtlsStatus { mode, except }) = status else { return Cell::from("-") };
    let ports: Vec<String> = except.iter().map(ToString::to_string).collect();
    match ports.is_empty() {
        true => Cell::from(mode),
        false => Cell::from(format!("{mode} but {}", ports.join(","))),
    }
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
    lines.extend(report.warnings.iter().map(|warning| (warning.clone(), Tone::Doubtful)));
    lines.extend(without_sidecars(report).into_iter().map(|line| (line, Tone::Doubtful)));
    lines.extend(report.waiting_for.iter().map(|what| (format!("waiting for {what}"), Tone::Doubtful)));
    for (i, (line, tone)) in lines.into_iter().enumerate() {
        if i == 0 {
            page.gap();
        }
        page.say(line, tone);
    }
}

/// Namespaces of a `gamut up` none of whose pods has a sidecar: there a label was forgotten. A cluster has many that are meant
/// to be without.
fn without_sidecars(report: &Report) -> Vec<String> {
    if !matches!(report.world, Place::Instance { .. }) {
        return Vec::new();
    }
    let mut namespaces: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let theirs = |pod: &&Pod| pod.namespace != SYSTEM_NAMESPACE && !has_ended(pod);
    for pod in report.pods.iter().filter(theirs) {
        let (pods, meshed) = namespaces.entry(&pod.namespace).or_default();
        *pods += 1;
        *meshed += usize::from(pod.sidecar.is_some());
    }
    let line = |(namespace, (pods, _)): (&str, (usize, usize))| {
        let none = if pods == 1 { "its pod has no sidecar" } else { "none of its pods has a sidecar" };
        format!(
            "namespace {namespace}: {none}; if that isn't meant, give the Namespace the label {INJECT}: enabled"
        )
    };
    namespaces.into_iter().filter(|(_, (_, meshed))| *meshed == 0).map(line).collect()
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
        (0, 0) => page.say(
            format!("no sidecars: pods get theirs when they are made, in namespaces with the label {INJECT}=enabled"),
            Tone::Doubtful,
        ),
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
mod tests;
