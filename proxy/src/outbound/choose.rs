//! Which backend and which of its endpoints a request goes to.
//!
//! A route-scope session wins over the weights, weight 0 included: its token names Service and pod. Where the
//! pod is gone, its Service is tried, then the weights. A backend-scope session is looked at after the split
//! and pins the pod inside the chosen backend. Where both are set, the rule's decides, and the backend's
//! token is issued inside it (`docs/reference/requests.md`).

use std::{net::IpAddr, time::SystemTime};

use gamut_route::{
    Uid,
    session::{Brought, token::Placement},
};
use http::HeaderMap;

use super::service::{Backend, Forward, Rule, Sticky, Target};
use crate::{
    balance::{Overload, Picked},
    telemetry::SessionOutcome,
};

/// Where a request goes.
pub(super) struct Choice<'s> {
    pub(super) backend: &'s Backend,
    pub(super) target: &'s Target,
    pub(super) picked: Picked,
    pub(super) sessions: Sessions<'s>,
}

/// The rule's session and the backend's, as far as there are any, with what the request brought for them.
pub(super) struct Sessions<'s>([Option<(&'s Sticky, Brought)>; 2]);

/// Why a request goes nowhere.
pub(super) enum NoChoice<'s> {
    /// No backend has any weight.
    NoWeight,
    /// The chosen backend is invalid, and why.
    Invalid(&'s Backend, &'s str),
    /// The chosen backend has no endpoint that takes traffic.
    NoEndpoint(&'s Backend, &'s Target),
    /// The chosen backend has as much as it may have.
    Overload(&'s Backend, &'s Target, Overload),
}

/// Chooses for a request with these headers.
pub(super) fn choose<'s>(
    rule: &'s Rule,
    forward: &'s Forward,
    headers: &HeaderMap,
    client: IpAddr,
    now: SystemTime,
) -> Result<Choice<'s>, NoChoice<'s>> {
    let of_rule = rule.session.as_ref().map(|sticky| (sticky, sticky.affinity.read(headers, now)));
    let (backend, target, pinned) =
        match of_rule.as_ref().and_then(|(_, brought)| resume(forward, brought, client)) {
            Some((backend, target, picked)) => (backend, target, Some(picked)),
            None => {
                let backend = forward.draw(rand::random()).ok_or(NoChoice::NoWeight)?;
                let target = backend.target.as_ref().map_err(|why| NoChoice::Invalid(backend, why))?;
                (backend, target, None)
            }
        };
    target.cluster.admit().map_err(|overload| NoChoice::Overload(backend, target, overload))?;
    let of_backend = backend.session.as_ref().map(|sticky| (sticky, sticky.affinity.read(headers, now)));
    let picked = pinned
        .or_else(|| {
            let placements = &of_backend.as_ref()?.1.placements;
            placements
                .iter()
                .filter(|at| at.backend == target.uid)
                .find_map(|at| target.cluster.by_pod(at.pod))
        })
        .or_else(|| target.cluster.pick(client, &[]))
        .ok_or(NoChoice::NoEndpoint(backend, target))?;
    Ok(Choice { backend, target, picked, sessions: Sessions([of_rule, of_backend]) })
}

/// Where a route-scope session leads: to its pod; if that is gone, to another of the same Service.
fn resume<'s>(
    forward: &'s Forward,
    brought: &Brought,
    client: IpAddr,
) -> Option<(&'s Backend, &'s Target, Picked)> {
    let of = |uid: Uid| {
        let targets =
            forward.backends.iter().filter_map(|backend| Some((backend, backend.target.as_ref().ok()?)));
        targets.filter(move |(_, target)| target.uid == uid)
    };
    let placements = || brought.placements.iter().flat_map(|at| of(at.backend).map(move |(b, t)| (at, b, t)));
    let same_pod = placements().find_map(|(at, b, t)| Some((b, t, t.cluster.by_pod(at.pod)?)));
    same_pod.or_else(|| placements().find_map(|(_, b, t)| Some((b, t, t.cluster.pick(client, &[])?))))
}

impl Sessions<'_> {
    /// Tells the client where it is now, for each session that doesn't say so already. `served` is who
    /// answered, which a retry may have changed. Returns what became of the rule's session, or else the backend's.
    pub(super) fn settle(
        &self,
        target: &Target,
        served: Option<Uid>,
        now: SystemTime,
        response: &mut HeaderMap,
    ) -> Option<SessionOutcome> {
        // An endpoint that is no pod can't be told from its successor: no session.
        let pod = served?;
        let placement = Placement { backend: target.uid, pod };
        let mut first = None;
        for (sticky, brought) in self.0.iter().flatten() {
            let outcome = outcome(brought, &placement);
            sticky.counters.count(outcome);
            first = first.or(Some(outcome));
            if outcome == SessionOutcome::Kept {
                continue;
            }
            // The app's leg is plaintext: whoever could read the cookie there could read the request too.
            if let Err(error) = sticky.affinity.write(&placement, now, false, response) {
                tracing::warn!(%error, "a session could not be started");
            }
        }
        first
    }
}

/// One outcome for each request, whatever it brought: that of the token which came nearest to being honoured.
fn outcome(brought: &Brought, placement: &Placement) -> SessionOutcome {
    if brought.placements.contains(placement) {
        SessionOutcome::Kept
    } else if !brought.placements.is_empty() {
        SessionOutcome::Moved
    } else if brought.expired > 0 {
        SessionOutcome::Expired
    } else if brought.foreign > 0 {
        SessionOutcome::Foreign
    } else if brought.malformed > 0 {
        SessionOutcome::Malformed
    } else {
        SessionOutcome::Started
    }
}
