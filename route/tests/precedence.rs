//! Which match wins where several hold: the sentences of `HTTPRouteRule.matches` and `GRPCRouteRule.matches`,
//! one test each.

use std::time::{Duration, SystemTime};

use gamut_route::{
    NamespacedName,
    grpc::GrpcMatch,
    precedence::{Rank, RouteName, Specificity},
    table::{Match, NamedMatch, PathMatch, ValueMatch},
};

fn exact(path: &str) -> Match {
    Match { path: PathMatch::Exact(path.to_owned()), ..Match::default() }
}

fn prefix(path: &str) -> Match {
    Match { path: PathMatch::Prefix(path.to_owned()), ..Match::default() }
}

fn regex(path: &str) -> Match {
    Match { path: PathMatch::Regex(path.to_owned()), ..Match::default() }
}

fn tests(names: &[&str]) -> Vec<NamedMatch> {
    let test =
        |name: &&str| NamedMatch { name: (*name).to_owned(), value: ValueMatch::Exact("1".to_owned()) };
    names.iter().map(test).collect()
}

trait With {
    fn method(self) -> Self;
    fn headers(self, names: &[&str]) -> Self;
    fn query(self, names: &[&str]) -> Self;
}

impl With for Match {
    fn method(self) -> Self {
        Self { method: Some("GET".to_owned()), ..self }
    }

    fn headers(self, names: &[&str]) -> Self {
        Self { headers: tests(names), ..self }
    }

    fn query(self, names: &[&str]) -> Self {
        Self { query: tests(names), ..self }
    }
}

/// Each is before all that follow it.
#[track_caller]
fn in_order<T: Ord + std::fmt::Debug>(ranks: &[T]) {
    for (at, first) in ranks.iter().enumerate() {
        for second in &ranks[at + 1..] {
            assert!(first < second, "{first:?} should be before {second:?}");
        }
    }
}

#[track_caller]
fn http_order(matches: &[Match]) {
    in_order(&matches.iter().map(Specificity::http).collect::<Vec<_>>());
}

#[track_caller]
fn http_tie(a: &Match, b: &Match) {
    assert_eq!(Specificity::http(a), Specificity::http(b));
}

#[test]
fn an_exact_path_is_before_everything() {
    let most = |m: Match| m.method().headers(&["a", "b", "c"]).query(&["p", "q"]);
    http_order(&[exact("/a"), most(regex("/a.*")), most(prefix("/a/very/long/prefix"))]);
}

#[test]
fn a_regular_expression_is_between_exact_and_prefix_whatever_its_length() {
    http_order(&[exact("/a"), regex("."), prefix("/a/b/c/d/e")]);
    http_tie(&regex("/a"), &regex("/a/much/longer/one"));
}

#[test]
fn the_prefix_with_most_characters_wins() {
    http_order(&[prefix("/aaaa"), prefix("/a/b"), prefix("/a"), prefix("/")]);
    // Before a method, headers and query parameters.
    http_order(&[prefix("/aa"), prefix("/a").method().headers(&["a", "b"]).query(&["p"])]);
}

#[test]
fn characters_are_counted_canonically_and_without_the_trailing_slash() {
    http_tie(&prefix("/a/"), &prefix("/a"));
    http_tie(&prefix("/%61b"), &prefix("/ab"));
    http_order(&[prefix("/a/").method(), prefix("/a")]);
}

#[test]
fn a_method_is_before_any_number_of_headers() {
    http_order(&[exact("/a").method(), exact("/a").headers(&["a", "b", "c"]).query(&["p", "q"])]);
}

#[test]
fn more_headers_are_before_fewer_and_before_any_number_of_query_parameters() {
    http_order(&[
        prefix("/").headers(&["a", "b"]),
        prefix("/").headers(&["a"]).query(&["p", "q", "r"]),
        prefix("/").headers(&["a"]),
        prefix("/").query(&["p", "q"]),
        prefix("/").query(&["p"]),
        prefix("/"),
    ]);
}

#[test]
fn entries_that_are_ignored_do_not_count() {
    http_tie(&prefix("/").headers(&["a", "A", "a"]), &prefix("/").headers(&["a"]));
    http_tie(&prefix("/").query(&["p", "p"]), &prefix("/").query(&["p"]));
    // The names of parameters have case.
    http_order(&[prefix("/").query(&["p", "P"]), prefix("/").query(&["p"])]);
}

#[test]
fn ties_are_broken_by_age_then_name_then_place() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let name = NamespacedName::new;
    let (in_a, in_b, dashed) = (name("a", "x"), name("b", "a"), name("a-b", "z"));
    let specificity = Specificity::http(&prefix("/"));
    let rank =
        |created, route, rule, index| Rank { specificity, created, route: RouteName(route), rule, index };
    in_order(&[
        Rank { specificity: Specificity::http(&exact("/a")), ..rank(at(9), &in_b, 7, 7) },
        rank(at(1), &in_b, 5, 5),
        // "a-b/z" is before "a/x": "-" is before "/".
        rank(at(2), &dashed, 3, 3),
        rank(at(2), &in_a, 0, 0),
        rank(at(2), &in_a, 0, 1),
        rank(at(2), &in_a, 1, 0),
        rank(at(2), &in_b, 0, 0),
    ]);
}

#[test]
fn the_slash_between_namespace_and_name_takes_part() {
    let name = NamespacedName::new;
    in_order(&[RouteName(&name("a", "bz")), RouteName(&name("ab", "a")), RouteName(&name("ab", "b"))]);
}

fn grpc(service: Option<ValueMatch>, method: Option<ValueMatch>, headers: &[&str]) -> Specificity {
    Specificity::grpc(&GrpcMatch { service, method, headers: tests(headers) })
}

#[test]
fn a_grpc_match_is_ranked_by_service_then_method_then_headers() {
    let named = |name: &str| Some(ValueMatch::Exact(name.to_owned()));
    let pattern = |pattern: &str| Some(ValueMatch::Regex(pattern.to_owned()));
    in_order(&[
        grpc(named("shop.CartService"), None, &[]),
        grpc(named("shop.Cart"), named("Remove"), &[]),
        grpc(named("shop.Cart"), named("Add"), &["a"]),
        grpc(named("shop.Cart"), named("Add"), &[]),
        grpc(named("shop.Cart"), pattern("A.*"), &["a", "b"]),
        grpc(named("shop.Cart"), None, &["a", "b"]),
        grpc(pattern("a.much.longer.regular.expression"), named("Add"), &["a"]),
        grpc(None, named("Add"), &["a", "b"]),
        grpc(None, None, &["a", "b"]),
        grpc(None, None, &["a", "A"]),
        grpc(None, None, &[]),
    ]);
}
