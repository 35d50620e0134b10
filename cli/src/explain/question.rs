//! The question: from a URL to a Service, from the Service to its table, through the table to a rule.

use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};
use gamut_controller_api::{Body, Key};
use gamut_manifest::Object;
use gamut_route::{BackendId, NamespacedName, ServicePort, decide::Asked};
use http::{HeaderMap, Uri};
use serde::Serialize;
use serde_json::Value;

use super::{
    Args, Client,
    decision::{Decision, decide},
    remark::{self, Remark},
    session::{self, Effect},
};
use crate::world::{Objects, Place, silence};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// Who answered.
    pub(super) world: Place,
    /// The request in one line.
    pub(super) request: String,
    /// What it is addressed to.
    pub(super) service: String,
    /// What to know beforehand, a line each: the client has no sidecar, say.
    pub(super) notes: Vec<String>,
    /// What isn't in force as it was written, of the routes and policies that are about it.
    pub(super) remarks: Vec<Remark>,
    /// What becomes of it, and why.
    #[serde(flatten)]
    pub(super) decision: Decision,
    /// The sessions that it meets, and what it brings for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<Effect>,
}

/// What becomes of the request of a client in this namespace.
///
/// # Errors
/// The URL names nothing that routes are attached to.
pub(super) fn ask(args: &Args, namespace: &str, mut objects: Objects) -> anyhow::Result<Answer> {
    let uri: Uri = args
        .url
        .parse()
        .with_context(|| format!("{:?} is not a URL; use http://NAME[:PORT]/PATH", args.url))?;
    let authority = uri
        .authority()
        .with_context(|| format!("{:?} has no host; use http://NAME[:PORT]/PATH", args.url))?;
    let scheme =
        uri.scheme_str().with_context(|| format!("{0:?} has no scheme; write http://{0}", args.url))?;
    if !["http", "https"].contains(&scheme) {
        bail!(
            "{:?} is no request that routes are asked about; use http://NAME[:PORT]/PATH, for gRPC with -X POST and /package.Service/Method",
            args.url
        );
    }
    // What isn't a number is kept in the authority, and is no port.
    if uri.port().is_none() && !authority.as_str().trim_end_matches(':').ends_with(authority.host()) {
        bail!("{:?} has a port that is none; use 1 to 65535", args.url);
    }
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let service = service(authority.host(), port, namespace)?;
    let Some(object) = objects.object("Service", &service.service.namespace, &service.service.name) else {
        return Err(no_service(authority.host(), &service.service, &objects));
    };
    check_frontend(object, &service)?;
    check_port(object, &service)?;
    let mut notes = std::mem::take(&mut objects.notes);
    notes.extend(domain_note(authority.host(), &service));
    if let Some(client) = &args.from {
        notes.extend(client_note(client, namespace, &objects)?);
    }

    let key = Key::RouteTable { client_namespace: namespace.to_owned(), service: service.clone() };
    let (world, knows_endpoints) = (objects.world.clone(), objects.has_endpoints());
    let index = objects.into_index();
    let Body::RouteTable(table) = index.body(&key) else {
        bail!("the index has no table for {key}");
    };
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let asked = Asked { method: &args.method, uri: &uri, host: authority.as_str(), headers: &headers };
    let remarks = remark::about(&index, &table, namespace);
    let (mut decision, rule) = decide(&table, &asked, remark::of_itself(&remarks))?;
    for candidate in decision.backends.iter_mut().filter(|candidate| knows_endpoints && candidate.share > 0.0)
    {
        candidate.nobody = candidate.backend.parse::<BackendId>().ok().and_then(|id| silence(&index, &id));
    }
    let request = session::Request { index: &index, namespace, headers: &headers, now: SystemTime::now() };
    let sessions = rule.map(|rule| session::effects(&request, rule)).transpose()?.unwrap_or_default();
    Ok(Answer {
        world,
        request: format!("{} {} from a client in namespace {namespace}", args.method, args.url),
        service: format!("Service {}", table.parent),
        notes,
        remarks,
        decision,
        sessions,
    })
}

/// `web`, `web.shop`, `web.shop.svc` and `web.shop.svc.cluster.local`, as a pod of the namespace resolves them.
fn service(host: &str, port: u16, namespace: &str) -> anyhow::Result<ServicePort> {
    let host = host.to_ascii_lowercase();
    let mut labels = host.trim_end_matches('.').split('.');
    let name = labels.next().filter(|name| !name.is_empty()).context("the URL has no host")?;
    let namespace = labels.next().unwrap_or(namespace);
    match labels.next() {
        None | Some("svc") => Ok(ServicePort::new(namespace, name, port)),
        Some(_) => bail!(
            "{host} is not a Service's name; use NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local"
        ),
    }
}

/// A name of a Service that isn't there resolves to nothing; one that may be a host's outside is called past the mesh.
fn no_service(host: &str, name: &NamespacedName, objects: &Objects) -> anyhow::Error {
    let labels = host.trim_end_matches('.').split('.').count();
    let elsewhere = objects.of_kind("Service").find(|service| service.name == name.name);
    let namespace = elsewhere.and_then(|service| service.namespace.as_deref());
    match (labels, namespace) {
        (1, Some(other)) => {
            anyhow!("there is no Service {name}; there is one in namespace {other}: add -n {other}")
        }
        (1, None) => anyhow!("there is no Service {name}, so {host} names nothing there"),
        (2, _) => anyhow!("there is no Service {name}; if {host} is a host outside, requests pass through"),
        (_, _) => anyhow!("there is no Service {name}, so {host} names nothing"),
    }
}

/// A cluster's DNS domain isn't known here, and a name that ends in another one's is looked up elsewhere.
fn domain_note(host: &str, service: &ServicePort) -> Option<String> {
    let domain = host.trim_end_matches('.').splitn(4, '.').nth(3)?.to_ascii_lowercase();
    (domain != "cluster.local").then(|| {
        format!("taken for Service {}, as it is if this cluster's DNS domain is {domain}", service.service)
    })
}

/// Another name of a host outside has no address of its own: clients call that host.
fn check_frontend(object: &Object, service: &ServicePort) -> anyhow::Result<()> {
    let text = |pointer| object.raw.pointer(pointer).and_then(Value::as_str);
    if text("/spec/type") == Some("ExternalName") {
        bail!(
            "Service {} is another name of {}: its clients call that host, and routes of the Service have no say; \
             as a backend of a route it can be reached",
            service.service,
            text("/spec/externalName").unwrap_or_default()
        );
    }
    Ok(())
}

/// Where a Service has no port, nobody takes requests: there is no table to be asked.
fn check_port(object: &Object, service: &ServicePort) -> anyhow::Result<()> {
    let ports = object.raw.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<u64> = ports.into_iter().flatten().filter_map(|port| port.get("port")?.as_u64()).collect();
    if ports.is_empty() || ports.contains(&service.port.into()) {
        return Ok(());
    }
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    bail!(
        "Service {} has no port {}: the connection is reset (by the sidecar) or refused (without one); its ports: {}",
        service.service,
        service.port,
        ports.join(", ")
    )
}

fn client_note(client: &Client, namespace: &str, objects: &Objects) -> anyhow::Result<Option<String>> {
    let Client { text, kind, name } = client;
    let workload = objects
        .object(kind, namespace, name)
        .with_context(|| format!("there is no {kind} {namespace}/{name}"))?;
    let reason = objects.not_meshed(workload);
    Ok(reason.map(|reason| format!("{text} has no sidecar, so none of this applies to it: {reason}")))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(
            (answer.remarks[0].condition, answer.remarks[0].name.as_str()),
            ("not attached", "shop/web")
        );
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
        let error =
            ask(&line.args, "default", Objects::of_files(&[directory.path().to_owned()])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no Service default/web; there is one in namespace shop: add -n shop"
        );
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
            filter(
                "ResponseHeaderModifier",
                "responseHeaderModifier",
                "{set: [{name: x-answer, value: '2'}]}",
            ),
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
        let backends =
            explain_of(&broken, &[&["http://web/api"], &call[..]].concat()).unwrap().decision.backends;
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
}
