//! A request's whole way through a table, as `gamut explain` tells it.

#![expect(clippy::unwrap_used, reason = "a test whose setting can't be made has failed")]

mod support;

use gamut_route::{
    BackendId, RouteTable, ServicePort, Uid,
    decide::{Asked, Decider, Does, Fate, Forwarded, Owner},
    filter::{Cors, Filter, HeaderEdits, Mirror, PathRewrite, Redirect, Rewrite},
    matcher::Verdict,
    table::{
        AppProtocol, Backend, BackendTarget, HttpRules, Match, Outcome, PathMatch, RankedMatch, Rule, Split,
    },
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use support::rule;

fn service(name: &str) -> BackendId {
    BackendId::Service(ServicePort::new("shop", name, 80))
}

fn backend(name: &str, weight: u32, filters: Vec<Filter>) -> Backend {
    let target = BackendTarget::Endpoints { id: service(name), uid: Uid::of(name) };
    Backend { target, weight, filters, session: None }
}

/// A table of one rule for `/a` and below.
fn table(rule: Rule) -> RouteTable {
    let when = Match { path: PathMatch::Prefix("/a".to_owned()), ..Match::default() };
    RouteTable {
        parent: ServicePort::new("shop", "web", 8080),
        protocol: AppProtocol::Detect,
        http: HttpRules { rules: vec![rule], matches: vec![RankedMatch { when, rule: 0 }] },
        tls: Vec::new(),
        tcp: Split::default(),
    }
}

fn set(name: &str, value: &str) -> HeaderEdits {
    HeaderEdits { set: vec![(name.to_owned(), value.to_owned())], ..HeaderEdits::default() }
}

fn redirect() -> Filter {
    Filter::Redirect(Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 })
}

fn ask(table: &RouteTable, target: &str, host: &str, headers: &HeaderMap, seen: impl FnOnce(Fate<'_>)) {
    let uri: Uri = target.parse().unwrap();
    let method =
        if headers.contains_key("access-control-request-method") { Method::OPTIONS } else { Method::GET };
    let asked = Asked { method: &method, uri: &uri, host, headers };
    seen(Decider::new(table).unwrap().decide(&asked).unwrap());
}

fn does(table: &RouteTable, target: &str, seen: impl FnOnce(Does<'_>)) {
    ask(table, target, "web", &HeaderMap::new(), |fate| match fate {
        Fate::Ruled { does, .. } => seen(does),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_path_that_is_refused_and_one_that_no_rule_is_for() {
    let table = table(rule());
    ask(&table, "/a/..;/b", "web", &HeaderMap::new(), |fate| assert!(matches!(fate, Fate::Refused(_))));
    ask(&table, "/b", "web", &HeaderMap::new(), |fate| assert!(matches!(fate, Fate::NoRule)));
}

#[test]
fn a_redirect_has_its_location_and_the_rules_headers() {
    let edits = Filter::ResponseHeaders(set("x-from", "rule"));
    let table = table(Rule { filters: vec![redirect(), edits], ..rule() });
    does(&table, "/a/./b?c", |does| {
        let Does::Answers(status, headers) = does else { panic!("{does:?}") };
        assert_eq!(status, StatusCode::FOUND);
        assert_eq!(headers["location"], "http://web:8080/a/b?c");
        assert_eq!(headers["x-from"], "rule");
    });
    ask(&table, "/a", "", &HeaderMap::new(), |fate| {
        assert!(matches!(fate, Fate::Ruled { does: Does::NoHost, .. }), "{fate:?}");
    });
}

#[test]
fn a_preflight_is_answered_before_anything_else() {
    let cors = Cors { allow_origins: vec!["https://a.example".to_owned()], ..Cors::default() };
    let table = table(Rule { filters: vec![redirect(), Filter::Cors(cors)], ..rule() });
    let mut headers = HeaderMap::from_iter([
        (http::header::ORIGIN, HeaderValue::from_static("https://a.example")),
        (http::header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
    ]);
    ask(&table, "/a", "web", &headers, |fate| {
        let Fate::Ruled { does: Does::Answers(status, answer), .. } = fate else { panic!("{fate:?}") };
        assert_eq!((status, &answer["access-control-allow-origin"]), (StatusCode::OK, &headers["origin"]));
    });
    headers.remove("access-control-request-method");
    ask(&table, "/a", "web", &headers, |fate| {
        let Fate::Ruled { does: Does::Answers(status, _), .. } = fate else { panic!("{fate:?}") };
        assert_eq!(status, StatusCode::FOUND, "no preflight: the redirect");
    });
}

#[test]
fn a_rule_that_fails_says_why() {
    let table = table(Rule { outcome: Outcome::Fail("no backends".to_owned()), ..rule() });
    does(&table, "/a", |does| assert!(matches!(does, Does::Fails(why) if why == "no backends")));
}

#[test]
fn each_backend_gets_the_request_as_rule_and_backend_edit_it() {
    let mirror = |name| Filter::Mirror(Mirror { backend: service(name), numerator: 1, denominator: 1 });
    let rewrite = Filter::Rewrite(Rewrite {
        hostname: Some("new.example".to_owned()),
        path: Some(PathRewrite::Prefix("/z".to_owned())),
    });
    let of_backend = vec![
        Filter::RequestHeaders(set("x", "backend")),
        Filter::ResponseHeaders(set("y", "backend")),
        mirror("copy-2"),
    ];
    let split = Split { backends: vec![backend("one", 3, of_backend), backend("two", 1, Vec::new())] };
    let filters = vec![
        rewrite,
        mirror("copy-1"),
        Filter::RequestHeaders(set("x", "rule")),
        Filter::ResponseHeaders(set("z", "rule")),
    ];
    let table = table(Rule { filters, outcome: Outcome::Forward(split), ..rule() });
    does(&table, "/a/b?c=d", |does| {
        let Does::Forwards(to) = does else { panic!("{does:?}") };
        let [one, two] = to.as_slice() else { panic!("{to:?}") };
        assert_eq!((one.share, two.share), ((3, 4), (1, 4)));
        for to in [one, two] {
            assert_eq!(to.head.uri, "/z/b?c=d");
            assert_eq!(to.head.headers["host"], "new.example");
        }
        assert_eq!(
            (&one.head.headers["x"], &two.head.headers["x"]),
            (&"backend".parse().unwrap(), &"rule".parse().unwrap())
        );
        let copies = |to: &Forwarded<'_>| {
            to.mirrors.iter().map(|mirror| mirror.backend.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(copies(one), ["service/shop/copy-1:80", "service/shop/copy-2:80"]);
        assert_eq!(copies(two), ["service/shop/copy-1:80"]);
        let owners = |filters: Vec<(Owner, &Filter)>| filters.iter().map(|(of, _)| *of).collect::<Vec<_>>();
        assert_eq!(owners(one.on_request().collect()), [Owner::Rule, Owner::Rule, Owner::Backend]);
        assert_eq!(owners(one.on_answer().collect()), [Owner::Backend, Owner::Rule]);
        assert_eq!((two.on_request().count(), two.on_answer().count()), (2, 1));
        let mut answer = HeaderMap::new();
        one.finish(&mut answer);
        assert_eq!((&answer["y"], &answer["z"]), (&"backend".parse().unwrap(), &"rule".parse().unwrap()));
    });
}

#[test]
fn verdicts_are_told_unless_the_path_is_refused() {
    let table = table(rule());
    let (method, headers) = (Method::GET, HeaderMap::new());
    let decider = Decider::new(&table).unwrap();
    let verdicts = |target: &str| {
        let uri: Uri = target.parse().unwrap();
        let asked = Asked { method: &method, uri: &uri, host: "web", headers: &headers };
        decider.verdicts(&asked).iter().map(|verdict| *verdict == Verdict::Won).collect::<Vec<_>>()
    };
    assert_eq!(verdicts("/x/../a"), [true]);
    assert_eq!(verdicts("/b"), [false]);
    assert!(verdicts("/a%00").is_empty());
}
