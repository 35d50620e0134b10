//! Who may speak to whom, and what it looks like on the wire.

use std::process::Stdio;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    harness::{GAMUT_IN_PODS, Lines, Mesh, app, fields, namespace, route, service, statuses, text_of},
    secrets,
};

/// A client, a web server in the given mTLS mode, and an outsider without a sidecar.
fn shop(mode: &str) -> Mesh {
    Mesh::up(&[
        namespace("shop", mode),
        app("client").in_namespace("shop"),
        app("web").in_namespace("shop"),
        app("outsider").unmeshed().in_namespace("shop"),
        service("shop", "web"),
    ])
}

#[test]
fn strict_refuses_plaintext_from_outside_the_mesh_and_the_pod_is_ready_all_the_same() {
    let mesh = shop("strict");
    assert_eq!(statuses(&mesh.ask("shop/deploy/client", &["http://web/"])), [200]);

    let web = &mesh.pods("web")[0];
    assert!(web.ready, "the probe must get through to {web:#?}");
    let shown = mesh.run(&["identity", "-n", "shop", "deploy/web"]);
    assert!(shown.contains("/sa/web  strict  "), "{shown}");
    let by_address = format!("http://{}:8080/", web.ips[0]);
    for (from, url) in [
        ("shop/deploy/outsider", "http://web/"),
        ("shop/deploy/outsider", &by_address),
        ("node", &by_address),
    ] {
        let out = mesh.ask(from, &[url]);
        assert_eq!(statuses(&out), [403], "{from} at {url}: {out}");
        assert!(out.contains("mtls-required"), "it is told why: {out}");
        assert!(fields(&out, "Hostname").is_empty(), "the app has seen nothing of it: {out}");
    }
    // What isn't HTTP can't be told, only closed.
    let bytes =
        mesh.try_to_ask("node", &[&format!("tcp://{}:8080", web.ips[0]), "--data=\u{1}\u{2}\u{3}\u{4}"]);
    assert!(!String::from_utf8_lossy(&bytes.stdout).contains("body]"), "{bytes:?}");
}

#[test]
fn tcp_probes_get_through_to_a_strict_pod_and_to_nothing_that_does_not_listen() {
    let probe = "httpGet: {path: /healthz, port: 8080}";
    let with_probe = |name: &str, port: u16| {
        app(name).in_namespace("shop").replace(probe, &format!("tcpSocket: {{port: {port}}}"))
    };
    let mut mesh =
        Mesh::start(&[namespace("shop", "strict"), with_probe("good", 8080), with_probe("bad", 8081)], &[]);
    mesh.output.until("all but one are ready", |line| {
        line.contains("waiting for Deployment shop/bad (0 of 1 pod ready)")
    });
    assert!(mesh.pods("good")[0].ready);
    assert!(!mesh.pods("bad")[0].ready);
}

#[test]
fn permissive_serves_outsiders_and_speaks_mutual_tls_to_the_mesh() {
    let mesh = shop("permissive");
    assert_eq!(statuses(&mesh.ask("shop/deploy/outsider", &["http://web/"])), [200]);
    let seen = sniff(&mesh, || {
        mesh.ask("shop/deploy/client", &["http://web/", "-H", "x-mark:from-the-mesh"]);
        mesh.ask("shop/deploy/outsider", &["http://web/", "-H", "x-mark:from-outside"]);
    });
    assert!(
        seen.iter().any(|line| line.contains("from-outside")),
        "the sniffer must see plaintext where there is some"
    );
    assert!(!seen.iter().any(|line| line.contains("from-the-mesh")));
}

#[test]
fn bytes_between_two_sidecars_are_tls_in_both_directions() {
    let mesh = shop("strict");
    let mark = "a-mark-in-the-request";
    let mut out = String::new();
    let seen = sniff(&mesh, || {
        out = mesh.ask("shop/deploy/client", &["http://web/", "-H", &format!("x-mark:{mark}")])
    });
    assert_eq!(
        fields(&out, "RequestHeader").iter().filter(|header| header.contains(mark)).count(),
        1,
        "{out}"
    );

    assert!(!seen.iter().any(|line| line.contains(mark)), "the request's header was seen: {seen:#?}");
    assert!(
        !seen.iter().any(|line| line.contains("ServiceVersion")),
        "the answer's body was seen: {seen:#?}"
    );
    // Application data records of TLS (RFC 8446, section 5.1): type 23, legacy version 3.3.
    let (to_web, from_web): (Vec<&String>, Vec<&String>) =
        seen.iter().partition(|line| !line.split(" > ").next().unwrap().ends_with(":8080"));
    for direction in [to_web, from_web] {
        assert!(
            direction.iter().any(|line| line.contains(r"\x17\x03\x03")),
            "no application data in {direction:#?}"
        );
    }
}

/// What goes over the node's wires to and from port 8080 while something happens.
fn sniff(mesh: &Mesh, happens: impl FnOnce()) -> Vec<String> {
    let mut sniffer = mesh.exec_command("node", &[GAMUT_IN_PODS, "echo", "sniff", "--port=8080"]);
    let mut sniffer = sniffer.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = Lines::of("sniff", sniffer.stdout.take().unwrap());
    lines.until("listening", |line| line == "listening");
    happens();
    // What was on the wire before this connection is in the sniffer's queue before it.
    let web = mesh.pods("web").remove(0);
    mesh.try_to_ask("node", &[&format!("tcp://{}:8080", web.ips[0]), "--data=the-end-of-it"]);
    lines.until("the end", |line| line.contains("the-end-of-it"));
    sniffer.kill().unwrap();
    sniffer.wait().unwrap();
    lines
        .all()
        .iter()
        .filter(|line| line.contains(" > ") && !line.contains("the-end-of-it"))
        .cloned()
        .collect()
}

#[test]
fn no_key_is_in_a_core_an_environment_or_a_command_line_and_the_sidecars_own_user_cant_read_its_memory() {
    let mesh = shop("strict");
    let node = |command: &[&str]| text_of(mesh.exec("node", command));
    let signing_key = node(&["cat", "/run/gamut/components/ca/tls.key"]);
    let secret = signing_key.lines().nth(1).unwrap();
    let sidecar = mesh.sidecar("client");
    for (name, process) in [
        ("the sidecar", Some(sidecar)),
        ("the controller", mesh.component("controller")),
        ("the CA", mesh.component("ca")),
    ] {
        let file = |file: &str| node(&["cat", &format!("/proc/{}/{file}", process.unwrap())]);
        let limits = file("limits");
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "{name}");
        for text in [file("environ"), file("cmdline")] {
            assert!(!text.contains(secret) && !text.contains("PRIVATE KEY"), "{name}: {text}");
            // As every JSON web token begins.
            assert!(!text.contains("eyJ"), "{name} has a token: {text}");
        }
    }
    for file in ["environ", "mem", "maps"] {
        let file = format!("/proc/{sidecar}/{file}");
        let own_user = ["exec", "-n", "shop", "-c", "gamut-proxy", "deploy/client", "--", "cat", &file];
        let read = mesh.gamut(&own_user).output().unwrap();
        let problem = String::from_utf8_lossy(&read.stderr).into_owned();
        assert!(!read.status.success() && problem.contains("Permission denied"), "{file}: {problem}");
    }
}

#[test]
fn no_key_and_no_token_is_in_a_log_of_the_control_plane_or_of_a_sidecar() {
    let sessions = "backendRefs: [{name: web, port: 80}]\nsessionPersistence: {type: Cookie}";
    let mesh = Mesh::up_with(
        &[
            namespace("shop", "strict"),
            app("client").in_namespace("shop").replacen(
                "    metadata:\n      labels:\n",
                "    metadata:\n      annotations: {gamut.mesh/log-level: trace}\n      labels:\n",
                1,
            ),
            app("web").in_namespace("shop"),
            service("shop", "web"),
            route("shop", "web", "name: web, port: 80", &[sessions]),
        ],
        &[("GAMUT_LOG", "trace")],
    );
    let node = |command: &[&str]| text_of(mesh.exec("node", command));
    assert_eq!(statuses(&mesh.ask("shop/deploy/client", &["http://web/"])), [200]);
    // They read and fetch what they have once more.
    mesh.signal("KILL", mesh.component("controller").into_iter().chain(mesh.component("ca")));
    mesh.settle();

    let key = node(&["cat", "/run/gamut/components/ca/tls.key"]);
    let session_keys = node(&["cat", "/run/gamut/cluster/Secret/gamut-system.gamut-session-keys.json"]);
    let session_keys: Value = serde_json::from_str(&session_keys).unwrap();
    let session_key = STANDARD.decode(session_keys["data"]["key-1"].as_str().unwrap()).unwrap();
    let token = "/var/run/secrets/gamut.mesh/token/token";
    let in_sidecar = ["exec", "-n", "shop", "-c", "gamut-proxy", "deploy/client", "--", "cat", token];
    let secrets = [
        ("the CA's key", secrets::private_part(&key)),
        ("the session key", session_key),
        ("a sidecar's token", secrets::signature(&mesh.run(&in_sidecar)).to_vec()),
        (
            "the controller's token",
            secrets::signature(&node(&["cat", "/run/gamut/components/controller-token"])).to_vec(),
        ),
    ];
    for (name, file) in [
        ("the CA", "ca.log"),
        ("the controller", "controller.log"),
        ("a sidecar", "shop_client-*/gamut-proxy.log"),
    ] {
        let log = node(&["sh", "-c", &format!("cat /run/gamut/logs/{file}*")]);
        assert!(log.contains("TRACE") && log.lines().count() > 20, "{name} says all that it can: {log}");
        assert!(!log.contains("PRIVATE KEY"), "{name}");
        for (secret, bytes) in &secrets {
            secrets::assert_absent(&format!("{secret}, of {name},"), bytes, &log);
        }
    }
}
