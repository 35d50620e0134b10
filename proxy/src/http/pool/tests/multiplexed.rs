//! HTTP/2: sharing, limits, and what a server says about requests that it did not process.

use super::*;

fn get_h2() -> Request<Body> {
    Request::get("http://web/").body(Body::Empty).unwrap()
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
        serve_h2(upstream.accept().await, 200, go);
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
    // The first request learns how many streams the server allows.
    let (first, ()) = tokio::join!(pool.send(HttpVersion::H2, get_h2(), &dial), async {
        serve_h2(upstream.accept().await, 2, Arc::clone(&go));
    });
    read(first.unwrap()).await;

    // None of four is answered before the second connection is there.
    let requests = (0..4).map(|_| pool.send(HttpVersion::H2, get_h2(), &dial));
    let (responses, ()) = tokio::join!(futures_util::future::join_all(requests), async {
        serve_h2(upstream.accept().await, 2, Arc::clone(&go));
        go.add_permits(4);
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
    ::h2::server::handshake(upstream.accept().await).await.unwrap()
}

#[tokio::test]
async fn a_refused_stream_is_known_to_be_unprocessed_and_a_reset_one_is_not() {
    for (reason, unprocessed) in [(::h2::Reason::REFUSED_STREAM, true), (::h2::Reason::INTERNAL_ERROR, false)]
    {
        let (pool, mut upstream) = (pool(), Upstream::new());
        let sending = pool.send(HttpVersion::H2, get_h2(), upstream.dial());
        let (response, ()) = tokio::join!(sending, async {
            let mut connection = accept_h2(&mut upstream).await;
            let (_, mut stream) = connection.accept().await.unwrap().unwrap();
            stream.send_reset(reason);
            // Polled on, so that the reset is written.
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
        });
        match response.unwrap_err() {
            SendError::Refused(_) => assert!(unprocessed),
            SendError::Broken(_) => assert!(!unprocessed),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_in_mid_body_is_told_from_a_server_that_resets() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let (mut client, body) = Uploading::begin().await;
    client.say(b"half").await;
    let mut request = get_h2();
    *request.body_mut() = body;
    let sending = pool.send(HttpVersion::H2, request, upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut connection = accept_h2(&mut upstream).await;
        let stream = connection.accept().await.unwrap().unwrap();
        client.break_off();
        tokio::spawn(async move {
            while connection.accept().await.is_some() {}
            drop(stream);
        });
    });
    assert!(matches!(response, Err(SendError::Client(_))), "{response:?}");
}

#[tokio::test]
async fn a_stream_beyond_a_goaway_is_known_to_be_unprocessed() {
    let (pool, mut upstream) = (pool(), Upstream::new());
    let sending = pool.send(HttpVersion::H2, get_h2(), upstream.dial());
    let (response, ()) = tokio::join!(sending, async {
        let mut stream = upstream.accept().await;
        stream.read_exact(&mut [0; 24]).await.unwrap();
        // Frames up to the request's HEADERS; then our SETTINGS, and GOAWAY with last stream 0 (RFC 9113
        // section 6.8).
        loop {
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).await.unwrap();
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            if frame[3] == 1 {
                break;
            }
        }
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    });
    assert!(matches!(response, Err(SendError::Refused(_))), "{response:?}");
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
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
    });
    assert_eq!(read(response.unwrap()).await, "hello");
    let second = pool.send(HttpVersion::H2, get_h2(), &dial);
    let (response, ()) = tokio::join!(second, async {
        serve_h2(upstream.accept().await, 10, Arc::new(tokio::sync::Semaphore::new(1)));
    });
    assert_eq!(read(response.unwrap()).await, "hello");
    assert_eq!(upstream.dialled(), 2);
}
