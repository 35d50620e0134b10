//! What isn't in force as it was written: routes that name the Service as their parent and are refused, rules that were
//! dropped, references that don't resolve, policies that aren't accepted. In the words of their conditions, which come from the same compilation.

use gamut_controller::{
    compile::{CompiledRoute, CompiledRules, Condition, ParentConditions, Reason, policy_conditions},
    index::Index,
};
use gamut_route::{
    BackendId, NamespacedName, RouteTable, ServicePort,
    decide::{Asked, Decider, Fate},
    table::{BackendTarget, HttpRules, Outcome, RankedMatch},
};
use serde::Serialize;

/// Something that isn't in force, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Remark {
    /// `HTTPRoute`, `XBackendTrafficPolicy`.
    pub(super) kind: &'static str,
    /// Namespace and name.
    pub(super) name: String,
    /// `Accepted is False`, `PartiallyInvalid is True`, `ResolvedRefs is False`; `not attached` where there is no status;
    /// `Accepted is True` of what is in force and yet worth knowing.
    pub(super) condition: &'static str,
    /// The condition's.
    pub(super) reason: &'static str,
    /// The condition's.
    pub(super) message: String,
}

/// Of a route or policy that isn't accepted.
const REFUSED: &str = "Accepted is False";
/// Of a route some of whose rules aren't in force.
const PARTLY: &str = "PartiallyInvalid is True";
/// Of a route with a backend or mirror that isn't there.
const UNRESOLVED: &str = "ResolvedRefs is False";

/// Of a route whose parentRef means the Service and says something else.
const UNATTACHED: &str = "not attached";
/// Of a route that is in force, with something that is without effect.
const NOTED: &str = "Accepted is True";

impl Remark {
    /// Whether it is about something that is in force.
    pub(super) fn is_note(&self) -> bool {
        self.condition == NOTED
    }

    fn of_route(route: &CompiledRoute, condition: &'static str, reason: &'static str, message: &str) -> Self {
        let (kind, name) = (route.kind().as_str(), route.route.reference.name.to_string());
        Self { kind, name, condition, reason, message: message.to_owned() }
    }
}

/// What there is to say about the routes of a table's Service, as clients of a namespace meet it, and about the policies for
/// it and for its backends.
pub(super) fn about(index: &Index, table: &RouteTable, client_namespace: &str) -> Vec<Remark> {
    let ServicePort { service, .. } = &table.parent;
    let mut remarks = Vec::new();
    for (route, parents) in index.statuses() {
        let namespace = route.namespace();
        // A producer's route is for everybody, a consumer's for its own namespace.
        if namespace != service.namespace && namespace != client_namespace {
            continue;
        }
        let meant = |parent: &&ParentConditions| is_meant(parent, namespace, table);
        let name = &route.route.reference.name;
        let is_meant = parents.iter().any(|parent| meant(&parent));
        let conditions = parents.iter().filter(meant).flat_map(|parent| &parent.conditions);
        let refused = conditions.filter_map(|condition| remark(route.kind().as_str(), name, condition));
        remarks.extend(refused);
        if is_meant && route.report.refusal().is_none() {
            let notes = route.report.notes.iter();
            remarks.extend(notes.map(|note| Remark::of_route(route, NOTED, "Accepted", note)));
        }
        let missed = route.route.missed_services(|name| index.world().services.contains_key(name), |_| true);
        let missed = missed.iter().filter(|missed| missed.service == *service);
        remarks
            .extend(missed.map(|missed| Remark::of_route(route, UNATTACHED, "ParentRefs", &missed.message)));
    }
    for policy in index.world().policies.values() {
        let targets = policy.spec.ok().map(|spec| spec.target_refs.as_slice()).unwrap_or_default();
        for target in targets {
            let name = NamespacedName::new(policy.name.namespace.as_str(), target.name.as_str());
            if name == *service || leads_to(table, &name) {
                let condition = policy_conditions(index.world(), policy, target);
                remarks.extend(remark("XBackendTrafficPolicy", &policy.name, &condition));
            }
        }
    }
    remarks
}

/// Whether a parentRef of a route names the table's Service and, if it names a port, that one.
fn is_meant(parent: &ParentConditions, route_namespace: &str, table: &RouteTable) -> bool {
    let ServicePort { service, port } = &table.parent;
    parent.parent.target(route_namespace) == *service
        && parent.parent.port.is_none_or(|number| number == i64::from(*port))
}

fn remark(kind: &'static str, name: &NamespacedName, condition: &Condition) -> Option<Remark> {
    let bad = match (condition.kind, condition.status) {
        ("Accepted", false) => REFUSED,
        ("PartiallyInvalid", true) => PARTLY,
        ("ResolvedRefs", false) => UNRESOLVED,
        _ => return None,
    };
    Some(Remark {
        kind,
        name: name.to_string(),
        condition: bad,
        reason: condition.reason.as_str(),
        message: condition.message.clone(),
    })
}

fn leads_to(table: &RouteTable, service: &NamespacedName) -> bool {
    let splits = table.http.rules.iter().filter_map(|rule| match &rule.outcome {
        Outcome::Forward(split) => Some(split),
        Outcome::Fail(_) => None,
    });
    splits.flat_map(|split| &split.backends).any(|backend| {
        matches!(&backend.target, BackendTarget::Endpoints { id: BackendId::Service(to), .. } if to.service == *service)
    })
}

/// Routes that would take the request, and are attached to nothing: the parent that they name, or its port, isn't there, which
/// may be a slip of the keys.
pub(super) fn strays(
    index: &Index,
    table: &RouteTable,
    client_namespace: &str,
    asked: &Asked<'_>,
) -> Vec<Remark> {
    let is_near = |route: &CompiledRoute| {
        [table.parent.service.namespace.as_str(), client_namespace].contains(&route.namespace())
    };
    let near = index.statuses().filter(|(route, _)| is_near(route));
    let stray = |(route, parents): (&CompiledRoute, Vec<ParentConditions>)| {
        let missing = |condition: &&Condition| condition.reason == Reason::NoMatchingParent;
        // What is wrong with the Service as its parent has been said; who misses a port of another Service means that one.
        let means_other = |parent: &ParentConditions| {
            let service = parent.parent.target(route.namespace());
            service != table.parent.service && index.world().services.contains_key(&service)
        };
        if parents.iter().any(|parent| is_meant(parent, route.namespace(), table) || means_other(parent)) {
            return None;
        }
        // One that is attached to something is meant for that.
        let each: Option<Vec<&Condition>> =
            parents.iter().map(|parent| parent.conditions.iter().find(missing)).collect();
        let condition = each?.into_iter().next().filter(|_| would_take(route, table, asked))?;
        Some(Remark::of_route(route, UNATTACHED, condition.reason.as_str(), &condition.message))
    };
    near.filter_map(stray).collect()
}

/// Whether a rule of the route would match the request, were the route attached to the table's Service.
fn would_take(route: &CompiledRoute, table: &RouteTable, asked: &Asked<'_>) -> bool {
    let CompiledRules::Requests(compiled) = &route.rules else { return false };
    let matches = compiled.iter().enumerate().flat_map(|(rule, compiled)| {
        compiled.matches.iter().map(move |(_, when)| RankedMatch { when: when.clone(), rule })
    });
    let rules = compiled.iter().map(|compiled| compiled.rule.clone()).collect();
    let http = HttpRules { rules, matches: matches.collect() };
    let alone = RouteTable { http, tls: Vec::new(), ..table.clone() };
    Decider::new(&alone).is_ok_and(|decider| matches!(decider.decide(asked), Ok(Fate::Ruled { .. })))
}

/// What a Service is called that takes requests without the rule of a route.
pub(super) fn of_itself(remarks: &[Remark]) -> &'static str {
    let has = |condition: &str| {
        remarks.iter().any(|remark| remark.condition == condition && remark.kind.ends_with("Route"))
    };
    match (has(REFUSED), has(UNATTACHED)) {
        (true, _) => "the Service itself, because no route of it is accepted",
        (false, true) => "the Service itself, because no route is attached to it",
        (false, false) => "the Service itself, which has no routes",
    }
}
