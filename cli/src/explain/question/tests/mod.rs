//! Manifests and a request in, what `gamut explain` says of it out.

mod remarks;

use std::fs;

use clap::Parser;
use serde_json::json;

use super::*;
use crate::{explain::gather, world::scripted};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

const SHOP: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: canary, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec: {selector: {matchLabels: {app: c}}, template: {metadata: {labels: {app: c}}, spec: {containers: [{name: c, image: c}]}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - name: api
    matches: [{path: {value: /api}}]
    backendRefs: [{name: canary, port: 80}]
  - name: always
    matches: [{path: {value: /api}, headers: [{name: x-canary, value: always}]}]
    backendRefs: [{name: web, port: 80, weight: 3}, {name: canary, port: 80}]
";

fn shares(answer: &Answer) -> Vec<(&str, f64)> {
    answer.decision.backends.iter().map(|to| (to.backend.as_str(), to.share)).collect()
}

fn explain(arguments: &[&str]) -> anyhow::Result<Answer> {
    explain_of(SHOP, arguments)
}

fn explain_of(manifests: &str, arguments: &[&str]) -> anyhow::Result<Answer> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("all.yaml"), manifests)?;
    let line = Line::parse_from(["explain"].iter().chain(arguments));
    ask(&line.args, "shop", Objects::of_files(&[directory.path().to_owned()]))
}

#[tokio::test]
async fn the_clients_namespace_is_the_contexts_unless_one_is_named() {
    for (arguments, expected) in [(&[][..], "shop"), (&["-n", "lab"], "lab")] {
        let line = Line::parse_from(["explain", "http://web/"].iter().chain(arguments));
        let world = scripted::world_of("shop", vec![("/version", json!({"gitVersion": "v1.34.4"}))]);
        let (namespace, _) = gather(&line.args, &world).await.unwrap();
        assert_eq!(namespace, expected);
    }
}

#[test]
fn the_winner_is_told_with_its_backends_and_the_losers_with_their_reason() {
    let answer = explain(&["http://web.shop.svc/api/v1", "-H", "x-canary: always"]).unwrap();
    assert_eq!(answer.decision.outcome, "forwarded by httproute/shop/web, rule always");
    assert_eq!(shares(&answer), [("service/shop/web:80", 75.0), ("service/shop/canary:80", 25.0)]);
    let verdicts: Vec<&str> =
        answer.decision.matches.iter().map(|considered| considered.verdict.as_str()).collect();
    assert_eq!(verdicts, ["won", "outranked: it tests fewer headers"]);

    let answer = explain(&["http://web/api"]).unwrap();
    let verdicts: Vec<&str> =
        answer.decision.matches.iter().map(|considered| considered.verdict.as_str()).collect();
    assert_eq!(verdicts, ["no header x-canary", "won"]);
    let other = explain(&["http://web/api", "-H", "x-canary: never"]).unwrap();
    assert_eq!(other.decision.matches[0].verdict, "header x-canary is never");
}

#[test]
fn no_rule_is_404_and_a_service_without_routes_is_itself() {
    assert_eq!(explain(&["http://web/"]).unwrap().decision.outcome, "404, because no rule matches");
    let answer = explain(&["http://canary/"]).unwrap();
    assert_eq!(answer.decision.outcome, "forwarded by the Service itself, which has no routes");
    assert_eq!(shares(&answer), [("service/shop/canary:80", 100.0)]);
}

#[tokio::test]
async fn a_backend_that_nobody_answers_for_is_told_with_its_selector() {
    let service = |name: &str| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": name}, "ports": [{"port": 80}]},
        })
    };
    let world = scripted::world(vec![
        ("/version", json!({"gitVersion": "v1.34.4"})),
        ("/api/v1/services", scripted::list(&[service("web")])),
        ("/api/v1/pods", scripted::list(&[])),
        ("/apis/discovery.k8s.io/v1/endpointslices", scripted::list(&[])),
    ]);
    let line = Line::parse_from(["explain", "http://web/", "-n", "shop"]);
    let (namespace, objects) = gather(&line.args, &world).await.unwrap();
    let backends = ask(&line.args, &namespace, objects).unwrap().decision.backends;
    assert_eq!(backends[0].nobody.as_deref(), Some("no ready endpoint: selector app=web matches no pod"));
}

#[test]
fn without_n_the_namespace_that_has_the_service_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("all.yaml"), SHOP).unwrap();
    let line = Line::parse_from(["explain", "http://web/"]);
    let error = ask(&line.args, "default", Objects::of_files(&[directory.path().to_owned()])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no Service default/web; there is one in namespace shop: add -n shop"
    );
}

/// A route with one of everything that `explain` has to tell.
fn everything() -> String {
    format!(
        "{SHOP}---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: rich, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: canary}}]
  rules:
  - name: moved
    matches: [{{path: {{value: /old}}}}]
    filters: [{{type: RequestRedirect, requestRedirect: {{hostname: a.example, statusCode: 301}}}}]
  - name: edited
    matches: [{{path: {{value: /edit}}}}]
    filters:
    - {{type: URLRewrite, urlRewrite: {{hostname: b.example, path: {{type: ReplacePrefixMatch, replacePrefixMatch: /new}}}}}}
    - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-set, value: '1'}}], remove: [x-gone]}}}}
    - {{type: ResponseHeaderModifier, responseHeaderModifier: {{add: [{{name: x-answer, value: '1'}}]}}}}
    - {{type: RequestMirror, requestMirror: {{percent: 10, backendRef: {{name: web, port: 80}}}}}}
    timeouts: {{request: 2s}}
    retry: {{codes: [503], attempts: 2}}
    sessionPersistence: {{cookie: {{name: stay}}}}
    backendRefs: [{{name: web, port: 80}}, {{name: canary, port: 80, weight: 0}}]
"
    )
}

#[test]
fn a_redirect_is_told_with_its_location() {
    let answer = explain_of(&everything(), &["http://canary/old/x?y"]).unwrap();
    assert_eq!(answer.decision.outcome, "301 by httproute/shop/rich, rule moved: a redirect");
    assert_eq!(
        (answer.decision.status, answer.decision.answer),
        (Some(301), vec!["location: http://a.example/old/x?y".to_owned()])
    );
}

#[test]
fn what_filters_sessions_and_limits_change_is_told() {
    let answer = explain_of(&everything(), &["http://canary/edit/x", "-H", "x-gone: here"]).unwrap();
    assert_eq!(shares(&answer), [("service/shop/web:80", 100.0), ("service/shop/canary:80", 0.0)]);
    assert_eq!(
        answer.decision.backends[0].changes,
        [
            "path /new/x",
            "host b.example",
            "header x-set: 1",
            "without header x-gone",
            "10% of the requests are copied to service/shop/web:80",
        ]
    );
    assert_eq!(
        answer.decision.limits,
        ["at most 2s for all of it", "2 retries of 503 and of broken connections, from 25ms apart",]
    );
}

#[test]
fn filters_are_told_in_their_order_also_where_they_undo_each_other() {
    let filter = |kind: &str, field: &str, edits: &str| format!("{{type: {kind}, {field}: {edits}}}");
    let of_backend = [
        filter("RequestHeaderModifier", "requestHeaderModifier", "{remove: [x-set]}"),
        filter("ResponseHeaderModifier", "responseHeaderModifier", "{set: [{name: x-answer, value: '2'}]}"),
    ];
    let backend = format!("{{name: web, port: 80, filters: [{}]}}", of_backend.join(", "));
    let edited = everything().replace("[{name: web, port: 80}, ", &format!("[{backend}, "));
    let backends = explain_of(&edited, &["http://canary/edit/x"]).unwrap().decision.backends;
    let said = backends[0].filters.iter().map(|filter| (filter.of, filter.to, filter.does.as_str()));
    assert_eq!(
        said.collect::<Vec<_>>(),
        [
            ("rule", "request", "set host: b.example, the matched prefix becomes /new"),
            ("rule", "request", "set x-set: 1, remove x-gone"),
            ("backend", "request", "remove x-set"),
            ("backend", "answer", "set x-answer: 2"),
            ("rule", "answer", "add x-answer: 1"),
        ]
    );
    let arrives = &backends[0].changes;
    assert!(!arrives.iter().any(|change| change.contains("x-set")), "{arrives:?}");
    assert_eq!(backends[1].filters.len(), 3, "the rule's alone");
}

#[test]
fn a_path_that_no_proxy_may_guess_at_is_400() {
    let answer = explain(&["http://web/..;/admin"]).unwrap();
    assert_eq!(answer.decision.status, Some(400));
    assert!(answer.decision.outcome.starts_with("400, because the path"), "{}", answer.decision.outcome);
}

#[test]
fn connect_is_refused_before_any_rule_is_asked() {
    let answer = explain(&["http://web/api", "-X", "CONNECT"]).unwrap();
    assert_eq!(answer.decision.status, Some(405));
    assert_eq!(answer.decision.outcome, "405, because CONNECT asks for a tunnel past routes and policy");
    assert!(answer.decision.matches.is_empty());
}

#[test]
fn a_name_has_no_case_and_one_of_a_host_outside_is_no_service() {
    assert_eq!(explain(&["http://WEB.Shop/api"]).unwrap().service, "Service shop/web:80");
    let outside = "---
apiVersion: v1
kind: Service
metadata: {name: bank, namespace: shop}
spec: {type: ExternalName, externalName: bank.example}
";
    let error = explain_of(&format!("{SHOP}{outside}"), &["http://bank/"]).unwrap_err().to_string();
    assert!(error.contains("another name of bank.example"), "{error}");
}

#[test]
fn a_full_name_says_which_dns_domain_it_was_taken_for() {
    assert!(explain(&["http://web.shop.svc.Cluster.local./api"]).unwrap().notes.is_empty());
    assert_eq!(
        explain(&["http://web.shop.svc.corp.example/api"]).unwrap().notes,
        ["taken for Service shop/web, as it is if this cluster's DNS domain is corp.example"]
    );
}

#[test]
fn a_grpc_caller_is_told_its_own_status() {
    let call = ["-X", "POST", "-H", "content-type: application/grpc"];
    let ask = |url| explain(&[&[url], &call[..]].concat()).unwrap().decision;
    let none = ask("http://web/a.B/C");
    assert_eq!((none.status, none.grpc_status), (None, Some(12)));
    assert_eq!(none.outcome, "gRPC status 12, because no rule matches");

    let broken = SHOP.replace("[{name: canary, port: 80}]", "[{name: nosuch, port: 80}]");
    let backends = explain_of(&broken, &[&["http://web/api"], &call[..]].concat()).unwrap().decision.backends;
    assert!(backends[0].backend.starts_with("gRPC status 14, because"), "{}", backends[0].backend);
}

#[test]
fn a_reference_that_does_not_resolve_is_remarked_on() {
    let mirror =
        "    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: nosuch, port: 80}}}]\n";
    let broken = SHOP.replace("  - name: always\n", &format!("  - name: always\n{mirror}"));
    let remarks = explain_of(&broken, &["http://web/api"]).unwrap().remarks;
    assert_eq!((remarks[0].condition, remarks[0].reason), ("ResolvedRefs is False", "BackendNotFound"));
}

#[test]
fn a_later_rule_of_the_same_grpcroute_is_said_to_be_that() {
    let calls = "---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: canary}]
  rules:
  - {name: first, backendRefs: [{name: web, port: 80}]}
  - {name: second, backendRefs: [{name: canary, port: 80}]}
";
    let answer = explain_of(&format!("{SHOP}{calls}"), &["http://canary/a.B/C", "-X", "POST"]).unwrap();
    assert_eq!(
        answer.decision.matches[1].verdict,
        "outranked: less specific, or a rule behind it in the route"
    );
}

#[test]
fn a_port_of_bytes_says_so() {
    let bytes = SHOP.replace("ports: [{port: 80}]", "ports: [{port: 80, appProtocol: tcp}]");
    let answer = explain_of(&bytes, &["http://web/"]).unwrap();
    assert!(answer.decision.outcome.starts_with("the port carries bytes"), "{}", answer.decision.outcome);
    assert_eq!(shares(&answer), [("service/shop/web:80", 100.0)]);
}

#[test]
fn a_client_without_a_sidecar_and_a_name_that_is_none_are_said() {
    let note = explain(&["http://web/", "--from", "deploy/client"]).unwrap().notes.concat();
    assert!(
        note.contains("deploy/client has no sidecar") && note.contains("gamut.mesh/inject=enabled"),
        "{note}"
    );
    for (url, message) in [
        ("http://nosuch/", "no Service shop/nosuch, so nosuch names nothing"),
        ("http://bank.example/", "a host outside"),
        ("http://web:abc/", "a port that is none"),
        ("ftp://web/", "use http://"),
        ("http://example.com.org/", "not a Service's name"),
        ("/x", "no host"),
        ("web.shop", "write http://web.shop"),
        ("https://web/", "has no port 443"),
        ("http://web:99/", "its ports: 80"),
    ] {
        let error = explain(&[url]).unwrap_err().to_string();
        assert!(error.contains(message), "{url}: {error}");
    }
}

#[test]
fn what_the_clients_sidecar_takes_from_a_request_is_told_and_seen_by_no_rule() {
    let hop = ["-H", "connection: x-canary", "-H", "x-canary: always", "-H", "te: gzip"];
    let answer = explain(&[&["http://web/api"], &hop[..]].concat()).unwrap();
    assert_eq!(answer.decision.outcome, "forwarded by httproute/shop/web, rule api");
    let note = answer.notes.concat();
    assert!(note.starts_with("connection, x-canary, te: taken away by the client's sidecar"), "{note}");

    let upgrade = ["-H", "connection: upgrade", "-H", "upgrade: websocket", "-H", "x-canary: always"];
    let answer = explain(&[&["http://web/api"], &upgrade[..]].concat()).unwrap();
    assert_eq!(answer.notes, [""; 0], "an upgrade goes on");

    let coded = explain(&["http://web/api", "-H", "transfer-encoding: gzip"]).unwrap_err().to_string();
    assert!(coded.starts_with("the client's sidecar answers 501"), "{coded}");
}

#[test]
fn the_service_itself_comes_after_every_rule_of_a_route() {
    let refused = SHOP.replace(
        "  - name: always\n",
        "  - name: always\n    filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}]\n",
    );
    let refused = refused.replace(
        "  - name: api\n",
        "  - name: api\n    filters: [{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}]\n",
    );
    let answer = explain_of(&refused, &["http://web/api"]).unwrap();
    let last = answer.decision.matches.last().unwrap();
    assert!(last.rule.starts_with("the Service itself"), "{last:?}");
    assert_eq!(last.verdict, "outranked: the Service itself takes what no rule of a route does");
    let answer = explain_of(&refused, &["http://web/"]).unwrap();
    assert_eq!(answer.decision.matches.last().unwrap().verdict, "won");
}
