//! What fuzzing needs of the private parts: a question in, and DNS's answer to it.

use std::net::IpAddr;

use crate::net::dns::Zone;

/// How a zone with a Service of every kind answers a message in wire form.
#[must_use]
pub fn dns_answer(question: &[u8], udp: bool) -> Option<Vec<u8>> {
    let mut zone = Zone::default();
    let address = |last| IpAddr::from([10, 96, 0, last]);
    zone.add_service("demo", "web", vec![address(20), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 20])]);
    zone.add_service("demo", "many", (1..=100).map(address).collect());
    zone.add_pod("demo", "many", "many-0", vec![address(1)]);
    zone.add_alias("demo", "alias", "many.demo.svc.cluster.local");
    zone.add_alias("demo", "outside", "example.com");
    zone.add_alias("demo", "loop", "loop.demo.svc.cluster.local");
    zone.answer(question, udp, 1)
}
