//! Matches of HTTPRoutes and GRPCRoutes: from the manifest's shape to the table's, checked by the matcher
//! that will run them.

use gamut_route::{
    grpc,
    matcher::Matcher,
    precedence::Specificity,
    table::{HttpRules, Match, NamedMatch, PathMatch, RankedMatch, Rule, Split, ValueMatch},
};

use super::rule::RuleScope;
use crate::gateway::{self, GrpcMatch, HttpMatch};

/// The methods that a route can match. `CONNECT` is missing: the proxy refuses it before any route is asked.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

/// What "PathPrefix and Exact paths" can't contain to be syntactically valid (HTTPPathMatch, and its CRD's rules).
const NOT_IN_PATHS: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "#"];

/// What they can't end with.
const NOT_AT_THE_END_OF_PATHS: [&str; 2] = ["/..", "/."];

/// Headers that only sidecars write. They are taken out of requests before any match is asked.
const OF_SIDECARS: [&str; 3] = ["gamut-answer", "gamut-proxy-answer", "gamut-proxy-upgrade"];

/// The matches of an HTTPRoute's rule; none is one that matches everything.
pub(super) fn http(scope: &mut RuleScope<'_, '_>, matches: &[HttpMatch]) -> Vec<(Specificity, Match)> {
    let everything = [HttpMatch::default()];
    let matches = if matches.is_empty() { &everything } else { matches };
    let compiled = matches.iter().enumerate().filter_map(|(index, when)| {
        let field = format!("matches[{index}]");
        let compiled = http_match(scope, &field, when)?;
        check(scope, &field, &compiled)?;
        Some((Specificity::http(&compiled), compiled))
    });
    compiled.collect()
}

/// The matches of a GRPCRoute's rule; none is one that matches everything.
pub(super) fn grpc(scope: &mut RuleScope<'_, '_>, matches: &[GrpcMatch]) -> Vec<(Specificity, Match)> {
    let everything = [GrpcMatch::default()];
    let matches = if matches.is_empty() { &everything } else { matches };
    let compiled = matches.iter().enumerate().filter_map(|(index, when)| {
        let field = format!("matches[{index}]");
        let when = grpc_match(scope, &field, when)?;
        let specificity = Specificity::grpc(&when);
        match when.to_http() {
            Ok(compiled) => {
                check(scope, &field, &compiled)?;
                Some((specificity, compiled))
            }
            Err(error) => {
                scope.unsupported(&format!("{field}.method"), &error);
                None
            }
        }
    });
    compiled.collect()
}

fn http_match(scope: &mut RuleScope<'_, '_>, field: &str, when: &HttpMatch) -> Option<Match> {
    let path = match &when.path {
        None => Some(PathMatch::default()),
        Some(path) => {
            let value = path.value.clone().unwrap_or_else(|| "/".to_owned());
            let kind = path.kind.as_deref().unwrap_or("PathPrefix");
            if matches!(kind, "Exact" | "PathPrefix")
                && let Some(part) = NOT_IN_PATHS
                    .iter()
                    .find(|part| value.contains(**part))
                    .or_else(|| NOT_AT_THE_END_OF_PATHS.iter().find(|part| value.ends_with(**part)))
            {
                let what = format!("{value:?} can't be matched as a path: it must not have {part:?} there");
                scope.unsupported(&format!("{field}.path.value"), what);
                return None;
            }
            match kind {
                "Exact" => Some(PathMatch::Exact(value)),
                "PathPrefix" => Some(PathMatch::Prefix(value)),
                "RegularExpression" => Some(PathMatch::Regex(value)),
                other => {
                    let what = format!("{other:?} isn't known; use Exact, PathPrefix or RegularExpression");
                    scope.unsupported(&format!("{field}.path.type"), what);
                    None
                }
            }
        }
    };
    let method = match when.method.as_deref() {
        None => Some(None),
        Some(method) if METHODS.contains(&method) => Some(Some(method.to_owned())),
        Some(method) => {
            let what = format!("{method:?} isn't supported; use one of {}", METHODS.join(", "));
            scope.unsupported(&format!("{field}.method"), what);
            None
        }
    };
    let headers = values(scope, &format!("{field}.headers"), &when.headers, true);
    let query = values(scope, &format!("{field}.queryParams"), &when.query_params, false);
    Some(Match { path: path?, method: method?, headers: headers?, query: query? })
}

fn grpc_match(scope: &mut RuleScope<'_, '_>, field: &str, when: &GrpcMatch) -> Option<grpc::GrpcMatch> {
    let headers = values(scope, &format!("{field}.headers"), &when.headers, true);
    let Some(method) = &when.method else {
        return Some(grpc::GrpcMatch { service: None, method: None, headers: headers? });
    };
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (service, name) = (set(&method.service), set(&method.method));
    if service.is_none() && name.is_none() {
        scope.unsupported(
            &format!("{field}.method"),
            "names neither a service nor a method; set one, or leave `method` out",
        );
        return None;
    }
    let value: fn(String) -> ValueMatch = match method.kind.as_deref().unwrap_or("Exact") {
        "Exact" => ValueMatch::Exact,
        "RegularExpression" => ValueMatch::Regex,
        other => {
            let what = format!("{other:?} isn't known; use Exact or RegularExpression");
            scope.unsupported(&format!("{field}.method.type"), what);
            return None;
        }
    };
    let slash = |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains('/'));
    if method.kind.as_deref() != Some("RegularExpression") && (slash(&service) || slash(&name)) {
        scope.unsupported(
            &format!("{field}.method"),
            "a service or method has no '/'; put the two into their own fields",
        );
        return None;
    }
    Some(grpc::GrpcMatch { service: service.map(value), method: name.map(value), headers: headers? })
}

/// Tests of headers, whose names have no case, or query parameters.
fn values(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    tests: &[gateway::ValueMatch],
    is_header: bool,
) -> Option<Vec<NamedMatch>> {
    let before = scope.problems.len();
    let compiled = tests.iter().enumerate().filter_map(|(index, test)| {
        let field = format!("{field}[{index}]");
        if test.name.is_empty() || test.value.is_empty() {
            scope.unsupported(&field, "name and value must both be set");
            return None;
        }
        if is_header && OF_SIDECARS.iter().any(|name| test.name.eq_ignore_ascii_case(name)) {
            let what = format!(
                "{} is a header of the mesh's own, which no request has; remove the match",
                test.name
            );
            scope.unsupported(&field, what);
            return None;
        }
        let value = match test.kind.as_deref().unwrap_or("Exact") {
            "Exact" => ValueMatch::Exact(test.value.clone()),
            "RegularExpression" => ValueMatch::Regex(test.value.clone()),
            other => {
                let what = format!("{other:?} isn't known; use Exact or RegularExpression");
                scope.unsupported(&format!("{field}.type"), what);
                return None;
            }
        };
        let name = if is_header { test.name.to_ascii_lowercase() } else { test.name.clone() };
        Some(NamedMatch { name, value })
    });
    let compiled: Vec<NamedMatch> = compiled.collect();
    (scope.problems.len() == before).then_some(compiled)
}

/// Asks the matcher itself: a match that it can't be built from never gets into a table.
fn check(scope: &mut RuleScope<'_, '_>, field: &str, when: &Match) -> Option<()> {
    let rule = Rule::forward(Split::default());
    let alone = HttpRules { rules: vec![rule], matches: vec![RankedMatch { when: when.clone(), rule: 0 }] };
    let matcher = Matcher::new(&alone).map_err(|error| scope.unsupported(field, &error)).ok()?;
    let bytes = matcher.size_of_expressions();
    if bytes > 0 {
        let field = scope.field(field);
        scope.expressions.push((field, bytes));
    }
    Some(())
}
