//! Filters: from the manifest's union of fields to the table's, checked by the code that will run them.
//!
//! A filter is never skipped: where one can't be carried out, the rule that has it is answered 500
//! ([`RuleScope::fails`]).

use std::time::Duration;

use gamut_route::filter::{Compiled, Cors, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite};

use super::{report::Reason, rule::RuleScope};
use crate::gateway::{self, HttpFilter, PathModifier};

/// `maxAge` of CORS where it is unset (HTTPCORSFilter).
const DEFAULT_MAX_AGE: i64 = 5;

/// The methods that CORS can allow by name.
const CORS_METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// Filters that a rule may have only once (HTTPRouteRule.filters).
const ONCE: [&str; 5] =
    ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"];

/// Headers that no filter may touch: what they say is believed.
const RESERVED: [&str; 3] = ["gamut-answer", "gamut-proxy-answer", "gamut-proxy-upgrade"];

/// The filters of a rule, in the order of the manifest. `one_prefix` says that the rule has exactly one match
/// and that it is a PathPrefix, without which a prefix can't be replaced.
pub(super) fn of_rule(scope: &mut RuleScope<'_, '_>, list: &[HttpFilter], one_prefix: bool) -> Vec<Filter> {
    let filters = compile(scope, "filters", list, one_prefix);
    let has = |kind: &str| list.iter().any(|filter| filter.kind == kind);
    if has("RequestRedirect") && has("URLRewrite") {
        refuse(
            scope,
            Reason::IncompatibleFilters,
            "filters",
            "RequestRedirect and URLRewrite exclude each other; remove one",
        );
    }
    filters
}

/// The filters of a backendRef. When they run, a backend has been drawn: it is too late for what answers in
/// its place.
pub(super) fn of_backend(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    list: &[HttpFilter],
    one_prefix: bool,
) -> Vec<Filter> {
    let field = format!("{field}.filters");
    let late = |filter: &HttpFilter| matches!(filter.kind.as_str(), "RequestRedirect" | "CORS");
    for (index, filter) in list.iter().enumerate().filter(|(_, filter)| late(filter)) {
        let what = format!("{} answers before a backend is chosen; put it on the rule", filter.kind);
        refuse(scope, Reason::UnsupportedValue, &format!("{field}[{index}]"), what);
    }
    compile(scope, &field, list, one_prefix)
}

fn compile(scope: &mut RuleScope<'_, '_>, field: &str, list: &[HttpFilter], one_prefix: bool) -> Vec<Filter> {
    for kind in ONCE {
        if list.iter().filter(|filter| filter.kind == kind).count() > 1 {
            let what = format!("{kind} may be there only once; join the two");
            refuse(scope, Reason::IncompatibleFilters, field, what);
        }
    }
    let mut filters = Vec::new();
    for (index, filter) in list.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if let Some(filter) = compile_one(scope, &field, filter, one_prefix) {
            match Compiled::new(std::slice::from_ref(&filter)) {
                Ok(_) => filters.push(filter),
                Err(error) => refuse(scope, Reason::UnsupportedValue, &field, error),
            }
        }
    }
    filters
}

fn compile_one(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    filter: &HttpFilter,
    one_prefix: bool,
) -> Option<Filter> {
    if let Some(stray) = stray_field(filter) {
        refuse(
            scope,
            Reason::UnsupportedValue,
            field,
            format!("{stray} is set, but type is {:?}; remove one", filter.kind),
        );
        return None;
    }
    let inner = format!("{field}.{}", field_of(&filter.kind));
    match filter.kind.as_str() {
        "RequestHeaderModifier" => {
            let edits = required(scope, field, filter, filter.request_header_modifier.as_ref())?;
            header_edits(scope, &inner, edits).map(Filter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            let edits = required(scope, field, filter, filter.response_header_modifier.as_ref())?;
            header_edits(scope, &inner, edits).map(Filter::ResponseHeaders)
        }
        "RequestRedirect" => {
            let redirect = required(scope, field, filter, filter.request_redirect.as_ref())?;
            compile_redirect(scope, &inner, redirect, one_prefix).map(Filter::Redirect)
        }
        "URLRewrite" => {
            let rewrite = required(scope, field, filter, filter.url_rewrite.as_ref())?;
            let path = compile_path(scope, &inner, rewrite.path.as_ref(), one_prefix)?;
            Some(Filter::Rewrite(Rewrite { hostname: rewrite.hostname.clone(), path }))
        }
        "RequestMirror" => {
            let mirror = required(scope, field, filter, filter.request_mirror.as_ref())?;
            compile_mirror(scope, &inner, mirror)
        }
        "CORS" => {
            let cors = required(scope, field, filter, filter.cors.as_ref())?;
            compile_cors(scope, &inner, cors).map(Filter::Cors)
        }
        "ExternalAuth" | "ExtensionRef" => {
            refused(scope, field, format!("{} isn't supported by this mesh; remove the filter", filter.kind))
        }
        other => {
            let what = format!("{other:?} isn't a filter that this mesh knows; correct or remove it");
            refused(scope, &format!("{field}.type"), what)
        }
    }
}

/// The configuration of a filter's type.
fn required<'f, T>(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    filter: &HttpFilter,
    config: Option<&'f T>,
) -> Option<&'f T> {
    config.or_else(|| {
        let what = format!("type is {}, but {} isn't set; set it", filter.kind, field_of(&filter.kind));
        refused(scope, field, what)
    })
}

fn header_edits(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    edits: &gateway::HeaderModifier,
) -> Option<HeaderEdits> {
    // Every request has exactly one host: it can be replaced, and neither doubled nor taken away.
    let host = |name: &String| name.eq_ignore_ascii_case("host");
    if edits.add.iter().any(|header| host(&header.name)) || edits.remove.iter().any(host) {
        let what = "the host can be set, but not added to or removed; use `set` or URLRewrite.hostname";
        return refused(scope, field, what);
    }
    let named = edits.set.iter().chain(&edits.add).map(|header| &header.name).chain(&edits.remove);
    if let Some(name) = named.into_iter().find(|name| is_reserved(name)) {
        let what = format!("{name} is a header of the mesh's own, which only sidecars may set; remove it");
        return refused(scope, field, what);
    }
    let pairs = |headers: &[gateway::Header]| {
        headers.iter().map(|header| (header.name.to_ascii_lowercase(), header.value.clone())).collect()
    };
    let remove = edits.remove.iter().map(|name| name.to_ascii_lowercase()).collect();
    Some(HeaderEdits { set: pairs(&edits.set), add: pairs(&edits.add), remove })
}

/// Headers by which sidecars say that an answer is their own (docs/reference/requests.md, "Answers of the sidecar's own").
fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

fn compile_redirect(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    redirect: &gateway::Redirect,
    one_prefix: bool,
) -> Option<Redirect> {
    let number = |scope: &mut RuleScope<'_, '_>, name: &str, value: i64| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        if number.is_none() {
            refuse(
                scope,
                Reason::UnsupportedValue,
                &format!("{field}.{name}"),
                format!("{value} is out of range"),
            );
        }
        number
    };
    let status = number(scope, "statusCode", redirect.status_code.unwrap_or(302))?;
    let port = match redirect.port {
        Some(port) => Some(number(scope, "port", port)?),
        None => None,
    };
    let path = compile_path(scope, field, redirect.path.as_ref(), one_prefix)?;
    Some(Redirect {
        scheme: redirect.scheme.clone(),
        hostname: redirect.hostname.clone(),
        path,
        port,
        status,
    })
}

/// The outer `None` says that something is wrong, the inner one that the path stays.
fn compile_path(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    path: Option<&PathModifier>,
    one_prefix: bool,
) -> Option<Option<PathRewrite>> {
    let Some(path) = path else { return Some(None) };
    let field = format!("{field}.path");
    let wrong = |scope: &mut RuleScope<'_, '_>, what: String| refused(scope, &field, what);
    match (path.kind.as_str(), &path.replace_full_path, &path.replace_prefix_match) {
        ("ReplaceFullPath", Some(full), None) => Some(Some(PathRewrite::Full(full.clone()))),
        ("ReplacePrefixMatch", None, Some(_)) if !one_prefix => {
            let what = "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix";
            wrong(scope, what.to_owned())
        }
        ("ReplacePrefixMatch", None, Some(prefix)) => Some(Some(PathRewrite::Prefix(prefix.clone()))),
        ("ReplaceFullPath", ..) => {
            wrong(scope, "type ReplaceFullPath needs replaceFullPath and nothing else".to_owned())
        }
        ("ReplacePrefixMatch", ..) => {
            wrong(scope, "type ReplacePrefixMatch needs replacePrefixMatch and nothing else".to_owned())
        }
        (other, ..) => {
            wrong(scope, format!("type {other:?} isn't known; use ReplaceFullPath or ReplacePrefixMatch"))
        }
    }
}

/// A mirror whose backend doesn't resolve is left out: "not configure this backend in the underlying implementation"
/// (HTTPRequestMirrorFilter.backendRef), while `ResolvedRefs` says so.
fn compile_mirror(scope: &mut RuleScope<'_, '_>, field: &str, mirror: &gateway::Mirror) -> Option<Filter> {
    let reference = &mirror.backend_ref;
    if reference.weight.is_some() || !reference.filters.is_empty() {
        let what = "a mirror's backendRef has no weight and no filters; remove them";
        return refused(scope, &format!("{field}.backendRef"), what);
    }
    let (numerator, denominator) = match (mirror.percent, &mirror.fraction) {
        (None, None) => (1, 1),
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (Some(_), Some(_)) => {
            let what = "percent and fraction exclude each other; remove one";
            return refused(scope, field, what);
        }
    };
    let share = u32::try_from(numerator).ok().zip(u32::try_from(denominator).ok());
    let Some((numerator, denominator)) = share.filter(|(n, d)| *d > 0 && n <= d) else {
        let what = format!("{numerator} of {denominator} isn't a share; use 0 to 100 percent");
        return refused(scope, field, what);
    };
    let backend = scope.mirror_target(&format!("{field}.backendRef"), reference)?;
    Some(Filter::Mirror(Mirror { backend, numerator, denominator }))
}

fn compile_cors(scope: &mut RuleScope<'_, '_>, field: &str, cors: &gateway::Cors) -> Option<Cors> {
    let before = scope.problems.len();
    check_list(scope, &format!("{field}.allowOrigins"), &cors.allow_origins, |_| true, "origins");
    let methods = CORS_METHODS.join(", ");
    check_list(
        scope,
        &format!("{field}.allowMethods"),
        &cors.allow_methods,
        |value| CORS_METHODS.contains(&value),
        &methods,
    );
    let headers = "names of headers";
    check_list(scope, &format!("{field}.allowHeaders"), &cors.allow_headers, is_header, headers);
    let named = cors.expose_headers.iter().find(|value| *value != "*" && !is_header(value));
    if let Some(wrong) = named {
        refuse(
            scope,
            Reason::UnsupportedValue,
            &format!("{field}.exposeHeaders"),
            format!("{wrong:?} isn't valid here; use names of headers, or \"*\""),
        );
    }
    let max_age = cors.max_age.unwrap_or(DEFAULT_MAX_AGE);
    let max_age = u64::try_from(max_age).ok().filter(|age| *age > 0).unwrap_or_else(|| {
        let what = format!("{max_age} isn't a number of seconds; use 1 or more");
        refuse(scope, Reason::UnsupportedValue, &format!("{field}.maxAge"), what);
        1
    });
    (scope.problems.len() == before).then(|| Cors {
        allow_origins: cors.allow_origins.clone(),
        allow_credentials: cors.allow_credentials,
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        max_age: Duration::from_secs(max_age),
    })
}

/// Checks a list in which `*` stands for everything, and then alone; `what` else is valid.
fn check_list(
    scope: &mut RuleScope<'_, '_>,
    field: &str,
    list: &[String],
    valid: impl Fn(&str) -> bool,
    what: &str,
) {
    if let Some(wrong) = list.iter().find(|value| *value != "*" && !valid(value)) {
        let what = format!("{wrong:?} isn't valid here; use {what}, or \"*\"");
        refuse(scope, Reason::UnsupportedValue, field, what);
    }
    if list.len() > 1 && list.iter().any(|value| value == "*") {
        refuse(scope, Reason::UnsupportedValue, field, "\"*\" must be the only entry");
    }
}

fn is_header(name: &str) -> bool {
    http::HeaderName::from_bytes(name.as_bytes()).is_ok()
}

/// A configuration that doesn't belong to the filter's type.
fn stray_field(filter: &HttpFilter) -> Option<&'static str> {
    let fields = [
        (filter.request_header_modifier.is_some(), "requestHeaderModifier"),
        (filter.response_header_modifier.is_some(), "responseHeaderModifier"),
        (filter.request_mirror.is_some(), "requestMirror"),
        (filter.request_redirect.is_some(), "requestRedirect"),
        (filter.url_rewrite.is_some(), "urlRewrite"),
        (filter.cors.is_some(), "cors"),
        (filter.external_auth.is_some(), "externalAuth"),
        (filter.extension_ref.is_some(), "extensionRef"),
    ];
    let own = field_of(&filter.kind);
    // A type that isn't known is reported as such, whatever stands beside it.
    let stray = fields.into_iter().find(|(set, name)| *set && *name != own);
    stray.filter(|_| is_known(&filter.kind)).map(|(_, name)| name)
}

/// The field that a filter's type needs.
fn field_of(kind: &str) -> &'static str {
    match kind {
        "RequestHeaderModifier" => "requestHeaderModifier",
        "ResponseHeaderModifier" => "responseHeaderModifier",
        "RequestMirror" => "requestMirror",
        "RequestRedirect" => "requestRedirect",
        "URLRewrite" => "urlRewrite",
        "CORS" => "cors",
        "ExternalAuth" => "externalAuth",
        "ExtensionRef" => "extensionRef",
        _ => "",
    }
}

fn is_known(kind: &str) -> bool {
    !field_of(kind).is_empty()
}

/// Notes a filter that can't be carried out, which makes the rule answer 500.
fn refuse(scope: &mut RuleScope<'_, '_>, reason: Reason, field: &str, what: impl std::fmt::Display) {
    scope.fails = true;
    scope.problem(reason, field, what);
}

/// Notes it, where a filter was wanted.
fn refused<T>(scope: &mut RuleScope<'_, '_>, field: &str, what: impl std::fmt::Display) -> Option<T> {
    refuse(scope, Reason::UnsupportedValue, field, what);
    None
}
