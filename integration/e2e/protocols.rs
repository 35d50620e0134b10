//! What travels between two sidecars: every kind of HTTP, and bytes that are none.

use std::collections::BTreeSet;

use crate::harness::{Mesh, app, fields, headers, namespace, service_with, statuses};

/// A client and a server with a port for everything the echo app speaks.
fn shop() -> Mesh {
    let ports = "
  - {name: http, port: 80, targetPort: 8080}
  - {name: h2c, port: 81, targetPort: 8080, appProtocol: kubernetes.io/h2c}
  - {name: grpc, port: 7070, targetPort: 7070}
  - {name: bytes, port: 9000, targetPort: 9000}
  - {name: mysql, port: 3306, targetPort: 9001}
  - {name: greeting, port: 9001, targetPort: 9001}
  - {name: opaque, port: 9002, targetPort: 9001, appProtocol: tcp}";
    let web = ["--port=8080", "--grpc=7070", "--tcp=9000", "--server-first=9001"];
    let web = web.iter().fold(app("web").replicas(2), |web, argument| web.argument(argument));
    Mesh::up(&[
        namespace("shop", "strict"),
        app("client").in_namespace("shop"),
        web.in_namespace("shop"),
        service_with("shop", "web", "web", ports, ""),
    ])
}

const CLIENT: &str = "shop/deploy/client";

/// Sends bytes to the HTTP port as they are and returns what comes back until the server closes.
fn raw(mesh: &Mesh, data: &str) -> String {
    bytes(&mesh.ask(CLIENT, &["tcp://web:80", "--hold", &format!("--data={data}")]))
}

/// What the echo client printed of bytes.
fn bytes(out: &str) -> String {
    out.lines().filter_map(|line| line.strip_prefix("[0 body] ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn grpc_is_detected_and_balanced_call_by_call_on_one_connection() {
    let mesh = shop();
    for port in [80, 81, 7070] {
        let out = mesh.ask(CLIENT, &[&format!("grpc://web:{port}"), "--count=60", "--data=hello"]);
        assert_eq!(fields(&out, "Echo"), vec!["hello"; 60], "port {port}");
        let pods: BTreeSet<&str> = fields(&out, "Hostname").into_iter().collect();
        assert_eq!(pods.len(), 2, "port {port}: one connection, both pods: {pods:?}");
    }
    let failed = mesh.try_to_ask(CLIENT, &["grpc://web:7070", "-H", "x-echo-status:5"]);
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("gRPC status 5"),
        "the app's own status: {failed:?}"
    );
}

#[test]
fn websockets_and_other_upgrades_pass() {
    let mesh = shop();
    let out = mesh.ask(CLIENT, &["ws://web/chat", "--data=hello", "--count=5"]);
    assert_eq!(statuses(&out), [101; 5]);
    assert_eq!(out.matches("body] hello").count(), 5);

    let upgrade =
        "GET / HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: mine\r\n\r\nnot http at all";
    let answer = bytes(&mesh.ask(CLIENT, &["tcp://web:80", &format!("--data={upgrade}")]));
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("not http at all"), "{answer}");
}

#[test]
fn bytes_pass_whoever_speaks_first() {
    let mesh = shop();
    let out = mesh.ask(CLIENT, &["tcp://web:9000", "--data=these are bytes"]);
    assert!(out.contains("[0 body] these are bytes"), "{out}");
    for port in [3306, 9001, 9002] {
        let out = mesh.ask(CLIENT, &[&format!("tcp://web:{port}"), "--server-first", "--data=quit"]);
        assert!(out.contains("[0 body] 220 web-") && out.contains("[0 body] quit"), "port {port}: {out}");
    }
}

#[test]
fn bodies_of_every_shape_arrive_as_they_were_sent() {
    let mesh = shop();
    let chunked =
        mesh.ask(CLIENT, &["http://web/?chunks=50&size=100000&trailer=x-sum:5000000", "-H", "te:trailers"]);
    assert_eq!(headers(&chunked, "X-Sum"), ["5000000"]);
    assert_eq!(
        chunked.lines().find_map(|line| line.strip_prefix("[0 body] ")).map(str::len),
        Some(5_000_000)
    );

    let sent = "x".repeat(100_000);
    let echoed = mesh.ask(CLIENT, &["http://web/?body=echo", "--method=POST", &format!("--data={sent}")]);
    assert!(echoed.contains(&sent));

    let head = raw(&mesh, "HEAD /?size=7 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("content-length: 7"), "{head}");
    assert!(!head.contains("......."), "an answer to HEAD has no body: {head}");

    let waiting = "POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    let answer = raw(&mesh, waiting);
    assert!(
        answer.starts_with("HTTP/1.1 100 ")
            && answer.contains("HTTP/1.1 200 ")
            && answer.contains("RequestBytes=5"),
        "{answer}"
    );

    let old = raw(&mesh, "GET /?chunks=2&size=3 HTTP/1.0\r\nHost: web\r\n\r\n");
    assert!(old.ends_with("......") && !old.to_lowercase().contains("transfer-encoding"), "{old}");
}

#[test]
fn connect_and_requests_that_could_be_read_in_two_ways_are_refused() {
    let mesh = shop();
    let connect = raw(&mesh, "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nConnection: close\r\n\r\n");
    assert!(connect.starts_with("HTTP/1.1 4") || connect.starts_with("HTTP/1.1 501"), "{connect}");
    let smuggled =
        "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG";
    let answer = raw(&mesh, smuggled);
    // RFC 9112, section 6.1: an error, or read by its chunks alone and then closed. Never a second request.
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(!answer.contains("RequestHeader=Content-Length"), "the app must not see both: {answer}");
}
