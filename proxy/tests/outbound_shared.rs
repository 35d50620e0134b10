//! Requests of HTTP/1.1 apps that share one connection between their sidecars: apps see what they would see without.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use caller::{App, Caller, endpoint, get, header, post, read, reason, table};
use gamut_controller_api::{Endpoint, MtlsMode, Transport};
use gamut_identity::SpiffeId;
use gamut_proxy::http::{Body, mux::MAX_SHARING};
use http::{Request, Response};
use http_body_util::BodyExt;
use mesh::{LOCALHOST, Pod, listen, read_head, read_rest, say};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// The way from a calling app to another in the pod behind.
struct Way {
    pod: Pod,
    caller: Caller,
    entrance: Entrance,
}

/// Where connections to a pod come in, as the redirect would lead them.
struct Entrance {
    accepted: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(app: SocketAddr) -> Self {
        let pod = Pod::new(MtlsMode::Strict).await;
        let (entrance, address) = Entrance::of(&pod, app).await;
        let endpoints = [("shop/web:80", vec![meshed(address, &pod)])];
        let (identity, uid) = (pod.caller.clone(), gamut_route::Uid::of("client-0"));
        let caller = Caller::as_identity(identity, uid, table(Vec::new()), &endpoints).await;
        Self { pod, caller, entrance }
    }

    /// How many connections there were between the sidecars.
    fn connections(&self) -> usize {
        self.entrance.accepted.load(Ordering::SeqCst)
    }

    /// Says a request on a connection of its own, and reads until the other side closes.
    async fn ask(&self, request: &str) -> String {
        let mut client = self.caller.dial().await;
        say(&mut client, request).await;
        read_rest(&mut client).await
    }
}

impl Entrance {
    async fn of(pod: &Pod, app: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (inbound, counted) = (pod.inbound.clone(), accepted.clone());
        let task = tokio::spawn(async move {
            // Dropped with the task, as if the sidecar were killed.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let inbound = inbound.clone();
                connections.spawn(async move { inbound.serve(stream, app).await });
            }
        });
        (Self { accepted, task }, address)
    }
}

fn meshed(address: SocketAddr, pod: &Pod) -> Endpoint {
    let mut endpoint = endpoint("web-0", address);
    endpoint.transport = Transport::Mesh(SpiffeId::new("cluster.local", "shop", "web").unwrap());
    endpoint.pod.as_mut().unwrap().uid = pod.uid;
    endpoint
}

/// An app that says `answer` to the first request of each connection, byte for byte, and how it read the request's head.
async fn scripted(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (listener, address) = listen().await;
    let (sender, heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                sender.send(read_head(&mut stream).await).unwrap();
                say(&mut stream, answer).await;
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn requests_at_the_same_time_share_one_connection() {
    let all_there = Arc::new(Semaphore::new(0));
    let (going, waiting) = (all_there.clone(), Arc::new(AtomicUsize::new(0)));
    let app = App::start(move |_| {
        let (going, waiting) = (going.clone(), waiting.clone());
        async move {
            if waiting.fetch_add(1, Ordering::SeqCst) == 39 {
                going.add_permits(40);
            }
            going.acquire().await.unwrap().forget();
            Response::new(Body::from("together".to_owned()))
        }
    })
    .await;
    let way = Way::to(app.address).await;
    let answers = futures_util::future::join_all((0..40).map(|_| way.caller.get("/"))).await;
    assert!(answers.iter().all(|(_, body)| body == "together"));
    assert_eq!(way.connections(), 1);
}

#[tokio::test]
async fn more_than_a_connection_carries_open_another_and_none_waits_for_an_answer() {
    let requests = MAX_SHARING + 10;
    let all_there = Arc::new(tokio::sync::Barrier::new(requests));
    let app = App::start(move |_| {
        let all_there = all_there.clone();
        async move {
            all_there.wait().await;
            Response::new(Body::Empty)
        }
    })
    .await;
    let way = Way::to(app.address).await;
    let answers = futures_util::future::join_all((0..requests).map(|_| way.caller.get("/"))).await;
    assert!(answers.iter().all(|(answer, _)| answer.status() == 200));
    assert_eq!(way.connections(), 2);
}

#[tokio::test]
async fn the_app_reads_the_request_as_it_was_said() {
    let (address, mut heads) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let way = Way::to(address).await;
    for (said, read) in [
        (
            "GET /a%20b?x=%2F&y HTTP/1.1\r\nHost: Web.Shop:8080\r\nX-Two: 1\r\nX-Two: 2\r\nConnection: close\r\n\r\n",
            "GET /a%20b?x=%2F&y HTTP/1.1\r\nhost: Web.Shop:8080\r\nx-two: 1\r\nx-two: 2\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\nte: trailers\r\n\r\n",
        ),
        // Without a host, what was dialled stands in.
        ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nhost: 10.96.0.7:80\r\n\r\n"),
        (
            "OPTIONS * HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nhost: web\r\n\r\n",
        ),
    ] {
        let answer = way.ask(said).await;
        assert!(answer.contains(" 200 OK\r\n"), "{answer}");
        assert_eq!(heads.recv().await.unwrap(), read);
    }
    assert_eq!(way.connections(), 1);
}

#[tokio::test]
async fn the_caller_reads_the_answer_as_it_was_said() {
    for (said, read) in [
        ("HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "HTTP/1.1 204 No Content\r\nx-a: 1\r\n"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\nto the end", "HTTP/1.1 200 OK\r\n"),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: chat/2\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 426 Upgrade Required\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nGamut-Proxy-Upgrade: x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
    ] {
        let (address, _heads) = scripted(said).await;
        let way = Way::to(address).await;
        let answer = way.ask("GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with(read), "{answer}");
        assert_eq!(answer.contains("\r\nupgrade: chat/2\r\n"), said.contains(" 426 "), "{answer}");
        assert!(!answer.contains("gamut-"), "{answer}");
        let body = said.split_once("\r\n\r\n").unwrap().1;
        assert!(body.is_empty() || answer.contains(body), "{answer}");
    }
}

#[tokio::test]
async fn a_head_request_is_told_the_length_and_gets_no_body() {
    let (address, _heads) = scripted("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    let way = Way::to(address).await;
    let answer = way.ask("HEAD / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("\r\ncontent-length: 1000\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let app = App::start(|request: Request<Body>| async move {
        let body = request.into_body().collect().await.unwrap();
        Response::builder().header("sum", &body.trailers().unwrap()["x-sum"]).body(Body::Empty).unwrap()
    })
    .await;
    let way = Way::to(app.address).await;
    let answer = way
        .ask(
            "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nConnection: close\r\n\r\n\
             2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
        )
        .await;
    assert!(answer.contains("\r\nsum: 7\r\n"), "{answer}");

    let (address, _heads) = scripted(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let way = Way::to(address).await;
    let answer =
        way.ask("GET / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: close, te\r\n\r\n").await;
    assert!(answer.ends_with("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn whoever_waits_for_100_continue_gets_it_from_the_app() {
    let (listener, address) = listen().await;
    let way = Way::to(address).await;
    let mut client = way.caller.dial().await;
    say(&mut client, "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .await;
    let (mut app, _) = listener.accept().await.unwrap();
    let head = read_head(&mut app).await;
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    say(&mut app, "HTTP/1.1 100 Continue\r\n\r\n").await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 100 "));
    say(&mut client, "body").await;
    let mut body = [0; 4];
    app.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"body");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_bodys_end_lets_the_upload_go_on() {
    let (listener, address) = listen().await;
    let way = Way::to(address).await;
    let mut client = way.caller.dial().await;
    say(&mut client, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhello").await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
    assert!(read_head(&mut client).await.starts_with("HTTP/1.1 200 "));
    say(&mut client, "world").await;
    let mut body = [0; 10];
    app.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"helloworld");
    say(&mut app, "0\r\n\r\n").await;
    let mut rest = [0; 12];
    client.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"2\r\nhi\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_off_the_app_and_nobody_elses() {
    let (listener, address) = listen().await;
    let way = Way::to(address).await;
    let mut leaving = way.caller.dial().await;
    say(&mut leaving, "GET /leaving HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let (mut left, _) = listener.accept().await.unwrap();
    read_head(&mut left).await;
    let mut staying = way.caller.dial().await;
    say(&mut staying, "GET /staying HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let (mut kept, _) = listener.accept().await.unwrap();
    read_head(&mut kept).await;
    drop(leaving);
    assert_eq!(left.read(&mut [0]).await.unwrap_or(0), 0, "the app learns that nobody waits");
    say(&mut kept, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(read_head(&mut staying).await.starts_with("HTTP/1.1 204 "));
    assert_eq!(way.connections(), 1);
}

#[tokio::test]
async fn what_is_no_answer_fails_its_own_request_and_no_other_of_the_connection() {
    let (listener, address) = listen().await;
    let way = Way::to(address).await;
    let mut other = way.caller.dial().await;
    say(&mut other, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let (mut waiting, _) = listener.accept().await.unwrap();
    read_head(&mut waiting).await;
    for said in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut client = way.caller.dial().await;
        say(&mut client, "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").await;
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        say(&mut app, said).await;
        let answer = read_rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("app-reset"), "{said}: {answer}");
    }
    // An answer that breaks off in its middle is broken off for the caller.
    let mut client = way.caller.dial().await;
    say(&mut client, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let (mut app, _) = listener.accept().await.unwrap();
    read_head(&mut app).await;
    say(&mut app, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await;
    drop(app);
    let cut = read_rest(&mut client).await;
    assert!(cut.ends_with("hello"), "{cut}");

    say(&mut waiting, "HTTP/1.1 204 No Content\r\n\r\n").await;
    assert!(read_head(&mut other).await.starts_with("HTTP/1.1 204 "));
    assert_eq!(way.connections(), 1);
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else() {
    let app = App::start(|request: Request<Body>| async move {
        let length = if request.uri().path() == "/large" { 4_000_000 } else { 2 };
        Response::new(Body::from("x".repeat(length)))
    })
    .await;
    let way = Way::to(app.address).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut client = way.caller.dial().await;
        say(&mut client, "GET /large HTTP/1.1\r\nHost: web\r\n\r\n").await;
        read_head(&mut client).await;
        stuck.push(client);
    }
    for _ in 0..20 {
        let answer = tokio::time::timeout(Duration::from_secs(20), way.caller.get("/small")).await;
        assert_eq!(answer.expect("an answer beside the stuck ones").1, "xx");
    }
    assert_eq!(way.connections(), 1);
    // And nothing of theirs is lost.
    let mut client = stuck.pop().unwrap();
    let mut body = vec![0; 4_000_000];
    client.read_exact(&mut body).await.unwrap();
}

#[tokio::test]
async fn uploads_to_an_app_that_does_not_read_hold_up_nobody_else() {
    let (listener, address) = listen().await;
    let way = Way::to(address).await;
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let mut client = way.caller.dial().await;
        say(&mut client, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 100000000\r\n\r\n").await;
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        let uploading = tokio::spawn(async move {
            let part = vec![0; 64 * 1024];
            while client.write_all(&part).await.is_ok() {}
        });
        stuck.push((app, uploading));
    }
    for _ in 0..20 {
        let mut client = way.caller.dial().await;
        say(&mut client, "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello").await;
        let (mut app, _) = listener.accept().await.unwrap();
        read_head(&mut app).await;
        let mut body = [0; 5];
        app.read_exact(&mut body).await.unwrap();
        say(&mut app, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert!(read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
    }
    assert_eq!(way.connections(), 1);
    stuck.iter().for_each(|(_, uploading)| uploading.abort());
}

#[tokio::test]
async fn a_sidecar_that_dies_under_a_request_costs_idempotent_ones_nothing_and_is_told_to_others() {
    let (listener, address) = listen().await;
    let mut way = Way::to(address).await;
    let serve = |mut app: TcpStream| async move {
        read_head(&mut app).await;
        say(&mut app, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
    };
    let (answer, ()) = tokio::join!(way.caller.get("/"), async {
        serve(listener.accept().await.unwrap().0).await;
    });
    assert_eq!(answer.1, "ok");

    for (request, idempotent) in [(get("/"), true), (post("/", "x".to_owned()), false)] {
        // Another sidecar takes the place of the one that dies.
        let (entrance, next) = Entrance::of(&way.pod, address).await;
        let sending = way.caller.send(request);
        let dying = async {
            let (mut unanswered, _) = listener.accept().await.unwrap();
            read_head(&mut unanswered).await;
            way.caller.update("shop/web:80", &[meshed(next, &way.pod)]);
            way.entrance.task.abort();
            if idempotent {
                serve(listener.accept().await.unwrap().0).await;
            }
        };
        let (answer, ()) = tokio::join!(sending, dying);
        let (answer, _) = read(answer).await;
        if idempotent {
            assert_eq!(answer.status(), 200);
        } else {
            assert_eq!((answer.status().as_u16(), reason(&answer)), (502, Some("upstream-reset")));
        }
        way.entrance = entrance;
        assert_eq!(header(&answer, "gamut-proxy-answer"), None);
    }
}

#[tokio::test]
async fn callers_that_come_and_go_by_hundreds_open_no_more_connections_than_they_need() {
    let app = App::named("web").await;
    let way = Way::to(app.address).await;
    for _ in 0..5 {
        let mut callers = tokio::task::JoinSet::new();
        let all_done = Arc::new(tokio::sync::Barrier::new(2 * MAX_SHARING));
        for _ in 0..2 * MAX_SHARING {
            let all_done = all_done.clone();
            let mut client = way.caller.dial().await;
            callers.spawn(async move {
                for _ in 0..20 {
                    say(&mut client, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
                    read_head(&mut client).await;
                    client.read_exact(&mut [0; 3]).await.unwrap();
                }
                // All at once, and gone before they are answered.
                all_done.wait().await;
                say(&mut client, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
            });
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    }
    let connections = way.connections();
    assert!(connections <= 4, "{connections} connections");
}
