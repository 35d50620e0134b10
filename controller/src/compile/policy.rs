//! XBackendTrafficPolicies: which are in force, and what they set.

use std::time::Duration;

use gamut_controller_api::RetryBudget;
use gamut_route::NamespacedName;

use super::{
    report::{Problem, Reason},
    route::client_ip_problem,
    service::Service,
    session::{self, Settings},
    world::{Lookup, World, policy_for},
};
use crate::gateway::{RetryConstraint, TargetRef, TrafficPolicy, parse_duration};

/// The longest interval of a `retryConstraint`.
const HOUR: Duration = Duration::from_secs(3600);

/// The session settings of the policy that is in force for a Service, if it is accepted and has some.
pub(super) fn session_settings(lookup: &Lookup<'_>, service: &NamespacedName) -> Option<Settings> {
    let policy = lookup.policy(service)?;
    let excluded = lookup.service(service).is_some_and(|service| is_excluded(policy, service));
    (!excluded && unsupported(policy).is_none()).then(|| settings(policy))?
}

fn settings(policy: &TrafficPolicy) -> Option<Settings> {
    let settings = policy.spec.ok()?.session_persistence.as_ref()?;
    session::check(settings).ok().map(|(settings, _)| settings)
}

/// The retry budget of the policy that is in force for a Service, if it is accepted and has one.
pub(crate) fn retry_budget(world: &World, service: &NamespacedName) -> Option<RetryBudget> {
    let excluded = |policy| world.services.get(service).is_some_and(|service| is_excluded(policy, service));
    let policy =
        policy_for(world, service).filter(|policy| unsupported(policy).is_none() && !excluded(policy))?;
    budget(policy.spec.ok()?.retry_constraint.as_ref()?).ok()
}

/// Whether a policy sets sessions for a Service that keeps clients by their address: one of the two has to go (GEP-1619).
fn is_excluded(policy: &TrafficPolicy, service: &Service) -> bool {
    service.client_ip_affinity.is_some()
        && policy.spec.ok().is_some_and(|spec| spec.session_persistence.is_some())
}

/// A `retryConstraint` with its defaults, which are the CRD's; or what is wrong with it.
fn budget(constraint: &RetryConstraint) -> Result<RetryBudget, String> {
    let share = constraint.budget.clone().unwrap_or_default();
    let rate = constraint.min_retry_rate.clone().unwrap_or_default();
    let interval = |field: &str, text: Option<&str>, least: Duration, default: Duration| {
        let field = format!("spec.retryConstraint.{field}");
        let parsed = text.map_or(Ok(default), parse_duration).map_err(|error| format!("{field}: {error}"))?;
        match (least..=HOUR).contains(&parsed) {
            true => Ok(parsed),
            false => Err(format!("{field}: {parsed:?} is out of range; use {least:?} to 1h")),
        }
    };
    let percent = share.percent.unwrap_or(20);
    let count = rate.count.unwrap_or(10);
    Ok(RetryBudget {
        percent: u8::try_from(percent).ok().filter(|percent| *percent <= 100).ok_or_else(|| {
            format!("spec.retryConstraint.budget.percent: {percent} is out of range; use 0 to 100")
        })?,
        interval: interval(
            "budget.interval",
            share.interval.as_deref(),
            Duration::from_secs(1),
            Duration::from_secs(10),
        )?,
        min_retries: u32::try_from(count).ok().filter(|count| (1..=1_000_000).contains(count)).ok_or_else(
            || format!("spec.retryConstraint.minRetryRate.count: {count} is out of range; use 1 to 1000000"),
        )?,
        min_interval: interval(
            "minRetryRate.interval",
            rate.interval.as_deref(),
            Duration::from_millis(1),
            Duration::from_secs(1),
        )?,
    })
}

/// What a policy says that can't be carried out, for whatever target.
fn unsupported(policy: &TrafficPolicy) -> Option<String> {
    let spec = match &policy.spec.value {
        Ok(spec) => spec,
        Err(error) => return Some(format!("{}; correct the field", error.below("spec"))),
    };
    if let Some(field) = policy.spec.unknown.first() {
        return Some(format!("spec.{field} isn't known to this mesh; remove it"));
    }
    if let Some(Err(problem)) = spec.retry_constraint.as_ref().map(budget) {
        return Some(problem);
    }
    match spec.session_persistence.as_ref().map(session::check) {
        Some(Err(problems)) => Some(format!("spec.sessionPersistence: {}", problems.join("; "))),
        _ => None,
    }
}

/// What an accepted policy does, and what its author will want to know.
pub(super) fn in_force(policy: &TrafficPolicy) -> String {
    let settings = policy.spec.ok().and_then(|spec| spec.session_persistence.as_ref());
    let notes = settings.and_then(|settings| session::check(settings).ok()).map(|(_, notes)| notes);
    let notes = notes.into_iter().flatten().map(|note| format!("spec.sessionPersistence: {note}"));
    std::iter::once(effect(policy)).chain(notes).collect::<Vec<_>>().join("; ")
}

fn effect(policy: &TrafficPolicy) -> String {
    let spec = policy.spec.ok();
    let session = spec.is_some_and(|spec| spec.session_persistence.is_some());
    let budget = spec.is_some_and(|spec| spec.retry_constraint.is_some());
    let of_rules = "for rules that lead to the Service and have no settings of their own";
    match (session, budget) {
        (_, false) => format!("in force {of_rules}"),
        (false, true) => "in force for all retries that are sent to the Service".to_owned(),
        (true, true) => {
            format!(
                "in force: the session {of_rules}, the budget for all retries that are sent to the Service"
            )
        }
    }
}

/// Whether a policy is in force for one of its targets; if not, why.
///
/// # Errors
/// The problem that its `Accepted` condition shows.
pub(super) fn accepted(world: &World, policy: &TrafficPolicy, target: &TargetRef) -> Result<(), Problem> {
    let problem = |reason, message: String| Err(Problem { reason, message });
    if !matches!(target.group.as_str(), "" | "core") || target.kind != "Service" {
        let message = format!("{} {} can't be the target; name a Service", target.kind, target.name);
        return problem(Reason::InvalidKind, message);
    }
    if let Some(what) = unsupported(policy) {
        return problem(Reason::UnsupportedValue, what);
    }
    let service = NamespacedName::new(policy.name.namespace.as_str(), target.name.as_str());
    match world.services.get(&service) {
        None => {
            let message = format!("Service {service} doesn't exist; create it or correct targetRefs");
            return problem(Reason::NoMatchingParent, message);
        }
        Some(target) if is_excluded(policy, target) => return Err(client_ip_problem(&service)),
        Some(_) => {}
    }
    match policy_for(world, &service) {
        Some(winner) if winner.name != policy.name => problem(
            Reason::Conflicted,
            format!(
                "XBackendTrafficPolicy {} is older and in force for Service {service}; remove one of the two",
                winner.name
            ),
        ),
        _ => Ok(()),
    }
}
