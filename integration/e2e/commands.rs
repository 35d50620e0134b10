//! Commands that look at a running mesh: what they show is what is there.

use std::{
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::{self, Lines, Mesh, app, namespace, route, service};

/// A client, two versions of a web server, and nine requests in ten for the first.
fn shop() -> Mesh {
    let split = "name: split
backendRefs: [{name: web-v1, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]";
    Mesh::up(&[
        namespace("shop", "permissive"),
        app("client").in_namespace("shop"),
        app("web-v1").in_namespace("shop"),
        app("web-v2").in_namespace("shop"),
        service("shop", "web-v1"),
        service("shop", "web-v2"),
        service("shop", "web"),
        route("shop", "web", "name: web", &[split]),
    ])
}

/// A command that goes on until it has seen enough. Dropping it ends it.
struct Running {
    child: Child,
    out: Lines,
    said: Lines,
}

impl Running {
    fn start(mesh: &Mesh, arguments: &[&str]) -> Self {
        let mut child = mesh.gamut(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::of("its output", child.stdout.take().unwrap());
        let said = Lines::of("what it says", child.stderr.take().unwrap());
        Self { child, out, said }
    }

    /// All that it prints until it ends by itself.
    fn rest(mut self) -> Vec<Value> {
        let lines = self.out.rest();
        assert!(self.child.wait().unwrap().success(), "{:?}", self.said.rest());
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_tap_shows_each_request_once_from_both_ends_and_only_what_its_flags_let_pass() {
    let mesh = shop();
    let tap = |flags: &[&str]| {
        let mut tap = Running::start(&mesh, &[&["tap", "-n", "shop", "-o", "json"], flags].concat());
        tap.said.until("it listens", |line| line.starts_with("gamut: tapping shop/"));
        tap
    };
    let sent = tap(&["deploy/client", "--outbound", "--count", "3"]);
    let canary = tap(&["svc/web-v2", "--from", "client", "--path", "/canary", "--count", "1"]);
    let failed = tap(&["deploy/client", "--status", "5xx", "--route", "shop/web", "--count", "1"]);
    mesh.ask("shop/deploy/client", &["http://web/one"]);
    mesh.ask("shop/deploy/client", &["http://web-v2/canary"]);
    mesh.ask("shop/deploy/client", &["http://web/three?status=503&secret=word"]);

    let sent = sent.rest();
    let paths: Vec<&str> = sent.iter().map(|seen| seen["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/one", "/canary", "/three"], "without queries, which hold secrets");
    assert_eq!(sent[0]["route"], "httproute/shop/web");
    assert!(sent[0]["sidecar"].as_str().unwrap().starts_with("shop/client-"), "{sent:#?}");

    let canary = canary.rest();
    assert_eq!(canary[0]["direction"], "inbound");
    assert_eq!(canary[0]["peer"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!((&failed.rest()[0]["path"], sent.len()), (&Value::from("/three"), 3));
}

#[test]
fn a_tap_follows_pods_that_come_and_says_why_nobody_can_be_tapped() {
    let mesh = shop();
    let nobody = mesh.gamut(&["tap", "-n", "shop", "deploy/nobody"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(said, "gamut: Deployment nobody has no pod in namespace shop; -n NAMESPACE names another\n");

    let mut tap = Running::start(&mesh, &["tap", "-n", "shop", "svc/web-v1"]);
    tap.said.until("it listens", |line| line.contains("tapping"));
    let before = mesh.pods("web-v1")[0].name.clone();
    mesh.edit("all.yaml", "value: web-v1", "value: web-v1b");
    mesh.settle();
    let load = mesh.load("shop/deploy/client", &["http://web-v1/"]);
    let line = tap.out.until("a pod that came later", |line| !line.contains(&before)).1;
    assert!(line.contains("<- 200") && line.contains("GET web-v1/  from shop/client"), "{line}");
    load.finish();
}

#[test]
fn identities_certificates_and_roots_are_those_of_the_ca_and_sidecars_in_order_are_said_to_be() {
    let mesh = shop();
    let identity: Value =
        serde_json::from_str(&mesh.run(&["identity", "-n", "shop", "deploy/client", "-o", "json"])).unwrap();
    let [client] = identity["identities"].as_array().unwrap().as_slice() else {
        panic!("{identity:#}");
    };
    assert_eq!(client["id"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(client["mtls"]["mode"], "permissive");
    let issued = mesh.run(&["logs", "node", "-c", "ca"]);
    let serial = client["serial"].as_str().unwrap();
    assert!(issued.lines().any(|line| line.contains("audit: issued") && line.contains(serial)), "{issued}");
    assert_eq!(identity["roots"][0]["trusted_by"], 1, "{identity:#}");
    assert_eq!(
        mesh.run(&["logs", "-n", "shop", "-c", "gamut-proxy", "--tail", "1", "deploy/client"])
            .lines()
            .count(),
        1
    );

    let check = |code| -> Value {
        let output = mesh.gamut(&["check", "--proxy", "-o", "json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = check(0);
    let details = |found: &Value| -> Vec<String> {
        let findings = found["findings"].as_array().unwrap().iter();
        findings.map(|finding| finding["detail"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(details(&found), ["3 with a certificate and the newest tables", "1 route without complaints"]);

    mesh.edit("all.yaml", "{name: web-v2, port: 80, weight: 10}", "{name: web-v3, port: 80, weight: 10}");
    mesh.settle();
    let found = check(0);
    let complaint = "HTTPRoute shop/web: not ResolvedRefs (BackendNotFound): rules[0].backendRefs[1]: Service shop/web-v3 doesn't exist";
    assert!(details(&found).iter().any(|detail| detail.starts_with(complaint)), "{found:#}");
}

#[test]
fn a_watch_appends_what_each_backend_got_and_what_was_changed() {
    let mesh = shop();
    let mut watch = Running::start(&mesh, &["routes", "-n", "shop", "--watch"]);
    watch.out.until("the weights", |line| line.contains("web-v1:80 - (set 90%), web-v2:80 - (set 10%)"));
    let load = mesh.load("shop/deploy/client", &["http://web/"]);
    watch.out.until("a share", |line| line.contains("% (set 10%)") && line.ends_with("0 failed"));
    mesh.edit("all.yaml", "weight: 90", "weight: 0");
    watch.out.until("the change", |line| line.contains("web-v2:80 100% (set 100%)"));
    load.finish();
}

#[test]
fn who_watches_ends_with_its_reader_though_nothing_happens() {
    let mesh = shop();
    let client = ["logs", "-f", "-n", "shop", "-c", "gamut-proxy", "deploy/client"];
    let routes = ["routes", "-n", "shop", "--watch"];
    for (watches, prints) in [(&routes[..], true), (&client, true), (&["tap", "-n", "shop"], false)] {
        let mut child = mesh.gamut(watches).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = Lines::of("what it says", child.stderr.take().unwrap());
        let mut reader = child.stdout.take().unwrap();
        match prints {
            true => reader.read_exact(&mut [0]).unwrap(),
            false => {
                said.until("it listens", |line| line.starts_with("gamut: tapping shop/"));
            }
        }
        drop(reader);
        said.rest();
        assert!(child.wait().unwrap().success(), "{watches:?}");
    }
}

#[test]
fn sidecars_are_put_into_what_comes_through_a_pipe() {
    let mut inject = Command::new(harness::gamut());
    let inject = inject.args(["inject", "--offline", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = inject.spawn().unwrap();
    child.stdin.take().unwrap().write_all(app("web").in_namespace("shop").to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("kind: Deployment") && printed.contains("name: gamut-init"), "{printed}");
}
