use std::{path::PathBuf, sync::Arc};

use gamut_manifest::{Object, Origin};

use super::*;
use crate::{
    compile::{Condition, Reason},
    index::Settings,
    source::SourceEvent,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn object(value: Value) -> Object {
    Object::from_value(value, &Origin { file: Arc::new(PathBuf::from("test")), document: 0, line: 1 })
        .unwrap()
}

fn applied(value: Value) -> SourceEvent {
    SourceEvent::Applied(Box::new(object(value)))
}

fn web() -> SourceEvent {
    applied(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}}),
    )
}

fn route(generation: i64, parents: &[&str], status: Value) -> SourceEvent {
    let parents: Vec<Value> =
        parents.iter().map(|name| json!({"group": "", "kind": "Service", "name": name})).collect();
    applied(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "generation": generation},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]},
        "status": status,
    }))
}

/// An index with session keys, so that only statuses are due.
fn index(events: Vec<SourceEvent>) -> Index {
    let mut index = Index::new(Settings::default());
    let keys = rotation::first("gamut-system", at(0)).unwrap();
    let mut events = events;
    events.extend([applied(keys), SourceEvent::Synced]);
    index.apply(events);
    index
}

fn route_id() -> ObjectId {
    ObjectId { kind: "HTTPRoute".to_owned(), namespace: Some("shop".to_owned()), name: "web".to_owned() }
}

/// The one status that is due.
fn written(writes: Vec<Write>) -> Value {
    match <[Write; 1]>::try_from(writes) {
        Ok([Write::Status { id, status: Some(status), .. }]) if id == route_id() => status,
        other => panic!("not one status of the route: {other:?}"),
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["parents"][0]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap()
}

#[test]
fn nothing_is_written_before_everything_is_known() {
    let mut index = Index::new(Settings::default());
    index.apply(vec![route(1, &["web"], Value::Null)]);
    let mut reporter = Reporter::default();
    assert_eq!(reporter.due_at(&mut index, at(0)), []);

    index.apply(vec![web(), applied(rotation::first("gamut-system", at(0)).unwrap()), SourceEvent::Synced]);
    let status = written(reporter.due_at(&mut index, at(0)));
    assert_eq!(condition(&status, "Accepted")["status"], "True");
}

#[test]
fn a_status_is_written_once_for_each_difference() {
    let mut index = index(vec![web(), route(1, &["web"], Value::Null)]);
    let mut reporter = Reporter::default();
    assert_eq!(
        written(reporter.due_at(&mut index, at(10))),
        json!({"parents": [{
            "parentRef": {"group": "", "kind": "Service", "name": "web"},
            "controllerName": "gamut.mesh/controller",
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "in force on port 80 for clients of all namespaces without consumer routes", "observedGeneration": 1, "lastTransitionTime": "1970-01-01T00:00:10Z"},
                {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "all references resolve", "observedGeneration": 1, "lastTransitionTime": "1970-01-01T00:00:10Z"},
            ],
        }]})
    );
    assert_eq!(reporter.due_at(&mut index, at(11)), []);

    // The source gives our own write back, and later an event that touches nothing.
    index.apply(vec![route(1, &["web"], Value::Null)]);
    assert_eq!(reporter.due_at(&mut index, at(12)), []);
}

#[test]
fn a_transition_time_moves_with_the_status_only() {
    let mut index = index(vec![web(), route(1, &["web"], Value::Null)]);
    let mut reporter = Reporter::default();
    written(reporter.due_at(&mut index, at(10)));

    // Another generation with the same outcome: observed, but no transition.
    index.apply(vec![route(2, &["web"], Value::Null)]);
    let status = written(reporter.due_at(&mut index, at(20)));
    assert_eq!(condition(&status, "Accepted")["observedGeneration"], 2);
    assert_eq!(condition(&status, "Accepted")["lastTransitionTime"], "1970-01-01T00:00:10Z");

    // The Service goes: both conditions turn, each with a time of its own.
    index.apply(vec![SourceEvent::Deleted(ObjectId { kind: "Service".to_owned(), ..route_id() })]);
    let status = written(reporter.due_at(&mut index, at(30)));
    assert_eq!(condition(&status, "Accepted")["reason"], "NoMatchingParent");
    assert_eq!(condition(&status, "Accepted")["lastTransitionTime"], "1970-01-01T00:00:30Z");
    assert_eq!(condition(&status, "ResolvedRefs")["reason"], "BackendNotFound");
}

#[test]
fn others_entries_stay_as_they_are_and_where_they_are() {
    let others = json!({"parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway", "conditions": [{"type": "Accepted", "status": "Unknown", "extra": 1}]});
    let ours = json!({"parentRef": {"group": "", "kind": "Service", "name": "gone"}, "controllerName": CONTROLLER, "conditions": []});
    let status = json!({"parents": [ours, others]});
    let mut index = index(vec![web(), route(1, &["web"], status)]);
    let status = written(Reporter::default().due_at(&mut index, at(0)));
    let parents = status["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0], others);
    assert_eq!(parents[1]["parentRef"]["name"], "web");
}

#[test]
fn a_route_that_leaves_the_mesh_takes_its_entries_along() {
    let mut index = index(vec![web(), route(1, &["web"], Value::Null)]);
    let mut reporter = Reporter::default();
    written(reporter.due_at(&mut index, at(0)));
    index.apply(vec![route(2, &[], Value::Null)]);
    assert_eq!(written(reporter.due_at(&mut index, at(0))), json!({"parents": []}));

    index.apply(vec![SourceEvent::Deleted(route_id())]);
    assert_eq!(
        reporter.due_at(&mut index, at(0)),
        [Write::Status { id: route_id(), status: None, said: None }]
    );
}

#[test]
fn a_route_of_nobody_of_ours_is_left_alone() {
    let mut index = index(vec![route(1, &[], Value::Null)]);
    assert_eq!(Reporter::default().due_at(&mut index, at(0)), []);
}

#[test]
fn a_failed_write_is_due_again() {
    let mut index = index(vec![web(), route(1, &["web"], Value::Null)]);
    let mut reporter = Reporter::default();
    let writes = reporter.due_at(&mut index, at(0));
    assert_eq!(reporter.due_at(&mut index, at(1)), []);
    reporter.failed(&writes[0]);
    assert_eq!(written(reporter.due_at(&mut index, at(1)))["parents"][0]["controllerName"], CONTROLLER);
}

#[test]
fn session_keys_are_made_once_where_there_are_none() {
    let mut index = Index::new(Settings::default());
    let mut reporter = Reporter::default();
    assert_eq!(reporter.due(&mut index), [], "they may only be late");
    index.apply(vec![SourceEvent::Synced]);
    let writes = reporter.due(&mut index);
    let [Write::Create(secret)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(secret["metadata"]["namespace"], "gamut-system");
    assert_eq!(secret["metadata"]["name"], "gamut-session-keys");
    assert_eq!(reporter.due(&mut index), []);

    reporter.failed(&writes[0]);
    assert_eq!(reporter.due(&mut index).len(), 1);

    index.apply(vec![applied(secret.clone())]);
    assert!(index.has_session_keys());
    assert_eq!(reporter.due(&mut index), []);
}

#[test]
fn a_secret_of_session_keys_that_cant_be_read_is_left_alone_and_made_anew_once_it_is_deleted() {
    let good = rotation::first("gamut-system", at(0)).unwrap();
    let mut bad = good.clone();
    bad["data"]["key-1"] = json!("c2hvcnQ=");
    let id = object(good.clone()).id();
    let month = at(31 * 24 * 3600);
    // A controller that started with the bad one, and one that knew a good one before.
    for before in [None, Some(good)] {
        let mut index = Index::new(Settings::default());
        let mut reporter = Reporter::default();
        index.apply(before.into_iter().map(applied).collect());
        index.apply(vec![applied(bad.clone()), SourceEvent::Synced]);
        assert_eq!(reporter.due_at(&mut index, month), [], "nothing is written over what somebody may mend");

        index.apply(vec![SourceEvent::Deleted(id.clone())]);
        let writes = reporter.due_at(&mut index, month);
        let [Write::Create(secret)] = writes.as_slice() else { panic!("{writes:?}") };
        index.apply(vec![applied(secret.clone())]);
        assert!(index.has_session_keys() && index.broken().is_empty());
    }
}

#[test]
fn session_keys_are_rotated_once_by_the_replica_that_leads() {
    let mut index = index(Vec::new());
    let month = at(31 * 24 * 3600);
    let (mut leader, mut follower) = (Reporter::default(), Reporter::new(true));
    assert_eq!(follower.due_at(&mut index, month), []);
    let writes = leader.due_at(&mut index, month);
    let [write @ Write::Replace(secret)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(leader.due_at(&mut index, month), [], "until the source shows what became of it");
    leader.failed(write);
    assert_eq!(leader.due_at(&mut index, month).len(), 1);

    index.apply(vec![applied(secret.clone())]);
    assert_eq!(leader.due_at(&mut index, month), [], "sealing waits until everybody has the key");
    let writes = leader.due_at(&mut index, at(31 * 24 * 3600 + 600));
    let [Write::Replace(sealing)] = writes.as_slice() else { panic!("{writes:?}") };
    assert_eq!(sealing["data"]["current"], "Mg==");
    follower.lead(true);
    assert_eq!(follower.due_at(&mut index, month), [], "another leader finds what was done");
}

#[test]
fn policies_and_xbackends_have_statuses_too() {
    let mut index = index(vec![
        web(),
        applied(json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy", "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "web"}], "retryConstraint": {"budget": {"percent": 101}}},
        })),
        applied(json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend", "metadata": {"name": "x", "namespace": "shop"},
            "spec": {"type": "EndpointSelector", "port": {"number": 80}, "endpointSelector": {"matchLabels": {"a": "b"}}},
        })),
    ]);
    let writes = Reporter::default().due_at(&mut index, at(0));
    let accepted: Vec<(String, Value, Value)> = writes
        .iter()
        .map(|write| match write {
            Write::Status { id, status: Some(status), .. } => {
                let entry = &status["ancestors"][0];
                (
                    id.to_string(),
                    entry["ancestorRef"]["name"].clone(),
                    entry["conditions"][0]["status"].clone(),
                )
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        accepted,
        [
            ("XBackend shop/x".to_owned(), json!("x"), json!("True")),
            ("XBackendTrafficPolicy shop/p".to_owned(), json!("web"), json!("False")),
        ]
    );
}

fn entry(name: &str, status: bool) -> Entry {
    let condition = Condition { kind: "Accepted", status, reason: Reason::Accepted, message: String::new() };
    Entry { reference: json!({"group": "", "kind": "Service", "name": name}), conditions: vec![condition] }
}

#[test]
fn a_newer_generation_is_never_overwritten() {
    let newer = merge(&Value::Null, "parents", &[entry("web", true)], 5, at(0)).unwrap();
    assert_eq!(merge(&newer, "parents", &[entry("web", false)], 4, at(1)), None);
    let after = merge(&newer, "parents", &[entry("web", false)], 5, at(1)).unwrap();
    assert_eq!(condition(&after, "Accepted")["status"], "False");
}

#[test]
fn no_more_than_32_entries_are_written() {
    let others: Vec<Value> = (0..31)
        .map(|n| json!({"parentRef": {"name": n.to_string()}, "controllerName": "example.com/other"}))
        .collect();
    let after =
        merge(&json!({"parents": others}), "parents", &[entry("a", true), entry("b", true)], 1, at(0))
            .unwrap();
    let parents = after["parents"].as_array().unwrap();
    assert_eq!((parents.len(), &parents[31]["parentRef"]["name"]), (32, &json!("a")));
}

#[test]
fn references_that_state_a_default_are_those_that_leave_it_out() {
    let gateway = |reference: Value| Entry { reference, conditions: entry("x", true).conditions };
    let stated = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "a", "port": null});
    let before = merge(&Value::Null, "parents", &[gateway(json!({"name": "a"}))], 1, at(0)).unwrap();
    let after = merge(&before, "parents", &[gateway(stated)], 2, at(1)).unwrap();
    assert_eq!(after["parents"].as_array().unwrap().len(), 1);
    assert_eq!(condition(&after, "Accepted")["lastTransitionTime"], "1970-01-01T00:00:00Z");
}

#[test]
fn an_xbackend_has_a_condition_for_each_service_whose_routes_refer_to_it() {
    let xbackend = |kind: &str| {
        applied(json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackend", "metadata": {"name": "x", "namespace": "shop"},
            "spec": {"type": kind, "port": {"number": 80}, "endpointSelector": {"matchLabels": {"a": "b"}}},
        }))
    };
    let to_x = |parents: &[&str]| {
        let parents: Vec<Value> =
            parents.iter().map(|name| json!({"group": "", "kind": "Service", "name": name})).collect();
        applied(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x"}]}]},
        }))
    };
    let mut reporter = Reporter::default();
    let mut index = index(vec![web(), xbackend("EndpointSelector")]);
    let ancestors = |reporter: &mut Reporter, index: &mut Index| {
        let writes = reporter.due_at(index, at(0));
        let status = writes.into_iter().find_map(|write| match write {
            Write::Status { id, status, .. } if id.kind == "XBackend" => status,
            _ => None,
        });
        let status = status.expect("its status is due");
        let entries = status["ancestors"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let reference = &entry["ancestorRef"];
                let name = format!(
                    "{} {}",
                    reference["kind"].as_str().unwrap(),
                    reference["name"].as_str().unwrap()
                );
                (name, entry["conditions"][0]["reason"].as_str().unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let all = |names: &[&str], reason: &str| {
        names.iter().map(|name| ((*name).to_owned(), reason.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(ancestors(&mut reporter, &mut index), all(&["XBackend x"], "Accepted"));
    index.apply(vec![to_x(&["web", "other"])]);
    assert_eq!(ancestors(&mut reporter, &mut index), all(&["Service other", "Service web"], "Accepted"));
    index.apply(vec![xbackend("ExternalHostname")]);
    assert_eq!(
        ancestors(&mut reporter, &mut index),
        all(&["Service other", "Service web"], "UnsupportedValue")
    );
    index.apply(vec![to_x(&["web"])]);
    assert_eq!(ancestors(&mut reporter, &mut index), all(&["Service web"], "UnsupportedValue"));
    index.apply(vec![route(1, &["web"], Value::Null)]);
    assert_eq!(ancestors(&mut reporter, &mut index), all(&["XBackend x"], "UnsupportedValue"));
}
