//! The mesh's own pods: whether they run, whether one leads, and what their clocks show.

use gamut_ca::CaStatus;
use gamut_webhook::{CaBundle, InjectorStatus};
use jiff::Timestamp;

use super::{
    Facts, Finding, Read, count,
    facts::{namespace, text},
    few, unknown, unread,
};
use crate::world::{COMPONENTS, Component, Mesh, OwnStatus, SYSTEM_NAMESPACE};

const WHAT: &str = "control plane";

/// By how many seconds this machine's clock may differ before it is said.
const LOCAL_SKEW: i64 = 10;
/// How soon, in seconds, the end of what the CA signs with is a warning: two weeks.
const SIGNING_LEFT: i64 = 14 * 24 * 60 * 60;
const RENEW: &str = "no certificate outlives it: put a newer one into its Secret, early enough for the roots to spread; certificates that there are stay good until their end";
/// How old a renewal of the Lease may look: it is renewed every 4 s and may be given away after 15.
const RENEWED: std::ops::RangeInclusive<i64> = -3..=17;

/// That nothing is installed yet, or what is.
pub(super) fn absent(facts: &Facts) -> Finding {
    match components(facts) {
        Err(reason) => unknown(WHAT, &reason),
        Ok(components) if components.is_empty() => Finding::ok(WHAT, "not installed yet"),
        Ok(components) => Finding::warning(
            WHAT,
            format!("installed already: {}", count(components.len(), "pod")),
            "`gamut check` without --pre examines it; `helm upgrade` changes it",
        ),
    }
}

/// The mesh's own pods.
pub(super) fn components(facts: &Facts) -> Read<Vec<Component>> {
    let pods = facts.pods.as_ref().map_err(Clone::clone)?;
    let own: Vec<_> = pods.iter().filter(|pod| namespace(pod) == SYSTEM_NAMESPACE).cloned().collect();
    Ok(crate::world::components(&own))
}

/// Whether each component has pods that are ready.
pub(super) fn ready(components: &Read<Vec<Component>>) -> Vec<Finding> {
    let components = match components {
        Err(_) => return unread(WHAT, components).into_iter().collect(),
        Ok(components) if components.is_empty() => {
            return vec![Finding::failed(
                WHAT,
                format!("not installed: namespace {SYSTEM_NAMESPACE} has none of its pods"),
                "helm install gamut charts/gamut -n gamut-system --create-namespace; `gamut check --pre` says whether that can work",
            )];
        }
        Ok(components) => components,
    };
    COMPONENTS.iter().map(|name| of_component(name, components)).collect()
}

fn of_component(name: &'static str, components: &[Component]) -> Finding {
    let pods: Vec<&Component> = components.iter().filter(|component| component.name == name).collect();
    let ready = pods.iter().filter(|component| component.ready).count();
    let restarts: u32 = pods.iter().map(|component| component.restarts).sum();
    let detail = match restarts {
        0 => format!("{ready} of {} ready", count(pods.len(), "pod")),
        restarts => format!("{ready} of {} ready, {restarts} restarts", count(pods.len(), "pod")),
    };
    let look = format!(
        "kubectl -n {SYSTEM_NAMESPACE} get pods,events; kubectl -n {SYSTEM_NAMESPACE} logs deployment/gamut-{name}"
    );
    let detail = match pods.iter().filter(|component| !component.ready).find_map(|it| it.died_of.as_ref()) {
        Some(words) => format!("{detail}; its last words: {words}"),
        None => detail,
    };
    match (pods.len(), ready) {
        (0, _) => Finding::failed(
            name,
            format!("no pod of service account gamut-{name}"),
            format!("helm upgrade puts it back; if its Deployment is there: {look}"),
        ),
        (_, 0) => Finding::failed(name, detail, look),
        (pods, ready) if ready < pods => Finding::warning(name, detail, look),
        _ => Finding::ok(name, detail),
    }
}

/// What controllers say about themselves.
pub(super) fn controllers(mesh: &Mesh) -> Vec<Finding> {
    const WHAT: &str = "controllers";
    let mut findings = Vec::new();
    let mut problems: Vec<&String> =
        mesh.controllers.iter().flat_map(|status| &status.source.problems).collect();
    problems.sort();
    problems.dedup();
    findings.extend(problems.iter().map(|problem| {
        Finding::failed(
            WHAT,
            problem,
            "what was known stays in force; if roles are missing: helm upgrade puts them back",
        )
    }));
    findings.extend(mesh.unasked.iter().map(|reason| {
        Finding::unknown(
            WHAT,
            reason,
            "to ask a controller takes the permission to create pods/portforward in gamut-system",
        )
    }));
    let unsynced = mesh.controllers.iter().filter(|status| !status.source.synced).count();
    if unsynced > 0 {
        findings.push(Finding::failed(
            WHAT,
            format!("{unsynced} of {} haven't read all objects yet", mesh.controllers.len()),
            "kubectl -n gamut-system logs deployment/gamut-controller says what they wait for",
        ));
    }
    let mut versions: Vec<String> = mesh.controllers.iter().map(|status| status.version.clone()).collect();
    versions.sort();
    versions.dedup();
    if versions.len() > 1 {
        let detail = format!("of several versions: {}", few(&versions));
        findings.push(Finding::warning(
            WHAT,
            detail,
            "a rollout is under way, or stuck: kubectl -n gamut-system get pods",
        ));
    }
    if findings.is_empty() && !mesh.controllers.is_empty() {
        let subscribers: usize = mesh.controllers.iter().map(|status| status.subscribers.len()).sum();
        let said = format!("version {}, {} subscribed", versions.concat(), count(subscribers, "sidecar"));
        findings.push(Finding::ok(WHAT, said));
    }
    findings
}

/// What CAs and injectors say about themselves.
pub(super) fn own(own: &OwnStatus, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        own.authorities.iter().flat_map(|(pod, status)| of_authority(pod, status, now)).collect();
    findings.extend(own.injectors.iter().flat_map(|(pod, status)| of_injector(pod, status, now)));
    findings.extend(own.unasked.iter().map(|reason| {
        Finding::unknown(
            "control plane",
            reason,
            "to ask it takes the permission to create pods/portforward in gamut-system",
        )
    }));
    findings
}

fn of_authority(pod: &str, status: &CaStatus, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "signing key";
    let mut findings: Vec<Finding> = status
        .problems
        .iter()
        .map(|problem| {
            Finding::failed(
                WHAT,
                format!("{pod}: {problem}"),
                "mend what is named: the CA looks at it again as soon as it changes",
            )
        })
        .collect();
    let left = status.signs_until.parse().map(|until: Timestamp| until.as_second() - now.as_second());
    let ends = format!("{pod}: what it signs with ends at {}", status.signs_until);
    findings.push(match left {
        Ok(0..SIGNING_LEFT) => Finding::warning(WHAT, ends, RENEW),
        Ok(..0) => Finding::failed(WHAT, ends, RENEW),
        _ => Finding::ok(WHAT, format!("{pod} signs until {}", status.signs_until)),
    });
    findings
}

fn of_injector(pod: &str, status: &InjectorStatus, now: Timestamp) -> Vec<Finding> {
    const WHAT: &str = "injectors";
    const LOOK: &str = "kubectl -n gamut-system logs deployment/gamut-injector; if roles are missing: helm upgrade puts them back";
    let mut findings: Vec<Finding> = status
        .problems
        .iter()
        .map(|problem| Finding::failed(WHAT, format!("{pod}: {problem}"), LOOK))
        .collect();
    if let CaBundle::Waiting { reason } | CaBundle::Failed { reason } = &status.ca_bundle {
        findings.push(Finding::failed(WHAT, format!("{pod}: caBundle: {reason}"), LOOK));
    }
    let ca = "the CA issues it: kubectl -n gamut-system logs deployment/gamut-ca";
    let problem = status.certificate_problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let ended = |until: &str| until.parse::<Timestamp>().is_ok_and(|until| until <= now);
    match &status.certificate {
        None => findings.push(Finding::failed(WHAT, format!("{pod} has no certificate{problem}"), ca)),
        Some(certificate) if ended(&certificate.not_after) => findings.push(Finding::failed(
            WHAT,
            format!("{pod}: its certificate has ended at {}{problem}", certificate.not_after),
            ca,
        )),
        Some(certificate) if !problem.is_empty() => findings.push(Finding::warning(
            WHAT,
            format!(
                "{pod}: its certificate, good until {}, can't be renewed{problem}",
                certificate.not_after
            ),
            ca,
        )),
        Some(_) => {}
    }
    if status.without_sidecar_total > 0 {
        let names: Vec<String> =
            status.without_sidecar.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
        findings.push(Finding::warning(
            WHAT,
            format!(
                "{pod} counts {} without the sidecar that they should have: {}",
                count(status.without_sidecar_total, "pod"),
                few(&names)
            ),
            "their Events of reason NoSidecar say why: kubectl -n NAMESPACE describe pod NAME",
        ));
    }
    if findings.is_empty() {
        let until = status.certificate.as_ref().map(|certificate| certificate.not_after.as_str());
        let said = format!("{pod}: certificate good until {}", until.unwrap_or_default());
        findings.push(Finding::ok(WHAT, said));
    }
    findings
}

/// Whether a controller leads, and whether its clock is the API server's: it writes by its own when it last renewed.
pub(super) fn lease(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "lease";
    const REMEDY: &str =
        "statuses of routes aren't written: kubectl -n gamut-system logs deployment/gamut-controller";
    let lease = match &facts.lease {
        Err(_) => return unread(WHAT, &facts.lease),
        Ok(None) => return Some(Finding::failed(WHAT, "no controller has ever led", REMEDY)),
        Ok(Some(lease)) => lease,
    };
    let holder = text(lease, "/spec/holderIdentity");
    let renewed: Option<Timestamp> = text(lease, "/spec/renewTime").parse().ok();
    let (Some(renewed), false) = (renewed, holder.is_empty()) else {
        return Some(Finding::failed(WHAT, "no controller leads", REMEDY));
    };
    let server_time = facts.server_time.as_ref().ok().copied().flatten().unwrap_or(facts.time);
    let age = server_time.as_second() - renewed.as_second();
    Some(if RENEWED.contains(&age) {
        Finding::ok(WHAT, format!("held by {holder}"))
    } else if age < 0 {
        Finding::failed(
            WHAT,
            format!("{holder} renewed it {} s in the future of the API server's clock", -age),
            "the clock of its node is ahead: set it by NTP, or certificates end early there or aren't good yet elsewhere",
        )
    } else {
        Finding::failed(
            WHAT,
            format!("{holder} renewed it {age} s ago by the API server's clock"),
            format!(
                "either no controller leads, or the clock of its node is behind (set it by NTP); {REMEDY}"
            ),
        )
    })
}

/// Whether this machine's clock is the API server's: ages are counted by it.
pub(super) fn local_clock(facts: &Facts) -> Option<Finding> {
    const WHAT: &str = "clock";
    let server_time = facts.server_time.as_ref().ok().copied().flatten()?;
    let ahead = facts.time.as_second() - server_time.as_second();
    Some(match ahead.abs() {
        0..=LOCAL_SKEW => Finding::ok(WHAT, "this machine's agrees with the API server's"),
        _ => {
            let direction = if ahead > 0 { "ahead of" } else { "behind" };
            Finding::warning(
                WHAT,
                format!("this machine's is {} s {direction} the API server's", ahead.abs()),
                "one of them is wrong: set both by NTP. Certificates allow for an hour of difference, and no more",
            )
        }
    })
}
