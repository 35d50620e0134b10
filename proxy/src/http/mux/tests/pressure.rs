//! What one end can make the other keep, and what those who share a connection do to each other.

use std::{collections::BTreeSet, sync::Mutex};

use futures_util::future::join_all;
use tokio::{sync::mpsc, task::JoinSet};

use super::*;

/// A server's end that never answers, and hands over the bodies of its requests.
fn unanswered() -> (DuplexStream, mpsc::UnboundedReceiver<Body>) {
    let (sender, bodies) = mpsc::unbounded_channel();
    let (near, _serving) = serve(move |request: Request<Body>| {
        sender.send(request.into_body()).unwrap();
        pending()
    });
    (near, bodies)
}

async fn next_frame(near: &mut DuplexStream) -> Option<Header> {
    let mut header = [0; HEADER_BYTES];
    timeout(PATIENCE, near.read_exact(&mut header)).await.expect("a frame").ok()?;
    let header = Header::read(header).unwrap();
    near.read_exact(&mut vec![0; header.content()]).await.ok()?;
    Some(header)
}

/// A request with a field of this length.
fn with_field(length: usize) -> Request<Body> {
    Request::get("/").header("host", "web").header("x", "y".repeat(length)).body(Body::Empty).unwrap()
}

#[tokio::test]
async fn a_body_of_single_bytes_that_nobody_reads_is_kept_as_few_parts() {
    let (mut near, mut bodies) = unanswered();
    let said = (1..=100_000).fold(Said::default().request(1, false), |said, number| {
        said.frame(Kind::Data, 1, number == 100_000, b"x")
    });
    near.write_all(&said.number(Kind::Ping, 0, 0).0).await.unwrap();
    assert_eq!(next_frame(&mut near).await.unwrap().kind, Kind::Pong);

    let mut body = bodies.recv().await.unwrap();
    let (mut parts, mut length) = (0, 0);
    while let Some(part) = body.frame().await {
        parts += 1;
        length += part.unwrap().into_data().unwrap().len();
    }
    assert_eq!(length, 100_000);
    assert!(parts < 100, "{parts} parts");
}

#[tokio::test]
async fn a_request_that_is_reset_from_here_is_not_read_as_a_shorter_one() {
    let (sender, mut bodies) = mpsc::unbounded_channel();
    let (mut near, _serving) = serve(move |request: Request<Body>| {
        sender.send(request.into_body()).unwrap();
        // More than can be carried.
        let answer = (0..3).fold(Response::builder(), |answer, _| answer.header("x", "y".repeat(60_000)));
        async move { answer.body(Body::Empty).unwrap() }
    });
    let said = Said::default().request(1, false);
    let said = said.frame(Kind::Data, 1, false, b"all of ").frame(Kind::Data, 1, true, b"it");
    near.write_all(&said.0).await.unwrap();
    assert_eq!(next_frame(&mut near).await.unwrap().kind, Kind::Reset);

    let read = bodies.recv().await.unwrap().collect().await;
    assert!(read.is_err() || read.unwrap().to_bytes() == "all of it");
}

#[tokio::test]
async fn short_answers_do_not_wait_for_the_end_of_long_ones() {
    let mux = client(|request: Request<Body>| async move {
        let is_long = request.uri().path() == "/long";
        Response::new(if is_long { parts(usize::MAX, 64 * 1024).0 } else { parts(3, 5_000).0 })
    });
    let mut reading = JoinSet::new();
    for _ in 0..8 {
        let long = Request::get("/long").header("host", "web").body(Body::Empty).unwrap();
        let mut body = ask(&mux, long).await.unwrap().into_body();
        reading.spawn(async move { while body.frame().await.is_some() {} });
    }
    for _ in 0..20 {
        assert_eq!(read(ask(&mux, get()).await.unwrap()).await.len(), 15_000);
    }
}

#[tokio::test]
async fn long_heads_in_both_directions_do_not_wait_for_each_other() {
    let mux = client(|request: Request<Body>| async move {
        Response::builder().header("x", &request.headers()["x"]).body(Body::Empty).unwrap()
    });
    for answer in join_all((0..MAX_SHARING).map(|_| ask(&mux, with_field(60_000)))).await {
        assert_eq!(answer.unwrap().headers()["x"].len(), 60_000);
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_is_given_no_more_requests() {
    let (near, _deaf) = duplex(1024);
    let mux = Mux::new(Io::Local(near));
    let mut exchanges = Vec::new();
    while mux.has_room() {
        exchanges.push(mux.send(with_field(60_000), true).unwrap());
    }
    assert!(exchanges.len() < 20, "{} heads of 60 kB", exchanges.len());
    assert!(mux.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_keeps_no_connection_that_nobody_needs() {
    let (near, mut deaf) = duplex(1024);
    let mux = Mux::new(Io::Local(near));
    drop(mux.send(with_field(60_000), true).unwrap());
    drop(mux);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(deaf.write_all(b"x").await.is_err(), "it is still there");
}

#[tokio::test]
async fn what_a_call_failed_for_arrives_with_the_blank_at_its_end() {
    let (near, mut far) = duplex(64 * 1024);
    let mux = Mux::new(Io::Local(near));
    let mut said = HeaderMap::new();
    said.insert("grpc-message", HeaderValue::from_static("no such thing: "));
    let mut content = Vec::new();
    head::write_trailers(&said, &mut content).unwrap();
    let answer = Said::default().answer(1, false, "0").frame(Kind::Trailers, 1, true, &content);
    far.write_all(&answer.0).await.unwrap();
    let answer = ask(&mux, get()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers(), Some(&said));
}

/// HTTP/2 lets an app say as many.
#[tokio::test]
async fn two_thousand_fields_arrive_both_ways_in_their_order() {
    let mux = client(|request: Request<Body>| async move {
        let mut answer = Response::new(Body::Empty);
        *answer.headers_mut() = request.headers().clone();
        answer
    });
    let many = (0..2000).fold(Request::get("/").header("host", "web"), |request, number| {
        request.header("x", HeaderValue::from(number))
    });
    let answer = ask(&mux, many.body(Body::Empty).unwrap()).await.unwrap();
    let numbers =
        answer.headers().get_all("x").iter().map(|value| value.to_str().unwrap().parse::<i32>().unwrap());
    assert!(numbers.eq(0..2000));
}

#[tokio::test]
async fn an_answer_without_a_body_may_say_a_length_and_end_behind_its_head() {
    for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
        for (part, is_well) in [(None, true), (Some(&b""[..]), true), (Some(&b"x"[..]), false)] {
            let (near, mut far) = duplex(64 * 1024);
            let mux = Mux::new(Io::Local(near));
            let request = Request::builder().method(&method).uri("/").body(Body::Empty).unwrap();
            let exchange = mux.send(request, true).unwrap();
            let head = Response::builder().status(status).header("content-length", "1000");
            let mut content = Vec::new();
            head::write_answer(&head.body(()).unwrap().into_parts().0, &mut content).unwrap();
            let said = Said::default().frame(Kind::Head, 1, part.is_none(), &content);
            far.write_all(&said.0).await.unwrap();
            let answer = timeout(PATIENCE, exchange.answer()).await.expect("an answer").unwrap();
            if let Some(part) = part {
                far.write_all(&Said::default().frame(Kind::Data, 1, true, part).0).await.unwrap();
            }
            assert_eq!(answer.headers()["content-length"], "1000");
            let read = timeout(PATIENCE, answer.into_body().collect()).await.expect("its end");
            assert_eq!(read.is_ok(), is_well, "{method} {status} {part:?}");
        }
    }
}

#[tokio::test]
async fn frames_that_say_nothing_and_streams_out_of_turn_end_a_connection() {
    let said = Said::default;
    for (name, hostile) in [
        ("a part without a byte", said().request(1, false).frame(Kind::Data, 1, false, b"")),
        ("a window of nothing", said().request(1, false).number(Kind::Window, 1, 0)),
        ("a stream too far", said().request(2, true)),
        ("the last stream of all", said().request(u32::MAX, true)),
    ] {
        let error = hostile.ends_a_server().await;
        assert!(matches!(error, MuxError::Violation(_)), "{name}: {error:?}");
    }
}

/// An app that answers and takes nothing of what it was sent, nor refuses it.
#[tokio::test]
async fn bodies_that_nobody_takes_are_not_kept_without_end() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeping = Arc::clone(&kept);
    let (mut near, serving) = serve(move |request: Request<Body>| {
        keeping.lock().unwrap().push(request.into_body());
        async { Response::new(Body::Empty) }
    });
    let mut stream = 0;
    'asking: while stream < 10_000 {
        let mut said = Said::default();
        let mut open = BTreeSet::new();
        for _ in 0..MAX_SHARING {
            stream += 1;
            open.insert(stream);
            said = said.request(stream, false).frame(Kind::Data, stream, true, b"x");
        }
        if near.write_all(&said.0).await.is_err() {
            break;
        }
        while !open.is_empty() {
            let Some(header) = next_frame(&mut near).await else { break 'asking };
            open.remove(&header.stream);
        }
    }
    let ended = timeout(PATIENCE, serving).await.expect("the connection's end").unwrap();
    assert!(matches!(ended, Err(MuxError::Violation(_))), "{ended:?} after {stream}");
    assert!(kept.lock().unwrap().len() <= MAX_SHARING + MAX_GIVEN_UP);
}
