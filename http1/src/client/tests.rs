//! Against servers that say exactly what a test is about.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, StreamBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::*;

type Reply = Result<Response<Answer<DuplexStream, Full<Bytes>>>, Failed<Full<Bytes>>>;

fn get() -> Request<Full<Bytes>> {
    Request::get("/").header("host", "web").body(Full::default()).unwrap()
}

fn post(body: &'static str) -> Request<Full<Bytes>> {
    Request::post("/").header("host", "web").body(Full::from(body)).unwrap()
}

fn connect() -> (Box<Connection<DuplexStream>>, DuplexStream) {
    let (near, far) = duplex(1024 * 1024);
    (Connection::new(near), far)
}

async fn read_head(server: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What a GET gets from a server that answers this and, if so, closes.
async fn ask(answer: &str, closes: bool) -> (Reply, DuplexStream) {
    let (connection, mut server) = connect();
    let answering = async {
        read_head(&mut server).await;
        server.write_all(answer.as_bytes()).await.unwrap();
        if closes {
            server.shutdown().await.unwrap();
        }
    };
    let (reply, ()) = tokio::join!(connection.send(get()), answering);
    (reply, server)
}

#[tokio::test]
async fn a_request_leaves_in_one_piece_and_a_short_answer_is_whole_at_once() {
    let (connection, mut server) = connect();
    let answering = async {
        let mut request = [0; 1024];
        let length = server.read(&mut request).await.unwrap();
        assert_eq!(&request[..length], b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\nhello");
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    };
    let (reply, ()) = tokio::join!(connection.send(post("hello")), answering);
    let mut answer = reply.unwrap().into_body();
    assert_eq!(answer.whole().unwrap(), "hi");
    assert!(answer.take_idle().is_some(), "it can be used again");
}

#[tokio::test]
async fn bodies_end_where_their_heads_say() {
    for (answer, closes, body, reusable) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", false, "hi", true),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            false,
            "hi",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhi", true, "hi", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi", true, "hi", false),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "", true),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", false, "", true),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            false,
            "hi",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi", false, "hi", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", false, "hi", false),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi", false, "hi", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", false, "hi", false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", true, "hi", false),
    ] {
        let (reply, _server) = ask(answer, closes).await;
        let mut reply = reply.unwrap().into_body();
        let read = (&mut reply).collect().await.unwrap().to_bytes();
        assert_eq!(read, body, "{answer:?}");
        let usable = reply.take_idle().is_some_and(|mut connection| connection.is_usable());
        assert_eq!(usable, reusable, "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_could_be_read_in_two_ways_is_none() {
    for answer in [
        "HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nx : y\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: é, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 99 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    ] {
        let (reply, _server) = ask(answer, false).await;
        assert!(matches!(reply, Err(Failed::Broken(Error::Head(_)))), "{answer:?}: {:?}", reply.err());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ] {
        let (reply, _server) = ask(answer, true).await;
        let read = reply.unwrap().into_body().collect().await;
        assert!(matches!(read, Err(Error::Incomplete)), "{answer:?}");
    }
}

#[tokio::test]
async fn an_end_without_a_byte_is_told_from_one_that_cut_an_answer_off() {
    for (said, silent) in [("", true), ("HTTP/1.1 2", false), ("HTTP/1.1 100 Continue\r\n\r\n", false)] {
        let (reply, _server) = ask(said, true).await;
        match reply.err().unwrap() {
            Failed::Silent { reused: false, .. } => assert!(silent, "{said:?}"),
            Failed::Broken(Error::Incomplete) => assert!(!silent, "{said:?}"),
            other => panic!("{said:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_ends_without_a_byte_is_told_from_a_new_one() {
    let (reply, mut server) = ask("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let kept = reply.unwrap().into_body().take_idle().unwrap();
    let answering = async {
        read_head(&mut server).await;
        server.shutdown().await.unwrap();
    };
    let (reply, ()) = tokio::join!(kept.send(get()), answering);
    assert!(matches!(reply, Err(Failed::Silent { reused: true, .. })));
}

#[tokio::test]
async fn a_request_comes_back_unharmed_if_nothing_of_it_could_be_written() {
    let (connection, server) = connect();
    drop(server);
    let Err(Failed::Unsent { request, .. }) = connection.send(get()).await else { panic!() };
    assert_eq!((request.uri().path(), request.headers().len()), ("/", 1));
}

#[tokio::test]
async fn the_rest_of_a_request_is_sent_while_its_answer_is_read() {
    let (connection, mut server) = connect();
    let (sender, mut parts) = tokio::sync::mpsc::channel::<&'static str>(1);
    let body = StreamBody::new(Parts(Box::new(move |cx| {
        parts.poll_recv(cx).map(|part| Some(Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(part?)))))
    })));
    let request = Request::post("/").header("host", "web").body(body).unwrap();
    let answering = async {
        assert!(read_head(&mut server).await.contains("transfer-encoding: chunked\r\n"));
        server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nno").await.unwrap();
    };
    let (reply, ()) = tokio::join!(connection.send(request), answering);
    let mut answer = reply.ok().unwrap().into_body();
    assert!(answer.is_uploading() && answer.whole().is_none());
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "no");

    sender.send("late").await.unwrap();
    drop(sender);
    let reading = tokio::spawn(async move {
        let rest = (&mut answer).collect().await.unwrap().to_bytes();
        (rest, answer.take_idle().is_some())
    });
    let mut rest = [0; 14];
    server.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"4\r\nlate\r\n0\r\n\r\n");
    server.write_all(b"pe").await.unwrap();
    assert_eq!(reading.await.unwrap(), (Bytes::from("pe"), true));
}

type PollPart<T> = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<T>> + Send>;

struct Parts<T>(PollPart<T>);

impl<T> tokio_stream::Stream for Parts<T> {
    type Item = T;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_expected_leaves_when_the_server_says_so_or_nothing_for_a_while() {
    for (says, after) in [("HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO), ("", PATIENCE)] {
        let (connection, mut server) = connect();
        let mut request = post("large");
        request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
        let begin = Instant::now();
        let answering = async {
            read_head(&mut server).await;
            server.write_all(says.as_bytes()).await.unwrap();
            let mut body = [0; 5];
            server.read_exact(&mut body).await.unwrap();
            assert_eq!((&body, begin.elapsed()), (b"large", after));
            server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        };
        let (reply, ()) = tokio::join!(connection.send(request), answering);
        assert!(reply.unwrap().into_body().take_idle().is_some());
    }
}

#[tokio::test]
async fn a_body_that_is_refused_never_leaves_and_its_connection_is_not_used_again() {
    let (connection, mut server) = connect();
    let mut request = post("large");
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let answering = async {
        read_head(&mut server).await;
        server.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    };
    let (reply, ()) = tokio::join!(connection.send(request), answering);
    let mut answer = reply.unwrap().into_body();
    assert_eq!(answer.whole().unwrap(), "no");
    assert!(answer.take_idle().is_none());
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_101_gives_the_connection_and_what_was_read_behind_it() {
    let (reply, mut server) = ask("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nhello", false).await;
    let (mut io, read) = reply.unwrap().into_body().into_upgraded().unwrap();
    assert_eq!(read, "hello");
    io.write_all(b"hi").await.unwrap();
    let mut heard = [0; 2];
    server.read_exact(&mut heard).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_came_before_the_server_closed_its_side_counts() {
    let (near, mut far) = duplex(64);
    let connection = Connection::new(near);
    let body = Full::new(Bytes::from(vec![7; 100_000]));
    let request = Request::post("/").header("host", "web").body(body).unwrap();
    let answering = async {
        read_head(&mut far).await;
        far.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        drop(far);
    };
    let (reply, ()) = tokio::join!(connection.send(request), answering);
    assert_eq!(reply.unwrap().status(), 401);
}
