//! Rules of TCPRoutes and TLSRoutes: where connections go.

use gamut_route::table::{Split, TlsRule};

use super::{
    http::readable,
    report::InvalidRule,
    rule::{self, RuleScope, RuleVerdict},
    world::Lookup,
};
use crate::gateway::{Lenient, Route, StreamRule};

/// Compiles a rule. Its hostnames are empty; the caller, who knows the kind, puts the route's there.
pub(super) fn stream_rule(
    lookup: &Lookup<'_>,
    route: &Route,
    index: usize,
    rule: &Lenient<StreamRule>,
) -> (Option<TlsRule>, RuleVerdict) {
    let name = rule.ok().and_then(|rule| rule.name.clone());
    let mut scope = RuleScope::new(lookup, route, index, name);
    let split = match readable(&mut scope, rule) {
        Some(rule) => split(&mut scope, rule),
        None => Split::default(),
    };
    // Connections without matches have one rule. TCPRoute and TLSRoute v1 allow no second one; v1alpha2 did.
    if index > 0 {
        scope.unsupported(
            "",
            "only the first rule of a TCPRoute or TLSRoute is used; make it a route of its own",
        );
    }
    let RuleScope { origin, problems, unresolved, notes, .. } = scope;
    if problems.is_empty() {
        let verdict = RuleVerdict { invalid: None, unresolved, notes, expressions: Vec::new() };
        return (Some(TlsRule { origin, hostnames: Vec::new(), split }), verdict);
    }
    let invalid = InvalidRule { origin, problems, fails: false };
    (None, RuleVerdict { invalid: Some(invalid), unresolved, notes, expressions: Vec::new() })
}

fn split(scope: &mut RuleScope<'_, '_>, rule: &StreamRule) -> Split {
    for (index, reference) in rule.backend_refs.iter().enumerate() {
        if !reference.filters.is_empty() {
            scope
                .unsupported(&format!("backendRefs[{index}].filters"), "isn't known to this mesh; remove it");
        }
    }
    if rule.backend_refs.is_empty() {
        scope.unsupported("backendRefs", "is empty; name a backend");
    }
    let backends = scope.backends(&rule.backend_refs, false);
    rule::split(backends)
}
