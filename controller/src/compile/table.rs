//! The route table of a Service's port for the clients of one namespace: the winning routes merged, or the
//! Service itself.

use std::time::SystemTime;

use gamut_route::{
    BackendId, RouteKind, RouteTable, ServicePort,
    precedence::{Rank, RouteName},
    table::{
        AppProtocol, Backend, BackendTarget, HttpRules, Match, Outcome, RankedMatch, Rule, Session, Split,
        Timeouts, TlsRule,
    },
};

use super::{
    contest::InForce,
    policy, protocol,
    route::{CompiledRoute, CompiledRules},
    service::{Port, Service},
    session,
    world::{Lookup, World},
};

/// Compiles a table. `routes` are all that name the Service as a parent. A Service or port that doesn't exist
/// has a table in which everything fails: the address that led there will be taken back in a moment.
pub fn compile_table(
    world: &World,
    routes: &[&CompiledRoute],
    parent: &ServicePort,
    client_namespace: &str,
) -> RouteTable {
    let service = world.services.get(&parent.service);
    let Some((service, port)) = service.and_then(|service| Some((service, service.port(parent.port)?)))
    else {
        return nowhere(parent);
    };
    let in_force = InForce::new(world, routes, parent, port, client_namespace);
    let kind = in_force.kind();
    let itself = itself(service, port);
    let mut table = RouteTable {
        parent: parent.clone(),
        protocol: protocol::in_force(port, kind),
        http: HttpRules::default(),
        tls: Vec::new(),
        tcp: Split { backends: vec![itself.clone()] },
    };
    match kind {
        None | Some(RouteKind::Grpc | RouteKind::Http) => {
            table.http = merged(&in_force);
            // "When no routes are defined, all traffic should implicitly work" (GEP-1294).
            if kind.is_none() {
                add_default(&mut table.http, Backend { session: own_session(world, service), ..itself });
            }
        }
        // What no rule is for is refused: a route replaces what a Service does without one.
        Some(RouteKind::Tls) => {
            table.tls = merged_tls(&in_force.winners);
            table.tcp = Split::default();
        }
        Some(RouteKind::Tcp) => {
            let split = in_force.winners.iter().find_map(|route| match &route.rules {
                CompiledRules::Tcp(Some((_, split))) => Some(split.clone()),
                _ => None,
            });
            table.tcp = split.unwrap_or_default();
        }
    }
    table
}

/// The Service as its own backend.
fn itself(service: &Service, port: &Port) -> Backend {
    let id = BackendId::Service(service.service_port(port.number));
    let target = BackendTarget::Endpoints { id, uid: service.uid };
    Backend { target, weight: 1, filters: Vec::new(), session: None }
}

/// The session that a policy sets for requests to a Service without routes. Affinity by address excludes it,
/// and there is no route to refuse: then the Service's own setting stays.
fn own_session(world: &World, service: &Service) -> Option<Session> {
    let settings = policy::session_settings(&Lookup::new(world), &service.name)?;
    let session = settings.session(session::backend_scope(service.uid), None);
    service.client_ip_affinity.is_none().then_some(session)
}

/// The rules of all routes, and their matches in order of precedence; of routes that aren't accepted here those alone
/// that must be answered 500. What would replace the rules of others comes before them: consumer routes before the
/// producer's, one kind of route before the next.
fn merged(in_force: &InForce<'_>) -> HttpRules {
    let mut rules = Vec::new();
    let mut ranked: Vec<((Layer, Rank<'_>), RankedMatch)> = Vec::new();
    let accepted = in_force.winners.iter().map(|route| (route, Set::InForce, true));
    let failing = in_force.failing.iter().map(|route| (route, Set::InForce, false));
    let failing_consumers = in_force.failing_consumers.iter().map(|route| (route, Set::Consumers, false));
    for (route, set, accepted) in accepted.chain(failing).chain(failing_consumers) {
        let CompiledRules::Requests(compiled) = &route.rules else { continue };
        for rule in compiled.iter().filter(|rule| accepted || rule.closed) {
            let index = rule.rule.origin.as_ref().map_or(0, |origin| origin.index);
            for (position, (specificity, when)) in rule.matches.iter().enumerate() {
                let rank = Rank {
                    specificity: *specificity,
                    created: SystemTime::from(route.route.created),
                    route: RouteName(&route.route.reference.name),
                    rule: index,
                    index: position,
                };
                let layer = (set, route.kind());
                ranked.push(((layer, rank), RankedMatch { when: when.clone(), rule: rules.len() }));
            }
            rules.push(rule.rule.clone());
        }
    }
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    HttpRules { rules, matches: ranked.into_iter().map(|(_, ranked)| ranked).collect() }
}

/// Precedence counts inside a set and a kind only.
type Layer = (Set, RouteKind);

/// Which set of routes a rule is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Set {
    /// Consumer routes, where another set is in force.
    Consumers,
    /// The set in force.
    InForce,
}

fn add_default(http: &mut HttpRules, itself: Backend) {
    http.matches.push(RankedMatch { when: Match::default(), rule: http.rules.len() });
    http.rules.push(standing_in(Outcome::Forward(Split { backends: vec![itself] })));
}

/// Rules of TLSRoutes: exact names before wildcards, longer names before shorter ones, then the older route.
/// A rule with names of several lengths is split, so that the first match is the best one.
fn merged_tls(routes: &[&CompiledRoute]) -> Vec<TlsRule> {
    let mut rules: Vec<(bool, usize, TlsRule)> = Vec::new();
    for route in routes {
        let CompiledRules::Tls(compiled) = &route.rules else { continue };
        for rule in compiled {
            if rule.hostnames.is_empty() {
                rules.push((true, 0, rule.clone()));
            }
            for name in &rule.hostnames {
                let alone = TlsRule { hostnames: vec![name.clone()], ..rule.clone() };
                rules.push((name.starts_with("*."), name.len(), alone));
            }
        }
    }
    // Stable: routes come in the order of age and name.
    rules.sort_by(|(a_wild, a_length, _), (b_wild, b_length, _)| (a_wild, b_length).cmp(&(b_wild, a_length)));
    rules.into_iter().map(|(_, _, rule)| rule).collect()
}

fn nowhere(parent: &ServicePort) -> RouteTable {
    let outcome = Outcome::Fail(format!("Service {} has no TCP port {}", parent.service, parent.port));
    RouteTable {
        parent: parent.clone(),
        protocol: AppProtocol::Detect,
        http: HttpRules {
            rules: vec![standing_in(outcome)],
            matches: vec![RankedMatch { when: Match::default(), rule: 0 }],
        },
        tls: Vec::new(),
        tcp: Split::default(),
    }
}

/// A rule that no route wrote.
fn standing_in(outcome: Outcome) -> Rule {
    Rule {
        origin: None,
        filters: Vec::new(),
        outcome,
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}
