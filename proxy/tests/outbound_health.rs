//! What is held against an endpoint, and what a backend is spared: ejection and limits, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{num::NonZeroU32, time::Duration};

use caller::{App, Caller, breaking, endpoint, header, post, read, reason, rule};
use gamut_controller_api::{Endpoint, Transport};
use gamut_identity::SpiffeId;
use gamut_proxy::{balance::Settings, http::Body, outbound::CONNECT_TIMEOUT};
use gamut_route::table::{Rule, Timeouts};
use http::{Response, StatusCode};
use mesh::{listen, nobody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::{Instant, timeout},
};

const WEB: &str = "shop/web:80";

/// One failure is enough.
fn strict() -> Settings {
    Settings { eject_after: NonZeroU32::new(1), ..Settings::default() }
}

/// Calls until somebody is ejected, and then a hundred times. Says how many of each failed.
async fn failures(caller: &Caller) -> (usize, usize) {
    let mut before = 0;
    while caller.endpoints(WEB).ejections() == 0 {
        before += usize::from(caller.get("/").await.0.status() != 200);
        assert!(before < 100, "nobody is ejected");
    }
    let mut after = 0;
    for _ in 0..100 {
        after += usize::from(caller.get("/").await.0.status() != 200);
    }
    (before, after)
}

fn limited(timeouts: Timeouts) -> Vec<Rule> {
    vec![Rule { timeouts, ..rule(&[(WEB, 1)]) }]
}

/// An endpoint that takes connections and never says a word on them.
async fn silent() -> (Endpoint, tokio::net::TcpListener) {
    let (listener, address) = listen().await;
    (endpoint("web-0", address), listener)
}

#[tokio::test]
async fn an_endpoint_that_breaks_its_connections_is_ejected_and_named() {
    let app = App::named("well").await;
    let (broken, taken) = breaking().await;
    let endpoints = vec![endpoint("web-0", broken), app.endpoint("web-1")];
    let caller = Caller::with_settings(strict(), Vec::new(), &[(WEB, endpoints)]).await;
    assert_eq!(failures(&caller).await, (1, 0));
    assert_eq!(taken.load(std::sync::atomic::Ordering::SeqCst), 1);
    let ejected = caller.endpoints(WEB).ejected_at(Instant::now());
    assert_eq!((ejected[0].address, ejected[0].pod.as_deref()), (broken, Some("web-0")));
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_ejected_without_a_request_lost() {
    let app = App::named("well").await;
    let endpoints = vec![endpoint("web-0", nobody()), app.endpoint("web-1")];
    let caller = Caller::with_settings(strict(), Vec::new(), &[(WEB, endpoints)]).await;
    assert_eq!(failures(&caller).await, (0, 0));
}

#[tokio::test]
async fn an_endpoint_that_answers_too_late_is_ejected_whichever_limit_says_so() {
    let limit = Some(Duration::from_secs(1));
    for timeouts in [
        Timeouts { backend_request: limit, ..Timeouts::default() },
        Timeouts { request: limit, ..Timeouts::default() },
    ] {
        let app = App::named("well").await;
        let (silent, _listener) = silent().await;
        let endpoints = vec![silent, app.endpoint("web-1")];
        let caller = Caller::with_settings(strict(), limited(timeouts), &[(WEB, endpoints)]).await;
        let (before, after) = failures(&caller).await;
        assert_eq!((before, after), (1, 0), "{timeouts:?}");
    }
}

#[tokio::test]
async fn bytes_find_out_who_takes_no_connection_too() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"welcome").await;
        }
    });
    let endpoints = vec![endpoint("web-0", nobody()), endpoint("web-1", address)];
    let caller = Caller::with_settings(strict(), Vec::new(), &[(WEB, endpoints)]).await;
    while caller.endpoints(WEB).ejections() == 0 {
        let mut connection = caller.dial().await;
        connection.write_all(b"\0 no HTTP").await.unwrap();
        let mut said = String::new();
        let _ = connection.read_to_string(&mut said).await;
        assert_eq!(said, "welcome");
    }
}

#[tokio::test]
async fn what_an_app_answers_is_never_held_against_it() {
    let failing = App::start(|_| async {
        Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Body::Empty).unwrap()
    })
    .await;
    let endpoints = vec![failing.endpoint("web-0"), failing.endpoint("web-1")];
    let caller = Caller::with_settings(strict(), Vec::new(), &[(WEB, endpoints)]).await;
    for _ in 0..20 {
        assert_eq!(caller.get("/").await.0.status(), 503);
    }
    assert_eq!(caller.endpoints(WEB).ejections(), 0);
}

#[tokio::test]
async fn what_would_be_too_much_is_turned_away_at_once_and_told_when_to_come_back() {
    let gate: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let app = App::start(move |_| {
        arrived.send(()).unwrap();
        async {
            gate.acquire().await.unwrap().forget();
            Response::new(Body::from("done".to_owned()))
        }
    })
    .await;
    let settings = Settings { max_requests: 2, ..Settings::default() };
    let caller = Caller::with_settings(settings, Vec::new(), &[(WEB, vec![app.endpoint("web-0")])]).await;
    let (one, two) = (caller.get("/"), caller.get("/"));
    let beyond = async {
        arrivals.recv().await;
        arrivals.recv().await;
        let (response, body) = caller.get("/").await;
        assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("overload")));
        assert_eq!(header(&response, "retry-after"), Some("1"));
        assert!(body.contains("gamut.mesh/max-requests"), "{body}");
        let mut grpc = post("/shop.Cart/Add", Body::Empty);
        grpc.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        let (response, _) = read(caller.send(grpc).await).await;
        assert_eq!(header(&response, "grpc-status"), Some("14"));
        gate.add_permits(3);
    };
    let ((one, _), (two, _), ()) = tokio::join!(one, two, beyond);
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
    assert_eq!(caller.get("/").await.0.status(), 200, "there is room again");
    let shed: Vec<u64> = caller.endpoints(WEB).all_shed().map(|(_, count)| count).collect();
    assert_eq!(shed, [2, 0]);
    assert_eq!(app.requests(), 3);
}

/// The network of a pod that vanished answers nothing, and kernels leave what a full queue has no room for unanswered too.
#[tokio::test]
async fn who_does_not_even_answer_a_syn_is_given_up_before_who_is_busy() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();

    let caller =
        Caller::with_settings(strict(), Vec::new(), &[(WEB, vec![endpoint("web-0", address)])]).await;
    let (response, body) = caller.get("/").await;
    assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("upstream-connect")));
    assert!(body.contains("no connection within 1.5s"), "{body}");
}

#[tokio::test]
async fn connections_that_dont_come_about_dont_pile_up() {
    let (silent, _listener) = silent().await;
    let id = SpiffeId::new("cluster.local", "shop", "web").unwrap();
    let endpoints = vec![Endpoint { transport: Transport::Mesh(id), ..silent }];
    let settings = Settings { max_connecting: 1, ..Settings::default() };
    let caller = Caller::with_settings(settings, Vec::new(), &[(WEB, endpoints)]).await;
    let stuck = async { timeout(CONNECT_TIMEOUT / 2, caller.get("/")).await.is_err() };
    let beyond = async {
        while caller.endpoints(WEB).connecting() == 0 {
            tokio::task::yield_now().await;
        }
        let (response, body) = caller.get("/").await;
        assert_eq!((response.status().as_u16(), reason(&response)), (503, Some("overload")));
        assert!(body.contains("gamut.mesh/max-connecting"), "{body}");
    };
    assert!(tokio::join!(stuck, beyond).0, "a handshake that nobody answers");
    while caller.endpoints(WEB).connecting() != 0 {
        tokio::task::yield_now().await;
    }
}
