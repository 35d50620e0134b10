//! The client asks the server over loopback: both halves at once, protocol by protocol.

use std::{
    fs::{self, File},
    net::Ipv6Addr,
    sync::Arc,
    time::Duration,
};

use clap::{CommandFactory, Parser};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::{
    client,
    server::{App, Protocol, Server},
};

/// The three kinds of port, each on a free number.
struct Fixture {
    server: Server,
    http: u16,
    tcp: u16,
    server_first: u16,
}

#[derive(Parser)]
struct ClientLine {
    #[command(flatten)]
    args: client::Args,
}

#[derive(Parser)]
struct EchoLine {
    #[command(flatten)]
    args: crate::Args,
}

#[test]
fn the_command_line_is_consistent_and_no_subcommand_means_server() {
    EchoLine::command().debug_assert();
    for line in [["echo", "--port=81"].as_slice(), &["echo", "server", "--port=81"]] {
        assert!(format!("{:?}", EchoLine::parse_from(line).args).contains("ports: [81]"), "{line:?}");
    }
}

impl Fixture {
    async fn start() -> Self {
        Self::with(None).await
    }

    async fn with(journal: Option<File>) -> Self {
        let mut listeners = Vec::new();
        let mut ports = Vec::new();
        for protocol in [Protocol::Http, Protocol::Tcp, Protocol::ServerFirst] {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            listeners.push((listener, protocol));
        }
        let server = Server::start(listeners, App::new("v7".to_owned(), journal));
        Self { server, http: ports[0], tcp: ports[1], server_first: ports[2] }
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://127.0.0.1:{}{path}", self.http)
    }
}

/// What the client prints for these arguments, or its error.
async fn ask(arguments: &[&str]) -> Result<String, String> {
    let line = ClientLine::parse_from(["client"].iter().chain(arguments));
    let mut out = Vec::new();
    client::print(line.args, &mut out).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn an_http_answer_tells_what_the_server_saw() {
    let fixture = Fixture::start().await;
    let url = fixture.url("http", "/path?q=1");
    let out = ask(&[&url, "-H", "x-a:b", "-H", "x-a:c", "--method=PUT", "--data=12345", "--count=2"])
        .await
        .unwrap();
    for line in [
        "[0] StatusCode=200".to_owned(),
        "[0 body] ServiceVersion=v7".to_owned(),
        format!("[0 body] ServicePort={}", fixture.http),
        format!("[1 body] Host=127.0.0.1:{}", fixture.http),
        "[1 body] URL=/path?q=1".to_owned(),
        "[1 body] Method=PUT".to_owned(),
        "[1 body] Proto=HTTP/1.1".to_owned(),
        "[1 body] IP=127.0.0.1".to_owned(),
        "[1 body] RequestHeader=X-A:b".to_owned(),
        "[1 body] RequestHeader=X-A:c".to_owned(),
        "[1 body] RequestBytes=5".to_owned(),
        "All 2 requests succeeded".to_owned(),
    ] {
        assert!(out.lines().any(|have| have == line), "{line} in\n{out}");
    }
}

#[tokio::test]
async fn knobs_bend_the_answer() {
    let fixture = Fixture::start().await;
    let out = ask(&[&fixture.url("http", "/?status=503&size=3&header=x-b:c")]).await.unwrap();
    assert!(out.contains("[0] StatusCode=503\n") && out.contains("[0] ResponseHeader=X-B:c\n"), "{out}");
    assert!(out.contains("[0 body] ...\n"), "{out}");

    let out = ask(&[&fixture.url("http", "/?body=echo"), "--data=back"]).await.unwrap();
    assert!(out.contains("[0 body] back\n"), "{out}");

    let out =
        ask(&[&fixture.url("http", "/?chunks=2&size=2&trailer=x-t:u"), "-H", "te:trailers"]).await.unwrap();
    assert!(out.contains("[0 body] ....\n") && out.contains("ResponseHeader=X-T:u\n"), "{out}");

    for close in ["head", "body"] {
        let error = ask(&[&fixture.url("http", &format!("/?close={close}"))]).await.unwrap_err();
        assert_eq!(error, "1 of 1 requests failed");
    }
    assert!(ask(&[&fixture.url("http", "/?size=big")]).await.unwrap().contains("StatusCode=400"));
}

#[tokio::test]
async fn a_key_fails_as_often_as_asked_and_then_succeeds() {
    let fixture = Fixture::start().await;
    let mut statuses = Vec::new();
    for key in ["a", "a", "b", "a"] {
        let out = ask(&[&fixture.url("http", &format!("/?fail=2&key={key}"))]).await.unwrap();
        statuses.push(out.contains("StatusCode=200"));
    }
    assert_eq!(statuses, [false, false, false, true]);
}

#[tokio::test]
async fn a_request_with_an_id_is_written_down_whatever_becomes_of_it() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let fixture = Fixture::with(Some(journal.reopen().unwrap())).await;
    for (query, ends_well) in [("id=a", true), ("id=b&close=head", false), ("id=a", true), ("", true)] {
        assert_eq!(ask(&[&fixture.url("http", &format!("/?{query}"))]).await.is_ok(), ends_well, "{query}");
    }
    assert_eq!(fs::read_to_string(journal.path()).unwrap(), "a\nb\na\n");
}

#[tokio::test]
async fn an_early_answer_waits_for_no_body_and_what_follows_is_read_or_not() {
    let fixture = Fixture::start().await;
    for then in ["read", "close"] {
        let mut stream = TcpStream::connect(("127.0.0.1", fixture.http)).await.unwrap();
        let post =
            format!("POST /?early={then}&status=413 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1");
        stream.write_all(post.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        let mut rest = Vec::new();
        if then == "read" {
            let next = "2GET /?status=204 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            stream.write_all(next.as_bytes()).await.unwrap();
        }
        // With bytes of ours unread, the end may be a reset.
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(String::from_utf8(rest).unwrap().contains("HTTP/1.1 204"), then == "read");
    }
}

#[tokio::test]
async fn health_is_what_it_was_last_set_to() {
    let fixture = Fixture::start().await;
    let health = fixture.url("http", "/healthz");
    assert!(ask(&[&health]).await.unwrap().contains("StatusCode=200"));
    ask(&[&fixture.url("http", "/healthz?status=503"), "--method=PUT"]).await.unwrap();
    assert!(ask(&[&health]).await.unwrap().contains("StatusCode=503"));
}

#[tokio::test]
async fn grpc_calls_share_a_connection_and_report_their_metadata() {
    let fixture = Fixture::start().await;
    let out = ask(&[&fixture.url("grpc", ""), "--count=3", "--data=hello", "-H", "x-a:b"]).await.unwrap();
    for n in 0..3 {
        for line in ["StatusCode=200", "Proto=GRPC", "Echo=hello", "RequestHeader=x-a:b", "ServiceVersion=v7"]
        {
            assert!(out.contains(&format!("[{n} body] {line}\n")), "{line} of {n} in\n{out}");
        }
    }
    assert!(out.contains(&format!("RequestHeader=:authority:127.0.0.1:{}\n", fixture.http)), "{out}");
    assert!(ask(&[&fixture.url("grpc", ""), "-H", "x-echo-status:14"]).await.is_err());
}

#[tokio::test]
async fn websockets_and_other_upgrades_and_bare_bytes_come_back() {
    let fixture = Fixture::start().await;
    let out = ask(&[&fixture.url("ws", "/chat"), "--data=hello"]).await.unwrap();
    assert!(out.contains("StatusCode=101") && out.contains("[0 body] hello\n"), "{out}");

    let out = ask(&[&format!("tcp://127.0.0.1:{}", fixture.tcp), "--data=bytes"]).await.unwrap();
    assert!(out.contains("[0 body] bytes\n"), "{out}");

    let url = format!("tcp://[::1]:{}", fixture.server_first);
    let out = ask(&[&url, "--data=bytes", "--server-first"]).await.unwrap();
    assert!(out.contains("[0 body] 220 ") && out.contains("[0 body] bytes\n"), "{out}");

    let mut stream = TcpStream::connect(("127.0.0.1", fixture.http)).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: mine\r\n\r\n")
        .await
        .unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        received.push(stream.read_u8().await.unwrap());
    }
    assert!(received.starts_with(b"HTTP/1.1 101 "));
    stream.write_all(b"raw").await.unwrap();
    let mut echo = [0; 3];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"raw");
}

#[tokio::test]
async fn stopping_refuses_newcomers_and_finishes_what_is_under_way() {
    let fixture = Fixture::start().await;
    let port = fixture.http;
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"POST /?body=echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1").await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    let refused = Arc::new(Notify::new());
    let stop = tokio::spawn(fixture.server.stop(Duration::from_secs(60)));
    let knock = tokio::spawn({
        let refused = Arc::clone(&refused);
        async move {
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
            refused.notify_one();
        }
    });
    refused.notified().await;
    stream.write_all(b"2").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("12"), "{rest}");
    stop.await.unwrap();
    knock.await.unwrap();
}

#[tokio::test]
async fn connections_of_bytes_have_until_the_end_too() {
    let fixture = Fixture::start().await;
    let mut stream = TcpStream::connect(("127.0.0.1", fixture.tcp)).await.unwrap();
    stream.write_all(b"1").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'1');
    let stop = tokio::spawn(fixture.server.stop(Duration::from_secs(60)));
    while TcpStream::connect(("127.0.0.1", fixture.tcp)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stop.is_finished());
    stream.write_all(b"2").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'2');
    drop(stream);
    stop.await.unwrap();
}
