//! What sidecars say, and what is found in it.

use serde_json::{Value, json};

use super::*;

fn told(pod: &str, more: Value) -> (String, ProxyStatus) {
    let mut status = json!({
        "identity": "spiffe://cluster.local/ns/shop/sa/web", "ready": {"ready": true}, "tables": [], "backends": [], "sessions": [],
    });
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (format!("shop/{pod}"), serde_json::from_value(status).unwrap())
}

fn root(serial: &str, not_after: u64) -> Value {
    json!({"subject": "O=Gamut", "serial": serial, "notAfter": not_after})
}

fn said(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.detail.as_str()).collect()
}

#[test]
fn who_lacks_a_root_that_others_trust_is_named() {
    let (old, new) = (root("01", 4_000_000_000), root("02", 4_000_000_000));
    let both = told("web-1", json!({"roots": [old, new]}));
    let one = told("web-2", json!({"roots": [old]}));
    let none = told("web-3", json!({"roots": []}));
    let now = Timestamp::UNIX_EPOCH;
    assert_eq!(said(&roots(&[both.clone(), one, none], now)), ["shop/web-2 trusts 1 of 2 roots"]);
    assert!(roots(&[both], now).is_empty());
}

#[test]
fn a_remedy_names_the_first_pod_as_it_can_be_typed() {
    for line in ["shop/web-1: expired", "shop/web-1 has none yet"] {
        assert_eq!(first_pod(&[line.to_owned(), "lab/x: expired".to_owned()]), "-n shop web-1");
    }
}

#[test]
fn a_table_that_many_wait_for_is_named_once() {
    let [table, other] = ["RouteTable shop/web:80 for shop", "EndpointSet shop/web:80"].map(str::to_owned);
    let [one, two] = ["shop/client-1", "shop/client-2"].map(str::to_owned);
    assert_eq!(
        waiting([(&table, &one), (&table, &two), (&table, &two), (&other, &one)].into_iter()),
        [
            "shop/client-1 waits for EndpointSet shop/web:80",
            "2 sidecars wait for RouteTable shop/web:80 for shop"
        ]
    );
}

#[test]
fn a_root_that_ends_within_a_month_is_named_with_the_moment() {
    let ending = told("web-1", json!({"roots": [root("01", 86_400)]}));
    assert_eq!(said(&roots(&[ending], Timestamp::UNIX_EPOCH)), ["O=Gamut (01) ends at 1970-01-02T00:00:00Z"]);
}

#[test]
fn connections_without_a_protocol_and_endpoints_that_fail_are_told_with_what_to_do() {
    let silent = told("db-client", json!({"detectTimeouts": 3}));
    let ejected = json!([{"address": "10.244.0.7:8080", "pod": "web-1", "millisecondsLeft": 900}]);
    let failing = told(
        "client",
        json!({"endpoints": [{
            "backend": "service/shop/web:80", "inFlight": 0, "connecting": 0, "shed": 0, "ejections": 1, "ejected": ejected,
        }]}),
    );
    assert_eq!(
        said(&met(&[silent, failing])),
        [
            "connections were kept waiting because nobody said what they speak: shop/db-client: 3 connections",
            "get nothing for a while, because requests to them failed: service/shop/web:80: web-1",
        ]
    );
    assert!(met(&[told("web-1", json!({}))]).is_empty());
}
