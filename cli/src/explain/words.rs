//! Rules, matches and what filters do, in words.

use gamut_route::{
    decide::{Asked, Forwarded},
    filter::{Filter, HeaderEdits, Mirror, PathRewrite, Rewrite},
    table::{Match, NamedMatch, PathMatch, Rule, ValueMatch},
};
use http::header::HOST;

/// `itself` is what the Service is called where no rule of a route takes requests.
pub(super) fn rule_name(rule: &Rule, itself: &str) -> String {
    match &rule.origin {
        None => itself.to_owned(),
        Some(origin) => match &origin.name {
            Some(name) => format!("{}, rule {name}", origin.route),
            None => format!("{}, rule {}", origin.route, origin.index),
        },
    }
}

pub(super) fn in_words(when: &Match) -> String {
    let value = |what: &str, test: &NamedMatch| match &test.value {
        ValueMatch::Exact(value) => format!("{what} {}={value}", test.name),
        ValueMatch::Regex(pattern) => format!("{what} {} ~ {pattern}", test.name),
    };
    let path = match &when.path {
        PathMatch::Exact(path) => Some(format!("path {path}")),
        PathMatch::Prefix(prefix) if prefix == "/" => None,
        PathMatch::Prefix(prefix) => Some(format!("prefix {prefix}")),
        PathMatch::Regex(pattern) => Some(format!("path ~ {pattern}")),
    };
    let parts: Vec<String> = path
        .into_iter()
        .chain(when.method.clone())
        .chain(when.headers.iter().map(|test| value("header", test)))
        .chain(when.query.iter().map(|test| value("query", test)))
        .collect();
    if parts.is_empty() { "every request".to_owned() } else { parts.join(", ") }
}

/// The criterion by which a match of an HTTPRoute is behind the one that won (docs/reference/paths.md, "Precedence").
pub(super) fn behind(winner: &Match, loser: &Match) -> &'static str {
    let path = |when: &Match| match &when.path {
        PathMatch::Exact(_) => (2, 0),
        PathMatch::Regex(_) => (1, 0),
        PathMatch::Prefix(prefix) => (0, prefix.trim_end_matches('/').chars().count()),
    };
    let (won, lost) = (path(winner), path(loser));
    if won.0 != lost.0 {
        "its path is less exact"
    } else if won.1 != lost.1 {
        "its prefix is shorter"
    } else if winner.method.is_some() != loser.method.is_some() {
        "it names no method"
    } else if winner.headers.len() != loser.headers.len() {
        "it tests fewer headers"
    } else if winner.query.len() != loser.query.len() {
        "it tests fewer query parameters"
    } else {
        "a tie, and its route is younger, or later by name, or its rule comes later"
    }
}

/// What filters make of a request, and who gets copies.
pub(super) fn changes(asked: &Asked<'_>, to: &Forwarded<'_>) -> Vec<String> {
    let mut changes = Vec::new();
    let head = &to.head;
    if head.uri.path() != asked.uri.path() {
        changes.push(format!("path {}", head.uri.path()));
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let host = head.headers.get(HOST).map(text).unwrap_or_default();
    if host != asked.host {
        changes.push(format!("host {host}"));
    }
    for name in head.headers.keys().filter(|name| **name != HOST) {
        let values = |headers: &http::HeaderMap| headers.get_all(name).iter().map(text).collect::<Vec<_>>();
        let now = values(&head.headers);
        if now != values(asked.headers) {
            changes.push(format!("header {name}: {}", now.join(", ")));
        }
    }
    let gone = asked.headers.keys().filter(|name| **name != HOST && !head.headers.contains_key(*name));
    changes.extend(gone.map(|name| format!("without header {name}")));
    changes.extend(to.mirrors.iter().copied().map(mirror_in_words));
    changes
}

/// What a filter does, whatever the request.
pub(super) fn filter_in_words(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(edits) | Filter::ResponseHeaders(edits) => edits_in_words(edits),
        Filter::Rewrite(Rewrite { hostname, path }) => {
            let host = hostname.iter().map(|host| format!("set host: {host}"));
            let path = path.iter().map(|path| match path {
                PathRewrite::Full(path) => format!("the path becomes {path}"),
                PathRewrite::Prefix(prefix) => format!("the matched prefix becomes {prefix}"),
            });
            host.chain(path).collect::<Vec<_>>().join(", ")
        }
        Filter::Cors(_) => "CORS headers".to_owned(),
        Filter::Mirror(mirror) => mirror_in_words(mirror),
        Filter::Redirect(redirect) => format!("a redirect, {}", redirect.status),
    }
}

fn mirror_in_words(mirror: &Mirror) -> String {
    let share = f64::from(mirror.numerator) * 100.0 / f64::from(mirror.denominator.max(1));
    format!("{}% of the requests are copied to {}", (share * 10.0).round() / 10.0, mirror.backend)
}

fn edits_in_words(edits: &HeaderEdits) -> String {
    let pairs = |verb: &'static str, pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{verb} {name}: {value}")).collect::<Vec<_>>()
    };
    let removed = edits.remove.iter().map(|name| format!("remove {name}")).collect();
    [pairs("set", &edits.set), pairs("add", &edits.add), removed].concat().join(", ")
}

/// Time limits and retries.
pub(super) fn limits(rule: &Rule) -> Vec<String> {
    let request = rule.timeouts.request.map(|limit| format!("at most {limit:?} for all of it"));
    let attempt = rule.timeouts.backend_request.map(|limit| format!("at most {limit:?} for each attempt"));
    let retry = rule.retry.as_ref().map(|retry| match retry.attempts {
        0 => "nothing is tried again".to_owned(),
        attempts => {
            let codes: Vec<String> = retry.codes.iter().map(u16::to_string).collect();
            let codes =
                if codes.is_empty() { String::new() } else { format!("{} and of ", codes.join(", ")) };
            let noun = if attempts == 1 { "retry" } else { "retries" };
            format!("{attempts} {noun} of {codes}broken connections, from {:?} apart", retry.backoff)
        }
    });
    [request, attempt, retry].into_iter().flatten().collect()
}
