//! Redirect rules, listener and app together: a caller, a cable, and a pod with a real inbound half.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mesh;
#[path = "../../netfilter/tests/netns/mod.rs"]
mod netns;

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use gamut_controller_api::{InboundPolicy, MtlsMode};
use gamut_proxy::{
    config::{MAX_CONNECTIONS, PROXY_UID},
    drain::Control,
    inbound::{Inbound, Settings},
    init::{self, InitArgs},
    telemetry::{Telemetry, Workload},
};
use gamut_route::Uid;
use mesh::Authority;
use netns::{
    Netns,
    reach::{PATIENCE, answer_with_port, connect, reach},
};
use tokio::sync::oneshot;

const POD: [&str; 2] = ["10.9.0.1", "fd09::1"];

/// A pod with a permissive sidecar, and its caller. Dropping it ends the sidecar.
struct Meshed {
    pod: Arc<Netns>,
    caller: Netns,
    _stop: oneshot::Sender<()>,
}

impl Meshed {
    fn new() -> Self {
        Self::with_limit(MAX_CONNECTIONS)
    }

    /// A pod that may have so many connections of callers.
    fn with_limit(max_connections: u32) -> Self {
        let (pod, caller) = (Arc::new(Netns::new()), Netns::new());
        pod.cable("eth0", &caller, "eth0");
        for (address, prefix) in POD.into_iter().zip([24, 64]) {
            pod.address("eth0", address, prefix);
        }
        caller.address("eth0", "10.9.0.2", 24);
        caller.address("eth0", "fd09::2", 64);
        pod.run(|| {
            let args = InitArgs {
                skip_outbound_ports: Default::default(),
                skip_inbound_ports: Default::default(),
                proxy_uid: Some(PROXY_UID),
            };
            init::run(args).unwrap();
        });
        let (stop, stopped) = oneshot::channel();
        let (listening, is_listening) = mpsc::channel();
        let inside = Arc::clone(&pod);
        thread::spawn(move || {
            inside.run_as(PROXY_UID, move || sidecar(max_connections, &listening, stopped))
        });
        is_listening.recv().unwrap();
        Self { pod, caller, _stop: stop }
    }
}

/// The inbound half of a sidecar, on a runtime of its own as in a pod.
fn sidecar(max_connections: u32, listening: &mpsc::Sender<()>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let uid = Uid::of("web-0");
        let identity = Authority::new().identity("web", uid).await;
        let policy = Arc::new(InboundPolicy { mode: MtlsMode::Permissive, ports: [].into() });
        let ips = POD.map(|ip| ip.parse::<IpAddr>().unwrap()).to_vec();
        let settings = Settings { pod: uid, ips, max_connections };
        let telemetry = Telemetry::new(Workload::default());
        let control = Control::new();
        let policy = Box::new(move || Some(Arc::clone(&policy)));
        let inbound = Inbound::new(settings, identity, policy, telemetry, control.watch());
        let listener = gamut_identity::listen(SocketAddr::new("::".parse().unwrap(), 15006)).unwrap();
        tokio::spawn(async move { inbound.accept(listener).await });
        listening.send(()).unwrap();
        let _ = stopped.await;
    });
}

#[test]
fn a_caller_reaches_the_app_through_the_sidecar_in_both_families() {
    let meshed = Meshed::new();
    meshed.pod.run(|| POD.map(|ip| answer_with_port(ip, 8080)));
    for address in ["10.9.0.1:8080", "[fd09::1]:8080"] {
        assert_eq!(meshed.caller.run(|| reach(address)), Ok(8080), "{address}");
    }
}

#[test]
fn what_listens_on_localhost_stays_private() {
    let meshed = Meshed::new();
    meshed.pod.run(|| {
        answer_with_port("127.0.0.1", 8080);
        answer_with_port("::1", 8080);
    });
    assert_eq!(meshed.pod.run(|| reach("127.0.0.1:8080")), Ok(8080));
    for address in ["10.9.0.1:8080", "[fd09::1]:8080"] {
        let reached = meshed.caller.run(|| reach(address));
        assert!(matches!(reached, Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{reached:?}");
    }
}

#[test]
fn calling_the_listener_itself_loops_nowhere() {
    let meshed = Meshed::new();
    // Not even an app that listens on a port of the sidecar's range gets anything.
    meshed.pod.run(|| POD.map(|ip| answer_with_port(ip, 15005)));
    for address in
        ["10.9.0.1:15006", "10.9.0.1:15001", "10.9.0.1:15005", "[fd09::1]:15005", "[fd09::1]:15006"]
    {
        let reached = meshed.caller.run(|| reach(address));
        assert!(matches!(reached, Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{reached:?}");
    }
    // From inside the pod nothing is redirected: the listener has no original destination to go by.
    let reached = meshed.pod.run(|| reach("127.0.0.1:15006"));
    assert!(matches!(reached, Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)), "{reached:?}");
}

#[test]
fn callers_beyond_the_limit_are_reset_and_get_in_when_others_have_left() {
    const WEB: &str = "10.9.0.1:8080";
    let meshed = Meshed::with_limit(3);
    meshed.pod.run(|| answer_with_port(POD[0], 8080));
    let stays = || {
        let mut stream = connect(WEB).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        stream
    };
    let mut callers: Vec<TcpStream> = meshed.caller.run(|| (0..3).map(|_| stays()).collect());
    for _ in 0..3 {
        assert_eq!(meshed.caller.run(|| reach(WEB)), Err(ErrorKind::ConnectionReset));
    }
    // Nobody is told when the sidecar has noticed that a caller has left.
    drop(callers.pop());
    let deadline = Instant::now() + PATIENCE;
    while meshed.caller.run(|| reach(WEB)) != Ok(8080) {
        assert!(Instant::now() < deadline, "there is room, and nobody gets in");
    }
}
