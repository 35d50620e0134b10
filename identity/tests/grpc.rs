//! The server side of gRPC: who gets in, as whom, and that nobody's dawdling is anybody else's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{CLIENT, Mesh, WEB, id};
use gamut_identity::{Peer, explain, grpc, server_name};
use gamut_route::Uid;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

#[tokio::test]
async fn a_caller_is_known_by_its_certificate_and_waits_for_no_dawdler() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.identity("client", CLIENT).await, mesh.identity("web", WEB).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut incoming = Box::pin(grpc::incoming(listener, move || server.server_config(grpc::ALPN)));

    // One says nothing, one says something else: neither is ever handed out.
    let _dawdler = TcpStream::connect(address).await.unwrap();
    let stranger = TcpStream::connect(address).await.unwrap();
    stranger.writable().await.unwrap();
    stranger.try_write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let from = stream.local_addr().unwrap();
    let connector = TlsConnector::from(client.client_config(grpc::ALPN).unwrap());
    let (connected, accepted) =
        tokio::join!(connector.connect(server_name(Uid::of(WEB)), stream), incoming.next());
    connected.unwrap();
    let caller = accepted.unwrap().unwrap().connect_info();
    assert_eq!(caller.address, from);
    assert_eq!(caller.peer, Some(Peer { id: id("client"), pod: Some(Uid::of(CLIENT)) }));
}

/// A cluster IP leads to a replica that has gone until kube-proxy knows it: for as long as one socket tries, it is led there.
#[tokio::test(start_paused = true)]
async fn who_does_not_even_answer_a_syn_is_not_waited_for_as_long_as_who_is_busy() {
    let mesh = Mesh::new();
    let client = mesh.identity("client", CLIENT).await;
    // A queue for one connection, and it is full: the kernel passes over what comes.
    let listener = TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = TcpStream::connect(address).await.unwrap();

    let begun = Instant::now();
    let endpoint = grpc::endpoint(&address.to_string()).unwrap();
    let failed = grpc::connect(endpoint, client.client_config(grpc::ALPN).unwrap()).await.unwrap_err();
    assert!(explain(&failed).contains("doesn't answer"), "{}", explain(&failed));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn an_address_is_a_host_and_a_port() {
    for address in ["gamut-ca.gamut-system.svc:15010", "127.0.0.1:1", "[::1]:15010"] {
        assert!(grpc::endpoint(address).is_ok(), "{address}");
    }
    for address in
        ["", "host", "host:", ":1", "host:0x1", "host:99999", "http://host:1", "host:1/path", "a b:1"]
    {
        assert!(grpc::endpoint(address).is_err(), "{address}");
    }
}
