//! Cases through real sidecars: a mesh that has all of them (and one for those with another setting), and the echo client
//! in a pod of each namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Output},
    sync::Mutex,
    thread,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    answer::{Answer, dialled, differences, label},
    case::{self, APPS, Case, Question, client_of},
    harness::{GAMUT_IN_PODS, Mesh, app},
    table::are_as_expected,
};

/// How many requests show a split.
const DRAWS: usize = 240;
/// How many questions are asked at a time.
const ASKERS: usize = 4;

/// The names of the corpus that applications are called by in TLS.
const NAMES: [&str; 7] = [
    "a.example",
    "x.a.example",
    "y.a.example",
    "z.y.a.example",
    "z.b.a.example",
    "other.example",
    "t.example",
];

/// A mesh with the cases of one setting.
struct Asked {
    mesh: Mesh,
    cases: Vec<&'static Case>,
    /// Where the applications' own certificate is.
    certificate: TempDir,
}

impl Asked {
    fn new(require_reference_grant: bool) -> Self {
        let is = |case: &&Case| {
            case.table_only.is_none() && case.require_reference_grant == require_reference_grant
        };
        let cases: Vec<&Case> = case::all().iter().filter(is).collect();
        let certificate = certificate();
        let manifests = manifests(&cases, certificate.path());
        let setting = require_reference_grant.to_string();
        let mut mesh = Mesh::start_set(&manifests, &[], &[("GAMUT_REQUIRE_REFERENCE_GRANT", &setting)]);
        mesh.output.until("ready", |line| line.starts_with("gamut: ready"));
        Self { mesh, cases, certificate }
    }

    /// The echo client in a pod, about to ask.
    fn command(&self, case: &Case, question: &Question) -> Command {
        let mut arguments = vec![GAMUT_IN_PODS.to_owned(), "echo".to_owned(), "client".to_owned()];
        arguments.extend([url(case, question), format!("--method={}", question.method)]);
        let host = question.host.iter().map(|host| format!("host:{host}"));
        let headers = question.headers.iter().map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            format!("{}:{}", name.trim(), value.trim())
        });
        arguments.extend(host.chain(headers).flat_map(|header| ["-H".to_owned(), header]));
        if question.tcp {
            arguments.extend(["--server-first".to_owned(), "--data=bye".to_owned()]);
        }
        if let Some(name) = &question.sni {
            let certificate = self.certificate.path().join("cert.pem");
            arguments.extend([format!("--sni={name}"), format!("--ca={}", certificate.display())]);
        }
        if question.expect.steady || !question.expect.shares.is_empty() {
            arguments.push(format!("--count={DRAWS}"));
        }
        let from = format!("{}/deploy/{}", question.from, client_of(&question.from));
        self.mesh.exec_command(&from, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Asks everything, and says what was other than expected.
    fn wrong(&self) -> Vec<String> {
        let questions =
            self.cases.iter().flat_map(|case| case.requests.iter().map(move |question| (case, question)));
        let commands: Vec<_> =
            questions.map(|(case, question)| (case, question, self.command(case, question))).collect();
        let commands = Mutex::new(commands.into_iter());
        let wrong = Mutex::new(wrong_conditions(&self.mesh, &self.cases));
        thread::scope(|scope| {
            for _ in 0..ASKERS {
                scope.spawn(|| {
                    let next = || commands.lock().unwrap().next();
                    while let Some((case, question, mut command)) = next() {
                        let found = wrong_answers(question, &command.output().unwrap());
                        let found =
                            found.into_iter().map(|what| format!("{}: {what}", label(case, question)));
                        wrong.lock().unwrap().extend(found);
                    }
                });
            }
        });
        wrong.into_inner().unwrap()
    }
}

/// A certificate of all names, and its key, where pods can read them: not below `/tmp`, which may be their own.
fn certificate() -> TempDir {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(NAMES.map(str::to_owned)).unwrap();
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(directory.path().join("cert.pem"), cert.pem()).unwrap();
    fs::write(directory.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
    directory
}

fn manifests(cases: &[&Case], certificate: &Path) -> Vec<String> {
    let apps = APPS.iter().map(|(namespace, name)| {
        let tier = if *name == client_of(namespace) { "client" } else { "backend" };
        let app = app(name).label(&format!("tier: {tier}"));
        let tls = [("crt", "cert.pem"), ("key", "key.pem")];
        let tls = tls.map(|(flag, file)| format!("--{flag}={}", certificate.join(file).display()));
        let ports = ["--port=8080", "--server-first=9001", "--port=8443", "--tls=8443"];
        let arguments = ports.into_iter().chain(tls.iter().map(String::as_str));
        arguments.fold(app, |app, argument| app.argument(argument)).in_namespace(namespace)
    });
    let objects = case::world().into_iter().chain(cases.iter().flat_map(|case| case.manifests()));
    // Namespaces first, as people write them.
    objects.map(|object| format!("---\n{object}\n")).chain(apps).collect()
}

#[test]
fn every_case_holds_in_a_mesh() {
    let wrong = Asked::new(false).wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_case_of_required_grants_holds_in_a_mesh_that_requires_them() {
    let wrong = Asked::new(true).wrong();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is other than expected in what the client printed.
fn wrong_answers(question: &Question, output: &Output) -> Vec<String> {
    let shares = &question.expect.shares;
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut answers = answers(&out, question);
    answers.extend(errors.lines().filter_map(|line| failed(line, question)));
    if question.expect.steady {
        return unsteady(&answers);
    }
    match (shares.is_empty(), answers.as_slice()) {
        (false, answers) => wrong_shares(shares, answers),
        (true, [answer]) => differences(&question.expect, answer),
        _ => vec![format!("{} answers: {out}{errors}", answers.len())],
    }
}

fn url(case: &Case, question: &Question) -> String {
    let (name, namespace) = dialled(case, question);
    let authority = match question.port {
        80 => format!("{name}.{namespace}"),
        port => format!("{name}.{namespace}:{port}"),
    };
    match (&question.grpc, &question.sni, question.tcp) {
        (Some(call), ..) => format!("grpc://{authority}{call}"),
        (_, Some(_), _) => format!("https://{name}.{namespace}:{}{}", question.port, question.path),
        (.., true) => format!("tcp://{authority}"),
        _ => format!("http://{authority}{}", question.path),
    }
}

/// What the echo client printed: a block of lines for each answer.
fn answers(out: &str, question: &Question) -> Vec<Answer> {
    let blocks = out.split("\n\n").filter(|block| block.contains("] Url="));
    blocks.map(|block| answer(block, question)).collect()
}

fn answer(block: &str, question: &Question) -> Answer {
    let mut answer = Answer { status: 200, ..Answer::default() };
    let add = |map: &mut BTreeMap<String, String>, header: &str| {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        map.entry(name.to_ascii_lowercase())
            .and_modify(|joined| *joined += &format!(",{value}"))
            .or_insert_with(|| value.to_owned());
    };
    for line in block.lines() {
        let Some((place, field)) = line.split_once("] ") else { continue };
        if !place.ends_with("body") {
            match field.split_once('=') {
                Some(("StatusCode", status)) => answer.status = status.parse().unwrap(),
                Some(("ResponseHeader", header)) => add(&mut answer.headers, header),
                _ => {}
            }
            continue;
        }
        match field.split_once('=') {
            Some(("ServiceVersion", name)) => answer.backend = Some(name.to_owned()),
            Some(("URL", path)) => answer.path = path.to_owned(),
            Some(("Host", host)) => answer.host = host.to_owned(),
            Some(("RequestHeader", header)) => add(&mut answer.seen, header),
            // Bytes: the greeting names the pod, whose name begins with the app's.
            _ if question.tcp && answer.backend.is_none() => {
                let pod = field.strip_prefix("220 ").unwrap_or_default();
                answer.backend = pod.split_once('-').map(|(app, _)| app.to_owned());
            }
            _ => {}
        }
    }
    answer.grpc = answer.headers.get("grpc-status").and_then(|status| status.parse().ok());
    // A connection that was ended before anything came isn't an error to the client of bytes.
    answer.closed = question.tcp && answer.backend.is_none();
    answer
}

/// A request that got no answer in the protocol's own terms: a gRPC status, or a connection that broke.
fn failed(line: &str, question: &Question) -> Option<Answer> {
    let (_, error) = line.split_once("] error: ")?;
    if question.tcp || question.sni.is_some() {
        return Some(Answer { closed: true, ..Answer::default() });
    }
    let (status, message) = error.split_once("gRPC status ")?.1.split_once(' ').unwrap_or_default();
    let reason = message.strip_prefix("gamut:").and_then(|rest| rest.trim_start().split_once(':'));
    let headers = reason.map(|(reason, _)| ("gamut-answer".to_owned(), reason.to_owned()));
    Some(Answer { grpc: status.parse().ok(), headers: headers.into_iter().collect(), ..Answer::default() })
}

/// Says who answered, unless it was always the same app.
fn unsteady(answers: &[Answer]) -> Vec<String> {
    let apps: BTreeSet<Option<&str>> = answers.iter().map(|answer| answer.backend.as_deref()).collect();
    let steady = answers.len() == DRAWS && apps.len() == 1 && !apps.contains(&None);
    if steady { Vec::new() } else { vec![format!("{} answers by {apps:?}, expected one app", answers.len())] }
}

/// Compares counts with shares: six standard deviations are never chance (once in ten million runs), and no traffic is none at all.
fn wrong_shares(expected: &BTreeMap<String, u64>, answers: &[Answer]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = expected.keys().map(|who| (who.clone(), 0)).collect();
    for answer in answers {
        let who = match &answer.backend {
            Some(app) => app.clone(),
            None if answer.closed => "closed".to_owned(),
            None => answer.status.to_string(),
        };
        *counts.entry(who).or_default() += 1;
    }
    let total = expected.values().sum::<u64>() as f64;
    let fits = |(who, count): (&String, &usize)| {
        let share = expected.get(who).copied().unwrap_or(0) as f64 / total;
        let deviation = (DRAWS as f64 * share * (1.0 - share)).sqrt();
        (*count as f64 - DRAWS as f64 * share).abs() <= 6.0 * deviation
    };
    let all = answers.len() == DRAWS && counts.iter().all(fits);
    if all { Vec::new() } else { vec![format!("{counts:?} of {DRAWS}, expected {expected:?}")] }
}

/// The conditions as they stand in the objects, with the generation that they are about.
fn wrong_conditions(mesh: &Mesh, cases: &[&Case]) -> Vec<String> {
    let mut wrong = Vec::new();
    for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"] {
        let routes = mesh.client.objects(kind).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let find = |namespace: &str, name: &str| {
            routes.iter().find(|route| {
                route["metadata"]["namespace"] == namespace && route["metadata"]["name"] == name
            })
        };
        for case in cases {
            for object in case.manifests().iter().filter(|object| object["kind"] == kind) {
                let (namespace, name) =
                    (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
                let Some(route) = find(&namespace, &name) else {
                    wrong.push(format!("{}: {kind} {namespace}/{name} isn't there", case.id));
                    continue;
                };
                let generation = route["metadata"]["generation"].as_i64().unwrap_or(1);
                for parent in route["status"]["parents"].as_array().into_iter().flatten() {
                    let of = text(&parent["parentRef"]["name"]);
                    let expected = case.conditions_of(kind, &namespace, &name, &of);
                    let conditions = parent["conditions"].as_array().cloned().unwrap_or_default();
                    let got: Vec<String> = conditions.iter().map(line).collect();
                    let current =
                        conditions.iter().all(|condition| condition["observedGeneration"] == generation);
                    if !current || !are_as_expected(&expected, &got) {
                        wrong.push(format!("{}: {kind} {namespace}/{name}: {conditions:#?}", case.id));
                    }
                }
                if route["status"]["parents"].as_array().is_none_or(Vec::is_empty) {
                    wrong.push(format!("{}: {kind} {namespace}/{name} has no conditions", case.id));
                }
            }
        }
    }
    wrong
}

fn line(condition: &Value) -> String {
    let text = |name: &str| condition[name].as_str().unwrap_or_default();
    format!("{}={} {}: {}", text("type"), text("status"), text("reason"), text("message"))
}
