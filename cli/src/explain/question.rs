//! The question: from a URL to a Service, from the Service to its table, through the table to a rule.

use anyhow::{Context, bail};
use gamut_controller_api::{Body, Key};
use gamut_route::{
    RouteTable, ServicePort,
    matcher::{Matcher, RequestView, Unmet, Verdict},
    path,
    table::{BackendTarget, Match, NamedMatch, Outcome, PathMatch, Rule, ValueMatch},
};
use http::{HeaderMap, Uri};
use serde::Serialize;

use super::{Args, world::World};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The request in one line.
    pub(super) request: String,
    /// What it is addressed to.
    pub(super) service: String,
    /// Something to know beforehand: the client has no sidecar, say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    /// What becomes of it, in one line.
    pub(super) outcome: String,
    /// Where it may go and with what share, in percent.
    pub(super) backends: Vec<(String, f64)>,
    /// Every match of the table in order of precedence.
    pub(super) matches: Vec<Considered>,
}

/// A match, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Considered {
    /// The rule that it belongs to.
    pub(super) rule: String,
    /// The match in words.
    pub(super) when: String,
    /// `won`, `outranked`, or what isn't met.
    pub(super) verdict: String,
}

pub(super) fn ask(args: &Args, world: World) -> anyhow::Result<Answer> {
    let uri: Uri = args
        .url
        .parse()
        .with_context(|| format!("{:?} is not a URL; use http://NAME[:PORT]/PATH", args.url))?;
    let authority = uri
        .authority()
        .with_context(|| format!("{:?} has no host; use http://NAME[:PORT]/PATH", args.url))?;
    let service = service(authority.host(), uri.port_u16().unwrap_or(80), &args.namespace)?;
    if world.object("Service", &service.service.namespace, &service.service.name).is_none() {
        bail!(
            "there is no Service {}; requests to {} are nobody's of the mesh and pass through",
            service.service,
            args.url
        );
    }
    let note =
        args.from.as_deref().map(|from| client_note(from, &args.namespace, &world)).transpose()?.flatten();

    let key = Key::RouteTable { client_namespace: args.namespace.clone(), service: service.clone() };
    let Body::RouteTable(table) = world.into_index().body(&key) else {
        bail!("the index has no table for {key}");
    };
    let path =
        path::canonical(uri.path()).with_context(|| format!("the path of {:?} is refused", args.url))?;
    let headers: HeaderMap = args.headers.iter().cloned().collect();
    let view = RequestView {
        method: args.method.as_str(),
        path: &path,
        query: uri.query(),
        authority: Some(authority.as_str()),
        headers: &headers,
    };
    let mut answer = decide(&table, &view)?;
    answer.request = format!("{} {} from a client in namespace {}", args.method, args.url, args.namespace);
    answer.note = note;
    Ok(answer)
}

/// `web`, `web.shop`, `web.shop.svc` and `web.shop.svc.cluster.local`, as a pod of the namespace resolves them.
fn service(host: &str, port: u16, namespace: &str) -> anyhow::Result<ServicePort> {
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

fn client_note(from: &str, namespace: &str, world: &World) -> anyhow::Result<Option<String>> {
    let (kind, name) = from.split_once('/').unwrap_or(("pod", from));
    let kind = match kind {
        "deploy" | "deployment" => "Deployment",
        "sts" | "statefulset" => "StatefulSet",
        "job" => "Job",
        "pod" => "Pod",
        _ => bail!("{from:?} is no client; use deploy/NAME, statefulset/NAME, job/NAME or pod/NAME"),
    };
    let client = world
        .object(kind, namespace, name)
        .with_context(|| format!("there is no {kind} {namespace}/{name}"))?;
    let reason = world.not_meshed(client);
    Ok(reason.map(|reason| format!("{from} has no sidecar, so none of this applies to it: {reason}")))
}

/// Asks the matcher, and says what the rule that won does.
fn decide(table: &RouteTable, view: &RequestView<'_>) -> anyhow::Result<Answer> {
    let matcher = Matcher::new(&table.http)?;
    let verdicts = matcher.verdicts(view);
    let considered = table.http.matches.iter().zip(&verdicts).map(|(ranked, verdict)| Considered {
        rule: table.http.rules.get(ranked.rule).map_or_else(String::new, rule_name),
        when: in_words(&ranked.when),
        verdict: match verdict {
            Verdict::Won => "won".to_owned(),
            Verdict::Outranked => "outranked".to_owned(),
            Verdict::Unmet(Unmet::Path) => "another path".to_owned(),
            Verdict::Unmet(Unmet::Method) => "another method".to_owned(),
            Verdict::Unmet(Unmet::Header(name)) => format!("header {name} isn't so"),
            Verdict::Unmet(Unmet::Query(name)) => format!("query parameter {name} isn't so"),
        },
    });
    let winner = matcher.find(view).and_then(|matched| table.http.rules.get(matched.rule));
    let (outcome, backends) = match winner {
        None => ("404, because no rule matches".to_owned(), Vec::new()),
        Some(rule) => consequence(rule),
    };
    Ok(Answer {
        request: String::new(),
        service: format!("Service {}", table.parent),
        note: None,
        outcome,
        backends,
        matches: considered.collect(),
    })
}

fn consequence(rule: &Rule) -> (String, Vec<(String, f64)>) {
    let name = rule_name(rule);
    match &rule.outcome {
        Outcome::Fail(reason) => (format!("500 by {name}: {reason}"), Vec::new()),
        Outcome::Forward(split) => {
            let weights: u64 = split.backends.iter().map(|backend| u64::from(backend.weight)).sum();
            let share = |weight: u32| {
                if weights == 0 { 0.0 } else { (f64::from(weight) * 1000.0 / weights as f64).round() / 10.0 }
            };
            let backends = split.backends.iter().map(|backend| {
                let target = match &backend.target {
                    BackendTarget::Endpoints { id, .. } => id.to_string(),
                    BackendTarget::Invalid(reason) => format!("500, because {reason}"),
                };
                (target, share(backend.weight))
            });
            let session = if rule.session.is_some() { ", unless a session leads elsewhere" } else { "" };
            match weights {
                0 => (format!("500 by {name}: no backend has a weight"), Vec::new()),
                _ => (format!("forwarded by {name}{session}"), backends.collect()),
            }
        }
    }
}

fn rule_name(rule: &Rule) -> String {
    match &rule.origin {
        None => "the Service itself, which has no routes".to_owned(),
        Some(origin) => match &origin.name {
            Some(name) => format!("{}, rule {name}", origin.route),
            None => format!("{}, rule {}", origin.route, origin.index),
        },
    }
}

fn in_words(when: &Match) -> String {
    let value = |what: &str, test: &NamedMatch| match &test.value {
        ValueMatch::Exact(value) => format!("{what} {}={value}", test.name),
        ValueMatch::Regex(pattern) => format!("{what} {} ~ {pattern}", test.name),
    };
    let path = match &when.path {
        PathMatch::Exact(path) => Some(format!("path {path}")),
        PathMatch::Prefix(prefix) if prefix == "/" => None,
        PathMatch::Prefix(prefix) => Some(format!("prefix {prefix}")),
        PathMatch::Regex(pattern) => Some(format!("path ~ {pattern}")),
    };
    let parts: Vec<String> = path
        .into_iter()
        .chain(when.method.clone())
        .chain(when.headers.iter().map(|test| value("header", test)))
        .chain(when.query.iter().map(|test| value("query", test)))
        .collect();
    if parts.is_empty() { "every request".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;

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

    fn explain(arguments: &[&str]) -> anyhow::Result<Answer> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("all.yaml"), SHOP)?;
        let line = Line::parse_from(["explain", "-n", "shop"].iter().chain(arguments));
        ask(&line.args, World::of_files(&[directory.path().to_owned()]))
    }

    #[test]
    fn the_winner_is_told_with_its_backends_and_the_losers_with_their_reason() {
        let answer = explain(&["http://web.shop.svc/api/v1", "-H", "x-canary: always"]).unwrap();
        assert_eq!(answer.outcome, "forwarded by httproute/shop/web, rule always");
        assert_eq!(
            answer.backends,
            [("service/shop/web:80".to_owned(), 75.0), ("service/shop/canary:80".to_owned(), 25.0)]
        );
        let verdicts: Vec<&str> =
            answer.matches.iter().map(|considered| considered.verdict.as_str()).collect();
        assert_eq!(verdicts, ["won", "outranked"]);

        let answer = explain(&["http://web/api"]).unwrap();
        let verdicts: Vec<&str> =
            answer.matches.iter().map(|considered| considered.verdict.as_str()).collect();
        assert_eq!(verdicts, ["header x-canary isn't so", "won"]);
    }

    #[test]
    fn no_rule_is_404_and_a_service_without_routes_is_itself() {
        assert_eq!(explain(&["http://web/"]).unwrap().outcome, "404, because no rule matches");
        let answer = explain(&["http://canary/"]).unwrap();
        assert_eq!(answer.outcome, "forwarded by the Service itself, which has no routes");
        assert_eq!(answer.backends, [("service/shop/canary:80".to_owned(), 100.0)]);
    }

    #[test]
    fn a_client_without_a_sidecar_and_a_name_that_is_none_are_said() {
        let note = explain(&["http://web/", "--from", "deploy/client"]).unwrap().note.unwrap();
        assert!(
            note.contains("deploy/client has no sidecar") && note.contains("gamut.mesh/inject=enabled"),
            "{note}"
        );
        for (url, message) in [
            ("http://nosuch/", "shop/nosuch"),
            ("http://example.com.org/", "not a Service's name"),
            ("/x", "no host"),
        ] {
            let error = explain(&[url]).unwrap_err().to_string();
            assert!(error.contains(message), "{url}: {error}");
        }
    }
}
