//! How a replica ends. One test, for signals are a process's and not a test's.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use gamut_identity::told_to_stop;
use nix::sys::signal::{Signal, raise};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_replica_goes_on_until_everybody_knows_that_it_goes_and_others_end_at_once() {
    let took = async |in_cluster: bool, told: &[Signal]| {
        let stop = told_to_stop(in_cluster).unwrap();
        let begun = Instant::now();
        told.iter().for_each(|&signal| raise(signal).unwrap());
        stop.await;
        begun.elapsed()
    };
    assert!(took(true, &[Signal::SIGTERM]).await >= Duration::from_secs(3));
    assert_eq!(took(true, &[Signal::SIGINT]).await, Duration::ZERO, "from a terminal");
    assert_eq!(took(false, &[Signal::SIGTERM]).await, Duration::ZERO, "nobody leads anybody to it");
}
