//! Against servers at the other end of in-memory streams: hyper's, h2's, and scripts that say exactly what a test is about.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};

use super::*;
use crate::http::testing::Uploading;

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

fn get_h2() -> Request<Body> {
    Request::get("http://web/").body(Body::Empty).unwrap()
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
            tokio::join!(sending, async { answer_hello(upstream.streams.recv().await.unwrap()) }).0
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
    let (response, mut stream) =
        tokio::join!(pool.send(HttpVersion::H1, get(), upstream.dial()), async {
            let mut stream = upstream.streams.recv().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.unwrap();
            stream
        });
    let mut body = response.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    drop(body);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the upstream learns that nobody listens");
    tokio::join!(pool.send(HttpVersion::H1, get(), upstream.dial()), async {
        answer_hello(upstream.streams.recv().await.unwrap());
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
        let streams = [upstream.streams.recv().await.unwrap(), upstream.streams.recv().await.unwrap()];
        streams.map(answer_hello)
    };
    let (first, second, _) =
        tokio::join!(pool.send(HttpVersion::H1, get(), &dial), pool.send(HttpVersion::H1, get(), &dial), serve);
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
        let mut stream = upstream.streams.recv().await.unwrap();
        read_head(&mut stream).await;
    });
    assert!(matches!(response, Err(SendError::Broken(_))), "{response:?}");
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
            answer_hello(upstream.streams.recv().await.unwrap());
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
        let mut stream = upstream.streams.recv().await.unwrap();
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
        let mut stream = upstream.streams.recv().await.unwrap();
        read_head(&mut stream).await;
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(begin.elapsed(), crate::http::expect::PATIENCE);
        stream.write_all(HELLO).await.unwrap();
    });
    read(response.unwrap()).await;
}

/// Serves HTTP/2 with this many streams at a time; requests are answered when `go` allows.
fn serve_h2(stream: DuplexStream, streams: u32, go: Arc<tokio::sync::Semaphore>) {
    let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
        let go = Arc::clone(&go);
        async move {
            go.acquire().await.unwrap().forget();
            Ok::<_, std::convert::Infallible>(Response::new(Body::from("hello".to_owned())))
        }
    });
    tokio::spawn(async move {
        hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .max_concurrent_streams(streams)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await
    });
}

#[tokio::test]
async fn http_2_requests_share_a_connection_that_only_one_of_them_dialled() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let go = Arc::new(tokio::sync::Semaphore::new(50));
    let dial = upstream.dial();
    let requests = (0..50).map(|_| pool.send(HttpVersion::H2, get_h2(), &dial));
    let (responses, ()) = tokio::join!(futures_util::future::join_all(requests), async {
        serve_h2(upstream.streams.recv().await.unwrap(), 200, go);
    });
    for response in responses {
        assert_eq!(read(response.unwrap()).await, "hello");
    }
    assert_eq!(upstream.dialled(), 1);
}

#[tokio::test]
async fn streams_that_a_server_does_not_allow_get_another_connection_and_do_not_wait() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let go = Arc::new(tokio::sync::Semaphore::new(1));
    let dial = upstream.dial();
    let serve = |stream| serve_h2(stream, 2, Arc::clone(&go));
    // The first request learns how many streams the server allows.
    let (first, ()) = tokio::join!(pool.send(HttpVersion::H2, get_h2(), &dial), async {
        serve(upstream.streams.recv().await.unwrap());
    });
    read(first.unwrap()).await;

    let requests = (0..5).map(|_| pool.send(HttpVersion::H2, get_h2(), &dial));
    let all = futures_util::future::join_all(requests);
    let (responses, ()) = tokio::join!(all, async {
        // None is answered before all five have a stream.
        while upstream.dialled.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        serve(upstream.streams.recv().await.unwrap());
        go.add_permits(5);
    });
    for response in responses {
        read(response.unwrap()).await;
    }
    assert_eq!(upstream.dialled(), 2);
}

#[tokio::test]
async fn a_failed_dial_is_the_answer_to_all_who_waited_for_it() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    upstream.streams.close();
    let dial = upstream.dial();
    let requests = (0..10).map(|_| pool.send(HttpVersion::H2, get_h2(), &dial));
    for response in futures_util::future::join_all(requests).await {
        assert!(matches!(response, Err(SendError::Dial { .. })));
    }
    assert_eq!(upstream.dialled(), 1);
}

/// The h2 crate's server, for what hyper's doesn't say.
async fn accept_h2(upstream: &mut Upstream) -> ::h2::server::Connection<DuplexStream, Bytes> {
    ::h2::server::handshake(upstream.streams.recv().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_refused_stream_is_known_to_be_unprocessed_and_a_reset_one_is_not() {
    for (reason, unprocessed) in [(::h2::Reason::REFUSED_STREAM, true), (::h2::Reason::INTERNAL_ERROR, false)] {
        let (pool, mut upstream) = (pool(), Upstream::new());
        let sending = pool.send(HttpVersion::H2, get_h2(), upstream.dial());
        let (response, _connection) = tokio::join!(sending, async {
            let mut connection = accept_h2(&mut upstream).await;
            let (_, mut stream) = connection.accept().await.unwrap().unwrap();
            stream.send_reset(reason);
            // Polled on, so that the reset is written.
            tokio::spawn(async move { while connection.accept().await.is_some() {} })
        });
        match response.unwrap_err() {
            SendError::Refused(_) => assert!(unprocessed),
            SendError::Broken(_) => assert!(!unprocessed),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_stream_beyond_a_goaway_is_known_to_be_unprocessed() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let sending = pool.send(HttpVersion::H2, get_h2(), upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut stream = upstream.streams.recv().await.unwrap();
        // Preface and SETTINGS of the client, then our SETTINGS, and GOAWAY with last stream 0 (RFC 9113 section 6.8).
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    let error = response.unwrap_err();
    assert!(matches!(error, SendError::Refused(_) | SendError::Unsent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_is_going_away_serves_what_it_has_and_gets_nothing_new() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let dial = upstream.dial();
    let first = pool.send(HttpVersion::H2, get_h2(), &dial);
    let (response, ()) = tokio::join!(first, async {
        let mut connection = accept_h2(&mut upstream).await;
        let (_, mut stream) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        let mut body = stream.send_response(Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        while connection.accept().await.is_some() {}
    });
    assert_eq!(read(response.unwrap()).await, "hello");
    let second = pool.send(HttpVersion::H2, get_h2(), &dial);
    let (response, ()) = tokio::join!(second, async {
        serve_h2(upstream.streams.recv().await.unwrap(), 10, Arc::new(tokio::sync::Semaphore::new(1)));
    });
    assert_eq!(read(response.unwrap()).await, "hello");
    assert_eq!(upstream.dialled(), 2);
}
