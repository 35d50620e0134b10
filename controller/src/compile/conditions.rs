//! Conditions: what a compilation says about a route to each of its parents.

use std::collections::BTreeMap;

use gamut_route::{NamespacedName, RouteRef};

use super::{
    attach::{Attachment, attach, clients_of, find},
    backends,
    contest::{Contest, InForce},
    policy, protocol,
    report::{Problem, Reason, label},
    route::{CompiledRoute, CompiledRules},
    session,
    world::World,
};
use crate::gateway::{ParentRef, TargetRef, TrafficPolicy, XBackend};

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs` or `PartiallyInvalid`.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: bool,
    /// Why.
    pub reason: Reason,
    /// What to do.
    pub message: String,
}

/// The conditions of a route for one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentConditions {
    /// The parentRef, as the route has it.
    pub parent: ParentRef,
    /// `Accepted`, `ResolvedRefs` and, only where it is true, `PartiallyInvalid`.
    pub conditions: Vec<Condition>,
}

/// The most that the API server takes for a condition's message.
const MAX_MESSAGE: usize = 32_768;

/// How the message of a true `Accepted` begins.
const IN_FORCE: &str = "in force on ";
/// What stands between the parts of the message.
const BETWEEN: &str = "; ";

/// The conditions of a route for each parent that is a Service. `attached` gives all routes that name a
/// Service as a parent.
pub fn conditions<'a>(
    world: &World,
    route: &CompiledRoute,
    attached: impl Fn(&NamespacedName) -> Vec<&'a CompiledRoute>,
) -> Vec<ParentConditions> {
    let of_parent = |parent: &ParentRef| {
        let accepted = accepted(world, route, parent, &attached);
        let is_accepted = accepted.status;
        let mut conditions = vec![accepted, resolved_refs(route)];
        // "MUST NOT be set if a Route is fully valid, fully invalid, or not accepted".
        conditions.extend(route.report.partially_invalid().filter(|_| is_accepted).map(|message| {
            Condition {
                kind: "PartiallyInvalid",
                status: true,
                reason: Reason::UnsupportedValue,
                message: shortened(message),
            }
        }));
        ParentConditions { parent: parent.clone(), conditions }
    };
    route.parents().into_iter().map(of_parent).collect()
}

fn accepted<'a>(
    world: &World,
    route: &CompiledRoute,
    parent: &ParentRef,
    attached: &impl Fn(&NamespacedName) -> Vec<&'a CompiledRoute>,
) -> Condition {
    let found = attach(world, route, parent).and_then(|attachment| match route.report.refusal() {
        Some(problem) => Err(problem),
        None => Ok(attachment),
    });
    let attachment = match found {
        Ok(attachment) => attachment,
        Err(mut problem) => {
            problem
                .message
                .extend(answered_500(world, route, parent, attached).map(|what| format!("; {what}")));
            return refused(problem);
        }
    };
    let routes = attached(&attachment.service);
    let clients = clients_of(route, &attachment.service);
    let mut won = Vec::new();
    let mut lost: BTreeMap<RouteRef, Vec<u16>> = BTreeMap::new();
    let contested = Contest::is_possible(&routes);
    for port in &attachment.ports {
        if !contested {
            won.push(*port);
            continue;
        }
        let contest = Contest::new(world, &routes, &attachment.service, *port, clients);
        match contest.winner_over(&route.route.reference) {
            None => won.push(*port),
            Some(winner) => lost.entry(winner.route.reference.clone()).or_default().push(*port),
        }
    }
    let losses = losses(&lost);
    if won.is_empty() {
        let message = format!(
            "on Service {} {}; of the kinds GRPCRoute, HTTPRoute, TLSRoute and TCPRoute the first one wins, of TCPRoutes the oldest: \
             remove one, or attach them to different ports",
            attachment.service,
            losses.join(", ")
        );
        return refused(Problem { reason: Reason::Conflicted, message });
    }
    Condition {
        kind: "Accepted",
        status: true,
        reason: Reason::Accepted,
        message: shortened(accepted_message(route, &attachment, &won, &losses)),
    }
}

/// What a route that isn't accepted does all the same, and where.
fn answered_500<'a>(
    world: &World,
    route: &CompiledRoute,
    parent: &ParentRef,
    attached: &impl Fn(&NamespacedName) -> Vec<&'a CompiledRoute>,
) -> Option<String> {
    let CompiledRules::Requests(rules) = &route.rules else { return None };
    let rules: Vec<String> = rules
        .iter()
        .filter(|rule| rule.closed)
        .filter_map(|rule| rule.rule.origin.as_ref())
        .map(label)
        .collect();
    let attachment = find(world, route, parent).ok().filter(|_| !rules.is_empty())?;
    let service = world.services.get(&attachment.service)?;
    let routes = attached(&attachment.service);
    let fails = |port: &&u16| {
        let Some(port) = service.port(**port) else { return false };
        let parent = service.service_port(port.number);
        let in_force = InForce::new(world, &routes, &parent, port, route.namespace());
        in_force.fails_for(&route.route.reference)
    };
    let ports: Vec<u16> = attachment.ports.iter().filter(fails).copied().collect();
    let clients = clients_in_words(route, &attachment);
    let which = format!("requests that {} matches", rules.join(" or "));
    let whose = format!("of {clients}, on {}", named(&ports));
    (!ports.is_empty())
        .then(|| format!("{which}, {whose}, are answered 500 rather than passed on as if it weren't there"))
}

/// Who wins instead of the route, and where.
fn losses(lost: &BTreeMap<RouteRef, Vec<u16>>) -> Vec<String> {
    lost.iter().map(|(winner, ports)| format!("{winner} wins on {}", named(ports))).collect()
}

/// `port 80`, `ports 80, 8080`.
fn named(ports: &[u16]) -> String {
    let plural = if ports.len() == 1 { "port" } else { "ports" };
    let numbers: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{plural} {}", numbers.join(", "))
}

/// Where the route is in force, and everything that a reader might else be surprised by.
fn accepted_message(
    route: &CompiledRoute,
    attachment: &Attachment,
    won: &[u16],
    losses: &[String],
) -> String {
    let clients = clients_in_words(route, attachment);
    let mut parts = vec![format!("{IN_FORCE}{} for {clients}", named(won))];
    parts.extend(
        attachment
            .left_out
            .iter()
            .map(|(port, bytes)| format!("not on port {port}, which is {}", protocol::name(*bytes))),
    );
    parts.extend(losses.iter().map(|loss| format!("but {loss}")));
    parts.extend(route.report.notes.iter().cloned());
    parts.join(BETWEEN)
}

/// What the message of a route's true `Accepted` says beside where the route is in force.
pub fn remarks(message: &str) -> Option<&str> {
    message.strip_prefix(IN_FORCE)?.split_once(BETWEEN).map(|(_, remarks)| remarks)
}

fn clients_in_words(route: &CompiledRoute, attachment: &Attachment) -> String {
    match route.namespace() == attachment.service.namespace {
        true => "clients of all namespaces without consumer routes".to_owned(),
        false => format!("clients of namespace {}", route.namespace()),
    }
}

fn resolved_refs(route: &CompiledRoute) -> Condition {
    let (status, problem) = match route.report.unresolved() {
        Some(problem) => (false, problem),
        None => {
            (true, Problem { reason: Reason::ResolvedRefs, message: "all references resolve".to_owned() })
        }
    };
    Condition { kind: "ResolvedRefs", status, reason: problem.reason, message: shortened(problem.message) }
}

/// `Accepted` of an XBackendTrafficPolicy for one of its targets.
pub fn policy_conditions(world: &World, policy: &TrafficPolicy, target: &TargetRef) -> Condition {
    match policy::accepted(world, policy, target) {
        Ok(()) => Condition {
            kind: "Accepted",
            status: true,
            reason: Reason::Accepted,
            message: policy::in_force(policy),
        },
        Err(problem) => refused(problem),
    }
}

/// `Accepted` of an XBackend.
pub fn xbackend_condition(backend: &XBackend) -> Condition {
    let settings = backend.spec.ok().and_then(|spec| spec.session_persistence.as_ref());
    let said = |what: Vec<String>| format!("spec.sessionPersistence: {}", what.join("; "));
    let checked = backends::xbackend_protocol(backend)
        .and_then(|_| settings.map(session::check).transpose().map_err(said));
    match checked {
        Ok(session) => {
            let notes = session.map(|(_, notes)| notes).filter(|notes| !notes.is_empty());
            let can_be_used = "routes of its namespace can refer to it".to_owned();
            let parts: Vec<String> = std::iter::once(can_be_used).chain(notes.map(said)).collect();
            let (reason, message) = (Reason::Accepted, parts.join("; "));
            Condition { kind: "Accepted", status: true, reason, message: shortened(message) }
        }
        Err(message) => refused(Problem { reason: Reason::UnsupportedValue, message }),
    }
}

fn refused(problem: Problem) -> Condition {
    Condition { kind: "Accepted", status: false, reason: problem.reason, message: shortened(problem.message) }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = (0..=MAX_MESSAGE - 3).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(cut);
        message.push_str("...");
    }
    message
}
