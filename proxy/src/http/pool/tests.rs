//! Against servers at the other end of in-memory streams: hyper's, h2's, and scripts that say exactly what a
//! test is about.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use super::*;
use crate::http::testing::Uploading;

mod multiplexed;

/// An upstream: how often it was dialled, and its end of each stream.
struct Upstream {
    dialled: Arc<AtomicUsize>,
    sender: mpsc::UnboundedSender<DuplexStream>,
    streams: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Upstream {
    fn new() -> Self {
        let (sender, streams) = mpsc::unbounded_channel();
        Self { dialled: Arc::default(), sender, streams }
    }

    fn dial(&self) -> impl Fn() -> std::future::Ready<Result<Io, DialError>> + Send + use<> {
        let (dialled, sender) = (Arc::clone(&self.dialled), self.sender.clone());
        move || {
            dialled.fetch_add(1, Ordering::Relaxed);
            let (near, far) = duplex(64 * 1024);
            let refused = || DialError::NoCertificate("nobody listens".to_owned());
            std::future::ready(sender.send(far).map(|()| Io::Local(near)).map_err(|_| refused()))
        }
    }

    fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }

    async fn accept(&mut self) -> DuplexStream {
        self.streams.recv().await.unwrap()
    }
}

fn pool() -> Arc<Pool> {
    Pool::new(PoolLimits { idle: Duration::from_secs(2), max_idle: 2 })
}

fn get() -> Request<Body> {
    Request::get("/").header("host", "web").body(Body::Empty).unwrap()
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").header("host", "web").body(body).unwrap()
}

async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn read(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// Answers every request on a stream with [`HELLO`].
fn answer_hello(mut stream: DuplexStream) {
    tokio::spawn(async move {
        loop {
            read_head(&mut stream).await;
            stream.write_all(HELLO).await.unwrap();
        }
    });
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_has_been_read() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    for _ in 0..10 {
        let sending = pool.send(HttpVersion::H1, get(), upstream.dial());
        let response = if upstream.dialled() == 0 {
            tokio::join!(sending, async { answer_hello(upstream.accept().await) }).0
        } else {
            sending.await
        };
        assert_eq!(read(response.unwrap()).await, "hello");
    }
    assert_eq!(upstream.dialled(), 1);
}

#[tokio::test]
async fn an_answer_given_up_half_way_takes_its_connection_with_it() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let (response, mut stream) = tokio::join!(pool.send(HttpVersion::H1, get(), upstream.dial()), async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
        stream
    });
    let mut body = response.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    drop(body);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the upstream learns that nobody listens");
    tokio::join!(pool.send(HttpVersion::H1, get(), upstream.dial()), async {
        answer_hello(upstream.accept().await);
    })
    .0
    .unwrap();
    assert_eq!(upstream.dialled(), 2);
}

#[tokio::test]
async fn requests_in_flight_do_not_share_an_http_1_connection() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let dial = upstream.dial();
    let serve = async {
        let streams = [upstream.accept().await, upstream.accept().await];
        streams.map(answer_hello)
    };
    let (first, second, _) = tokio::join!(
        pool.send(HttpVersion::H1, get(), &dial),
        pool.send(HttpVersion::H1, get(), &dial),
        serve
    );
    read(first.unwrap()).await;
    read(second.unwrap()).await;
    assert_eq!(upstream.dialled(), 2);
}

/// The connection-reuse race as it usually is: the server's idle time-out was shorter than ours.
#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_the_next_request_nothing() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let first = pool.send(HttpVersion::H1, get(), upstream.dial());
    let (response, mut stream) = tokio::join!(first, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        stream.write_all(HELLO).await.unwrap();
        stream
    });
    read(response.unwrap()).await;
    stream.shutdown().await.unwrap();
    drop(stream);

    let (mut client, body) = Uploading::begin().await;
    client.say(b"order").await;
    client.end().await;
    let second = pool.send(HttpVersion::H1, post(body), upstream.dial());
    let (response, order) = tokio::join!(second, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        let mut order = [0; 10];
        stream.read_exact(&mut order).await.unwrap();
        stream.write_all(HELLO).await.unwrap();
        order
    });
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(&order, b"5\r\norder\r\n", "all of it, once");
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_was_written_is_not_known_to_be_harmless() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let sending = pool.send(HttpVersion::H1, get(), upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
    });
    assert!(matches!(response, Err(SendError::Silent(_))), "{response:?}");
    assert_eq!(upstream.dialled(), 1);
}

#[tokio::test]
async fn a_failed_dial_gives_the_request_back_unharmed() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    upstream.streams.close();
    let (mut client, body) = Uploading::begin().await;
    client.say(b"order").await;
    client.end().await;
    let failed = pool.send(HttpVersion::H1, post(body), upstream.dial()).await.unwrap_err();
    let SendError::Dial { request, .. } = failed else { panic!("{failed}") };
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "order");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_close_in_time_though_nobody_calls_any_more() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let sending = pool.send(HttpVersion::H1, get(), upstream.dial());
    let (response, mut stream) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        stream.write_all(HELLO).await.unwrap();
        stream
    });
    read(response.unwrap()).await;
    let begin = Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!((2..=4).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn no_more_connections_lie_idle_than_allowed() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let dial = upstream.dial();
    let serve = async {
        for _ in 0..4 {
            answer_hello(upstream.accept().await);
        }
    };
    let send = || pool.send(HttpVersion::H1, get(), &dial);
    let (a, b, c, d, ()) = tokio::join!(send(), send(), send(), send(), serve);
    for response in [a, b, c, d] {
        read(response.unwrap()).await;
    }
    assert_eq!(pool.lock().idle.len(), 2);
}

/// What would deadlock if the body's sender waited for the answer's reader.
#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let (mut client, body) = Uploading::begin().await;
    let sending = pool.send(HttpVersion::H1, post(body), upstream.dial());
    let (response, mut stream) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.unwrap();
        stream
    });
    let response = response.unwrap();
    // Nobody reads the answer, and still the rest of the request arrives.
    client.say(b"late").await;
    client.end().await;
    let mut rest = [0; 9];
    stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"4\r\nlate\r\n");
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(read(response).await, "hello");
}

#[tokio::test]
async fn a_body_that_is_expected_waits_for_the_servers_word() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let (mut client, body) = Uploading::begin().await;
    client.say(b"large").await;
    client.end().await;
    let mut request = post(body);
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let sending = pool.send(HttpVersion::H1, request, upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        assert!(read_head(&mut stream).await.contains("expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 10];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"5\r\nlarge\r\n");
        stream.write_all(HELLO).await.unwrap();
    });
    assert_eq!(read(response.unwrap()).await, "hello");
}

#[tokio::test]
async fn a_body_that_is_refused_is_never_sent() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let (mut client, body) = Uploading::begin().await;
    client.say(b"large").await;
    client.end().await;
    let mut request = post(body);
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let sending = pool.send(HttpVersion::H1, request, upstream.dial());
    let (response, mut stream) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        stream
    });
    let response = response.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(read(response).await, "no");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_expect_gets_the_body_after_a_while() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let mut request = post(Body::from("large".to_owned()));
    request.headers_mut().insert("expect", http::HeaderValue::from_static("100-continue"));
    let begin = Instant::now();
    let sending = pool.send(HttpVersion::H1, request, upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        read_head(&mut stream).await;
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(begin.elapsed(), gamut_http1::client::PATIENCE);
        stream.write_all(HELLO).await.unwrap();
    });
    read(response.unwrap()).await;
}
