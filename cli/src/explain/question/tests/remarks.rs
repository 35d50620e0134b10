//! What is said of routes and policies that aren't in force as they were written.

use super::*;

#[test]
fn a_refused_route_is_said_to_be_refused_and_why() {
    let refused = SHOP.replace("  rules:\n", "  rule: []\n  rules:\n");
    let answer = explain_of(&refused, &["http://web/api"]).unwrap();
    assert_eq!(
        answer.decision.outcome,
        "forwarded by the Service itself, because no route of it is accepted"
    );
    let remark = &answer.remarks[0];
    assert_eq!(
        (remark.kind, remark.name.as_str(), remark.condition, remark.reason),
        ("HTTPRoute", "shop/web", "Accepted is False", "UnsupportedValue")
    );
    assert!(remark.message.contains("spec.rule isn't known"), "{remark:?}");
    assert!(explain_of(&refused, &["http://canary/"]).unwrap().remarks.is_empty(), "of another Service");
    assert!(explain(&["http://web/api"]).unwrap().remarks.is_empty());
}

#[test]
fn a_route_that_misses_the_service_is_told_with_what_to_write() {
    let missed = SHOP.replace("{group: '', kind: Service, name: web}", "{name: web}");
    let answer = explain_of(&missed, &["http://web/api"]).unwrap();
    assert_eq!(
        answer.decision.outcome,
        "forwarded by the Service itself, because no route is attached to it"
    );
    assert_eq!((answer.remarks[0].condition, answer.remarks[0].name.as_str()), ("not attached", "shop/web"));
    assert!(answer.remarks[0].message.contains("kind: Service"), "{:?}", answer.remarks);
    assert!(explain_of(&missed, &["http://canary/"]).unwrap().remarks.is_empty(), "of another Service");
}

#[test]
fn what_is_in_force_and_without_effect_is_told() {
    let named = SHOP.replace("  rules:\n", "  hostnames: [web.example.com]\n  rules:\n");
    let answer = explain_of(&named, &["http://web/api"]).unwrap();
    assert!(answer.remarks[0].is_note() && answer.remarks[0].message.contains("spec.hostnames"));
    assert_eq!(answer.decision.outcome, "forwarded by httproute/shop/web, rule api");
}

#[test]
fn a_dropped_rule_and_a_refused_policy_of_a_backend_are_told() {
    let dropped = SHOP.replace("  - name: always\n", "  - name: always\n    retry: {attempts: -1}\n");
    let policy = "---
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: sticky, namespace: shop}
spec: {targetRefs: [{group: '', kind: Service, name: canary}], sessionPersistence: {type: Token}}
";
    let answer = explain_of(&format!("{dropped}{policy}"), &["http://web/api"]).unwrap();
    let said: Vec<_> = answer.remarks.iter().map(|remark| (remark.kind, remark.condition)).collect();
    assert_eq!(
        said,
        [("HTTPRoute", "PartiallyInvalid is True"), ("XBackendTrafficPolicy", "Accepted is False"),]
    );
    assert_eq!(answer.decision.outcome, "forwarded by httproute/shop/web, rule api");
}

#[test]
fn a_route_that_would_have_matched_but_names_nothing_as_its_parent_is_told() {
    for (parent, why) in
        [("name: wbe", "Service shop/wbe doesn't exist"), ("name: web, port: 8080", "has no TCP port 8080")]
    {
        let stray = SHOP.replace(
            "{group: '', kind: Service, name: web}",
            &format!("{{group: '', kind: Service, {parent}}}"),
        );
        let answer = explain_of(&stray, &["http://web/api"]).unwrap();
        assert_eq!(
            answer.decision.outcome,
            "forwarded by the Service itself, because no route is attached to it"
        );
        let remark = &answer.remarks[0];
        assert_eq!((remark.condition, remark.reason), ("not attached", "NoMatchingParent"), "{parent}");
        assert!(remark.message.contains(why), "{remark:?}");
        let other = explain_of(&stray, &["http://web/other"]).unwrap();
        assert!(other.remarks.is_empty(), "it wouldn't have matched: {:?}", other.remarks);
    }
}

#[test]
fn a_route_that_misses_a_port_of_another_service_is_none_of_this_ones() {
    let other = SHOP.replace(
        "{group: '', kind: Service, name: web}",
        "{group: '', kind: Service, name: canary, port: 8080}",
    );
    let answer = explain_of(&other, &["http://web/api"]).unwrap();
    assert!(answer.remarks.is_empty(), "{:?}", answer.remarks);
}
