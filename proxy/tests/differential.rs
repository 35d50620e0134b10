//! HTTP/1.1 that two readers may understand in two ways, sent through a pair of sidecars to two real servers: nginx, and
//! Node's `http`. Either nobody sees any of it, or both see the same requests, and each is answered once.
//!
//! A server that isn't installed is left out, which the test says.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{collections::BTreeMap, fs, net::SocketAddr, process::Stdio, time::Duration};

use caller::{Caller, caller_of, get, meshed, table};
use gamut_controller_api::MtlsMode;
use mesh::{Pod, listen, read_rest, sidecar};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// How long a server may take to start, and to say what it saw.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is refused: `{}` is the case's own path, and each ends where one reader sees a second request begin.
const REFUSED: &[(&str, &str)] = &[
    (
        "both lengths",
        "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both, the other way",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n"),
    ("one length twice", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    ("a list of lengths", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 0, 60\r\n\r\n"),
    ("a signed length", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: +0\r\n\r\n"),
    ("a negative length", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: -1\r\n\r\n"),
    ("a hexadecimal length", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 0x3c\r\n\r\n"),
    ("a length in two parts", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 6 0\r\n\r\n"),
    ("a length of nothing", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length:\r\n\r\n"),
    (
        "a length that overflows",
        "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: 18446744073709551616\r\n\r\n",
    ),
    ("another coding", "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (
        "chunked, and then not",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked behind a vertical tab",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    ("chunked in HTTP/1.0", "POST {} HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded coding", "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    (
        "a blank before the colon",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a blank before a name", "POST {} HTTP/1.1\r\nHost: web\r\n Content-Length: 60\r\n\r\n"),
    ("a folded field", "GET {} HTTP/1.1\r\nHost: web\r\nX: a\r\n b\r\n\r\n"),
    ("lines that end in LF", "GET {} HTTP/1.1\nHost: web\n\n"),
    ("one line that ends in LF", "POST {} HTTP/1.1\r\nHost: web\nContent-Length: 60\r\n\r\n"),
    ("a line that ends in CR", "GET {} HTTP/1.1\r\nHost: web\rX: y\r\n\r\n"),
    ("a NUL", "GET {} HTTP/1.1\r\nHost: web\r\nX: a\0b\r\n\r\n"),
    ("no name", "GET {} HTTP/1.1\r\nHost: web\r\n: x\r\n\r\n"),
    ("no colon", "GET {} HTTP/1.1\r\nHost: web\r\nContent-Length\r\n\r\n"),
    ("another version", "GET {} HTTP/1.2\r\nHost: web\r\n\r\n"),
    ("a version in lower case", "GET {} http/1.1\r\nHost: web\r\n\r\n"),
];

/// What is refused though everybody agrees where it ends: the next request is one.
const UNWANTED: &[(&str, &str)] = &[
    ("two hosts", "GET {} HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
    ("no host", "GET {} HTTP/1.1\r\n\r\n"),
    ("a host with a user", "GET {} HTTP/1.1\r\nHost: a@web\r\n\r\n"),
    ("a host with a path", "GET {} HTTP/1.1\r\nHost: web/x\r\n\r\n"),
    ("a tunnel", "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n"),
];

/// Whose head is passed on, and whose body isn't what it says: it never looks whole to a server.
const BROKEN: &[(&str, &str)] = &[
    ("a chunk's size with 0x", "0x0\r\n\r\n"),
    ("a chunk's size with a sign", "+0\r\n\r\n"),
    ("a chunk's size that overflows", "10000000000000000\r\n\r\n"),
    ("a chunk longer than its size", "1\r\nabc\r\n0\r\n\r\n"),
    ("a chunk's line that ends in LF", "0\n\n"),
    ("an extension with an LF", "0;a\nb\r\n\r\n"),
    ("a length among the trailers", "0\r\nContent-Length : 60\r\n\r\n"),
];

/// What means one thing, in a spelling that not everybody uses.
const UNDERSTOOD: &[(&str, &str)] = &[
    ("empty lines in front", "\r\n\r\nGET {} HTTP/1.1\r\nHost: web\r\n\r\n"),
    // No part of a target, and left out.
    ("a target with a fragment", "GET {}#x HTTP/1.1\r\nHost: web\r\n\r\n"),
    ("absolute form", "GET http://web{} HTTP/1.1\r\nHost: other\r\n\r\n"),
    ("a host in capitals", "GET {} HTTP/1.1\r\nHOST: WEB:80\r\n\r\n"),
    ("blanks around a length", "POST {} HTTP/1.1\r\nHost: web\r\nContent-Length: \t5 \r\n\r\nhello"),
    ("a body of a GET", "GET {} HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"),
    (
        "chunked in capitals",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "extensions",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
    ),
    (
        "trailers",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    ),
    (
        "zeros before a size",
        "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n",
    ),
    (
        "a switch to h2c",
        "GET {} HTTP/1.1\r\nHost: web\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    ),
    (
        "a length that the connection is to lose",
        "POST {} HTTP/1.1\r\nHost: web\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
    ),
];

/// What a case may lead to.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Refused,
    Unwanted,
    Broken,
    Understood,
}

/// Every case: its name, its own path, what is sent, and what may come of it.
fn cases() -> Vec<(&'static str, String, String, Fate)> {
    let refused = REFUSED.iter().map(|(name, text)| (*name, (*text).to_owned(), Fate::Refused));
    let unwanted = UNWANTED.iter().map(|(name, text)| (*name, (*text).to_owned(), Fate::Unwanted));
    let broken = BROKEN.iter().map(|(name, body)| {
        let head = "POST {} HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
        (*name, format!("{head}{body}"), Fate::Broken)
    });
    let understood = UNDERSTOOD.iter().map(|(name, text)| (*name, (*text).to_owned(), Fate::Understood));
    let all = refused.chain(unwanted).chain(broken).chain(understood).enumerate();
    let numbered = all.map(|(number, (name, text, fate))| {
        let path = format!("/case-{number}");
        let last = match fate {
            Fate::Refused | Fate::Broken => "smuggled",
            Fate::Unwanted | Fate::Understood => "next",
        };
        let next = format!("GET {path}/{last} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
        (name, path.clone(), text.replace("{}", &path) + &next, fate)
    });
    numbered.collect()
}

/// A server in a process of its own, which tells a line for each request: its method and its target.
struct Server {
    address: SocketAddr,
    seen: Lines<BufReader<ChildStdout>>,
    /// Killed when it is dropped.
    _process: Child,
    _files: tempfile::TempDir,
}

impl Server {
    async fn nginx() -> Option<Self> {
        Self::start("nginx", "nginx.conf", |directory, port| {
            format!(
                "daemon off; master_process off; pid {directory}/pid; error_log {directory}/errors;
                 events {{}}
                 http {{
                     log_format seen '$request_method $request_uri';
                     access_log /dev/stdout seen;
                     client_body_temp_path {directory}/body;
                     server {{ listen 127.0.0.1:{port}; location / {{ return 200 'nginx'; }} }}
                 }}"
            )
        })
        .await
    }

    async fn node() -> Option<Self> {
        Self::start("node", "server.js", |_, port| {
            format!(
                "require('http').createServer((request, response) => {{
                     console.log(request.method + ' ' + request.url);
                     request.on('error', () => {{}});
                     request.resume().on('end', () => response.end('node'));
                 }}).listen({port}, '127.0.0.1');"
            )
        })
        .await
    }

    /// Starts a server with a file of its own, and waits until it takes connections. `None` where it isn't installed.
    async fn start(program: &str, file: &str, text: impl Fn(&str, u16) -> String) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let directory = files.path().to_str().unwrap().to_owned();
        // Free now, and nobody else's on this machine but by bad luck.
        let address = listen().await.1;
        let path = files.path().join(file);
        fs::write(&path, text(&directory, address.port())).unwrap();
        let mut command = Command::new(program);
        if program == "nginx" {
            command.args(["-p", &directory, "-c"]);
        }
        let command = command.arg(&path).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(error) => {
                println!("without {program}: {error}");
                return None;
            }
        };
        let seen = BufReader::new(process.stdout.take().unwrap()).lines();
        let starting = async {
            while TcpStream::connect(address).await.is_err() {
                assert!(process.try_wait().unwrap().is_none(), "{program} has ended");
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, starting).await.expect("a server");
        Some(Self { address, seen, _process: process, _files: files })
    }

    /// What it saw until a request for `/end`, by case.
    async fn saw(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut saw = BTreeMap::<String, Vec<String>>::new();
        loop {
            let line = timeout(PATIENCE, self.seen.next_line()).await.expect("a line").unwrap();
            let line = line.expect("the server is still there");
            let target = line.split(' ').nth(1).unwrap_or_default();
            if target == "/end" {
                return saw;
            }
            let case = target.split('/').nth(1).unwrap_or_default();
            saw.entry(format!("/{case}")).or_default().push(line);
        }
    }
}

/// Sends a case over a connection of its own. The statuses that come back.
async fn statuses(caller: &Caller, text: &str) -> Vec<u16> {
    let mut client = caller.dial().await;
    // Whoever has refused closes.
    let _ = client.write_all(text.as_bytes()).await;
    let answers = read_rest(&mut client).await;
    // Texts that explain a refusal name versions of HTTP too.
    answers.split("HTTP/1.1 ").skip(1).filter_map(|head| head.get(..3)?.parse().ok()).collect()
}

#[tokio::test]
async fn no_message_is_understood_in_two_ways() {
    let pod = Pod::new(MtlsMode::Strict).await;
    let servers = [("nginx", Server::nginx().await), ("node", Server::node().await)];
    let mut of_all: Option<Vec<Vec<String>>> = None;
    for (server_name, server) in servers {
        let Some(mut server) = server else { continue };
        let entrance = sidecar(&pod, server.address).await;
        let caller = caller_of(&pod, table(Vec::new()), vec![meshed(entrance, "web", pod.uid)]).await;
        let mut answered = Vec::new();
        for (_, _, text, _) in cases() {
            answered.push(statuses(&caller, &text).await);
        }
        assert_eq!(caller.send(get("/end")).await.status(), 200);

        let saw = server.saw().await;
        let mut understood = Vec::new();
        for ((name, path, _, fate), statuses) in cases().into_iter().zip(answered) {
            let seen = saw.get(&path).cloned().unwrap_or_default();
            let story = format!("{server_name}, {name}: saw {seen:?}, answered {statuses:?}");
            let good = statuses.iter().filter(|status| **status == 200).count();
            match fate {
                Fate::Refused => {
                    assert!(seen.is_empty() && good == 0 && statuses.len() == 1, "{story}");
                    assert!(statuses.iter().all(|status| (400..600).contains(status)), "{story}");
                }
                Fate::Unwanted => {
                    assert!(seen.iter().all(|line| line.ends_with("/next")) && good == seen.len(), "{story}");
                    assert!(statuses.first().is_some_and(|status| (400..500).contains(status)), "{story}");
                }
                Fate::Broken => {
                    assert!(good == 0 && statuses.len() <= 1, "{story}");
                    assert!(!seen.iter().any(|line| line.contains("smuggled")), "{story}");
                }
                Fate::Understood => {
                    assert!(seen.len() == 2 && statuses == [200, 200], "{story}");
                    understood.push(seen);
                }
            }
        }
        match &of_all {
            Some(others) => assert_eq!(&understood, others, "{server_name} understood something else"),
            None => of_all = Some(understood),
        }
    }
}
