//! Cases against the compiled table: the controller's index, then the library that `gamut explain` asks. No process,
//! no clock.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use gamut_controller::{
    index::{Index, Settings},
    source::SourceEvent,
};
use gamut_controller_api::{Body, Key};
use gamut_manifest::{Object, Origin};
use gamut_route::{
    BackendId, RouteTable, ServicePort,
    decide::{Asked, Decider, Does, Fate, Forwarded},
    table::{AppProtocol, BackendTarget, Split},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::Value;

use crate::{
    answer::{Answer, dialled, differences, label},
    case::{self, APPS, Case, Question},
};

/// A case's world, compiled.
struct Compiled {
    objects: Vec<Value>,
    index: Index,
}

impl Compiled {
    fn new(case: &Case) -> Self {
        let objects = [case::world(), case.manifests()].concat();
        let origin = Origin { file: Arc::new(PathBuf::from(&case.id)), document: 0, line: 1 };
        let events = objects.iter().map(|value| {
            let object = Object::from_value(value.clone(), &origin)
                .unwrap_or_else(|error| panic!("{}: {error}", case.id));
            SourceEvent::Applied(Box::new(object))
        });
        let require_reference_grant = case.require_reference_grant;
        let mut index = Index::new(Settings { require_reference_grant, ..Settings::default() });
        index.apply(events.chain([SourceEvent::Synced]).collect());
        Self { objects, index }
    }

    fn table(&self, case: &Case, question: &Question) -> Arc<RouteTable> {
        let (name, namespace) = dialled(case, question);
        let service = ServicePort::new(namespace, name, question.port);
        let key = Key::RouteTable { client_namespace: question.from.clone(), service };
        let Body::RouteTable(table) = self.index.body(&key) else { panic!("another body than the key's") };
        table
    }

    /// The app behind a backend; `None` where it has no endpoints.
    fn app(&self, id: &BackendId) -> Option<String> {
        let (kind, name, selector) = match id {
            BackendId::Service(port) => ("Service", &port.service, "/spec/selector"),
            BackendId::XBackend(name) => ("XBackend", name, "/spec/endpointSelector/matchLabels"),
        };
        let object = self.objects.iter().find(|object| {
            object["kind"] == kind
                && object["metadata"]["name"] == name.name
                && object["metadata"]["namespace"] == name.namespace
        })?;
        // A name outside, which in the cases is that of a Service of the world.
        if let Some(name) = object.pointer("/spec/externalName") {
            return name.as_str()?.split('.').next().map(str::to_owned);
        }
        let app = object.pointer(selector)?.get("app")?.as_str()?;
        APPS.contains(&(name.namespace.as_str(), app)).then(|| app.to_owned())
    }
}

/// Every answer that a request may get, with its weight. One, but where a split decides.
fn answers(compiled: &Compiled, case: &Case, question: &Question) -> Vec<(u64, Answer)> {
    let table = compiled.table(case, question);
    if let Some(name) = &question.sni {
        let rule = table.tls_rule(Some(name)).map(|index| &table.tls[index].split);
        return connections(compiled, rule.unwrap_or(&table.tcp));
    }
    if question.tcp {
        assert_eq!(table.protocol, AppProtocol::Opaque, "{}: the port carries requests", case.id);
        return connections(compiled, &table.tcp);
    }
    let headers = headers(question);
    let (method, path) = match &question.grpc {
        Some(call) => (Method::POST, call.as_str()),
        None => (question.method.parse().unwrap(), question.path.as_str()),
    };
    let uri: Uri = path.parse().unwrap();
    let host = host(case, question);
    let asked = Asked { method: &method, uri: &uri, host: &host, headers: &headers };
    match Decider::new(&table).unwrap().decide(&asked).unwrap() {
        Fate::Refused(_) => own(400, "bad-request"),
        Fate::NoRule => own(404, "no-route"),
        Fate::Ruled { does, .. } => match does {
            Does::Answers(status, headers) => {
                let answer =
                    Answer { status: status.as_u16(), headers: by_name(&headers), ..Answer::default() };
                vec![(1, answer)]
            }
            Does::NoHost => own(400, "bad-request"),
            Does::Fails(_) => own(500, "invalid-rule"),
            Does::Forwards(to) if to.iter().all(|to| to.share.0 == 0) => own(500, "no-backend"),
            Does::Forwards(to) => {
                let weighted = to.iter().filter(|to| to.share.0 > 0);
                weighted.map(|to| (u64::from(to.share.0), forwarded(compiled, to, question))).collect()
            }
        },
    }
}

/// The app's answer, or the sidecar's in its place.
fn forwarded(compiled: &Compiled, to: &Forwarded<'_>, question: &Question) -> Answer {
    let id = match &to.backend.target {
        BackendTarget::Invalid(_) => return own(500, "invalid-backend").remove(0).1,
        BackendTarget::Endpoints { id, .. } => id,
    };
    let Some(app) = compiled.app(id) else { return own(503, "no-endpoint").remove(0).1 };
    // As the echo app answers: with the headers that the request asks for.
    let mut headers = HeaderMap::new();
    let query = to.head.uri.query().unwrap_or_default();
    for wanted in query.split('&').filter_map(|pair| pair.strip_prefix("header=")) {
        let (name, value) = wanted.split_once(':').unwrap();
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    to.finish(&mut headers);
    let status =
        query.split('&').find_map(|pair| pair.strip_prefix("status=")).map_or(200, |s| s.parse().unwrap());
    let mut seen = by_name(&to.head.headers);
    let mirrors = to.mirrors.iter().map(|mirror| match &mirror.backend {
        BackendId::Service(port) => port.service.name.clone(),
        BackendId::XBackend(name) => name.name.clone(),
    });
    Answer {
        status,
        grpc: question.grpc.as_ref().map(|_| 0),
        backend: Some(app),
        path: to.head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        host: seen.remove("host").unwrap_or_default(),
        seen,
        headers: by_name(&headers),
        mirrors: Some(mirrors.collect()),
        ..Answer::default()
    }
}

fn connections(compiled: &Compiled, split: &Split) -> Vec<(u64, Answer)> {
    let weighted = split.backends.iter().filter(|backend| backend.weight > 0);
    let answers: Vec<(u64, Answer)> = weighted
        .map(|backend| {
            let app = match &backend.target {
                BackendTarget::Invalid(_) => None,
                BackendTarget::Endpoints { id, .. } => compiled.app(id),
            };
            let answer = match app {
                None => closed(),
                app => Answer { status: 200, backend: app, ..Answer::default() },
            };
            (u64::from(backend.weight), answer)
        })
        .collect();
    if answers.is_empty() { vec![(1, closed())] } else { answers }
}

fn closed() -> Answer {
    Answer { closed: true, ..Answer::default() }
}

/// An answer of the sidecar's own, which says why; as gRPC says it as well.
fn own(status: u16, reason: &str) -> Vec<(u64, Answer)> {
    let grpc = match status {
        400 => 13,
        404 => 12,
        _ => 14,
    };
    let headers = BTreeMap::from([("gamut-answer".to_owned(), reason.to_owned())]);
    vec![(1, Answer { status, grpc: Some(grpc), headers, ..Answer::default() })]
}

fn headers(question: &Question) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in &question.headers {
        let (name, value) = line.split_once(':').unwrap();
        headers
            .append(HeaderName::try_from(name.trim()).unwrap(), HeaderValue::from_str(value.trim()).unwrap());
    }
    headers
}

fn by_name(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut named: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = value.to_str().unwrap();
        named
            .entry(name.as_str().to_owned())
            .and_modify(|joined| *joined += &format!(",{value}"))
            .or_insert_with(|| value.to_owned());
    }
    named
}

/// The `Host` that the echo client sends.
pub(crate) fn host(case: &Case, question: &Question) -> String {
    let (name, namespace) = dialled(case, question);
    let dialled = match question.port {
        80 => format!("{name}.{namespace}"),
        port => format!("{name}.{namespace}:{port}"),
    };
    question.host.clone().unwrap_or(dialled)
}

/// Compares the shares that the table gives with those that are expected.
fn wrong_shares(expected: &BTreeMap<String, u64>, answers: &[(u64, Answer)]) -> Vec<String> {
    let mut got: BTreeMap<String, u64> = BTreeMap::new();
    for (weight, answer) in answers {
        let who = match &answer.backend {
            Some(app) => app.clone(),
            None if answer.closed => "closed".to_owned(),
            None => answer.status.to_string(),
        };
        *got.entry(who).or_default() += weight;
    }
    let sum = |shares: &BTreeMap<String, u64>| shares.values().sum::<u64>();
    let same = expected.keys().filter(|who| expected[*who] > 0).eq(got.keys())
        && got.iter().all(|(who, weight)| weight * sum(expected) == expected[who] * sum(&got));
    if same { Vec::new() } else { vec![format!("the shares are {got:?}, expected {expected:?}")] }
}

#[test]
fn every_case_holds_in_its_table() {
    let mut wrong = Vec::new();
    for case in case::all().iter().filter(|case| case.mesh_only.is_none()) {
        let compiled = Compiled::new(case);
        for question in &case.requests {
            let answers = answers(&compiled, case, question);
            let found = match (question.expect.shares.is_empty(), answers.as_slice()) {
                (false, answers) => wrong_shares(&question.expect.shares, answers),
                (true, [(_, answer)]) => differences(&question.expect, answer),
                (true, several) => vec![format!("{} answers are possible; expect shares", several.len())],
            };
            wrong.extend(found.into_iter().map(|what| format!("{}: {what}", label(case, question))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_route_of_a_case_has_the_conditions_that_it_says() {
    let mut wrong = Vec::new();
    for case in case::all() {
        let compiled = Compiled::new(case);
        for (route, parents) in compiled.index.statuses() {
            let reference = &route.route.reference;
            for parent in &parents {
                let expected = case.conditions_of(
                    reference.kind.as_str(),
                    &reference.name.namespace,
                    &reference.name.name,
                    &parent.parent.name,
                );
                let got: Vec<String> = parent
                    .conditions
                    .iter()
                    .map(|condition| {
                        let status = if condition.status { "True" } else { "False" };
                        format!(
                            "{}={status} {}: {}",
                            condition.kind,
                            condition.reason.as_str(),
                            condition.message
                        )
                    })
                    .collect();
                if !are_as_expected(&expected, &got) {
                    wrong.push(format!("{}: {reference}: {got:#?}, expected {expected:#?}", case.id));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Compares `TYPE=STATUS REASON: MESSAGE` with lines that say the first three and, if they like, a part of the message.
pub(crate) fn are_as_expected(expected: &[String], got: &[String]) -> bool {
    let is = |expected: &String, got: &String| {
        let (head, part) = expected.split_once(": ").unwrap_or((expected, ""));
        got.split_once(": ").is_some_and(|(of, message)| of == head && message.contains(part))
    };
    expected.len() == got.len() && expected.iter().all(|expected| got.iter().any(|got| is(expected, got)))
}
