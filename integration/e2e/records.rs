//! What sidecars tell of single requests: spans at a collector that isn't ours, and lines of the access log.
//!
//! The collector is `integration/otlp/receiver.py`, on the mesh's node. It runs where `GAMUT_OTLP_PYTHON` names a Python that has what it
//! needs (`integration/otlp/install` prints one); without it a test says so and is over.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{App, Lines, Mesh, app, fields, namespace, route, service, statuses, text_of};

/// Where the collector is, as every pod reaches it: the node, and the protocol's own ports.
const NODE: &str = "10.244.0.1";
const GRPC: u16 = 4317;
const HTTP: u16 = 4318;
const CLIENT: &str = "shop/deploy/client";

/// A trace as a caller that traces begins it, but for its last field, which says whether it is sampled.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A client and a web server, whose route has a rule for everything and one that leads to nobody.
fn shop(client: &App, web: &App) -> Vec<String> {
    let nobody = "name: nobody
matches: [{path: {type: Exact, value: /nobody}}]
backendRefs: [{name: nobody, port: 80}]";
    vec![
        namespace("shop", "strict"),
        client.in_namespace("shop"),
        web.in_namespace("shop"),
        service("shop", "web"),
        service("shop", "nobody"),
        route("shop", "web", "name: web", &["name: all\nbackendRefs: [{name: web, port: 80}]", nobody]),
    ]
}

/// A collector of traces. Dropping it ends it.
struct Collector {
    child: Child,
    lines: Lines,
    spans: Vec<Span>,
}

/// A span, and whose it is.
#[derive(Clone, Debug)]
struct Span {
    /// `service.name` and `service.namespace`.
    workload: Value,
    span: Value,
}

impl Collector {
    /// One that listens on a mesh's node; `None` where there is no Python for it.
    fn on_node_of(mesh: &Mesh) -> Option<Self> {
        let Ok(python) = std::env::var("GAMUT_OTLP_PYTHON") else {
            println!(
                "skipped: GAMUT_OTLP_PYTHON isn't set; integration/otlp/install prints what it is to be"
            );
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration/otlp/receiver.py");
        let (script, ports) = (script.to_str().unwrap(), [GRPC, HTTP].map(|port| port.to_string()));
        let mut child =
            mesh.exec_command("node", &[python.as_str(), "-B", script, NODE, &ports[0], &ports[1]]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = Lines::of("the collector", child.stdout.take().unwrap());
        lines.until("it listens", |line| line.contains("\"grpc\""));
        Some(Self { child, lines, spans: Vec::new() })
    }

    /// The spans of a trace, once there are so many, callers before those they called.
    fn trace(&mut self, id: &str, count: usize) -> Vec<Span> {
        loop {
            let of_trace = self.spans.iter().filter(|span| span.span["traceId"] == id);
            let mut found: Vec<Span> = of_trace.cloned().collect();
            if found.len() >= count {
                found.sort_by_key(|span| span.span["kind"] != "SPAN_KIND_CLIENT");
                return found;
            }
            self.take();
        }
    }

    /// Waits for an export.
    fn take(&mut self) {
        let (_, line) = self.lines.next().expect("the collector runs");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["unknown"], json!([]), "fields that the protocol doesn't have: {line:#}");
        for resource in line["export"]["resourceSpans"].as_array().unwrap() {
            let workload = resource["resource"]["attributes"].clone();
            let scopes = resource["scopeSpans"].as_array().unwrap().iter();
            let spans = scopes.flat_map(|scope| scope["spans"].as_array().unwrap());
            self.spans.extend(spans.map(|span| Span { workload: workload.clone(), span: span.clone() }));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Span {
    /// `namespace/name` of whose it is.
    fn workload(&self) -> String {
        let attributes = texts(&self.workload);
        format!("{}/{}", attributes["service.namespace"], attributes["service.name"])
    }

    fn attributes(&self) -> BTreeMap<String, String> {
        texts(&self.span["attributes"])
    }
}

/// Attributes by name, numbers as text.
fn texts(attributes: &Value) -> BTreeMap<String, String> {
    let text = |attribute: &Value| {
        let value = &attribute["value"];
        let text = value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap_or_default();
        (attribute["key"].as_str().unwrap().to_owned(), text.to_owned())
    };
    attributes.as_array().unwrap().iter().map(text).collect()
}

fn attributes(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The `traceparent` that the app was asked with, in its four parts.
fn traceparent(answer: &str) -> Vec<String> {
    let headers = fields(answer, "RequestHeader");
    let text = headers.iter().find_map(|header| header.strip_prefix("Traceparent:"));
    text.unwrap_or_else(|| panic!("no traceparent: {answer}")).split('-').map(str::to_owned).collect()
}

#[test]
fn a_request_is_a_span_of_the_callers_sidecar_and_one_of_the_called_ones_below_it() {
    let collector = format!("grpc://{NODE}:{GRPC}");
    let arguments = ["--traces-to", &collector, "--traces-share", "1"];
    let mut mesh = Mesh::start(&shop(&app("client"), &app("web")), &arguments);
    mesh.output.until("ready", |line| line.starts_with("gamut: ready"));
    let Some(mut collector) = Collector::on_node_of(&mesh) else { return };

    let answer = mesh.ask(CLIENT, &["http://web/cart?token=secret"]);
    let [_, trace, app_parent, sampled] = traceparent(&answer).try_into().unwrap();
    assert_eq!(sampled, "01");
    let [called, served] = collector.trace(&trace, 2).try_into().unwrap();
    let web = &mesh.pods("web")[0];
    let address = web.ips[0].to_string();

    assert_eq!((called.workload(), served.workload()), ("shop/client".to_owned(), "shop/web".to_owned()));
    assert_eq!(
        (&called.span["kind"], &served.span["kind"]),
        (&json!("SPAN_KIND_CLIENT"), &json!("SPAN_KIND_SERVER"))
    );
    assert_eq!(called.span.get("parentSpanId"), None, "the trace begins here");
    assert_eq!(served.span["parentSpanId"], called.span["spanId"]);
    assert_eq!(served.span["spanId"], app_parent.as_str(), "what the app passes on is below both");
    assert_eq!(called.span["name"], "GET httproute/shop/web");
    let began = |span: &Span| span.span["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(began(&called) <= began(&served), "{called:#?}{served:#?}");

    let common = [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/cart"),
        ("server.address", "web"),
        ("http.response.status_code", "200"),
        ("network.peer.address", &address),
        ("network.peer.port", "8080"),
    ];
    let pod = format!("shop/{}", web.name);
    let of_caller = [
        ("gamut.parent", "shop/web:80"),
        ("gamut.route", "httproute/shop/web"),
        ("gamut.rule", "all"),
        ("gamut.backend", "service/shop/web:80"),
        ("gamut.pod", &pod),
        ("gamut.peer", "spiffe://cluster.local/ns/shop/sa/web"),
    ];
    assert_eq!(called.attributes(), attributes(&[&common[..], &of_caller].concat()));
    let of_called = [("gamut.peer", "spiffe://cluster.local/ns/shop/sa/client")];
    assert_eq!(served.attributes(), attributes(&[&common[..], &of_called].concat()));

    // An answer of the sidecar's own is a failed span, with why.
    let parent = format!("traceparent:00-{TRACE}-{CALLER}-01");
    let refused = mesh.ask(CLIENT, &["http://web/nobody", "-H", &parent]);
    assert_eq!(statuses(&refused), [503]);
    let [failed] = collector.trace(TRACE, 1).try_into().unwrap();
    assert_eq!(failed.span["parentSpanId"], CALLER);
    assert_eq!(failed.span["status"]["code"], "STATUS_CODE_ERROR");
    let said = failed.span["status"]["message"].as_str().unwrap();
    assert!(said.contains("service/shop/nobody:80 has no endpoint"), "{said}");
    let of_failed = failed.attributes();
    let page = include_str!("../../docs/reference/observe.md");
    for key in [&called, &served, &failed].into_iter().flat_map(|span| span.attributes().into_keys()) {
        assert!(page.contains(&format!("`{key}`")), "the page doesn't have {key}");
    }
    assert_eq!((&*of_failed["error.type"], &*of_failed["gamut.reason"]), ("no-endpoint", "no-endpoint"));
}

#[test]
fn what_a_caller_decided_about_its_trace_is_kept_to_by_both_sidecars() {
    let collector = format!("http://{NODE}:{HTTP}/v1/traces");
    let environment = [("GAMUT_SIDECAR_TRACES_TO", collector.as_str()), ("GAMUT_SIDECAR_TRACES_SHARE", "1")];
    let mesh = Mesh::up_with(&shop(&app("client"), &app("web")), &environment);
    let Some(mut collector) = Collector::on_node_of(&mesh) else { return };

    let ask = |trace: &str, flags: &str| {
        let parent = format!("traceparent:00-{trace}-{CALLER}-{flags}");
        let answer = mesh.ask(CLIENT, &["http://web/", "-H", &parent, "-H", "tracestate:vendor=1"]);
        assert!(fields(&answer, "RequestHeader").contains(&"Tracestate:vendor=1"), "{answer}");
        traceparent(&answer)
    };
    // A sidecar exports in the order of its requests: were the first exported, it would be here before the second.
    let unsampled = TRACE.replace("4bf9", "aaaa");
    let passed_on = ask(&unsampled, "00");
    assert_eq!((&*passed_on[1], &*passed_on[3]), (&*unsampled, "00"));
    assert_ne!(passed_on[2], CALLER);
    ask(TRACE, "01");
    let [called, served] = collector.trace(TRACE, 2).try_into().unwrap();
    assert_eq!(called.span["parentSpanId"], CALLER);
    assert_eq!(served.span["parentSpanId"], called.span["spanId"]);
    assert!(collector.spans.iter().all(|span| span.span["traceId"] == TRACE), "{:#?}", collector.spans);
}

#[test]
fn the_access_log_has_a_line_for_each_request_or_for_failures_alone() {
    let all = app("client").annotation("gamut.mesh/access-log: all");
    let mesh = Mesh::up(&shop(&all, &app("web").annotation("gamut.mesh/access-log: errors")));
    let follow = |target: &str| {
        let mut logs = mesh.gamut(&["logs", "-f", "-n", "shop", "-c", "gamut-proxy", target]);
        let mut logs = logs.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of(target, logs.stdout.take().unwrap());
        (Following(logs), lines)
    };
    let ((_of_client, mut client), (_of_web, mut web)) = (follow("deploy/client"), follow("deploy/web"));
    let next = |direction: &str, lines: &mut Lines| {
        let is_record = |line: &str| line.split(' ').nth(1) == Some(direction);
        // The time is its first word.
        lines.until("a request's line", is_record).1.split_once(' ').unwrap().1.to_owned()
    };
    let web_pod = &mesh.pods("web")[0];
    let address = &web_pod.ips[0];
    let pod = format!("shop/{}", web_pod.name);

    let parent = format!("traceparent:00-{TRACE}-{CALLER}-01");
    mesh.ask(CLIENT, &["http://web/cart?token=secret", "-H", &parent]);
    let line = next("outbound", &mut client);
    let (head, rest) = line.split_once("ms bytes=").unwrap();
    assert!(head.starts_with("outbound GET \"web\" \"/cart\" 200 "), "{line}");
    let (_, rest) = rest.split_once(' ').unwrap();
    assert_eq!(
        rest,
        format!(
            "parent=shop/web:80 route=httproute/shop/web rule=all backend=service/shop/web:80 endpoint={address}:8080 pod={pod} \
             peer=spiffe://cluster.local/ns/shop/sa/web trace={TRACE}"
        )
    );

    // What a client writes moves no cursor, closes no quote and is no other line.
    let hostile = r#"printf 'GET /caf\xc3\xa9"%%0A HTTP/1.1\r\nHost: web\xc2\x9b2J\r\n\r\n' >&3"#;
    let script = format!("exec 3<>/dev/tcp/web/80; {hostile}; head -n 1 <&3");
    let answer = text_of(mesh.exec(CLIENT, &["bash", "-c", &script]));
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let line = next("outbound", &mut client);
    assert!(line.starts_with(r#"outbound GET "web%C2%9B2J" "/caf%C3%A9\"%0A" 400 "#), "{line}");

    mesh.ask(CLIENT, &["http://web/nobody"]);
    let line = next("outbound", &mut client);
    assert!(line.starts_with("outbound GET \"web\" \"/nobody\" 503 "), "{line}");
    assert!(line.contains(" rule=nobody reason=no-endpoint why=\"gamut: "), "{line}");
    assert!(line.contains("service/shop/nobody:80 has no endpoint that takes traffic"), "{line}");

    // The server's sidecar, asked for failures, has said nothing of those that were served.
    mesh.ask(CLIENT, &["http://web/pay?status=503"]);
    assert!(next("outbound", &mut client).starts_with("outbound GET \"web\" \"/pay\" 503 "));
    let line = next("inbound", &mut web);
    assert!(line.starts_with("inbound GET \"web\" \"/pay\" 503 "), "{line}");
    assert!(line.ends_with("peer=spiffe://cluster.local/ns/shop/sa/client"), "{line}");
}

/// `gamut logs -f`. Dropping it ends it.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
