//! The mesh's own pods: whether they run, whether one leads, and what their clocks show.

use gamut_ca::CaStatus;
use gamut_kubernetes::FORWARD_PERMISSION;
use gamut_webhook::{CaBundle, InjectorStatus};
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Facts, Finding, Read, Remedy, count,
    facts::{items, name, namespace, text},
    few, unknown, unread,
};
use crate::world::{COMPONENTS, Component, Mesh, OwnStatus, SYSTEM_NAMESPACE, Trouble};

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
pub(super) fn ready(facts: &Facts, components: &Read<Vec<Component>>) -> Vec<Finding> {
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
    COMPONENTS.iter().map(|name| of_component(facts, name, components)).collect()
}

fn of_component(facts: &Facts, name: &'static str, components: &[Component]) -> Finding {
    let pods: Vec<&Component> = components.iter().filter(|component| component.name == name).collect();
    if pods.is_empty() {
        return without_pods(facts, name);
    }
    let ready = pods.iter().filter(|component| component.ready).count();
    let restarts: u32 = pods.iter().map(|component| component.restarts).sum();
    let detail = match restarts {
        0 => format!("{ready} of {} ready", count(pods.len(), "pod")),
        restarts => format!("{ready} of {} ready, {restarts} restarts", count(pods.len(), "pod")),
    };
    // The one that can't start says more than one that is slow.
    let mut waiting: Vec<&&Component> = pods.iter().filter(|component| !component.ready).collect();
    waiting.sort_by_key(|component| component.trouble.is_none() && component.died_of.is_none());
    let (said, remedy) = match waiting.first() {
        Some(component) => (said_of(component), remedy_of(name, component)),
        None => (String::new(), String::new()),
    };
    let detail = detail + &said;
    match ready {
        0 => Finding::failed(name, detail, remedy),
        ready if ready < pods.len() => Finding::warning(name, detail, remedy),
        _ => Finding::ok(name, detail),
    }
}

/// What is said about a pod that isn't ready, with its name.
fn said_of(component: &Component) -> String {
    let pod = component.pod.as_deref().unwrap_or_default();
    let trouble = match &component.trouble {
        None => String::new(),
        // Of one that died its last words say more than how often it is tried again.
        Some(Trouble { reason, .. }) if component.died_of.is_some() => format!("; {pod}: {reason}"),
        Some(Trouble { reason, message }) if message.is_empty() => format!("; {pod}: {reason}"),
        Some(Trouble { reason, message }) => format!("; {pod}: {reason}: {message}"),
    };
    match &component.died_of {
        Some(words) => format!("{trouble}; its last words: {words}"),
        None => trouble,
    }
}

fn remedy_of(name: &str, component: &Component) -> String {
    let pod = component.pod.as_deref().unwrap_or_default();
    let describe = format!("kubectl -n {SYSTEM_NAMESPACE} describe pod {pod}");
    match component.trouble.as_ref().map(|trouble| trouble.reason.as_str()) {
        Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull") => format!(
            "its node gets no image: correct the chart's values below image (registry, tag, pullSecrets) by helm upgrade; {describe}"
        ),
        Some("Unschedulable" | "SchedulingGated") => {
            format!(
                "no node takes it, for the reason that is given: make room, or see what keeps it off nodes; {describe}"
            )
        }
        Some("CrashLoopBackOff") => format!(
            "mend what its last words name: kubectl -n {SYSTEM_NAMESPACE} logs {pod} --previous has the others"
        ),
        Some(_) => describe,
        None => format!("{describe}; kubectl -n {SYSTEM_NAMESPACE} logs deployment/gamut-{name}"),
    }
}

/// Why a component has no pod at all, as far as its Deployment tells.
fn without_pods(facts: &Facts, name: &'static str) -> Finding {
    let deployment = format!("gamut-{name}");
    let is_its = |object: &&Value| {
        (text(object, "/kind"), namespace(object)) == ("Deployment", SYSTEM_NAMESPACE)
            && self::name(object) == deployment
    };
    let found = facts.carriers.as_ref().map(|carriers| carriers.iter().find(is_its));
    let no_pod = format!("no pod of service account {deployment}");
    let look = format!("kubectl -n {SYSTEM_NAMESPACE} describe deployment,replicaset");
    match found {
        Ok(Some(object)) if object.pointer("/spec/replicas") == Some(&Value::from(0)) => Finding::failed(
            name,
            format!("no pod: Deployment {deployment} is scaled to 0"),
            Remedy {
                words:
                    "somebody did that; helm upgrade with the values of the installation takes it back, or"
                        .to_owned(),
                commands: vec![format!(
                    "kubectl scale -n {SYSTEM_NAMESPACE} deployment/{deployment} --replicas={}",
                    default_replicas(name)
                )],
            },
        ),
        Ok(Some(object)) => {
            let failure = items(object, "/status/conditions")
                .find(|condition| text(condition, "/type") == "ReplicaFailure")
                .map(|condition| format!(": {}", text(condition, "/message")));
            Finding::failed(name, no_pod + &failure.unwrap_or_default(), look)
        }
        Ok(None) => Finding::failed(
            name,
            format!("{no_pod}, and no Deployment {deployment}"),
            "helm upgrade puts it back",
        ),
        Err(_) => Finding::failed(
            name,
            no_pod,
            format!("helm upgrade puts it back; if its Deployment is there: {look}"),
        ),
    }
}

/// How many pods of a component the chart makes where nobody says otherwise.
fn default_replicas(name: &str) -> u64 {
    if name == "ca" { 1 } else { 2 }
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
    findings.extend(mesh.unasked.iter().map(|reason| silent(WHAT, reason)));
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
    findings.extend(injectors(own, now));
    findings.extend(own.unasked.iter().map(|reason| silent("control plane", reason)));
    findings
}

/// That a pod of the control plane couldn't be asked.
fn silent(what: &'static str, reason: &str) -> Finding {
    let remedy = match reason.contains(FORWARD_PERMISSION) {
        true => "ask as somebody who has the role for it (docs/reference/cli.md)",
        false => {
            "one that has just started or has just ended answers soon, or another does: check again; if it lasts: \
             kubectl -n gamut-system describe pod NAME"
        }
    };
    Finding::unknown(what, reason, remedy)
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

const INJECTORS: &str = "injectors";

/// What injectors say. All of them look at the same things, so what several say is one line that names them; and so is that they are
/// well, with the end of the certificate that ends first: theirs are issued in different seconds.
fn injectors(own: &OwnStatus, now: Timestamp) -> Vec<Finding> {
    let mut said: Vec<(Finding, Vec<String>)> = Vec::new();
    let (mut well, mut first_end) = (Vec::new(), None);
    for (pod, status) in &own.injectors {
        let findings = troubles_of_injector(status, now);
        if findings.is_empty() {
            well.push(pod.clone());
            let end = status.certificate.as_ref().map(|certificate| certificate.not_after.as_str());
            first_end = first_end.into_iter().chain(end).min();
        }
        for finding in findings {
            match said.iter_mut().find(|(known, _)| *known == finding) {
                Some((_, pods)) => pods.push(pod.clone()),
                None => said.push((finding, vec![pod.clone()])),
            }
        }
    }
    if let Some(end) = first_end {
        said.push((Finding::ok(INJECTORS, format!("certificate good until {end}")), well));
    }
    said.into_iter().map(|(finding, pods)| finding.said_by(&few(&pods))).collect()
}

/// What is wrong with one, without its name.
fn troubles_of_injector(status: &InjectorStatus, now: Timestamp) -> Vec<Finding> {
    const LOOK: &str = "kubectl -n gamut-system logs deployment/gamut-injector; if roles are missing: helm upgrade puts them back";
    let mut findings: Vec<Finding> =
        status.problems.iter().map(|problem| Finding::failed(INJECTORS, problem, LOOK)).collect();
    if let CaBundle::Waiting { reason } | CaBundle::Failed { reason } = &status.ca_bundle {
        findings.push(Finding::failed(INJECTORS, format!("caBundle: {reason}"), LOOK));
    }
    let ca = "the CA issues it: kubectl -n gamut-system logs deployment/gamut-ca";
    let problem = status.certificate_problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let ended = |until: &str| until.parse::<Timestamp>().is_ok_and(|until| until <= now);
    match &status.certificate {
        None => findings.push(Finding::failed(INJECTORS, format!("no certificate yet{problem}"), ca)),
        Some(certificate) if ended(&certificate.not_after) => findings.push(Finding::failed(
            INJECTORS,
            format!("the certificate has ended at {}{problem}", certificate.not_after),
            ca,
        )),
        Some(certificate) if !problem.is_empty() => findings.push(Finding::warning(
            INJECTORS,
            format!("the certificate, good until {}, can't be renewed{problem}", certificate.not_after),
            ca,
        )),
        Some(_) => {}
    }
    if status.without_sidecar_total > 0 {
        let names: Vec<String> =
            status.without_sidecar.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
        findings.push(Finding::warning(
            INJECTORS,
            format!(
                "{} without the sidecar that they should have: {}",
                count(status.without_sidecar_total, "pod"),
                few(&names)
            ),
            "their Events of reason NoSidecar say why: kubectl -n NAMESPACE describe pod NAME",
        ));
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
    let server_time = facts.server_time.as_ref().ok().copied().flatten()?;
    Some(clocks(facts.time.as_second() - server_time.as_second()))
}

/// `ahead`: by how many seconds this machine's clock is ahead of the API server's.
fn clocks(ahead: i64) -> Finding {
    const WHAT: &str = "clock";
    if ahead.abs() <= LOCAL_SKEW {
        return Finding::ok(WHAT, "this machine's agrees with the API server's");
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    Finding::warning(
        WHAT,
        format!("this machine's is {} s {direction} the API server's", ahead.abs()),
        "one of them is wrong: set both by NTP. Certificates allow for an hour of difference, and no more",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;

    #[test]
    fn who_scales_up_as_check_says_has_as_many_as_the_chart_makes() {
        let values = include_str!("../../../../charts/gamut/values.yaml");
        let values: Value = serde_saphyr::from_str(values).unwrap();
        for name in COMPONENTS {
            assert_eq!(values[name]["replicas"], default_replicas(name), "{name}");
        }
    }

    #[test]
    fn a_clock_that_is_an_hour_off_is_told_and_which_way() {
        assert_eq!(clocks(LOCAL_SKEW).result, Outcome::Ok);
        for (ahead, said) in [
            (3600, "this machine's is 3600 s ahead of the API server's"),
            (-3600, "this machine's is 3600 s behind the API server's"),
        ] {
            let finding = clocks(ahead);
            assert_eq!((finding.result, finding.detail.as_str()), (Outcome::Warning, said));
        }
    }
}
