//! What the index keeps, and what it says about changes, told as stories. (That it says all of it is shown in
//! `incremental.rs`.)

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use gamut_controller::{
    index::{Index, Settings, Topic},
    source::SourceEvent,
};
use gamut_controller_api::{Body, Key};
use gamut_manifest::{Object, ObjectId, Origin};
use gamut_route::{
    NamespacedName, RouteTable,
    table::{Carrier, Session},
};
use serde_json::{Value, json};

fn applied(value: Value) -> SourceEvent {
    let origin = Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 };
    SourceEvent::Applied(Box::new(Object::from_value(value, &origin).unwrap()))
}

fn deleted(kind: &str, namespace: &str, name: &str) -> SourceEvent {
    SourceEvent::Deleted(ObjectId {
        kind: kind.to_owned(),
        namespace: Some(namespace.to_owned()),
        name: name.to_owned(),
    })
}

fn service(name: &str, ip: &str) -> SourceEvent {
    applied(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip, format!("fd00::{}", ip.rsplit('.').next().unwrap())], "selector": {"app": name}, "ports": [{"name": "http", "port": 80}, {"name": "alt", "port": 8080}]},
    }))
}

fn route(rules: &Value) -> SourceEvent {
    applied(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "11111111-1111-1111-1111-111111111111"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": rules},
    }))
}

fn shop() -> Index {
    let mut index = Index::new(Settings::default());
    index.apply(vec![
        service("web", "10.96.0.1"),
        service("v1", "10.96.0.2"),
        service("v2", "10.96.0.3"),
        SourceEvent::Synced,
    ]);
    index
}

fn table(index: &Index) -> Arc<RouteTable> {
    let key =
        Key::RouteTable { client_namespace: "shop".to_owned(), service: "shop/web:80".parse().unwrap() };
    match index.body(&key) {
        Body::RouteTable(table) => table,
        other => panic!("{other:?}"),
    }
}

fn sessions(index: &Index) -> Vec<Session> {
    table(index).http.rules.iter().filter_map(|rule| rule.session.clone()).collect()
}

fn web() -> NamespacedName {
    NamespacedName::new("shop", "web")
}

#[test]
fn a_session_survives_edits_that_do_not_change_its_rule() {
    let mut index = shop();
    let rule = |weights: [u32; 2], matches: Value| {
        json!({
            "matches": matches, "sessionPersistence": {"cookie": {}},
            "backendRefs": [{"name": "v1", "port": 80, "weight": weights[0]}, {"name": "v2", "port": 80, "weight": weights[1]}],
        })
    };
    let cart = json!([{"path": {"value": "/cart"}}, {"path": {"value": "/basket"}}]);
    index.apply(vec![route(&json!([rule([90, 10], cart.clone())]))]);
    let [before] = sessions(&index).try_into().unwrap();

    // The weights flip, a backend goes, another rule comes before it, its matches are written in another order.
    let turned = json!([{"path": {"value": "/basket"}}, {"path": {"value": "/cart"}}]);
    for rules in [
        json!([rule([0, 100], cart.clone())]),
        json!([{"matches": cart, "sessionPersistence": {"cookie": {}}, "backendRefs": [{"name": "v2", "port": 80}]}]),
        json!([{"matches": [{"path": {"value": "/new"}}], "backendRefs": [{"name": "v1", "port": 80}]}, rule([90, 10], turned)]),
    ] {
        index.apply(vec![route(&rules)]);
        assert_eq!(sessions(&index), std::slice::from_ref(&before), "{rules}");
    }

    // Another rule is another session, with another cookie.
    index.apply(vec![route(&json!([rule([90, 10], json!([{"path": {"value": "/other"}}]))]))]);
    let [after] = sessions(&index).try_into().unwrap();
    assert_ne!(after.scope, before.scope);
    assert_ne!(after.carrier, before.carrier);
}

#[test]
fn a_named_rules_session_survives_every_edit() {
    let mut index = shop();
    let rule = |path: &str, settings: Value| json!([{"name": "cart", "matches": [{"path": {"value": path}}], "sessionPersistence": settings, "backendRefs": [{"name": "v1", "port": 80}]}]);
    index.apply(vec![route(&rule("/cart", json!({"cookie": {}})))]);
    let [before] = sessions(&index).try_into().unwrap();
    index.apply(vec![route(&rule("/basket", json!({"cookie": {}, "absoluteTimeout": "1h"})))]);
    let [after] = sessions(&index).try_into().unwrap();
    assert_eq!((&after.scope, &after.carrier), (&before.scope, &before.carrier));
    assert_eq!(before.scope, "route/11111111-1111-1111-1111-111111111111/cart");
    let Carrier::Cookie { name, .. } = before.carrier else { panic!("a cookie") };
    assert!(name.starts_with("gamut-session-"), "{name}");
}

#[test]
fn roots_that_break_or_go_leave_the_last_ones_in_force() {
    let bundle = |pem: &str| {
        applied(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gamut-trust-bundle", "namespace": "gamut-system"}, "data": {"root.pem": pem}}),
        )
    };
    let roots = |index: &Index| match index.body(&Key::TrustBundle) {
        Body::TrustBundle(bundle) => {
            bundle.roots.iter().map(|root| root.as_ref().to_vec()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let pem = |base64: &str| format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let mut index = Index::new(Settings::default());
    let topics = index.apply(vec![bundle(&format!("{}{}{}", pem("BBBB"), pem("AAAA"), pem("BBBB")))]);
    assert_eq!(topics, BTreeSet::from([Topic::Trust]));
    let good = roots(&index);
    assert_eq!(good, [vec![0, 0, 0], vec![4, 16, 65]], "a set, in order");

    for event in [bundle("nothing"), bundle(""), deleted("ConfigMap", "gamut-system", "gamut-trust-bundle")] {
        assert_eq!(index.apply(vec![event]), BTreeSet::new());
        assert_eq!(roots(&index), good);
    }
    index.apply(vec![bundle(&pem("AAAA"))]);
    assert_eq!(roots(&index), [vec![0, 0, 0]]);
    assert!(index.broken().is_empty());
}

#[test]
fn what_a_table_cannot_show_is_no_topic() {
    let mut index = shop();
    let rules = json!([{"backendRefs": [{"name": "v1", "port": 80}]}]);
    assert_eq!(index.apply(vec![route(&rules)]), BTreeSet::from([Topic::Tables(web())]));

    // Our own status, coming back from the API server; an annotation for somebody else; a Service as it was.
    let mut again = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "11111111-1111-1111-1111-111111111111", "annotations": {"note": "1"}},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": rules},
        "status": {"parents": []},
    });
    let created = table(&index);
    again["metadata"]["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
    assert_eq!(index.apply(vec![applied(again), service("v1", "10.96.0.2")]), BTreeSet::new());
    assert_eq!(table(&index), created);
}

#[test]
fn a_backend_that_comes_changes_the_tables_that_name_it_and_no_others() {
    let mut index = shop();
    index.apply(vec![
        deleted("Service", "shop", "v2"),
        route(&json!([{"backendRefs": [{"name": "v2", "port": 80}]}])),
    ]);
    let topics = index.apply(vec![service("v2", "10.96.0.3")]);
    let tables: Vec<&Topic> = topics.iter().filter(|topic| matches!(topic, Topic::Tables(_))).collect();
    assert_eq!(tables, [&Topic::Tables(NamespacedName::new("shop", "v2")), &Topic::Tables(web())]);
}

#[test]
fn clients_are_told_the_addresses_of_their_own_namespaces_services() {
    let mut index = shop();
    index.apply(vec![deleted("Service", "shop", "v1"), deleted("Service", "shop", "v2")]);
    let expected = ["10.96.0.1:80", "10.96.0.1:8080", "[fd00::1]:80", "[fd00::1]:8080"]
        .map(|address| address.parse().unwrap());
    assert_eq!(index.suggestions("shop"), expected);
    assert_eq!(index.suggestions("client"), []);
}

#[test]
fn an_index_is_synced_when_its_source_says_so() {
    let mut index = Index::new(Settings::default());
    index.apply(vec![service("web", "10.96.0.1")]);
    assert!(!index.synced());
    index.apply(vec![SourceEvent::Synced]);
    assert!(index.synced());
}
