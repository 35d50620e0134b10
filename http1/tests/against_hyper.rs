//! Beside hyper: what hyper refuses is refused here, and what both accept, both understand alike. Here more may be
//! refused, which the unit tests say by name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use gamut_http1::{client, server};
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::{prelude::*, sample::select};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};

/// A message as somebody understood it; without a body if that broke off.
#[derive(Debug, PartialEq)]
struct Understood {
    line: String,
    headers: HeaderMap,
    body: Option<(Bytes, Option<HeaderMap>)>,
}

/// In paused time, longer than anything takes that still moves.
const LONG: Duration = Duration::from_secs(60);

fn in_paused_time<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

async fn understood<B: Body<Data = Bytes>>(line: String, headers: HeaderMap, body: B) -> Understood {
    let body = timeout(LONG, body.collect()).await.ok().and_then(Result::ok).map(|body| {
        let trailers = body.trailers().cloned();
        (body.to_bytes(), trailers)
    });
    Understood { line, headers, body }
}

/// A server's end of a connection on which a client says this and then waits.
async fn said(input: &[u8]) -> (DuplexStream, DuplexStream) {
    let (mut client, server) = duplex(1024 * 1024);
    client.write_all(input).await.unwrap();
    (client, server)
}

async fn request<B: Body<Data = Bytes>>(
    request: Request<B>,
    seen: mpsc::UnboundedSender<Understood>,
) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    let line = format!("{} {} {:?}", head.method, head.uri, head.version);
    seen.send(understood(line, head.headers, body).await).unwrap();
    Response::new(Empty::new())
}

fn drained(mut seen: mpsc::UnboundedReceiver<Understood>) -> Vec<Understood> {
    std::iter::from_fn(|| seen.try_recv().ok()).collect()
}

async fn requests_as_we_do(input: &[u8]) -> Vec<Understood> {
    let (_client, stream) = said(input).await;
    let (sender, seen) = mpsc::unbounded_channel();
    let serving = server::serve(
        stream,
        Duration::from_secs(30),
        |asked| request(asked, sender.clone()),
        std::future::pending(),
    );
    let _ = timeout(2 * LONG, serving).await;
    drained(seen)
}

async fn requests_as_hyper_does(input: &[u8]) -> Vec<Understood> {
    let (_client, stream) = said(input).await;
    let (sender, seen) = mpsc::unbounded_channel();
    let service = service_fn(|asked| {
        let sender = sender.clone();
        async move { Ok::<_, Infallible>(request(asked, sender).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving =
        builder.max_header_size(gamut_http1::MAX_HEAD_BYTES).serve_connection(TokioIo::new(stream), service);
    let _ = timeout(2 * LONG, serving).await;
    drained(seen)
}

async fn answer_as_we_do(input: &[u8]) -> Option<Understood> {
    let near = answering(input).await;
    let asked = Request::get("/").header("host", "web").body(Empty::<Bytes>::new()).unwrap();
    let (head, body) = client::Connection::new(near).send(asked).await.ok()?.into_parts();
    Some(understood(format!("{} {:?}", head.status, head.version), head.headers, body).await)
}

async fn answer_as_hyper_does(input: &[u8]) -> Option<Understood> {
    let near = answering(input).await;
    let asked = Request::get("/").header("host", "web").body(Empty::<Bytes>::new()).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(asked).await.ok()?.into_parts();
    Some(understood(format!("{} {:?}", head.status, head.version), head.headers, body).await)
}

/// A connection on which a server says this to the first request, and ends.
async fn answering(input: &[u8]) -> DuplexStream {
    let (mut server, client) = duplex(1024 * 1024);
    let input = input.to_vec();
    tokio::spawn(async move {
        let _ = server.read(&mut [0; 1024]).await;
        let _ = server.write_all(&input).await;
    });
    client
}

const ENDS: [&str; 6] = ["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"];
const FIELDS: [&str; 34] = [
    "host: web",
    "Host: other",
    "content-length: 5",
    "content-length: 0",
    "Content-Length: 3",
    "content-length: +5",
    "content-length: 5, 5",
    "content-length: 18446744073709551615",
    "content-length : 5",
    "transfer-encoding: chunked",
    "transfer-encoding: Chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: chunked, gzip",
    "transfer-encoding: chunked,",
    "transfer-encoding: \"chunked\"",
    "transfer-encoding:\tchunked ",
    "transfer-encoding: xchunked",
    " transfer-encoding: chunked",
    "connection: close",
    "connection: keep-alive, x",
    "expect: 100-continue",
    "te: trailers",
    "trailer: x",
    "x: y",
    "x:",
    "x: \u{e9}",
    "x: a\tb",
    "x: a\u{0}b",
    "x: a\u{7f}b",
    "x y: z",
    "x\u{0}: z",
    ": z",
    "no colon",
    "x: a\r b",
];
const LINES: [&str; 12] = [
    "GET / HTTP/1.1",
    "POST /a?b=c HTTP/1.1",
    "POST / HTTP/1.0",
    "GET http://web/x HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "G\u{0}T / HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET /\t HTTP/1.1",
    "GET /\u{e9} HTTP/1.1",
    "GET / HTTP/1.2",
    "get /%zz HTTP/1.1",
    "GET / http/1.1",
];
const STATUSES: [&str; 9] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1  200 OK",
];
const BODIES: [&str; 20] = [
    "",
    "hello",
    "hel",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    "5 x\r\nhello\r\n0\r\n\r\n",
    "05\r\nhello\r\n000\r\n\r\n",
    "5\nhello\n0\n\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello",
    "8000000000000005\r\nhello\r\n0\r\n\r\n",
    ";\r\nhello\r\n0\r\n\r\n",
    "5;\nx\r\nhello\r\n0\r\n\r\n",
    "0\r\nx: y\n\r\n",
    "0\r\nx y\r\n\r\n",
    "0\r\n\r\n",
];

fn message(lines: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let end = || select(&ENDS[..]);
    let fields = prop::collection::vec((select(&FIELDS[..]), end()), 0..5);
    (select(lines), end(), fields, end(), select(&BODIES[..])).prop_map(|(line, end, fields, last, body)| {
        let fields: String = fields.iter().flat_map(|(field, end)| [*field, *end]).collect();
        format!("{line}{end}{fields}{last}{body}").into_bytes()
    })
}

/// As it came, or with one byte more or less or other.
fn perhaps_broken(message: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (message, any::<prop::sample::Index>(), any::<u8>(), 0..6_u8).prop_map(|(mut message, at, byte, how)| {
        let at = at.index(message.len());
        match how {
            0 => message[at] = byte,
            1 => drop(message.remove(at)),
            2 => message.insert(at, byte),
            _ => {}
        }
        message
    })
}

/// Whether a message was understood alike. A body may be refused here that hyper lets pass.
fn agrees(ours: &Understood, hypers: &Understood) -> bool {
    ours.line == hypers.line
        && ours.headers == hypers.headers
        && (ours.body.is_none() || ours.body == hypers.body)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_read_as_hyper_reads_them_or_refused(
        first in perhaps_broken(message(&LINES)),
        second in perhaps_broken(message(&LINES)),
    ) {
        let input = [first, second].concat();
        let (ours, hypers) = in_paused_time(async { (requests_as_we_do(&input).await, requests_as_hyper_does(&input).await) });
        prop_assert!(ours.len() <= hypers.len(), "{ours:?}\n{hypers:?}");
        for (ours, hypers) in ours.iter().zip(&hypers) {
            prop_assert!(agrees(ours, hypers), "{ours:?}\n{hypers:?}");
        }
    }

    #[test]
    fn answers_are_read_as_hyper_reads_them_or_refused(
        interim in prop::option::of(Just(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())),
        answer in perhaps_broken(message(&STATUSES)),
    ) {
        let input = [interim.unwrap_or_default(), answer].concat();
        let (ours, hypers) = in_paused_time(async { (answer_as_we_do(&input).await, answer_as_hyper_does(&input).await) });
        if let Some(ours) = ours {
            prop_assert!(hypers.as_ref().is_some_and(|hypers| agrees(&ours, hypers)), "{ours:?}\n{hypers:?}");
        }
    }
}

/// The comparison is worth something only if it accepts something.
#[test]
fn plain_messages_are_understood_by_both() {
    let asked = b"POST /a?b=c HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\nhost: web\r\n\r\n";
    let (ours, hypers) =
        in_paused_time(async { (requests_as_we_do(asked).await, requests_as_hyper_does(asked).await) });
    assert_eq!(ours, hypers);
    assert_eq!(ours.len(), 2);
    let answered = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    let (ours, hypers) =
        in_paused_time(async { (answer_as_we_do(answered).await, answer_as_hyper_does(answered).await) });
    assert!(ours.is_some());
    assert_eq!(ours, hypers);
}
