//! Rules of HTTPRoutes and GRPCRoutes, which come to the same kind of rule in tables.

use std::time::Duration;

use gamut_route::{
    precedence::Specificity,
    table::{Match, Outcome, PathMatch, Retry, Rule, Timeouts},
};

use super::{
    filters, matches,
    report::{Problem, Reason},
    rule::{self, CompiledRule, RuleBackend, RuleScope, RuleVerdict},
    session::{self, RouteSettings},
    world::Lookup,
};
use crate::gateway::{
    self, GrpcRule, HttpFilter, HttpRule, Lenient, Route, SessionPersistence, parse_duration,
};

/// The base interval where a retry stanza names none.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// The parts of a rule that both kinds have, already in the shape of HTTPRoute.
struct Parts<'a> {
    filters: Vec<HttpFilter>,
    session: Option<&'a SessionPersistence>,
    timeouts: Option<&'a gateway::Timeouts>,
    retry: Option<&'a gateway::Retry>,
}

/// Compiles a rule of an HTTPRoute.
pub(super) fn http_rule(
    lookup: &Lookup<'_>,
    route: &Route,
    index: usize,
    rule: &Lenient<HttpRule>,
    sessions: &RouteSettings,
) -> (Option<CompiledRule>, RuleVerdict) {
    let about = rule.ok().or(rule.about.as_ref());
    let mut scope = RuleScope::new(lookup, route, index, about.and_then(|rule| rule.name.clone()));
    let readable = readable(&mut scope, rule);
    let ranked = about.map(|rule| matches::http(&mut scope, &rule.matches)).unwrap_or_default();
    let Some(rule) = readable else { return scope.finish(ranked, nothing()) };
    let backends = scope.backends(&rule.backend_refs, has_one_prefix(&ranked));
    let parts = Parts {
        filters: rule.filters.clone(),
        session: rule.session_persistence.as_ref(),
        timeouts: rule.timeouts.as_ref(),
        retry: rule.retry.as_ref(),
    };
    compile(scope, ranked, backends, &parts, sessions)
}

/// Compiles a rule of a GRPCRoute.
pub(super) fn grpc_rule(
    lookup: &Lookup<'_>,
    route: &Route,
    index: usize,
    rule: &Lenient<GrpcRule>,
    sessions: &RouteSettings,
) -> (Option<CompiledRule>, RuleVerdict) {
    let about = rule.ok().or(rule.about.as_ref());
    let mut scope = RuleScope::new(lookup, route, index, about.and_then(|rule| rule.name.clone()));
    let readable = readable(&mut scope, rule);
    let ranked = about.map(|rule| matches::grpc(&mut scope, &rule.matches)).unwrap_or_default();
    let Some(rule) = readable else { return scope.finish(ranked, nothing()) };
    let backends = scope.backends(&rule.backend_refs, has_one_prefix(&ranked));
    let parts = Parts {
        filters: rule.filters.iter().cloned().map(Into::into).collect(),
        session: rule.session_persistence.as_ref(),
        timeouts: None,
        retry: None,
    };
    compile(scope, ranked, backends, &parts, sessions)
}

fn compile(
    mut scope: RuleScope<'_, '_>,
    ranked: Vec<(Specificity, Match)>,
    mut backends: Vec<RuleBackend<'_>>,
    parts: &Parts<'_>,
    sessions: &RouteSettings,
) -> (Option<CompiledRule>, RuleVerdict) {
    let filters = filters::of_rule(&mut scope, &parts.filters, has_one_prefix(&ranked));
    let redirects = parts.filters.iter().any(|filter| filter.kind == "RequestRedirect");
    if redirects && !backends.is_empty() {
        let message = format!(
            "{}: a rule with a RequestRedirect answers itself and can't have backendRefs; remove one",
            scope.field("filters")
        );
        scope.fails = true;
        scope.problems.push(Problem { reason: Reason::IncompatibleFilters, message });
    }
    if redirects {
        refuse_mirrors(&mut scope, &parts.filters);
        note_what_is_idle(&mut scope, parts);
    }
    let timeouts = timeouts(&mut scope, parts.timeouts);
    let retry = parts.retry.map(|retry| compile_retry(&mut scope, retry));
    let whens: Vec<Match> = ranked.iter().map(|(_, when)| when.clone()).collect();
    let session = session::of_rule(&mut scope, parts.session, sessions, &whens, &mut backends);
    let outcome = match backends.is_empty() && !redirects {
        // "If all entries in BackendRefs are invalid [or absent], and there are also no filters [that answer]: 500".
        true => Outcome::Fail("the rule has no backendRefs and no filter that answers; add one".to_owned()),
        false => Outcome::Forward(rule::split(backends)),
    };
    let rule = Rule { origin: Some(scope.origin.clone()), filters, outcome, timeouts, retry, session };
    scope.finish(ranked, rule)
}

/// "If an implementation cannot support other combinations of filters, they must clearly document that limitation"
/// (HTTPRouteRule.filters): a request that the sidecar answers itself goes nowhere, and neither does a copy of it.
fn refuse_mirrors(scope: &mut RuleScope<'_, '_>, filters: &[HttpFilter]) {
    if filters.iter().any(|filter| filter.kind == "RequestMirror") {
        scope.fails = true;
        scope.problem(
            Reason::IncompatibleFilters,
            "filters",
            "RequestRedirect and RequestMirror exclude each other: what is redirected is not copied; remove one",
        );
    }
}

/// Settings about requests that go somewhere, in a rule that answers them.
fn note_what_is_idle(scope: &mut RuleScope<'_, '_>, parts: &Parts<'_>) {
    let edits = parts.filters.iter().any(|filter| filter.kind == "RequestHeaderModifier");
    let settings = [
        (edits, "RequestHeaderModifier"),
        (parts.timeouts.is_some(), "timeouts"),
        (parts.retry.is_some(), "retry"),
        (parts.session.is_some(), "sessionPersistence"),
    ];
    let idle: Vec<&str> = settings.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if !idle.is_empty() {
        let note =
            format!("{} answers with a redirect and has no use for {}", scope.field(""), idle.join(", "));
        scope.notes.push(note);
    }
}

/// Whether there is exactly one match and it is a PathPrefix: only then "the matched prefix" is one thing.
fn has_one_prefix(ranked: &[(Specificity, Match)]) -> bool {
    matches!(ranked, [(_, only)] if matches!(only.path, PathMatch::Prefix(_)))
}

/// The rule, if its fields have the right types and are all known.
pub(super) fn readable<'r, T>(scope: &mut RuleScope<'_, '_>, rule: &'r Lenient<T>) -> Option<&'r T> {
    for field in &rule.unknown {
        // A filter that isn't known must not be skipped; any other field only makes the rule invalid.
        scope.fails |= field.contains("filters[");
        scope.unsupported(field, "isn't known to this mesh; correct or remove it");
    }
    match &rule.value {
        Ok(rule) => Some(rule),
        Err(error) => {
            // Nobody knows what else it says: a filter, for one.
            scope.fails = true;
            let message = format!("{}; correct the field", error.below(&scope.field("")));
            scope.problems.push(Problem { reason: Reason::UnsupportedValue, message });
            None
        }
    }
}

fn timeouts(scope: &mut RuleScope<'_, '_>, timeouts: Option<&gateway::Timeouts>) -> Timeouts {
    let Some(timeouts) = timeouts else { return Timeouts::default() };
    let request = duration(scope, "timeouts.request", timeouts.request.as_deref());
    let backend_request = duration(scope, "timeouts.backendRequest", timeouts.backend_request.as_deref());
    // "0s" turns a timeout off.
    let limit = |duration: Option<Duration>| duration.filter(|duration| !duration.is_zero());
    let (request, backend_request) = (limit(request), limit(backend_request));
    if request.zip(backend_request).is_some_and(|(request, backend)| backend > request) {
        scope.unsupported(
            "timeouts.backendRequest",
            "is longer than timeouts.request, which includes it; shorten it",
        );
    }
    Timeouts { request, backend_request }
}

fn compile_retry(scope: &mut RuleScope<'_, '_>, retry: &gateway::Retry) -> Retry {
    let mut codes: Vec<u16> = Vec::new();
    for code in &retry.codes {
        match u16::try_from(*code).ok().filter(|code| (400..=599).contains(code)) {
            Some(code) => codes.push(code),
            None => scope
                .unsupported("retry.codes", format!("{code} can't be retried; use codes from 400 to 599")),
        }
    }
    codes.sort_unstable();
    codes.dedup();
    let attempts = retry.attempts.unwrap_or(1);
    let attempts = u32::try_from(attempts).unwrap_or_else(|_| {
        scope.unsupported("retry.attempts", format!("{attempts} is out of range; use 0 or more"));
        0
    });
    let backoff = duration(scope, "retry.backoff", retry.backoff.as_deref());
    // `backoff` is the least time that is waited; retrying at once isn't allowed (HTTPRouteRetry.backoff).
    if backoff.is_some_and(|backoff| backoff.is_zero()) {
        let field = scope.field("retry.backoff");
        scope.notes.push(format!(
            "{field}: nothing is tried again at once; {DEFAULT_BACKOFF:?} are waited instead of 0s"
        ));
    }
    let backoff = backoff.filter(|backoff| !backoff.is_zero()).unwrap_or(DEFAULT_BACKOFF);
    Retry { codes, attempts, backoff }
}

fn duration(scope: &mut RuleScope<'_, '_>, field: &str, text: Option<&str>) -> Option<Duration> {
    let parsed = parse_duration(text?);
    parsed.map_err(|error| scope.unsupported(field, error)).ok()
}

/// In place of a rule that can't be read; it never gets into a table, where such a rule answers 500.
fn nothing() -> Rule {
    Rule {
        origin: None,
        filters: Vec::new(),
        outcome: Outcome::Fail(String::new()),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
    }
}
