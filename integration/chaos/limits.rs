//! Too much of something, and what becomes of everything else meanwhile.

use std::time::Duration;

use crate::scenario::{Mix, Oracle, RETRIED, Scenario, shop, web};

#[test]
fn a_sidecar_out_of_file_descriptors_serves_what_it_has_and_recovers() {
    let mut run = Scenario::begin(
        "sidecar out of file descriptors",
        &shop(web(2), RETRIED),
        &[],
        &["h1=2", "h2=2", "tcp=1"],
    );
    run.repeat(|run| {
        let pid = run.mesh.sidecar("client").to_string();
        // As the sidecar's own user, who may do this to it; the hard limit stays.
        let limit = |number: &str| {
            let number = format!("--nofile={number}:");
            let in_sidecar = ["exec", "-n", "shop", "-c", "gamut-proxy", "deploy/client", "--"];
            run.mesh.run(&[&in_sidecar[..], &["prlimit", "--pid", &pid, &number]].concat());
        };
        limit("100");
        // Two descriptors each: far more than there are.
        let crowd = Mix::start(&run.mesh, &["tcp=200"]);
        run.mix.go_on(Duration::from_secs(2));
        run.mix.answered(100);
        drop(crowd);
        let log = run.mesh.run(&["logs", "-n", "shop", "-c", "gamut-proxy", "deploy/client"]);
        assert!(log.contains("Too many open files"), "there were enough: {log}");
        limit("4096");
        run.mix.answered(100);
        let answer = run.mesh.ask("shop/deploy/client", &["http://web/"]);
        assert_eq!(crate::harness::statuses(&answer), [200]);
    });
    run.end(&Oracle::nothing(
        "connections that are open go on, new ones wait, and are made as soon as there is room",
    ));
}
