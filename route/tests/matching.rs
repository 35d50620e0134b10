//! The indexed matcher, held to the specification written as the slowest obvious loop.

#![expect(clippy::unwrap_used, reason = "a test whose setting can't be made has failed")]

mod support;

use std::{cmp::Ordering, time::Duration, time::SystemTime};

use gamut_route::{
    NamespacedName,
    matcher::{Matched, Matcher, RequestView, Unmet, Verdict},
    precedence::{Rank, RouteName, Specificity},
    table::{HttpRules, Match, NamedMatch, PathMatch, RankedMatch, ValueMatch},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, option, prelude::*, sample::select};
use support::{named, rule, table};

/// A route as the reference sees it: its age, its name, and its rules' matches.
#[derive(Clone, Debug)]
struct Route {
    created: u64,
    name: NamespacedName,
    rules: Vec<Vec<Match>>,
}

/// A request with parts of its own.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    path: String,
    query: Option<String>,
    headers: Vec<(&'static str, &'static str)>,
}

/// Compiled as the controller does it: one rule each, all matches sorted by rank.
fn compiled(routes: &[Route]) -> HttpRules {
    let mut rules = Vec::new();
    let mut ranked = Vec::new();
    for route in routes {
        for (rule_index, matches) in route.rules.iter().enumerate() {
            for (index, when) in matches.iter().enumerate() {
                let rank = Rank {
                    specificity: Specificity::http(when),
                    created: SystemTime::UNIX_EPOCH + Duration::from_secs(route.created),
                    route: RouteName(&route.name),
                    rule: rule_index,
                    index,
                };
                ranked.push((rank, RankedMatch { when: when.clone(), rule: rules.len() }));
            }
            rules.push(rule());
        }
    }
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    HttpRules { rules, matches: ranked.into_iter().map(|(_, ranked)| ranked).collect() }
}

/// Every match of every rule of every route is tried; of those that hold, the one that no other is before.
fn reference(routes: &[Route], request: &Request) -> Option<usize> {
    let mut winner: Option<(&Route, usize, usize, &Match, usize)> = None;
    let mut flat = 0;
    for route in routes {
        for (rule, matches) in route.rules.iter().enumerate() {
            for (index, when) in matches.iter().enumerate() {
                if !holds(when, request) {
                    continue;
                }
                let this = (route, rule, index, when, flat);
                winner = match winner {
                    Some(other) if before(other, this) => Some(other),
                    _ => Some(this),
                };
            }
            flat += 1;
        }
    }
    winner.map(|(_, _, _, _, flat)| flat)
}

fn before(a: (&Route, usize, usize, &Match, usize), b: (&Route, usize, usize, &Match, usize)) -> bool {
    let more = |x: usize, y: usize| y.cmp(&x);
    let class = |when: &Match| match &when.path {
        PathMatch::Exact(_) => 2,
        PathMatch::Regex(_) => 1,
        PathMatch::Prefix(_) => 0,
    };
    let characters = |when: &Match| match &when.path {
        PathMatch::Prefix(prefix) => prefix.trim_end_matches('/').len(),
        _ => 0,
    };
    let order = more(class(a.3), class(b.3))
        .then(more(characters(a.3), characters(b.3)))
        .then(more(a.3.method.is_some().into(), b.3.method.is_some().into()))
        .then(more(distinct(&a.3.headers).len(), distinct(&b.3.headers).len()))
        .then(more(distinct(&a.3.query).len(), distinct(&b.3.query).len()))
        .then(a.0.created.cmp(&b.0.created))
        .then(a.0.name.to_string().cmp(&b.0.name.to_string()))
        .then((a.1, a.2).cmp(&(b.1, b.2)));
    order == Ordering::Less
}

fn distinct(tests: &[NamedMatch]) -> Vec<&NamedMatch> {
    let mut seen: Vec<&NamedMatch> = Vec::new();
    for test in tests {
        if seen.iter().all(|before| before.name != test.name) {
            seen.push(test);
        }
    }
    seen
}

fn holds(when: &Match, request: &Request) -> bool {
    let path = match &when.path {
        PathMatch::Exact(path) => *path == request.path,
        PathMatch::Prefix(prefix) => {
            let prefix: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
            request.path.split('/').collect::<Vec<_>>().starts_with(&prefix)
        }
        PathMatch::Regex(pattern) => whole(pattern, &request.path),
    };
    let headers = distinct(&when.headers).into_iter().all(|test| {
        let lines: Vec<&str> =
            request.headers.iter().filter(|(name, _)| *name == test.name).map(|(_, value)| *value).collect();
        !lines.is_empty() && value_holds(&test.value, &lines.join(","))
    });
    let query = distinct(&when.query).into_iter().all(|test| {
        let pairs = request
            .query
            .as_deref()
            .unwrap_or("")
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let first =
            pairs.map(|(name, value)| (decoded(name), decoded(value))).find(|(name, _)| *name == test.name);
        first.is_some_and(|(_, value)| value_holds(&test.value, &value))
    });
    path && headers && query && when.method.as_deref().is_none_or(|method| method == request.method)
}

fn value_holds(test: &ValueMatch, value: &str) -> bool {
    match test {
        ValueMatch::Exact(expected) => expected == value,
        ValueMatch::Regex(pattern) => whole(pattern, value),
    }
}

fn whole(pattern: &str, value: &str) -> bool {
    regex_automata::meta::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(value)
}

/// The escapes that the strategies below make.
fn decoded(text: &str) -> String {
    text.replace('+', " ").replace("%20", " ").replace("%61", "a").replace("%2B", "+")
}

/// Asks the indexed matcher.
fn found(matcher: &Matcher, request: &Request) -> (Option<Matched>, Option<usize>) {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let view = RequestView {
        method: request.method,
        path: &request.path,
        query: request.query.as_deref(),
        authority: None,
        headers: &headers,
        received: None,
    };
    let won = matcher.verdicts(&view).iter().position(|verdict| *verdict == Verdict::Won);
    (matcher.find(&view), won)
}

// Alphabets so small that routes collide with one another and requests with routes.

fn path() -> impl Strategy<Value = String> {
    let elements = vec(select(vec!["a", "b", "ab", "abc", ""]), 0..5);
    // "//" is possible in requests, and the trailing slash comes from an empty element at the end.
    elements.prop_map(|elements| format!("/{}", elements.join("/")))
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let of_table = vec(select(vec!["a", "b", "ab", "abc"]), 0..4);
    let regexes =
        vec!["/a/.*", "/[ab]+", "/ab?", ".*", "/(a|b)/ab.*", "/a|/b", "/a(/b)*/?", "/ab(c|/).*", "(?i)/AB"];
    prop_oneof![
        of_table.clone().prop_map(|elements| PathMatch::Exact(format!("/{}", elements.join("/")))),
        (of_table, any::<bool>()).prop_map(|(elements, slash)| {
            let slash = if slash && !elements.is_empty() { "/" } else { "" };
            PathMatch::Prefix(format!("/{}{slash}", elements.join("/")))
        }),
        select(regexes).prop_map(|pattern| PathMatch::Regex(pattern.to_owned())),
    ]
}

fn named_match(names: Vec<&'static str>) -> impl Strategy<Value = NamedMatch> {
    let values = prop_oneof![
        select(vec!["1", "2", "1,2", "a b"]).prop_map(|text| ValueMatch::Exact(text.to_owned())),
        select(vec!["[12]", "1.*", "a|a b"]).prop_map(|pattern| ValueMatch::Regex(pattern.to_owned())),
    ];
    (select(names), values).prop_map(|(name, value)| NamedMatch { name: name.to_owned(), value })
}

fn a_match() -> impl Strategy<Value = Match> {
    let method = option::weighted(0.3, select(vec!["GET", "POST"]).prop_map(str::to_owned));
    let headers = vec(named_match(vec!["x", "y"]), 0..3);
    let query = vec(named_match(vec!["a", "q r"]), 0..3);
    (path_match(), method, headers, query).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn route() -> impl Strategy<Value = Route> {
    let rules = vec(vec(a_match(), 1..4), 1..4);
    let name = (select(vec!["shop", "shop-b"]), select(vec!["x", "y", "z"]));
    (0_u64..3, name, rules).prop_map(|(created, (namespace, name), rules)| Route {
        created,
        name: NamespacedName::new(namespace, name),
        rules,
    })
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    vec(route(), 0..6).prop_map(|mut routes| {
        // Names are unique in a cluster.
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        routes.dedup_by(|a, b| a.name == b.name);
        routes
    })
}

fn request() -> impl Strategy<Value = Request> {
    let query =
        vec(select(vec!["a=1", "a=2", "%61=1", "q+r=1", "q%20r=a+b", "a=a%20b", "a", "b=1", ""]), 0..4);
    let headers = vec((select(vec!["x", "y"]), select(vec!["1", "2", "a b"])), 0..4);
    (select(vec!["GET", "POST", "PUT"]), path(), option::of(query), headers).prop_map(
        |(method, path, query, headers)| Request {
            method,
            path,
            query: query.map(|pieces| pieces.join("&")),
            headers,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_index_answers_as_the_loop_does(routes in routes(), requests in vec(request(), 1..12)) {
        let rules = compiled(&routes);
        let matcher = Matcher::new(&rules).unwrap();
        for request in &requests {
            let (matched, explained) = found(&matcher, request);
            prop_assert_eq!(matched.map(|matched| matched.rule), reference(&routes, request), "{:?}", request);
            prop_assert_eq!(matched.map(|matched| matched.rank), explained);
            if let Some(matched) = matched {
                let expected = match &rules.matches[matched.rank].when.path {
                    PathMatch::Prefix(prefix) => Some(prefix.trim_end_matches('/').len()),
                    _ => None,
                };
                prop_assert_eq!(matched.prefix, expected);
            }
        }
    }

    /// The matcher obeys the table's order even where it isn't that of the specification.
    #[test]
    fn any_order_of_a_table_is_obeyed(matches in vec(a_match(), 1..20), request in request()) {
        let first = matches.iter().position(|when| holds(when, &request));
        let matcher = Matcher::new(&table(matches)).unwrap();
        prop_assert_eq!(found(&matcher, &request).0.map(|matched| matched.rank), first);
    }
}

fn view<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestView<'a> {
    RequestView { method: "GET", path, query: None, authority: None, headers, received: None }
}

fn with_header(name: &str, value: ValueMatch) -> Match {
    Match { headers: vec![named(name, value)], ..Match::default() }
}

#[test]
fn an_empty_table_matches_nothing() {
    let matcher = Matcher::new(&HttpRules::default()).unwrap();
    assert_eq!(matcher.find(&view("/", &HeaderMap::new())), None);
}

#[test]
fn the_default_match_takes_every_request_even_the_one_for_the_whole_server() {
    let matcher = Matcher::new(&table(vec![Match::default()])).unwrap();
    for path in ["/", "/a", "//", "*"] {
        assert!(matcher.find(&view(path, &HeaderMap::new())).is_some(), "{path}");
    }
    let exact = Match { path: PathMatch::Exact("/".to_owned()), ..Match::default() };
    assert_eq!(Matcher::new(&table(vec![exact])).unwrap().find(&view("*", &HeaderMap::new())), None);
}

#[test]
fn paths_of_tables_are_made_canonical_like_those_of_requests() {
    let matcher = |path| Matcher::new(&table(vec![Match { path, ..Match::default() }]));
    let none = HeaderMap::new();
    assert!(matcher(PathMatch::Exact("/%7Eme".to_owned())).unwrap().find(&view("/~me", &none)).is_some());
    let prefix = matcher(PathMatch::Prefix("/%61/".to_owned())).unwrap();
    assert_eq!(prefix.find(&view("/a/b", &none)).unwrap().prefix, Some(2));
    for bad in ["", "a", "/a?b", "/..%2f"] {
        assert!(matcher(PathMatch::Prefix(bad.to_owned())).unwrap_err().to_string().contains(bad), "{bad:?}");
        assert!(matcher(PathMatch::Exact(bad.to_owned())).is_err(), "{bad:?}");
    }
}

#[test]
fn a_match_on_host_looks_at_the_authority_of_both_http_versions() {
    for name in ["host", "Host", ":authority"] {
        let exact =
            Matcher::new(&table(vec![with_header(name, ValueMatch::Exact("web.Shop".to_owned()))])).unwrap();
        let regex =
            Matcher::new(&table(vec![with_header(name, ValueMatch::Regex("web\\..*p".to_owned()))])).unwrap();
        for matcher in [&exact, &regex] {
            let mut headers = HeaderMap::new();
            assert!(matcher.find(&view("/", &headers)).is_none(), "no host at all");
            for authority in ["web.shop", "WEB.SHOP", "web.shop:80", "web.shop."] {
                let request = RequestView { authority: Some(authority), ..view("/", &headers) };
                assert!(matcher.find(&request).is_some(), "{name} {authority}");
            }
            let other = RequestView { authority: Some("web.shop:8080"), ..view("/", &headers) };
            assert!(matcher.find(&other).is_none());
            headers.insert("host", HeaderValue::from_static("web.shop"));
            assert!(matcher.find(&view("/", &headers)).is_some(), "the header stands in");
            // RFC 9112 §3.2.2: an absolute-form target's authority counts and not the header.
            assert!(matcher.find(&RequestView { authority: Some("other"), ..view("/", &headers) }).is_none());
        }
    }
}

#[test]
fn a_header_in_several_lines_is_one_value() {
    let matcher = |name: &str, value: &str| {
        Matcher::new(&table(vec![with_header(name, ValueMatch::Exact(value.to_owned()))])).unwrap()
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [("x", "1"), ("x", "2"), ("cookie", "a=1"), ("cookie", "b=2")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    assert!(matcher("x", "1,2").find(&view("/", &headers)).is_some());
    assert!(matcher("x", "1").find(&view("/", &headers)).is_none());
    assert!(matcher("X", "1,2").find(&view("/", &headers)).is_some());
    assert!(matcher("cookie", "a=1; b=2").find(&view("/", &headers)).is_some());
}

#[test]
fn of_two_entries_for_one_header_the_first_counts_whatever_their_case() {
    let entries =
        [("x", "1"), ("X", "2")].map(|(name, value)| named(name, ValueMatch::Exact(value.to_owned())));
    let matcher =
        Matcher::new(&table(vec![Match { headers: entries.to_vec(), ..Match::default() }])).unwrap();
    let find = |value| {
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x"), HeaderValue::from_static(value))]);
        matcher.find(&view("/", &headers))
    };
    assert!(find("1").is_some());
    assert!(find("2").is_none());
}

#[test]
fn a_value_that_is_not_text_is_compared_as_bytes() {
    let mut headers = HeaderMap::new();
    headers.insert("x", HeaderValue::from_bytes(b"\xff").unwrap());
    let find =
        |value| Matcher::new(&table(vec![with_header("x", value)])).unwrap().find(&view("/", &headers));
    assert!(find(ValueMatch::Regex(".".to_owned())).is_none());
    assert!(find(ValueMatch::Regex("(?-u:.)".to_owned())).is_some());
    assert!(find(ValueMatch::Exact("\u{ff}".to_owned())).is_none());
}

#[test]
fn explanations_name_the_first_condition_that_is_unmet() {
    let when = |path: &str| Match { path: PathMatch::Prefix(path.to_owned()), ..Match::default() };
    let one = || ValueMatch::Exact("1".to_owned());
    let matcher = Matcher::new(&table(vec![
        Match { method: Some("POST".to_owned()), ..when("/a") },
        Match { headers: vec![named("X", one())], ..when("/a") },
        Match { query: vec![named("p", one())], ..when("/a") },
        when("/b"),
        when("/a"),
        when("/"),
    ]))
    .unwrap();
    let none = HeaderMap::new();
    let expected = [
        Verdict::Unmet(Unmet::Method),
        Verdict::Unmet(Unmet::Header("x")),
        Verdict::Unmet(Unmet::Query("p")),
        Verdict::Unmet(Unmet::Path),
        Verdict::Won,
        Verdict::Outranked,
    ];
    assert_eq!(matcher.verdicts(&view("/a", &none)), expected);
}

#[test]
fn the_prefix_of_all_paths_is_met_by_a_request_for_no_path_too() {
    let matcher = Matcher::new(&table(vec![Match::default()])).unwrap();
    assert_eq!(matcher.verdicts(&view("*", &HeaderMap::new())), [Verdict::Won]);
}

#[test]
fn tables_that_cannot_be_obeyed_are_refused() {
    let mut rules = table(vec![Match::default()]);
    rules.matches[0].rule = 1;
    assert_eq!(
        Matcher::new(&rules).unwrap_err().to_string(),
        "the match at rank 0 selects rule 1, but there are only 1 rules"
    );
    let bad_regex = Match { path: PathMatch::Regex("(".to_owned()), ..Match::default() };
    for bad in [
        bad_regex,
        with_header("a b", ValueMatch::Exact(String::new())),
        with_header("a", ValueMatch::Regex("(".to_owned())),
    ] {
        assert!(Matcher::new(&table(vec![bad])).is_err());
    }
}
