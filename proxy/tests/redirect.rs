//! The redirect rules of a pod, seen by sockets: a pod and its neighbour, joined by a cable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../netfilter/tests/netns/mod.rs"]
mod netns;

use std::{
    fs,
    net::{SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use gamut_proxy::init::{self, InitArgs};
use netns::{
    Netns,
    reach::{answer_with_port, connect, reach},
};
use socket2::SockRef;

const PROXY_UID: u32 = 15001;

struct Neighbours {
    pod: Netns,
    neighbour: Netns,
}

impl Neighbours {
    /// The rules are in force in the pod; the neighbour answers on ports of all its addresses.
    fn new(skip_outbound: &str, skip_inbound: &str) -> Self {
        let (pod, neighbour) = (Netns::new(), Netns::new());
        pod.cable("eth0", &neighbour, "eth0");
        for (netns, v4, v6) in [(&pod, "10.9.0.1", "fd09::1"), (&neighbour, "10.9.0.2", "fd09::2")] {
            netns.address("eth0", v4, 24);
            netns.address("eth0", v6, 64);
        }
        // Where clouds have their metadata service.
        neighbour.address("eth0", "169.254.169.254", 32);
        pod.default_route("10.9.0.2");
        neighbour.run(|| {
            for port in [80, 3306, 9000, 15020, 15021] {
                answer_with_port("::", port);
            }
        });
        pod.run(|| {
            let args = InitArgs {
                skip_outbound_ports: skip_outbound.parse().unwrap(),
                skip_inbound_ports: skip_inbound.parse().unwrap(),
                proxy_uid: Some(PROXY_UID),
            };
            init::run(args).unwrap();
        });
        Self { pod, neighbour }
    }

    /// The two halves of a sidecar, in so far as they say that they were reached.
    fn with_sidecar(self) -> Self {
        self.pod.run(|| {
            answer_with_port("127.0.0.1", 15001);
            answer_with_port("::1", 15001);
            answer_with_port("::", 15006);
        });
        self
    }

    /// The app listens on all addresses.
    fn with_app(self, ports: &[u16]) -> Self {
        self.pod.run(|| ports.iter().for_each(|&port| answer_with_port("::", port)));
        self
    }
}

#[test]
fn what_the_app_dials_comes_to_outbound_with_its_destination() {
    Neighbours::new("", "").pod.run(|| {
        for (outbound, to) in [("127.0.0.1:15001", "10.9.0.2:80"), ("[::1]:15001", "[fd09::2]:80")] {
            let outbound = TcpListener::bind(outbound).unwrap();
            let _app = connect(to).unwrap();
            let (accepted, _) = outbound.accept().unwrap();
            assert_eq!(original_destination(accepted), to.parse().unwrap());
        }
    });
}

#[test]
fn what_dials_the_pod_comes_to_inbound_with_its_destination() {
    let neighbours = Neighbours::new("", "");
    let inbound = neighbours.pod.run(|| TcpListener::bind("[::]:15006").unwrap());
    for to in ["10.9.0.1:80", "[fd09::1]:80"] {
        let _caller = neighbours.neighbour.run(|| connect(to).unwrap());
        let (accepted, _) = inbound.accept().unwrap();
        assert_eq!(original_destination(accepted), to.parse().unwrap());
    }
}

fn original_destination(stream: TcpStream) -> SocketAddr {
    stream.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    let peer = stream.peer_addr().unwrap();
    gamut_proxy::tcp::original_destination(&tokio::net::TcpStream::from_std(stream).unwrap(), peer).unwrap()
}

#[test]
fn a_connection_that_was_not_redirected_has_no_other_destination() {
    let netns = Netns::new();
    netns.run(|| {
        let listener = TcpListener::bind("127.0.0.1:15001").unwrap();
        let _caller = connect("127.0.0.1:15001").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(SockRef::from(&accepted).original_dst_v4().is_err());
    });
}

#[test]
fn the_sidecars_own_connections_pass() {
    let pod = Neighbours::new("", "").with_sidecar().pod;
    for to in ["10.9.0.2:80", "[fd09::2]:80"] {
        assert_eq!(pod.run(|| reach(to)), Ok(15001), "{to} by the app");
        assert_eq!(pod.run_as(PROXY_UID, || reach(to)), Ok(80), "{to} by the sidecar");
    }
}

#[test]
fn loopback_and_the_pods_own_addresses_are_never_redirected() {
    let pod = Neighbours::new("", "").with_sidecar().with_app(&[80]).pod;
    for to in ["127.0.0.1:80", "127.1.2.3:80", "[::1]:80", "10.9.0.1:80", "[fd09::1]:80"] {
        assert_eq!(pod.run(|| reach(to)), Ok(80), "{to}");
    }
}

#[test]
fn link_local_addresses_are_never_redirected() {
    let neighbours = Neighbours::new("", "").with_sidecar();
    assert_eq!(neighbours.pod.run(|| reach("169.254.169.254:80")), Ok(80));

    let link_local = neighbours.neighbour.run(link_local_of_eth0);
    let scope = neighbours.pod.run(|| fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
    let scope = scope.lines().find(|line| line.ends_with("eth0")).unwrap().split_whitespace().nth(1).unwrap();
    let scope = u32::from_str_radix(scope, 16).unwrap();
    let to = SocketAddrV6::new(link_local, 80, 0, scope);
    assert_eq!(neighbours.pod.run(|| reach(&to.to_string())), Ok(80), "{to}");
}

fn link_local_of_eth0() -> std::net::Ipv6Addr {
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let line = table.lines().find(|line| line.starts_with("fe80") && line.ends_with("eth0")).unwrap();
    u128::from_str_radix(&line[..32], 16).unwrap().into()
}

#[test]
fn skipped_ports_pass_in_both_directions() {
    let neighbours = Neighbours::new("3306,9000-9010", "8080").with_sidecar().with_app(&[80, 8080]);
    for (to, reached) in [("10.9.0.2:3306", 3306), ("[fd09::2]:9000", 9000), ("10.9.0.2:80", 15001)] {
        assert_eq!(neighbours.pod.run(|| reach(to)), Ok(reached), "{to}");
    }
    for (to, reached) in [("10.9.0.1:8080", 8080), ("[fd09::1]:8080", 8080), ("10.9.0.1:80", 15006)] {
        assert_eq!(neighbours.neighbour.run(|| reach(to)), Ok(reached), "{to}");
    }
}

#[test]
fn metrics_and_probes_are_reached_directly_and_nothing_else_of_the_sidecars_range() {
    let neighbours = Neighbours::new("", "").with_sidecar().with_app(&[15005, 15020, 15021]);
    for port in [15020, 15021] {
        for pod in ["10.9.0.1", "[fd09::1]"] {
            assert_eq!(neighbours.neighbour.run(|| reach(&format!("{pod}:{port}"))), Ok(port));
        }
        assert_eq!(
            neighbours.pod.run(|| reach(&format!("10.9.0.2:{port}"))),
            Ok(port),
            "Prometheus in a meshed pod"
        );
    }
    assert_eq!(neighbours.neighbour.run(|| reach("10.9.0.1:15005")), Ok(15006), "no way around mTLS");
}

#[test]
fn udp_is_none_of_the_sidecars_business() {
    let neighbours = Neighbours::new("", "").with_sidecar();
    for (here, there) in [("10.9.0.1:0", "10.9.0.2:443"), ("[fd09::1]:0", "[fd09::2]:443")] {
        let server = neighbours.neighbour.run(|| UdpSocket::bind(there).unwrap());
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        neighbours.pod.run(|| UdpSocket::bind(here).unwrap().send_to(b"QUIC", there).unwrap());
        assert_eq!(server.recv(&mut [0; 8]).unwrap(), 4, "{there}");
    }
}

#[test]
fn rules_written_again_replace_the_old_ones() {
    let pod = Neighbours::new("80", "").with_sidecar().pod;
    assert_eq!(pod.run(|| reach("10.9.0.2:80")), Ok(80));
    let args = InitArgs {
        skip_outbound_ports: Default::default(),
        skip_inbound_ports: Default::default(),
        proxy_uid: Some(PROXY_UID),
    };
    pod.run(|| init::run(args).unwrap());
    assert_eq!(pod.run(|| reach("10.9.0.2:80")), Ok(15001));
}

#[test]
fn where_nobody_says_who_the_sidecar_is_nothing_is_redirected() {
    let (machine, neighbour) = (Netns::new(), Netns::new());
    machine.cable("eth0", &neighbour, "eth0");
    machine.address("eth0", "10.9.0.1", 24);
    neighbour.address("eth0", "10.9.0.2", 24);
    neighbour.run(|| answer_with_port("::", 80));
    let args = InitArgs {
        skip_outbound_ports: Default::default(),
        skip_inbound_ports: Default::default(),
        proxy_uid: None,
    };
    let refused = machine.run(|| init::run(args)).unwrap_err().to_string();
    assert!(refused.contains("GAMUT_PROXY_UID") && refused.contains("nothing was changed"), "{refused}");
    assert_eq!(machine.run(|| reach("10.9.0.2:80")), Ok(80));
}

#[test]
fn a_pod_without_root_cannot_change_its_rules() {
    let pod = Neighbours::new("", "").pod;
    // The sidecar's own rights: its uid, and no capability.
    let refused = pod.run(|| {
        thread::spawn(|| {
            rustix::thread::set_capabilities(
                None,
                rustix::thread::CapabilitySets {
                    effective: rustix::thread::CapabilitySet::empty(),
                    permitted: rustix::thread::CapabilitySet::empty(),
                    inheritable: rustix::thread::CapabilitySet::empty(),
                },
            )
            .unwrap();
            gamut_netfilter::delete(init::TABLE)
        })
        .join()
        .unwrap()
    });
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("NET_ADMIN"), "{text}");
}
