//! Rules in words: what they match and what else they do, as short as they can be said.

use gamut_controller::gateway::{
    GrpcFilter, GrpcMatch, GrpcRule, HttpFilter, HttpMatch, HttpRule, ValueMatch,
};

/// A text for each match; none: every request.
pub(super) fn http_matches(rule: &HttpRule) -> Vec<String> {
    rule.matches.iter().map(http_match).filter(|text| !text.is_empty()).collect()
}

fn http_match(test: &HttpMatch) -> String {
    let path = test.path.as_ref().and_then(|path| {
        let value = path.value.as_deref().unwrap_or("/");
        match path.kind.as_deref() {
            Some("Exact") => Some(format!("path {value}")),
            Some("RegularExpression") => Some(format!("path ~ {value}")),
            _ if value == "/" => None,
            _ => Some(format!("prefix {}", value.trim_end_matches('/'))),
        }
    });
    let method = test.method.iter().map(ToString::to_string);
    let headers = test.headers.iter().map(|test| value_match("header", ": ", test));
    let query = test.query_params.iter().map(|test| value_match("query", "=", test));
    method.chain(path).chain(headers).chain(query).collect::<Vec<_>>().join(", ")
}

/// As [`http_matches`].
pub(super) fn grpc_matches(rule: &GrpcRule) -> Vec<String> {
    rule.matches.iter().map(grpc_match).filter(|text| !text.is_empty()).collect()
}

fn grpc_match(test: &GrpcMatch) -> String {
    let method = test.method.as_ref().map(|method| {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "*".to_owned());
        format!("method {}/{}", part(&method.service), part(&method.method))
    });
    let headers = test.headers.iter().map(|test| value_match("header", ": ", test));
    method.into_iter().chain(headers).collect::<Vec<_>>().join(", ")
}

fn value_match(what: &str, equals: &str, test: &ValueMatch) -> String {
    match test.kind.as_deref() {
        Some("RegularExpression") => format!("{what} {} ~ {}", test.name, test.value),
        _ => format!("{what} {}{equals}{}", test.name, test.value),
    }
}

/// Filters, time limits, retries: a text each.
pub(super) fn http_settings(rule: &HttpRule) -> Vec<String> {
    let filters = rule.filters.iter().map(http_filter);
    let timeouts = rule.timeouts.iter().flat_map(|timeouts| {
        let request = timeouts.request.iter().map(|limit| format!("timeout {limit}"));
        request.chain(timeouts.backend_request.iter().map(|limit| format!("timeout {limit} for each try")))
    });
    let retry = rule.retry.iter().map(|retry| format!("{} retries", retry.attempts.unwrap_or(1)));
    filters.chain(timeouts).chain(retry).collect()
}

fn http_filter(filter: &HttpFilter) -> String {
    let what = match filter.kind.as_str() {
        "RequestHeaderModifier" => "changes request headers",
        "ResponseHeaderModifier" => "changes response headers",
        "RequestRedirect" => "redirects",
        "URLRewrite" => "rewrites the URL",
        "RequestMirror" => "mirrors requests",
        "CORS" => "answers for CORS",
        other => return format!("filter {other}"),
    };
    what.to_owned()
}

/// As [`http_settings`].
pub(super) fn grpc_settings(rule: &GrpcRule) -> Vec<String> {
    let filter = |filter: &GrpcFilter| http_filter(&filter.clone().into());
    rule.filters.iter().map(filter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRule {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn matches_are_said_in_the_order_in_which_they_count() {
        let rule = rule(
            "matches:
- {path: {value: /api/}, method: GET, headers: [{name: version, value: two}], queryParams: [{name: a, value: b}]}
- {path: {type: Exact, value: /login}}
- {path: {type: RegularExpression, value: '/v[0-9]+'}}
- {headers: [{type: RegularExpression, name: agent, value: 'bot.*'}]}
- {path: {value: /}}",
        );
        assert_eq!(
            http_matches(&rule),
            [
                "GET, prefix /api, header version: two, query a=b",
                "path /login",
                "path ~ /v[0-9]+",
                "header agent ~ bot.*"
            ]
        );
    }

    #[test]
    fn settings_are_said_one_by_one() {
        let rule = rule(
            "filters: [{type: URLRewrite}, {type: ExternalAuth}]
timeouts: {request: 3s, backendRequest: 1s}
retry: {attempts: 2}",
        );
        assert_eq!(
            http_settings(&rule),
            ["rewrites the URL", "filter ExternalAuth", "timeout 3s", "timeout 1s for each try", "2 retries",]
        );
    }
}
