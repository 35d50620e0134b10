//! The way of a change, end to end: a saved file, a real controller, mutual TLS with certificates of a real CA, and the
//! tables that a sidecar obeys.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod plane;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::Duration,
};

use gamut_controller_api::{
    Key,
    proto::{self, controller_client::ControllerClient, from_proxy::Message},
};
use gamut_identity::{Identity, grpc};
use gamut_proxy::{
    admin::{Background, ProxyStatus, Shown},
    drain,
    record::{self, Hub},
    tables::{Destination, NoAnswer, SubscriptionState},
    telemetry::Workload,
};
use gamut_route::{RouteTable, ServicePort, Uid};
use plane::{PATIENCE, Plane, RunningController, Sidecar, WEB, endpoints, get, route, service, system, uid};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

/// `web` with versions v1 and v2, of which v1 gets everything; a controller, and a client's sidecar.
async fn canary() -> (Plane, RunningController, Sidecar) {
    let plane = Plane::new().await;
    for (name, ip) in [("web", "10.96.0.1"), ("web-v1", "10.96.0.2"), ("web-v2", "10.96.0.3")] {
        plane.apply(&service(name, ip));
    }
    plane.apply(&endpoints("web-v1", 1, 2));
    plane.apply(&endpoints("web-v2", 2, 1));
    plane.apply(&route(&[("web-v1", 1)]));
    let controller = plane.controller(None).await;
    let sidecar = plane.sidecar("shop", "client-0", controller.address).await;
    assert!(timeout(PATIENCE, sidecar.tables.until_loaded()).await.expect("it is never loaded"));
    (plane, controller, sidecar)
}

/// The weights of the table's first rule.
fn weights(table: &RouteTable) -> Vec<u32> {
    match table.http.rules.first().map(|rule| &rule.outcome) {
        Some(gamut_route::table::Outcome::Forward(split)) => {
            split.backends.iter().map(|backend| backend.weight).collect()
        }
        _ => Vec::new(),
    }
}

fn unknown_address() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

#[tokio::test]
async fn a_saved_file_becomes_the_table_in_force() {
    let (plane, controller, sidecar) = canary().await;
    assert_eq!(sidecar.table().map(|table| weights(&table)), Some(vec![1]), "its own namespace is loaded");
    assert!(sidecar.tables.policy().is_some());

    plane.apply(&route(&[("web-v1", 9), ("web-v2", 1)]));
    sidecar.until_table(|table| weights(table) == [9, 1]).await;

    let status = controller.status().await;
    assert_eq!(status.subscribers.len(), 1);
    assert_eq!(status.subscribers[0].pod, "client-0");
    assert!(status.subscribers[0].refused.is_empty(), "{status:?}");
    controller.stop().await;
}

#[tokio::test]
async fn a_shift_waits_for_the_endpoints_of_a_new_service_and_so_does_who_waits_for_the_shift() {
    let (plane, controller, sidecar) = canary().await;
    let is_behind = async || controller.status().await.subscribers.iter().any(|one| !one.in_sync);
    plane.apply(&service("web-v3", "10.96.0.4"));
    plane.apply(&route(&[("web-v3", 3)]));
    timeout(PATIENCE, async { while !is_behind().await {} }).await.expect("the shift is never sent");
    assert_eq!(sidecar.table().map(|table| weights(&table)), Some(vec![1]), "it leads nowhere yet");
    plane.apply(&endpoints("web-v3", 3, 1));
    sidecar.until_table(|table| weights(table) == [3]).await;
    timeout(PATIENCE, async { while is_behind().await {} }).await.expect("it is never acknowledged");

    plane.apply(&service("web-v4", "10.96.0.5"));
    plane.apply(&route(&[("web-v4", 4)]));
    timeout(PATIENCE, async { while !is_behind().await {} }).await.expect("the shift is never sent");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    sidecar.until_table(|table| weights(table) == [4]).await;
    controller.stop().await;
}

#[tokio::test]
async fn an_address_is_answered_on_first_use() {
    let (_plane, controller, sidecar) = canary().await;
    assert!(sidecar.tables.get(unknown_address()).is_none());
    let answer = sidecar.tables.resolve(unknown_address()).await.unwrap();
    assert!(matches!(answer, Destination::NotOurs));
    assert!(sidecar.tables.get(unknown_address()).is_some());
    controller.stop().await;
}

#[tokio::test]
async fn without_the_controller_everything_known_stays_and_changes_arrive_when_it_is_back() {
    let (plane, controller, sidecar) = canary().await;
    let address = controller.address;
    controller.stop().await;
    assert_eq!(sidecar.table().map(|table| weights(&table)), Some(vec![1]));

    // What nobody knows can't be guessed: after a bounded wait the answer is none.
    tokio::time::pause();
    let none = sidecar.tables.resolve(unknown_address()).await;
    tokio::time::resume();
    assert!(matches!(none, Err(NoAnswer::ControllerAway { .. })), "{none:?}");
    let status = sidecar.tables.status().await.unwrap();
    assert!(matches!(status.controller, SubscriptionState::Away { .. }), "{:?}", status.controller);

    plane.apply(&route(&[("web-v1", 7)]));
    let controller = plane.controller(Some(address)).await;
    sidecar.until_table(|table| weights(table) == [7]).await;
    let status = sidecar.tables.status().await.unwrap();
    assert!(matches!(status.controller, SubscriptionState::Connected { .. }), "{:?}", status.controller);
    controller.stop().await;
}

#[tokio::test]
async fn a_first_use_while_the_connection_comes_about_isnt_lost() {
    let (plane, controller, _sidecar) = canary().await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = plane.sidecar("shop", "client-1", slow.local_addr().unwrap()).await;
    // The sidecar has said Hello into a connection that goes no further yet.
    let (mut held_up, _) = slow.accept().await.unwrap();
    let tables = sidecar.tables.clone();
    let asking = tokio::spawn(async move { tables.resolve(unknown_address()).await });
    until_asked(&sidecar, unknown_address()).await;

    let mut onward = TcpStream::connect(controller.address).await.unwrap();
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut held_up, &mut onward).await });
    let answer = asking.await.unwrap().unwrap();
    assert!(matches!(answer, Destination::NotOurs));
    drop(sidecar);
    controller.stop().await;
}

/// Waits until the subscription wants an address.
async fn until_asked(sidecar: &Sidecar, address: SocketAddr) {
    let key = Key::Address(address).to_string();
    while !sidecar.tables.status().await.unwrap().tables.iter().any(|table| table.key == key) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_large_delivery_comes_in_several_messages_and_is_applied_as_one() {
    let (plane, controller, sidecar) = canary().await;
    plane.apply(&endpoints("web-v1", 1, 40_000));
    plane.apply(&endpoints("web-v2", 2, 40_000));
    plane.apply(&route(&[("web-v1", 1), ("web-v2", 1)]));
    sidecar.until_table(|table| weights(table) == [1, 1]).await;
    let mut applied = sidecar.tables.applied();
    while large_sets(&sidecar).await < 2 {
        applied.changed().await.unwrap();
    }

    let newcomer = plane.sidecar("shop", "client-1", controller.address).await;
    assert!(newcomer.tables.until_loaded().await);
    assert_eq!(large_sets(&newcomer).await, 2);

    let identity = plane.identity("shop", "client-2").await;
    let mut client = subscribe(&identity, controller.address, hello("shop", "client-2", &[])).await;
    let web = Key::Address(WEB.parse().unwrap());
    client.want(&web);
    let stream = client.hears.as_mut().unwrap();
    let mut shape = Vec::new();
    while shape.last().is_none_or(|(delivery, more)| *delivery == 1 || *more) {
        let message = stream.message().await.unwrap().unwrap();
        shape.push((message.delivery, message.more));
    }
    assert_eq!(shape[0], (1, false));
    let (last, others) = shape[1..].split_last().unwrap();
    assert_eq!(*last, (2, false));
    assert!(!others.is_empty() && others.iter().all(|part| *part == (2, true)), "{shape:?}");
    drop(client);
    controller.stop().await;
}

/// How many backends of many endpoints the sidecar has.
async fn large_sets(sidecar: &Sidecar) -> usize {
    let dump = sidecar.tables.dump().await.unwrap();
    dump.endpoints.iter().filter(|set| set.endpoints.len() == 40_000).count()
}

/// Serves a sidecar's pages: where the admin port is, and where the metrics are.
async fn pages(sidecar: &Sidecar, background: &Background) -> (SocketAddr, SocketAddr) {
    let shown = Shown {
        identity: sidecar.identity.clone(),
        tables: sidecar.tables.clone(),
        telemetry: sidecar.telemetry.clone(),
        taps: Hub::new(record::Settings::default(), &Workload::default()).unwrap().1,
        drain: drain::Control::new().notice(),
    };
    let any = "127.0.0.1:0".parse().unwrap();
    background.serve(shown, any, any).await.unwrap()
}

#[tokio::test]
async fn the_pages_of_a_sidecar_say_how_it_stands() {
    let (_plane, controller, sidecar) = canary().await;
    let background = Background::start().unwrap();
    let (admin, metrics) = pages(&sidecar, &background).await;

    assert_eq!(get(admin, "/ready").await, (200, "ready\n".to_owned()));
    let (_, status) = get(admin, "/status").await;
    let status: ProxyStatus = serde_json::from_str(&status).unwrap();
    assert_eq!(status.identity, "spiffe://cluster.local/ns/shop/sa/default");
    assert!(status.certificate.is_some_and(|certificate| certificate.not_after > certificate.not_before));
    assert!(status.tables.iter().any(|table| table.key == "RouteTable shop/web:80 for shop"));
    assert!(status.backends.iter().any(|backend| backend.backend == "service/shop/web-v1:80"));

    let (code, _) = get(metrics, "/tap").await;
    assert_eq!(code, 404, "requests are nobody's business but the pod's");

    let (_, dump) = get(admin, "/config_dump").await;
    assert!(dump.contains("\"httproute/shop/web\""), "{dump}");
    let (_, page) = get(metrics, "/metrics").await;
    assert!(page.contains("\ngamut_controller_connected 1\n"), "{page}");
    assert_eq!(get(metrics, "/status").await.0, 404, "the metrics port is open to the cluster");
    controller.stop().await;
}

#[tokio::test]
async fn metrics_are_scraped_while_the_thread_of_the_data_path_is_blocked() {
    let (plane, controller, _) = canary().await;
    let background = Background::start().unwrap();
    let sidecar = plane.sidecar_on(&background, "shop", "client-1", controller.address).await;
    assert!(timeout(PATIENCE, sidecar.tables.until_loaded()).await.expect("it is never loaded"));
    let (_, metrics) = pages(&sidecar, &background).await;

    // This thread is all that the test's runtime has: from here until the page has come nothing else of it runs.
    let mut scraper = std::net::TcpStream::connect(metrics).unwrap();
    scraper.set_read_timeout(Some(PATIENCE)).unwrap();
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    scraper.read_to_string(&mut page).expect("nobody answers");
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("\ngamut_controller_connected 1\n"), "{page}");
    assert!(page.contains("\ngamut_tables{state=\"active\"} "), "{page}");
    controller.stop().await;
}

/// A client that says what it is told to say.
struct Client {
    says: mpsc::UnboundedSender<proto::FromProxy>,
    hears: Result<Streaming<proto::FromController>, Status>,
}

impl Client {
    fn want(&self, key: &Key) {
        let interest = proto::Interest { subscribe: vec![key.into()], unsubscribe: Vec::new(), number: 1 };
        self.says.send(proto::FromProxy { message: Some(Message::Interest(interest)) }).unwrap();
    }
}

/// Subscribes as somebody, with an identity that may be another's.
async fn subscribe(identity: &Identity, controller: SocketAddr, first: Message) -> Client {
    let config = identity.client_config_to(&system("gamut-controller"), grpc::ALPN).unwrap();
    let endpoint = grpc::endpoint(&controller.to_string()).unwrap();
    let mut client = ControllerClient::new(grpc::connect(endpoint, config).await.unwrap());
    let (says, messages) = mpsc::unbounded_channel();
    says.send(proto::FromProxy { message: Some(first) }).unwrap();
    let hears = client.subscribe(UnboundedReceiverStream::new(messages)).await;
    Client { says, hears: hears.map(tonic::Response::into_inner) }
}

fn hello(namespace: &str, pod: &str, held: &[Key]) -> Message {
    let held = held.iter().map(|key| proto::Held { key: Some(key.into()), version: vec![0; 16] });
    Message::Hello(proto::Hello {
        pod_uid: uid(pod),
        namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        proxy_version: "test".to_owned(),
        held: held.collect(),
    })
}

mod denied {
    //! What a sidecar may not do.

    use super::*;

    fn banks_table() -> Key {
        Key::RouteTable { client_namespace: "bank".to_owned(), service: ServicePort::new("shop", "web", 80) }
    }

    /// The code that a subscription is refused with.
    async fn refusal(client: Client) -> (Code, String) {
        let ended = async {
            let mut stream = client.hears?;
            while stream.message().await?.is_some() {}
            Ok(())
        };
        let status: Result<(), Status> = timeout(PATIENCE, ended).await.expect("it is served");
        let status = status.expect_err("it ends without a word");
        (status.code(), status.message().to_owned())
    }

    #[tokio::test]
    async fn nobody_subscribes_as_another_pod_or_namespace() {
        let (plane, controller, _sidecar) = canary().await;
        let identity = plane.identity("shop", "mallory").await;
        for first in [hello("shop", "client-0", &[]), hello("bank", "mallory", &[])] {
            let (code, message) = refusal(subscribe(&identity, controller.address, first).await).await;
            assert_eq!(code, Code::PermissionDenied, "{message}");
        }
        controller.stop().await;
    }

    #[tokio::test]
    async fn nobody_reads_what_is_anothers_neither_at_first_nor_later() {
        let (plane, controller, _sidecar) = canary().await;
        let identity = plane.identity("shop", "mallory").await;
        for key in [banks_table(), Key::InboundPolicy(Uid::of("client-0"))] {
            let first = hello("shop", "mallory", std::slice::from_ref(&key));
            let (code, message) = refusal(subscribe(&identity, controller.address, first).await).await;
            assert_eq!(code, Code::PermissionDenied, "{message}");
            assert!(message.contains(&key.to_string()), "{message}");

            let liar = subscribe(&identity, controller.address, hello("shop", "mallory", &[])).await;
            liar.want(&key);
            let (code, message) = refusal(liar).await;
            assert_eq!(code, Code::PermissionDenied, "{message}");
        }
        controller.stop().await;
    }

    #[tokio::test]
    async fn who_doesnt_say_hello_first_isnt_served() {
        let (plane, controller, _sidecar) = canary().await;
        let identity = plane.identity("shop", "mallory").await;
        let first = Message::Ack(proto::Ack { delivery: 1 });
        let (code, _) = refusal(subscribe(&identity, controller.address, first).await).await;
        assert_eq!(code, Code::InvalidArgument);
        controller.stop().await;
    }
}
