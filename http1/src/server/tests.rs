//! Requests as clients write them, byte by byte, and what comes back.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::HeaderMap;
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::*;

type Answer = Response<BoxBody<Bytes, Infallible>>;
type Served = JoinHandle<Result<Ended<DuplexStream, BoxBody<Bytes, Infallible>>, Error>>;

/// How long a head may take here.
const HEAD_TIME: Duration = Duration::from_secs(30);

fn full(text: &str) -> Answer {
    Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed())
}

/// Says what it got.
async fn echo(request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().map(|trailers| format!(" {trailers:?}")).unwrap_or_default();
            let body = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            full(&format!("{} {} [{body}]{trailers}", head.method, head.uri))
        }
        Err(error) => {
            let mut answer = full(&error.to_string());
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            answer
        }
    }
}

fn start<F>(service: impl FnMut(Request<Incoming>) -> F + Send + 'static) -> (DuplexStream, Served)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (client, server) = duplex(1024 * 1024);
    (client, tokio::spawn(serve(server, HEAD_TIME, service, std::future::pending())))
}

/// What comes back to a client that says this, and then waits for the end.
async fn say(said: &str) -> String {
    let (mut client, _served) = start(echo);
    client.write_all(said.as_bytes()).await.unwrap();
    rest(&mut client).await
}

async fn rest(client: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn hear(client: &mut DuplexStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

const CLOSE: &str = "host: web\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_request_is_answered_with_its_length() {
    let answer = say(&format!("GET /a?b HTTP/1.1\r\n{CLOSE}")).await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\ncontent-length: 11\r\nconnection: close\r\n\r\nGET /a?b []");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_bodies_are_not_mixed_up() {
    let said = format!(
        "POST /1 HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nGET /\
         POST /2 HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n\
         \r\nGET /3 HTTP/1.1\r\n{CLOSE}"
    );
    let answer = say(&said).await;
    let bodies: Vec<&str> =
        answer.split("HTTP/1.1 200 OK\r\n").filter_map(|one| one.split("\r\n\r\n").nth(1)).collect();
    assert_eq!(bodies, ["POST /1 [GET /]", "POST /2 [abc] {\"x-sum\": \"7\"}", "GET /3 []"]);
}

#[tokio::test]
async fn what_comes_byte_by_byte_is_the_same_as_what_comes_at_once() {
    let (mut client, _served) = start(echo);
    let said = format!(
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n{CLOSE}a\r\n0123456789\r\n0\r\nx: y\r\n\r\n"
    );
    for byte in said.bytes() {
        client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(rest(&mut client).await.ends_with("POST / [0123456789] {\"x\": \"y\"}"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_could_be_read_in_two_ways_is_refused_and_nothing_behind_it_is_served() {
    for (head, status) in [
        ("GET / HTTP/1.1\nhost: web\n\n", 400),
        ("GET / HTTP/1.1\r\nhost: web\nx: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: web\r\n\tfolded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n host: web\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost : web\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nho st: web\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: we\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: we\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: web\r\n\r\r\n\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nhost: web\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nhost: web\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\n\r\n", 505),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTQ/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 0x3\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: \r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\ntransfer-encoding: é, chunked\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    ] {
        let answer = say(&format!("{head}GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(answer.ends_with("content-length: 0\r\nconnection: close\r\n\r\n"), "{head:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_never_become_a_head_is_refused_before_its_end() {
    let hello = format!("\x16\x03\x01{}", "x".repeat(2000));
    for said in [hello.as_str(), "GE T / HTTP/1.1\r\nho", "GET / HTTP/1.1\r\nho st: "] {
        let answer = say(said).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_without_measure_is_refused_while_it_comes() {
    let fields = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let fits = say(&format!("GET / HTTP/1.1\r\n{}{CLOSE}", fields(98))).await;
    assert!(fits.starts_with("HTTP/1.1 200 "), "{fits}");
    let many = say(&format!("GET / HTTP/1.1\r\n{}{CLOSE}", fields(99))).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
    let endless = say(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(crate::MAX_HEAD_BYTES))).await;
    assert!(endless.starts_with("HTTP/1.1 431 "), "{endless}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_chunk_is_the_bodys_end_and_the_connections() {
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(17 * 1024));
    let flood = format!("0\r\n{}\r\n", "x: y\r\n".repeat(4096));
    for broken in [
        "ZZ\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        ";x\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3;x\ny\r\nabc\r\n0\r\n\r\n",
        "3 \0\r\nabc\r\n0\r\n\r\n",
        "0\r\nx: y\n\r\n",
        "0\r\nno field\r\n\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        &long,
        &flood,
    ] {
        let head = "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = say(&format!("{head}{broken}GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{broken:?}: {answer}");
        assert!(!answer.contains("smuggled"), "{broken:?}: {answer}");
    }
}

#[tokio::test]
async fn http_1_0_keeps_its_connection_where_it_asks_and_gets_no_chunks() {
    let said = "GET /1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n";
    let answer = say(said).await;
    assert_eq!(
        answer,
        "HTTP/1.0 200 OK\r\ncontent-length: 9\r\nconnection: keep-alive\r\n\r\nGET /1 []\
         HTTP/1.0 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nGET /2 []"
    );

    let (mut client, _served) = start(|_| async { streamed(&[Ok("one "), Ok("two")]) });
    client.write_all(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\none two");
}

/// An answer in parts, and trailers at its end.
fn streamed(parts: &[Result<&'static str, (&'static str, &'static str)>]) -> Answer {
    let frames: Vec<_> = parts
        .iter()
        .map(|part| match part {
            Ok(data) => Frame::data(Bytes::from_static(data.as_bytes())),
            Err((name, value)) => {
                let mut trailers = HeaderMap::new();
                trailers.insert(*name, http::HeaderValue::from_static(value));
                Frame::trailers(trailers)
            }
        })
        .map(Ok::<_, Infallible>)
        .collect();
    let mut frames = frames.into_iter();
    Response::new(BodyExt::boxed(Streamed(Box::new(move || frames.next()))))
}

type Next = Box<dyn FnMut() -> Option<Result<Frame<Bytes>, Infallible>> + Send + Sync>;

struct Streamed(Next);

impl Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready((self.0)())
    }
}

#[tokio::test]
async fn an_answer_of_unknown_length_comes_in_chunks_with_the_trailers_that_were_announced_and_asked_for() {
    let parts = [Ok("hello"), Err(("x-sum", "7"))];
    for (asks, announces, ends) in [
        ("te: trailers\r\n", true, "0\r\nx-sum: 7\r\n\r\n"),
        ("te: trailers\r\n", false, "0\r\n\r\n"),
        ("", true, "0\r\n\r\n"),
    ] {
        let (mut client, _served) = start(move |_| async move {
            let mut answer = streamed(&parts);
            if announces {
                answer.headers_mut().insert("trailer", http::HeaderValue::from_static("X-Sum"));
            }
            answer
        });
        client.write_all(format!("GET / HTTP/1.1\r\n{asks}{CLOSE}").as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.contains("transfer-encoding: chunked\r\n"), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n5\r\nhello\r\n{ends}")), "{answer}");
    }
}

#[tokio::test]
async fn answers_that_have_no_body_send_none_and_say_no_length_of_their_own() {
    for (method, status, ends) in [
        ("HEAD", 200, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"),
        ("GET", 204, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        ("GET", 304, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"),
    ] {
        let (mut client, _served) = start(move |_| async move {
            let mut answer = full("hello");
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            answer.headers_mut().insert("content-length", http::HeaderValue::from_static("5"));
            answer
        });
        client.write_all(format!("{method} / HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
        assert_eq!(rest(&mut client).await, ends);
    }
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_its_head_says_does_not_look_whole() {
    for length in ["4", "6"] {
        let (mut client, served) = start(move |_| async move {
            let mut answer = streamed(&[Ok("hello")]);
            answer.headers_mut().insert("content-length", http::HeaderValue::from_static(length));
            answer
        });
        client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        assert!(!rest(&mut client).await.contains("connection: close"));
        assert!(matches!(served.await.unwrap(), Err(Error::WrongLength)), "{length}");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_when_the_body_is_wanted() {
    let wanted = Arc::new(Notify::new());
    let go = Arc::clone(&wanted);
    let (mut client, _served) = start(move |request| {
        let go = Arc::clone(&go);
        async move {
            go.notified().await;
            echo(request).await
        }
    });
    client.write_all(b"PUT / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    tokio::task::yield_now().await;
    wanted.notify_one();
    hear(&mut client, "HTTP/1.1 100 Continue\r\n\r\n").await;
    client.write_all(b"large").await.unwrap();
    hear(&mut client, "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\nPUT / [large]").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_first_may_be_told_no_and_is_not_told_to_go_on() {
    let (mut client, _served) = start(|_| async {
        let mut answer = full("no");
        *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        answer
    });
    client.write_all(b"PUT / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let answer = rest(&mut client).await;
    assert_eq!(answer, "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_skipped_where_it_is_here_already() {
    let (mut client, _served) = start(|_| async { full("no matter") });
    let said = format!("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n{CLOSE}");
    client.write_all(said.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut client).await.matches("no matter").count(), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let (sender, mut begun) = mpsc::unbounded_channel();
    let (mut client, served) = start(move |_| {
        // Dropped with the request.
        let held = sender.clone();
        async move {
            held.send(()).unwrap();
            std::future::pending().await
        }
    });
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    begun.recv().await.unwrap();
    drop(client);
    assert!(matches!(served.await.unwrap(), Err(Error::Incomplete)));
    assert!(begun.recv().await.is_none());
}

#[tokio::test]
async fn a_body_may_be_read_in_another_task_and_ends_with_its_connection() {
    let (sender, mut bodies) = mpsc::unbounded_channel();
    let (mut client, served) = start(move |request: Request<Incoming>| {
        sender.send(request.into_body()).unwrap();
        std::future::pending()
    });
    client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
    let mut body = bodies.recv().await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    let reading = tokio::spawn(async move { body.frame().await.map(|frame| frame.is_err()) });
    tokio::task::yield_now().await;
    served.abort();
    assert_eq!(reading.await.unwrap(), Some(true), "not the body's end");
}

#[tokio::test]
async fn a_request_waits_until_the_body_of_the_one_before_has_been_read() {
    let served = Arc::new(AtomicUsize::new(0));
    let (sender, mut bodies) = mpsc::unbounded_channel();
    let count = Arc::clone(&served);
    let (mut client, _serving) = start(move |request: Request<Incoming>| {
        count.fetch_add(1, Ordering::Relaxed);
        sender.send(request.into_body()).unwrap();
        async { full("early") }
    });
    client.write_all(b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    hear(&mut client, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
    let body = bodies.recv().await.unwrap();
    client.write_all(b"helloGET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(served.load(Ordering::Relaxed), 1);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    bodies.recv().await.unwrap();
}

#[tokio::test]
async fn draining_closes_what_is_idle_at_once_and_what_is_busy_behind_its_answer() {
    for busy in [false, true] {
        let (drain, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (mut client, server) = duplex(1024);
        let (due, work) = (Arc::clone(&drain), Arc::clone(&go));
        let service = move |request| {
            let work = Arc::clone(&work);
            async move {
                work.notified().await;
                echo(request).await
            }
        };
        tokio::spawn(serve(server, HEAD_TIME, service, async move { due.notified().await }));
        if busy {
            client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
            tokio::task::yield_now().await;
        }
        drain.notify_one();
        tokio::task::yield_now().await;
        go.notify_one();
        let answer = rest(&mut client).await;
        assert_eq!(
            answer.contains("connection: close\r\n") && answer.ends_with("GET / []"),
            busy,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_hands_on_the_connection_and_what_was_read_of_it() {
    let switch = |_| async {
        let mut answer = full("");
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer
    };
    let (mut client, served) = start(switch);
    client.write_all(b"GET / HTTP/1.1\r\nupgrade: chat\r\n\r\nhello").await.unwrap();
    hear(&mut client, "HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
    let Ended::Upgraded { mut io, read, .. } = served.await.unwrap().unwrap() else { panic!() };
    assert_eq!(read, "hello");
    io.write_all(b"hi").await.unwrap();
    hear(&mut client, "hi").await;

    let (mut client, _served) = start(switch);
    client.write_all(format!("GET / HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 500 "), "nobody asked for it");
}

#[tokio::test]
async fn a_long_answer_waits_for_its_reader() {
    let part = Bytes::from(vec![7; 64 * 1024]);
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let (mut client, server) = duplex(1024);
    tokio::spawn(serve(
        server,
        HEAD_TIME,
        move |_| {
            let (part, count) = (part.clone(), Arc::clone(&count));
            let next =
                move || (count.fetch_add(1, Ordering::Relaxed) < 100).then(|| Ok(Frame::data(part.clone())));
            async move { Response::new(BodyExt::boxed(Streamed(Box::new(next)))) }
        },
        std::future::pending(),
    ));
    client.write_all(format!("GET / HTTP/1.1\r\n{CLOSE}").as_bytes()).await.unwrap();
    hear(&mut client, "HTTP/1.1 200 OK\r\n").await;
    assert_eq!(made.load(Ordering::Relaxed), 1, "no more is read than can be written");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"\r\n0\r\n\r\n") && answer.len() > 100 * 64 * 1024);
}

/// Who waits to write is woken by a stream, and by it alone: a reader of the request's body that flushed in passing, and then asked for no more
/// of it because what it is for has no room, left the answer lying.
#[tokio::test(start_paused = true)]
async fn an_answer_goes_on_though_somebody_looked_for_the_requests_body_meanwhile() {
    let (mut client, server) = duplex(1024);
    let (is_full, has_looked) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (look, looked) = (Arc::clone(&is_full), Arc::clone(&has_looked));
    let service = move |request: Request<Incoming>| {
        let (look, looked) = (Arc::clone(&look), Arc::clone(&looked));
        tokio::spawn(async move {
            let mut body = request.into_body();
            look.notified().await;
            assert!(poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending())).await);
            looked.notify_one();
            std::future::pending::<()>().await;
        });
        std::future::ready(full(&"x".repeat(64 * 1024)))
    };
    tokio::spawn(serve(server, HEAD_TIME, service, std::future::pending()));
    client.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    hear(&mut client, "HTTP/1.1 200 OK\r\ncontent-length: 65536\r\n\r\n").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    is_full.notify_one();
    has_looked.notified().await;
    let mut answer = vec![0; 64 * 1024];
    let read = tokio::time::timeout(Duration::from_secs(60), client.read_exact(&mut answer)).await;
    read.expect("the answer comes").unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_dribbles_a_head_is_answered_408_when_its_time_is_over() {
    let (mut client, served) = start(echo);
    let begin = tokio::time::Instant::now();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    // Far fewer fields than there may be.
    while !served.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = client.write_all(b"x: y\r\n").await;
    }
    assert!(matches!(served.await.unwrap(), Err(Error::Head(BadHead::Late(HEAD_TIME)))));
    assert!(begin.elapsed() >= HEAD_TIME && begin.elapsed() < HEAD_TIME * 2, "{:?}", begin.elapsed());
    let answer = rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 Request Timeout\r\n") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_may_stay_and_each_head_has_its_own_time() {
    let (mut client, _served) = start(echo);
    for path in ["/1", "/2"] {
        tokio::time::sleep(HEAD_TIME * 10).await;
        client.write_all(format!("GET {path} HTTP/1.1\r\n").as_bytes()).await.unwrap();
        tokio::time::sleep(HEAD_TIME - Duration::from_secs(1)).await;
        client.write_all(b"host: x\r\n\r\n").await.unwrap();
        let body = format!("GET {path} []");
        hear(&mut client, &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
    }
}
