//! The two ends with each other, and each with one that keeps to nothing.

mod pressure;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};

use super::{
    client::Mux,
    frame::{HEADER_BYTES, Header, Kind, MAX_DATA_BYTES},
    *,
};
use crate::http::{
    Body, Io,
    body::{FramePoll, Layer},
    sending::Unanswered,
    server::STREAM_WINDOW_BYTES,
};

const WINDOW: usize = STREAM_WINDOW_BYTES as usize;
/// How long anything may take before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves `answer` on one end of a pipe; the other end, and how serving ends.
fn serve<A, F>(answer: A) -> (DuplexStream, JoinHandle<Result<(), MuxError>>)
where
    A: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (near, far) = duplex(64 * 1024);
    (near, tokio::spawn(server::serve(far, true, answer, pending())))
}

fn client<A, F>(answer: A) -> Mux
where
    A: Fn(Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    Mux::new(Io::Local(serve(answer).0))
}

fn get() -> Request<Body> {
    Request::get("/").header("host", "web").body(Body::Empty).unwrap()
}

fn post(body: Body) -> Request<Body> {
    Request::post("/").header("host", "web").body(body).unwrap()
}

async fn ask(mux: &Mux, request: Request<Body>) -> Result<Response<Body>, Unanswered> {
    timeout(PATIENCE, mux.send(request, true)?.answer()).await.expect("an answer")
}

async fn read(response: Response<Body>) -> Bytes {
    let reading = response.into_body().collect();
    timeout(PATIENCE, reading).await.expect("the answer's end").unwrap().to_bytes()
}

async fn hello(_: Request<Body>) -> Response<Body> {
    Response::new(Body::from("hello".to_owned()))
}

async fn echo(request: Request<Body>) -> Response<Body> {
    Response::new(request.into_body())
}

/// A body of so many parts, of no length that is said before, with trailers; and how many were taken.
struct Parts {
    left: usize,
    part: Bytes,
    has_trailers: bool,
    taken: Arc<AtomicUsize>,
}

fn parts(left: usize, size: usize) -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let part = Bytes::from(vec![b'x'; size]);
    let body = Parts { left, part, has_trailers: true, taken: Arc::clone(&taken) };
    (Body::Guarded(Box::new(body)), taken)
}

impl Layer for Parts {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> FramePoll {
        if self.left > 0 {
            self.left -= 1;
            self.taken.fetch_add(1, Ordering::SeqCst);
            return Poll::Ready(Some(Ok(Frame::data(self.part.clone()))));
        }
        if !std::mem::take(&mut self.has_trailers) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[tokio::test]
async fn bodies_and_trailers_arrive_as_they_were_sent_both_ways_at_once() {
    let mux = client(echo);
    for (count, size) in [(1, 1), (3, 100), (5, 5000), (40, 100_000)] {
        let asking = (0..8).map(|_| async {
            let answer = ask(&mux, post(parts(count, size).0)).await.unwrap();
            timeout(PATIENCE, answer.into_body().collect()).await.expect("the answer's end").unwrap()
        });
        for body in futures_util::future::join_all(asking).await {
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            let body = body.to_bytes();
            assert!(body.len() == count * size && body.iter().all(|&byte| byte == b'x'), "{count} {size}");
        }
    }
    assert!(mux.is_idle() && mux.is_open());
}

#[tokio::test]
async fn who_does_not_read_is_sent_a_window_and_holds_up_nobody_else() {
    let (body, taken) = parts(1000, 10_000);
    let body = std::sync::Mutex::new(Some(body));
    let mux = client(move |_| {
        let body = body.lock().unwrap().take();
        async move { Response::new(body.unwrap_or_else(|| Body::from("hello".to_owned()))) }
    });
    let unread = ask(&mux, get()).await.unwrap();
    for _ in 0..200 {
        assert_eq!(read(ask(&mux, get()).await.unwrap()).await, "hello");
    }
    let ahead = taken.load(Ordering::SeqCst) * 10_000;
    assert!(ahead <= WINDOW + 20_000, "{ahead} bytes were sent");
    assert_eq!(read(unread).await.len(), 10_000_000);
}

#[tokio::test]
async fn an_answer_that_is_given_up_is_not_made_further() {
    let (body, taken) = parts(1_000_000, 1000);
    let body = std::sync::Mutex::new(Some(body));
    let mux = client(move |_| {
        let body = body.lock().unwrap().take();
        async move { Response::new(body.unwrap_or_default()) }
    });
    drop(ask(&mux, get()).await.unwrap());
    ask(&mux, get()).await.unwrap();
    let so_far = taken.load(Ordering::SeqCst);
    ask(&mux, get()).await.unwrap();
    assert_eq!(taken.load(Ordering::SeqCst), so_far);
    assert!(so_far <= WINDOW / 1000 + 1 && mux.is_idle());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_cancels_the_making_of_its_answer() {
    struct Told(Arc<Semaphore>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }
    let ended = Arc::new(Semaphore::new(0));
    let at_end = Arc::clone(&ended);
    let mux = client(move |_| {
        let told = Told(Arc::clone(&at_end));
        async move {
            let _told = told;
            pending().await
        }
    });
    let exchange = mux.send(get(), true).unwrap();
    assert!(timeout(Duration::from_millis(20), exchange.answer()).await.is_err());
    timeout(PATIENCE, ended.acquire()).await.expect("the cancellation").unwrap().forget();
    assert!(mux.is_idle() && mux.is_open());
}

#[tokio::test]
async fn an_answer_without_its_requests_body_stands_and_ends_the_sending() {
    let mux = client(hello);
    let (body, taken) = parts(1_000_000, 1000);
    assert_eq!(read(ask(&mux, post(body)).await.unwrap()).await, "hello");
    let settled = async {
        while !mux.is_idle() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, settled).await.expect("the sending's end");
    assert!(taken.load(Ordering::SeqCst) <= WINDOW / 1000 + 1);
    assert_eq!(read(ask(&mux, get()).await.unwrap()).await, "hello");
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_the_message_and_nothing_else() {
    struct Broken(bool);
    impl Layer for Broken {
        fn poll_frame(&mut self, _: &mut Context<'_>) -> FramePoll {
            if std::mem::take(&mut self.0) {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"half")))));
            }
            Poll::Ready(Some(Err(crate::http::BodyError::TimedOut)))
        }
        fn is_end_stream(&self) -> bool {
            false
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }
    let broken = || Body::Guarded(Box::new(Broken(true)));
    let mux = client(move |request: Request<Body>| async move {
        if request.method() == Method::POST {
            // The app's server would see a request that ends too early.
            assert!(request.into_body().collect().await.is_err());
        }
        Response::new(broken())
    });
    let unsent = ask(&mux, post(broken())).await;
    assert!(matches!(unsent, Err(Unanswered::Client(_))), "{unsent:?}");
    let half = ask(&mux, get()).await.unwrap();
    assert!(half.into_body().collect().await.is_err(), "an end that was none");
    assert!(mux.is_open() && mux.is_idle());
}

#[tokio::test]
async fn a_server_that_drains_answers_what_is_on_its_way_and_then_closes() {
    let (near, far) = duplex(64 * 1024);
    let (drain, draining) = tokio::sync::oneshot::channel::<()>();
    let going = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&going);
    let answer = move |_| {
        let waits = Arc::clone(&waits);
        async move {
            waits.acquire().await.unwrap().forget();
            Response::new(Body::Empty)
        }
    };
    let serving = tokio::spawn(server::serve(far, true, answer, async { drop(draining.await) }));
    let mux = Mux::new(Io::Local(near));
    let open = mux.send(get(), true).unwrap();
    tokio::task::yield_now().await;
    drain.send(()).unwrap();
    // The server has said it, and this end hasn't heard it yet.
    let late = mux.send(get(), true).unwrap();
    going.add_permits(2);
    assert!(open.answer().await.is_ok() && late.answer().await.is_ok());
    timeout(PATIENCE, serving).await.expect("the connection's end").unwrap().unwrap();
    assert!(!mux.is_open());
}

// --- ends that keep to nothing ----------------------------------------------------------------------------------------

/// Bytes as one end might send them.
#[derive(Clone, Default)]
struct Said(Vec<u8>);

impl Said {
    fn frame(mut self, kind: Kind, stream: u32, is_last: bool, content: &[u8]) -> Self {
        Header { kind, is_last, number: content.len(), stream }.write(&mut self.0);
        self.0.extend_from_slice(content);
        self
    }

    fn number(mut self, kind: Kind, stream: u32, number: usize) -> Self {
        Header::new(kind, stream, number).write(&mut self.0);
        self
    }

    fn request(self, stream: u32, is_last: bool) -> Self {
        let head = get().into_parts().0;
        let mut content = Vec::new();
        head::write_request(&head, &mut content).unwrap();
        self.frame(Kind::Head, stream, is_last, &content)
    }

    fn answer(self, stream: u32, is_last: bool, length: &'static str) -> Self {
        let head = Response::builder().header("content-length", length).body(()).unwrap().into_parts().0;
        let mut content = Vec::new();
        head::write_answer(&head, &mut content).unwrap();
        self.frame(Kind::Head, stream, is_last, &content)
    }

    /// How a server ends that hears this.
    async fn ends_a_server(&self) -> MuxError {
        let (mut near, serving) = serve(|_| pending());
        let _ = near.write_all(&self.0).await;
        timeout(PATIENCE, serving).await.expect("the connection's end").unwrap().unwrap_err()
    }

    /// What becomes of a request whose server says this.
    async fn answers_a_client(&self) -> Result<Bytes, String> {
        let (near, mut far) = duplex(1024 * 1024);
        let mux = Mux::new(Io::Local(near));
        far.write_all(&self.0).await.unwrap();
        let response = ask(&mux, get()).await.map_err(|error| format!("{error:?}"))?;
        let reading = timeout(PATIENCE, response.into_body().collect()).await.expect("the answer's end");
        reading.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }
}

/// The next frame that is said.
async fn next(near: &mut DuplexStream) -> (Header, Vec<u8>) {
    let mut header = [0; HEADER_BYTES];
    timeout(PATIENCE, near.read_exact(&mut header)).await.expect("a frame").unwrap();
    let header = Header::read(header).unwrap();
    let mut content = vec![0; header.content()];
    timeout(PATIENCE, near.read_exact(&mut content)).await.expect("its content").unwrap();
    (header, content)
}

#[tokio::test]
async fn whatever_no_client_says_ends_its_connection() {
    let said = Said::default;
    let window = vec![0; MAX_DATA_BYTES];
    let beyond = (0..5).fold(said().request(1, false), |said, _| said.frame(Kind::Data, 1, false, &window));
    let too_many = (1..=129).fold(said(), |said, stream| said.request(stream, false));
    for (name, hostile) in [
        ("no frame", Said(vec![0x7f; 64])),
        ("a request's head beyond its limit", said().number(Kind::Head, 1, 0xff_ffff)),
        ("a stream again", said().request(1, false).request(1, false)),
        ("an earlier stream", said().request(1, false).request(2, false).request(1, false)),
        ("stream 0", said().request(0, false)),
        ("more at once than there may be", too_many),
        ("a part of nothing", said().frame(Kind::Data, 1, false, b"x")),
        ("trailers of nothing", said().frame(Kind::Trailers, 7, true, b"")),
        ("a window for nothing", said().number(Kind::Window, 1, 1)),
        ("a reset of nothing", said().number(Kind::Reset, 1, 0)),
        ("a body behind its end", said().request(1, true).frame(Kind::Data, 1, false, b"x")),
        ("trailers behind the end", said().request(1, true).frame(Kind::Trailers, 1, true, b"")),
        ("more than the window", beyond),
        ("a window that grows", said().request(1, true).number(Kind::Window, 1, 1)),
        ("what servers say", said().number(Kind::Leave, 0, 0)),
    ] {
        let error = hostile.ends_a_server().await;
        assert!(matches!(error, MuxError::Violation(_)), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_none_is_reset_alone() {
    let (mut near, _serving) = serve(hello);
    let long = Request::get("/").header("content-length", "5").body(()).unwrap().into_parts().0;
    let mut content = Vec::new();
    head::write_request(&long, &mut content).unwrap();
    let said = Said::default()
        .frame(Kind::Head, 1, true, b"\0\x03G T\0\x01/")
        .frame(Kind::Head, 2, true, b"\xff\xff")
        .frame(Kind::Head, 3, true, b"")
        .frame(Kind::Head, 4, true, &content)
        .request(5, true);
    near.write_all(&said.0).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let (header, _) = next(&mut near).await;
        seen.push((header.stream, header.kind));
    }
    let resets = (1..=4).map(|stream| (stream, Kind::Reset));
    assert!(resets.into_iter().all(|reset| seen.contains(&reset)), "{seen:?}");
    assert!(seen.contains(&(5, Kind::Head)), "{seen:?}");
}

/// As CVE-2023-44487 does to HTTP/2.
#[tokio::test]
async fn rapid_resets_end_the_connection_that_does_them() {
    let rapid = (1..=4000)
        .fold(Said::default(), |said, stream| said.request(stream, true).number(Kind::Reset, stream, 0));
    // Whether the app has its answer at once or never.
    let (mut near, serving) = serve(hello);
    let _ = near.write_all(&rapid.0).await;
    let ended = timeout(PATIENCE, serving).await.expect("the connection's end").unwrap();
    assert!(matches!(ended, Err(MuxError::Violation(_))), "{ended:?}");
    assert!(matches!(rapid.ends_a_server().await, MuxError::Violation(_)));
}

/// An answer of 10,000 bytes of head.
async fn long_head(_: Request<Body>) -> Response<Body> {
    Response::builder().header("x", "y".repeat(10_000)).body(Body::Empty).unwrap()
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_and_never_reads_is_not_read_either() {
    let (mut near, _serving) = serve(long_head);
    let writing = async {
        for stream in 1.. {
            near.write_all(&Said::default().request(stream, true).number(Kind::Ping, 0, 0).0).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    // What the pipe and the limit hold is taken, and then nothing more.
    assert!(timeout(Duration::from_millis(500), writing).await.is_err());
}

#[tokio::test]
async fn whoever_reads_late_gets_every_answer() {
    let (mut near, _serving) = serve(long_head);
    for stream in 1..=200 {
        near.write_all(&Said::default().request(stream, true).0).await.unwrap();
        tokio::task::yield_now().await;
    }
    for stream in 1..=200 {
        let (header, _) = next(&mut near).await;
        assert_eq!(header.kind, Kind::Head, "answer {stream}");
    }
}

#[tokio::test]
async fn whatever_no_server_says_fails_its_requests() {
    let said = Said::default;
    assert_eq!(
        said().answer(1, false, "2").frame(Kind::Data, 1, true, b"hi").answers_a_client().await.unwrap(),
        "hi"
    );
    let window = vec![0; MAX_DATA_BYTES];
    let unread =
        (0..5).fold(said().answer(1, false, "9999999"), |said, _| said.frame(Kind::Data, 1, false, &window));
    for (name, hostile) in [
        ("no frame", Said(vec![0x7f; 64])),
        ("a second answer", said().answer(1, false, "2").answer(1, false, "2")),
        ("a body before its answer", said().frame(Kind::Data, 1, false, b"x")),
        ("an answer to nothing", said().answer(2, true, "0")),
        ("what clients say", said().number(Kind::Left, 0, 0)),
        ("more than the window", unread),
        ("a longer body than is said", said().answer(1, false, "2").frame(Kind::Data, 1, true, b"hey")),
        ("a shorter body than is said", said().answer(1, false, "2").frame(Kind::Data, 1, true, b"h")),
        ("no body where one is said", said().answer(1, true, "2")),
        ("a length that is none", said().answer(1, false, "2, 2").frame(Kind::Data, 1, true, b"hi")),
        ("an interim answer", said().frame(Kind::Head, 1, false, &100_u16.to_be_bytes())),
        ("no status", said().frame(Kind::Head, 1, true, b"\0")),
        ("trailers that are none", said().answer(1, false, "0").frame(Kind::Trailers, 1, true, b"\0\x05x")),
        ("a reset", said().answer(1, false, "2").number(Kind::Reset, 1, 2)),
    ] {
        let outcome = hostile.answers_a_client().await;
        assert!(outcome.is_err(), "{name}: {outcome:?}");
    }
}
