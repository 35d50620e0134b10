//! Tables and what they need, made into a Service or refused.

use std::collections::HashMap;

use gamut_controller_api::SessionKeys;
use gamut_route::{
    BackendId, RouteRef,
    filter::{Filter, HeaderEdits},
    table::{HttpRules, Match, PathMatch, RankedMatch, Rule as TableRule, Split, TlsRule},
};

use super::*;
use crate::telemetry::{Telemetry, Workload};

fn origin() -> RuleOrigin {
    let route: RouteRef = "tlsroute/shop/web".parse().unwrap();
    RuleOrigin { route, name: None, index: 0 }
}

fn split(backends: &[&str]) -> Split {
    let backend = |id: &&str| table::Backend {
        target: BackendTarget::Endpoints { id: id.parse().unwrap(), uid: Uid::of(id) },
        weight: 1,
        filters: Vec::new(),
        session: None,
    };
    Split { backends: backends.iter().map(backend).collect() }
}

fn table(rules: Vec<TableRule>) -> RouteTable {
    let matches = (0..rules.len()).map(|rule| RankedMatch { when: Match::default(), rule }).collect();
    RouteTable {
        parent: ServicePort::new("shop", "web", 80),
        protocol: AppProtocol::Detect,
        http: HttpRules { rules, matches },
        tls: Vec::new(),
        tcp: split(&["service/shop/web:80"]),
    }
}

fn rule(backends: &[&str]) -> TableRule {
    TableRule::forward(split(backends))
}

fn sticky_rule() -> TableRule {
    let session = Session {
        scope: "route/1/all".to_owned(),
        carrier: table::Carrier::Header { name: "x".to_owned() },
        absolute_timeout: None,
    };
    TableRule { session: Some(session), ..rule(&["service/shop/web:80"]) }
}

/// The table with these endpoint sets here.
fn activate(table: RouteTable, here: &[&str]) -> Result<Service, Refusal> {
    let cluster = |id: &&str| {
        let id: BackendId = id.parse().unwrap();
        (id.clone(), Cluster::new(id))
    };
    let clusters: HashMap<_, _> = here.iter().map(cluster).collect();
    let (keys, telemetry) = (HashMap::new(), Telemetry::new(Workload::default()));
    Service::new(Arc::new(table), &Parts::new(&clusters, &keys, &telemetry))
}

fn first_backend(forward: &Forward) -> String {
    forward.backends[0].target.as_ref().map(|target| target.cluster.id().to_string()).unwrap_or_default()
}

#[test]
fn what_has_not_arrived_refuses_the_table() {
    let refused = activate(table(vec![rule(&["service/shop/other:80"])]), &["service/shop/web:80"]);
    assert!(refused.unwrap_err().0.contains("service/shop/other:80"));

    let refused = activate(table(vec![sticky_rule()]), &["service/shop/web:80"]);
    assert!(refused.unwrap_err().0.contains("route/1/all"));
}

#[test]
fn a_session_whose_scope_has_no_key_is_done_without() {
    let id: BackendId = "service/shop/web:80".parse().unwrap();
    let clusters = HashMap::from([(id.clone(), Cluster::new(id))]);
    let telemetry = Telemetry::new(Workload::default());
    for (keys, has_session) in [(vec![], false), (vec![(1, [1; 32])], true)] {
        let scope = "route/1/all".to_owned();
        let keys = HashMap::from([(scope.clone(), Arc::new(SessionKeys { scope, keys }))]);
        let parts = Parts::new(&clusters, &keys, &telemetry);
        let service = Service::new(Arc::new(table(vec![sticky_rule()])), &parts).unwrap();
        assert_eq!(service.rules[0].session.is_some(), has_session);
    }
}

#[test]
fn matches_that_can_not_be_used_refuse_the_table_by_name() {
    let mut table = table(vec![rule(&["service/shop/web:80"])]);
    table.http.matches[0].when.path = PathMatch::Regex("(".to_owned());
    let refused = activate(table, &["service/shop/web:80"]).unwrap_err();
    assert!(refused.0.starts_with("the rules for shop/web:80 can't be matched"), "{refused}");
}

#[test]
fn a_filter_that_can_not_be_carried_out_fails_its_rule_alone() {
    let bad = || {
        let edits =
            HeaderEdits { set: vec![("no name".to_owned(), String::new())], ..HeaderEdits::default() };
        vec![Filter::RequestHeaders(edits)]
    };
    let mut of_backend = rule(&["service/shop/web:80"]);
    if let Outcome::Forward(split) = &mut of_backend.outcome {
        split.backends[0].filters = bad();
    }
    let of_rule = TableRule { filters: bad(), ..rule(&["service/shop/web:80"]) };
    let good = rule(&["service/shop/web:80"]);
    let service = activate(table(vec![of_rule, of_backend, good]), &["service/shop/web:80"]).unwrap();
    assert!(service.rules[0].forward.is_err());
    let target = |rule: usize| service.rules[rule].forward.as_ref().unwrap().backends[0].target.is_ok();
    assert!(!target(1) && target(2));
}

#[test]
fn the_apps_own_tls_goes_by_its_server_name() {
    let tls = |hostnames: &[&str], backend| TlsRule {
        origin: origin(),
        hostnames: hostnames.iter().map(|name| (*name).to_owned()).collect(),
        split: split(&[backend]),
    };
    let here = ["service/shop/web:80", "service/shop/exact:443", "service/shop/wild:443"];
    let table = RouteTable {
        tls: vec![tls(&["db.shop"], here[1]), tls(&["*.shop"], here[2])],
        ..table(vec![rule(&[here[0]])])
    };
    let service = activate(table, &here).unwrap();
    for (name, expected) in [
        (Some("db.shop"), here[1]),
        (Some("DB.shop."), here[1]),
        (Some("a.b.shop"), here[2]),
        (Some("shop"), here[0]),
        (Some("ashop"), here[0]),
        (None, here[0]),
    ] {
        assert_eq!(first_backend(service.tls(name)), expected, "{name:?}");
    }
}
