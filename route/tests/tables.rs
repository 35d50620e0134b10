//! What a table says about itself: whose endpoints and which keys have to be there before it is used.

#![expect(clippy::unwrap_used, reason = "a test whose setting can't be made has failed")]

mod support;

use gamut_route::{
    BackendId, NamespacedName, RouteTable, ServicePort, Uid,
    filter::{Filter, Mirror},
    table::{
        AppProtocol, Backend, BackendTarget, Carrier, HttpRules, Match, Outcome, PathMatch, RankedMatch,
        Rule, RuleOrigin, Session, Split, TlsRule,
    },
};
use support::rule;

fn service(name: &str) -> BackendId {
    BackendId::Service(ServicePort::new("shop", name, 80))
}

fn to(id: BackendId, weight: u32) -> Backend {
    let target = BackendTarget::Endpoints { uid: Uid::of(&id.to_string()), id };
    Backend { target, weight, filters: Vec::new(), session: None }
}

fn nowhere() -> Backend {
    Backend {
        target: BackendTarget::Invalid("no such Service".to_owned()),
        weight: 1,
        filters: Vec::new(),
        session: None,
    }
}

fn mirror_to(name: &str) -> Filter {
    Filter::Mirror(Mirror { backend: service(name), numerator: 1, denominator: 100 })
}

fn session(scope: &str) -> Option<Session> {
    let carrier = Carrier::Header { name: "x-session".to_owned() };
    Some(Session { scope: scope.to_owned(), carrier, absolute_timeout: None })
}

fn forward(backends: Vec<Backend>) -> Rule {
    Rule { outcome: Outcome::Forward(Split { backends }), ..rule() }
}

/// One of everything.
fn table() -> RouteTable {
    let with_filters = Backend { filters: vec![mirror_to("copy-of-backend")], ..to(service("web-v2"), 0) };
    let xbackend = BackendId::XBackend(NamespacedName::new("shop", "pinned"));
    let origin = RuleOrigin { route: "tlsroute/shop/secure".parse().unwrap(), name: None, index: 0 };
    RouteTable {
        parent: ServicePort::new("shop", "web", 80),
        protocol: AppProtocol::Detect,
        http: HttpRules {
            rules: vec![
                Rule {
                    session: session("route/a"),
                    filters: vec![mirror_to("copy-of-rule")],
                    ..forward(vec![to(service("web-v1"), 100), with_filters, nowhere()])
                },
                forward(vec![
                    Backend { session: session("backend/b"), ..to(xbackend, 1) },
                    to(service("web-v1"), 1),
                ]),
                Rule {
                    session: session("route/a"),
                    outcome: Outcome::Fail("a filter is unknown".to_owned()),
                    ..rule()
                },
            ],
            matches: vec![RankedMatch {
                when: Match { path: PathMatch::Exact("/a".to_owned()), ..Match::default() },
                rule: 1,
            }],
        },
        tls: vec![TlsRule {
            origin,
            hostnames: Vec::new(),
            split: Split { backends: vec![to(service("secure"), 1)] },
        }],
        tcp: Split { backends: vec![to(service("web"), 1)] },
    }
}

#[test]
fn every_backend_is_named_once_with_those_of_weight_zero_and_of_mirrors() {
    let table = table();
    let names: Vec<String> = table.backends().into_iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "service/shop/copy-of-backend:80",
            "service/shop/copy-of-rule:80",
            "service/shop/secure:80",
            "service/shop/web:80",
            "service/shop/web-v1:80",
            "service/shop/web-v2:80",
            "xbackend/shop/pinned",
        ]
    );
}

#[test]
fn every_session_scope_is_named_once() {
    assert_eq!(table().scopes(), ["backend/b", "route/a"]);
}

#[test]
fn a_table_survives_the_way_through_json() {
    let table = table();
    let json = serde_json::to_string(&table).unwrap();
    assert_eq!(serde_json::from_str::<RouteTable>(&json).unwrap(), table);
}

#[test]
fn the_default_match_is_every_path() {
    assert_eq!(Match::default().path, PathMatch::Prefix("/".to_owned()));
}

#[test]
fn the_first_rule_for_a_server_name_has_the_connection() {
    let tls = |hostnames: &[&str]| TlsRule {
        origin: RuleOrigin { route: "tlsroute/shop/secure".parse().unwrap(), name: None, index: 0 },
        hostnames: hostnames.iter().map(|name| (*name).to_owned()).collect(),
        split: Split::default(),
    };
    let mut table = RouteTable { tls: vec![tls(&["x.a.example"]), tls(&["*.a.example"])], ..table() };
    for (name, rule) in [
        (Some("x.a.example"), Some(0)),
        (Some("X.A.Example."), Some(0)),
        (Some("y.a.example"), Some(1)),
        (Some("z.y.a.example"), Some(1)),
        (Some("a.example"), None),
        (Some(".a.example"), None),
        (Some("b.example"), None),
        (None, None),
    ] {
        assert_eq!(table.tls_rule(name), rule, "{name:?}");
    }
    table.tls.push(tls(&[]));
    assert_eq!((table.tls_rule(None), table.tls_rule(Some("b.example"))), (Some(2), Some(2)));
}

#[test]
fn a_port_whose_owner_says_nothing_is_looked_at_unless_its_servers_speak_first() {
    assert_eq!([25, 3306].map(AppProtocol::assumed), [AppProtocol::Opaque; 2]);
    assert_eq!([80, 5432, 50051].map(AppProtocol::assumed), [AppProtocol::Detect; 3]);
}
