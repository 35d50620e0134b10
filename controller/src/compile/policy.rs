//! XBackendTrafficPolicies: which are in force, and what they set.

use gamut_route::NamespacedName;

use super::{
    report::{Problem, Reason},
    session::{self, Settings},
    world::{Lookup, World, policy_for},
};
use crate::gateway::{TargetRef, TrafficPolicy};

/// The session settings of the policy that is in force for a Service, if it is accepted and has some.
pub(super) fn session_settings(lookup: &Lookup<'_>, service: &NamespacedName) -> Option<Settings> {
    let policy = lookup.policy(service)?;
    unsupported(policy).is_none().then(|| settings(policy))?
}

fn settings(policy: &TrafficPolicy) -> Option<Settings> {
    let settings = policy.spec.ok()?.session_persistence.as_ref()?;
    session::check(settings).ok().map(|(settings, _)| settings)
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
    if spec.retry_constraint.is_some() {
        return Some("spec.retryConstraint isn't supported yet; remove it".to_owned());
    }
    match spec.session_persistence.as_ref().map(session::check) {
        Some(Err(problems)) => Some(format!("spec.sessionPersistence: {}", problems.join("; "))),
        _ => None,
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
    if !world.services.contains_key(&service) {
        return problem(
            Reason::NoMatchingParent,
            format!("Service {service} doesn't exist; create it or correct targetRefs"),
        );
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
