//! The admission policy that bounds by name what the control plane may create, which roles can't.

use serde_json::Value;

use super::{
    Facts, Finding,
    facts::{items, name, text},
    unread,
};

const WHAT: &str = "admission policy";

/// The policy's name, and its binding's.
const OURS: &str = "gamut-control-plane";

/// Whether the policy is there, and whether anything obeys it. Traffic needs neither.
pub(super) fn policy(facts: &Facts) -> Option<Finding> {
    let (policies, bindings) = match (&facts.policies, &facts.bindings) {
        (Err(_), _) => return unread(WHAT, &facts.policies),
        (_, Err(_)) => return unread(WHAT, &facts.bindings),
        // Before Kubernetes 1.30 there are none.
        (Ok(None), _) | (_, Ok(None)) => return None,
        (Ok(Some(policies)), Ok(Some(bindings))) => (policies, bindings),
    };
    let is_ours = |object: &&Value| name(object) == OURS;
    let denies = |binding: &Value| {
        text(binding, "/spec/policyName") == OURS
            && items(binding, "/spec/validationActions").any(|action| action == "Deny")
    };
    let lacks = match (policies.iter().any(|policy| is_ours(&policy)), bindings.iter().find(is_ours)) {
        (false, _) => format!("there is no ValidatingAdmissionPolicy {OURS}"),
        (true, None) => {
            format!("there is no ValidatingAdmissionPolicyBinding {OURS}: nothing obeys the policy")
        }
        (true, Some(binding)) if !denies(binding) => {
            format!("ValidatingAdmissionPolicyBinding {OURS} doesn't deny what policy {OURS} forbids")
        }
        (true, Some(_)) => {
            return Some(Finding::ok(WHAT, "the control plane may create what has its names alone"));
        }
    };
    Some(Finding::warning(
        WHAT,
        format!("{lacks}; traffic goes on"),
        "until it is back, who takes over the CA or the controller may create any Secret of gamut-system, one with another account's token \
         too, and the CA any ConfigMap anywhere: `helm upgrade` with the values of the installation puts it back",
    ))
}
