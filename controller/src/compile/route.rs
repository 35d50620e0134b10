//! One route compiled, whatever it is attached to: rules for tables, a report for conditions, and what it all
//! depended on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use gamut_route::{
    BackendId, RouteKind,
    table::{BackendTarget, Outcome, RuleOrigin, Split, TlsRule},
};

use super::{
    http,
    report::{InvalidRule, Problem, Reason, Report},
    rule::{CompiledRule, RuleVerdict},
    session::{self, RouteSettings},
    stream,
    world::{Dependency, Lookup, World},
};
use crate::gateway::{HttpRule, Lenient, ParentRef, Route, Rules, joined};

/// A route, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledRoute {
    /// The route as it was read.
    pub route: Arc<Route>,
    /// What of it goes into tables.
    pub rules: CompiledRules,
    /// What there is to say about it.
    pub report: Report,
    /// True if a rule has a session of whatever scope: then `sessionAffinity: ClientIP` on a parent is a
    /// contradiction (GEP-1619).
    pub has_sessions: bool,
    /// What it was compiled from beside itself.
    pub dependencies: BTreeSet<Dependency>,
}

/// What of a route goes into tables.
#[derive(Clone, Debug, PartialEq)]
pub enum CompiledRules {
    /// Rules for requests, of HTTPRoutes and GRPCRoutes.
    Requests(Vec<CompiledRule>),
    /// Rules for connections of the application's own TLS.
    Tls(Vec<TlsRule>),
    /// The rule for connections of any kind.
    Tcp(Option<(RuleOrigin, Split)>),
}

impl CompiledRoute {
    /// The route's kind.
    pub fn kind(&self) -> RouteKind {
        self.route.reference.kind
    }

    /// The route's namespace.
    pub fn namespace(&self) -> &str {
        &self.route.reference.name.namespace
    }

    /// The parents that are Services.
    pub fn parents(&self) -> Vec<&ParentRef> {
        self.route.service_parents()
    }

    /// True if requests must be answered 500 because of it: they mustn't pass by what can't be carried out, whether the
    /// route is accepted or not.
    pub fn has_failing(&self) -> bool {
        matches!(&self.rules, CompiledRules::Requests(rules) if rules.iter().any(|rule| rule.closed))
    }

    /// The session scopes that its tables name.
    pub fn scopes(&self) -> BTreeSet<&str> {
        let CompiledRules::Requests(rules) = &self.rules else { return BTreeSet::new() };
        rules.iter().flat_map(CompiledRule::sessions).map(|session| session.scope.as_str()).collect()
    }
}

/// The most memory, in bytes, that all regular expressions of a route may take in a sidecar: enough for one of
/// `\w+` in each of the 128 matches that a route can have.
const MAX_EXPRESSIONS: usize = 8 << 20;

/// Compiles a route.
pub fn compile_route(world: &World, route: Arc<Route>) -> CompiledRoute {
    let lookup = Lookup::new(world);
    let mut report = Report { refusals: refusals(&route), ..Report::default() };
    note_hostnames(&route, &mut report);
    let rules = match &route.rules {
        Rules::Http(_) | Rules::Grpc(_) => {
            CompiledRules::Requests(request_rules(&lookup, &route, &mut report))
        }
        Rules::Stream(rules) => {
            let mut compiled = Vec::new();
            for (index, rule) in rules.iter().enumerate() {
                let (rule, verdict) = stream::stream_rule(&lookup, &route, index, rule);
                note(&mut report, verdict);
                compiled.extend(rule);
            }
            connection_rules(&route, &mut report, compiled)
        }
        Rules::Unreadable => empty(route.reference.kind),
    };
    note_futile_rules(&route, &mut report);
    let mut compiled =
        CompiledRoute { rules, report, has_sessions: false, dependencies: BTreeSet::new(), route };
    compiled.has_sessions = !compiled.scopes().is_empty();
    refuse_client_ip_affinity(&lookup, &mut compiled);
    if compiled.report.refusal().is_some() {
        keep_only_failing(&mut compiled.rules);
    }
    compiled.dependencies = lookup.into_dependencies();
    compiled
}

/// What is wrong with the route as a whole.
fn refusals(route: &Route) -> Vec<Problem> {
    let mut refusals = Vec::new();
    let mut refuse = |message: String| refusals.push(Problem { reason: Reason::UnsupportedValue, message });
    for field in route.unknown.iter() {
        refuse(format!("spec.{field} isn't known to this mesh; correct or remove it"));
    }
    for field in &route.parents.unknown {
        let field = joined("spec.parentRefs", field);
        refuse(format!("{field} isn't known to this mesh; correct or remove it"));
    }
    if let Err(error) = &route.hostnames.value {
        refuse(format!("{}; write a list of names", error.below("spec.hostnames")));
    }
    match &route.rules {
        Rules::Unreadable => refuse("spec.rules isn't a list; write one".to_owned()),
        Rules::Stream(rules) if rules.is_empty() => {
            refuse("spec.rules is empty; write a rule with backendRefs".to_owned())
        }
        Rules::Stream(_) => {
            if let Some(message) = session::of_connections(route) {
                refuse(message);
            }
        }
        Rules::Http(_) | Rules::Grpc(_) => {}
    }
    refusals
}

/// GEP-1294: nothing is inferred from hostnames of a route whose parent is a Service. Only a TLSRoute has no
/// other way to tell names apart.
fn note_hostnames(route: &Route, report: &mut Report) {
    let requests = matches!(route.reference.kind, RouteKind::Http | RouteKind::Grpc);
    if requests && route.hostnames.ok().is_some_and(|hostnames| !hostnames.is_empty()) {
        report.notes.push(
            "spec.hostnames doesn't restrict anything for Service parents; match the header Host instead"
                .to_owned(),
        );
    }
}

/// The specification wants such rules accepted, and their requests answered 500: the message of `Accepted` says it.
fn note_futile_rules(route: &Route, report: &mut Report) {
    let dropped: Vec<usize> = report.invalid_rules.iter().map(|rule| rule.origin.index).collect();
    let futile = route.futile_rules().into_iter().filter(|rule| !dropped.contains(&rule.index));
    report.notes.extend(futile.map(|rule| rule.message));
}

fn request_rules(lookup: &Lookup<'_>, route: &Route, report: &mut Report) -> Vec<CompiledRule> {
    // The CRD's default: an HTTPRoute without rules has one that matches everything and leads nowhere.
    // GRPCRoute has no such default.
    let without_rules = [Lenient { value: Ok(HttpRule::default()), unknown: Vec::new(), about: None }];
    let names = route.rules.names();
    let known: Vec<&str> = names.iter().copied().flatten().collect();
    let settings = RouteSettings::read(&route.annotations, &known).unwrap_or_else(|problem| {
        report.refusals.push(problem);
        RouteSettings::default()
    });
    let compiled: Vec<(Option<CompiledRule>, RuleVerdict)> = match &route.rules {
        Rules::Http(rules) => {
            let rules = if rules.is_empty() { &without_rules } else { rules.as_slice() };
            let rule = |(index, rule)| http::http_rule(lookup, route, index, rule, &settings);
            rules.iter().enumerate().map(rule).collect()
        }
        Rules::Grpc(rules) => {
            let rule = |(index, rule)| http::grpc_rule(lookup, route, index, rule, &settings);
            rules.iter().enumerate().map(rule).collect()
        }
        Rules::Stream(_) | Rules::Unreadable => Vec::new(),
    };
    report.refusals.extend(too_many_expressions(&compiled));
    let clashes = clashes(&names, &compiled);
    let mut rules = Vec::new();
    for (index, (rule, mut verdict)) in compiled.into_iter().enumerate() {
        // A rule that is invalid already keeps its own problems, and answers 500 if it has to.
        match (clashes.get(&index), &verdict.invalid) {
            (Some(problem), None) => {
                let origin = RuleOrigin {
                    route: route.reference.clone(),
                    name: names.get(index).copied().flatten().map(str::to_owned),
                    index,
                };
                verdict.invalid = Some(InvalidRule { origin, problems: vec![problem.clone()], fails: false });
            }
            _ => rules.extend(rule),
        }
        note(report, verdict);
    }
    rules
}

/// Every sidecar that calls the Service has all expressions of the route in memory.
fn too_many_expressions(compiled: &[(Option<CompiledRule>, RuleVerdict)]) -> Option<Problem> {
    let expressions = compiled.iter().flat_map(|(_, verdict)| &verdict.expressions);
    let mut total = 0;
    let (field, _) = expressions.into_iter().find(|(_, bytes)| {
        total += bytes;
        total > MAX_EXPRESSIONS
    })?;
    let message = format!(
        "{field}: with this one the regular expressions of the route take more than {} MiB of each sidecar's memory; \
         shorten them (`[0-9]` takes less than `\\d`, `x*` less than `x{{100}}`) or use other routes",
        MAX_EXPRESSIONS >> 20
    );
    Some(Problem { reason: Reason::UnsupportedValue, message })
}

/// Rules of one route that can't both be there: a name used twice, or a cookie or header of two different sessions.
fn clashes(
    names: &[Option<&str>],
    compiled: &[(Option<CompiledRule>, RuleVerdict)],
) -> BTreeMap<usize, Problem> {
    let mut clashes = BTreeMap::new();
    let mut clash = |index: usize, message: String| {
        clashes.entry(index).or_insert(Problem { reason: Reason::UnsupportedValue, message });
    };
    for (index, name) in names.iter().enumerate().filter_map(|(index, name)| Some((index, (*name)?))) {
        if names[..index].contains(&Some(name)) {
            clash(index, format!("rules[{index}].name: {name:?} is used by an earlier rule; choose another"));
        }
    }
    // Carrier -> the scopes that use it, and in which rules.
    let mut carriers: BTreeMap<String, (BTreeSet<&str>, BTreeSet<usize>)> = BTreeMap::new();
    for (index, (rule, _)) in compiled.iter().enumerate() {
        let Some(rule) = rule else { continue };
        for session in rule.sessions() {
            let (scopes, rules) = carriers.entry(session::carrier_name(session)).or_default();
            scopes.insert(&session.scope);
            rules.insert(index);
        }
    }
    for (carrier, (scopes, rules)) in &carriers {
        if scopes.len() < 2 {
            continue;
        }
        for index in rules {
            clash(
                *index,
                format!(
                    "rules[{index}]: the {carrier} carries sessions of several rules of this route; give each rule its own name"
                ),
            );
        }
    }
    clashes
}

fn connection_rules(route: &Route, report: &mut Report, rules: Vec<TlsRule>) -> CompiledRules {
    if route.reference.kind == RouteKind::Tcp {
        return CompiledRules::Tcp(rules.into_iter().next().map(|rule| (rule.origin, rule.split)));
    }
    let hostnames: Vec<String> = route.hostnames.ok().cloned().unwrap_or_default();
    // A Hostname "cannot be an IP address": clients name none in their TLS (RFC 6066 section 3).
    let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
    if let Some(wrong) = hostnames.iter().find(|name| !is_hostname(name) || is_address(name)) {
        let message =
            format!("spec.hostnames: {wrong:?} isn't a DNS name, nor one behind \"*.\"; correct it");
        report.refusals.push(Problem { reason: Reason::UnsupportedValue, message });
    }
    let hostnames: Vec<String> = hostnames.iter().map(|name| name.to_ascii_lowercase()).collect();
    CompiledRules::Tls(
        rules.into_iter().map(|rule| TlsRule { hostnames: hostnames.clone(), ..rule }).collect(),
    )
}

/// A DNS name, or one behind `*.`.
pub(super) fn is_hostname(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// "The route MUST be rejected" where a Service keeps clients by their address as well (GEP-1619).
fn refuse_client_ip_affinity(lookup: &Lookup<'_>, compiled: &mut CompiledRoute) {
    let CompiledRules::Requests(rules) = &compiled.rules else { return };
    let mut problems = Vec::new();
    for rule in rules {
        let Outcome::Forward(split) = &rule.rule.outcome else { continue };
        for backend in &split.backends {
            let BackendTarget::Endpoints { id: BackendId::Service(port), .. } = &backend.target else {
                continue;
            };
            let has_session = rule.rule.session.is_some() || backend.session.is_some();
            let service = lookup.service(&port.service);
            if has_session && service.is_some_and(|service| service.client_ip_affinity.is_some()) {
                problems.push(client_ip_problem(&port.service));
            }
        }
    }
    problems.dedup();
    compiled.report.refusals.extend(problems);
}

/// A session and `sessionAffinity: ClientIP` on one Service.
pub(super) fn client_ip_problem(service: &gamut_route::NamespacedName) -> Problem {
    let message = format!(
        "Service {service} has sessionAffinity: ClientIP, which excludes session persistence; remove one of the two"
    );
    Problem { reason: Reason::UnsupportedValue, message }
}

/// Of a route that isn't accepted, only what must not be passed by stays.
fn keep_only_failing(rules: &mut CompiledRules) {
    match rules {
        CompiledRules::Requests(rules) => rules.retain(|rule| rule.closed),
        CompiledRules::Tls(rules) => rules.clear(),
        CompiledRules::Tcp(split) => *split = None,
    }
}

fn note(report: &mut Report, verdict: RuleVerdict) {
    match verdict.invalid {
        Some(invalid) => report.invalid_rules.push(invalid),
        None => report.valid_rules += 1,
    }
    report.unresolved.extend(verdict.unresolved);
    report.notes.extend(verdict.notes);
}

fn empty(kind: RouteKind) -> CompiledRules {
    match kind {
        RouteKind::Http | RouteKind::Grpc => CompiledRules::Requests(Vec::new()),
        RouteKind::Tls => CompiledRules::Tls(Vec::new()),
        RouteKind::Tcp => CompiledRules::Tcp(None),
    }
}
