//! Where the mesh's own processes listen on nodes that have switched IPv6 off, or keep the families apart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../netfilter/tests/netns/mod.rs"]
mod netns;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
};

use gamut_identity::listen;
use netns::Netns;

/// Listens on every address of a namespace, and calls it there.
fn answers_at(namespace: &Netns, address: &str) -> bool {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let port = listen("[::]:0".parse().unwrap())
            .map(|listener| (listener.local_addr().unwrap().port(), listener));
        let (port, _listener) = port.unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), port);
        TcpStream::connect(address).is_ok()
    })
}

fn set(namespace: &Netns, settings: &[&str]) {
    namespace.run(|| {
        settings.iter().for_each(|setting| fs::write(format!("/proc/sys/net/ipv6/{setting}"), "1").unwrap())
    });
}

#[test]
fn every_address_is_both_families_also_where_the_machine_keeps_them_apart() {
    let namespace = Netns::new();
    set(&namespace, &["bindv6only"]);
    assert!(answers_at(&namespace, "127.0.0.1"));
    assert!(answers_at(&namespace, "::1"));
}

#[test]
fn a_node_without_ipv6_is_listened_on_all_the_same() {
    let namespace = Netns::new();
    set(&namespace, &["conf/all/disable_ipv6", "conf/default/disable_ipv6", "conf/lo/disable_ipv6"]);
    assert!(answers_at(&namespace, "127.0.0.1"));
    assert!(!answers_at(&namespace, "::1"));
}
