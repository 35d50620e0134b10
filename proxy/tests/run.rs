//! A whole sidecar, started and stopped as in a pod, in a namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../netfilter/tests/netns/mod.rs"]
mod netns;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use gamut_proxy::{
    ProxyArgs,
    config::PROXY_UID,
    drain,
    init::{self, InitArgs},
};
use netns::Netns;
use nix::{
    sys::signal::{Signal, kill},
    unistd::getpid,
};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    proxy: ProxyArgs,
}

/// A pod whose CA and controller can't be reached.
fn args() -> ProxyArgs {
    let command = Command::parse_from([
        "proxy",
        "--pod-name=web-0",
        "--pod-namespace=shop",
        "--pod-uid=0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10",
        "--pod-ips=10.9.0.1",
        "--service-account=web",
        "--ca-address=127.0.0.1:15010",
        "--controller-address=127.0.0.1:15012",
    ]);
    command.proxy
}

fn get(path: &str, port: u16) -> String {
    // It listens at any moment now: the kernel says so by accepting.
    let begin = Instant::now();
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "port {port}: {error}"),
        }
        thread::yield_now();
    };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Runs a sidecar in the pod, does something meanwhile, and stops it as the kubelet does.
fn live(pod: &Netns, meanwhile: impl FnOnce() + Send) {
    // A signal goes to the whole process: one sidecar at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    thread::scope(|scope| {
        let sidecar = scope.spawn(|| pod.run(|| gamut_proxy::run(args())));
        pod.run(meanwhile);
        kill(getpid(), Signal::SIGTERM).unwrap();
        sidecar.join().unwrap().unwrap();
    });
}

#[test]
fn a_sidecar_without_a_mesh_runs_says_what_it_waits_for_and_stops_when_told() {
    let pod = Netns::new();
    live(&pod, || {
        for (port, path) in [(15021, "/ready"), (15000, "/ready")] {
            let answer = get(path, port);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(answer.contains("certificate") && answer.contains("policy"), "{answer}");
        }
        assert!(get("/metrics", 15020).starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn the_notice_of_the_pods_end_may_come_twice_and_too_late() {
    let pod = Netns::new();
    live(&pod, || {
        get("/ready", 15000);
        for _ in 0..2 {
            drain::notify().unwrap();
            assert!(
                get("/ready", 15021).starts_with("HTTP/1.1 503 "),
                "the sidecar serves on until it is told to stop"
            );
        }
    });
    // The kubelet shows this as the reason for which a hook failed.
    let error = pod.run(drain::notify).unwrap_err().to_string();
    assert!(error.contains("no sidecar answers on 127.0.0.1:15000"), "{error}");
}

#[test]
fn a_pod_without_ipv6_has_a_sidecar_all_the_same() {
    let pod = Netns::new();
    pod.run(|| {
        for interface in ["all", "default", "lo"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "1").unwrap();
        }
        assert!(TcpListener::bind("[::1]:0").is_err());
        let skips_nothing = InitArgs {
            skip_outbound_ports: Default::default(),
            skip_inbound_ports: Default::default(),
            proxy_uid: Some(PROXY_UID),
        };
        init::run(skips_nothing).unwrap();
    });
    live(&pod, || {
        assert!(get("/ready", 15021).starts_with("HTTP/1.1 503 "));
        assert!(get("/metrics", 15020).starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_port_that_is_taken_is_one_clear_line() {
    let pod = Netns::new();
    let error = pod.run(|| {
        let _app = TcpListener::bind("[::]:15006").unwrap();
        gamut_proxy::run(args()).unwrap_err().to_string()
    });
    assert!(
        error.contains("[::]:15006") && error.contains("inbound") && error.contains("sidecar"),
        "{error}"
    );
}
