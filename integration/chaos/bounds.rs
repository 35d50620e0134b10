//! Too many, too slow, too long: what a sidecar's memory comes to, and what becomes of everybody else meanwhile.

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    harness::{GAMUT_IN_PODS, Lines, Mesh, PATIENCE},
    scenario::{EVERYBODY, Oracle, PLAIN, Scenario, is_long, metrics, shop, shop_of, web},
};

const MIB: u64 = 1024 * 1024;
/// What an idle connection of an app may cost its sidecar in an executable without optimisations.
const BYTES_PER_IDLE: u64 = 20 * 1024;
/// What a request that goes on may cost each of the two sidecars.
const BYTES_PER_SLOW: u64 = 128 * 1024;
/// And one whose answer isn't taken: its window, and as much again.
const BYTES_PER_READER: u64 = 512 * 1024;

const NOTHING: Oracle = Oracle::nothing("nobody else notices: nothing fails and nothing breaks");

/// The crowd's connections (`gamut echo crowd`) in the client's pod, until it is dropped.
struct Crowd {
    child: Child,
    lines: Lines,
    seen: Seen,
}

/// What has come of them so far.
#[derive(Debug, Default, Deserialize)]
struct Seen {
    open: usize,
    ended: usize,
    answers: BTreeMap<u16, usize>,
    bytes: u64,
}

impl Crowd {
    fn start(mesh: &Mesh, arguments: &[&str]) -> Self {
        let command = [&[GAMUT_IN_PODS, "echo", "crowd", "web"], arguments].concat();
        let mut child = mesh.exec_command("shop/deploy/client", &command);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Lines::of("crowd", child.stdout.take().unwrap());
        Self { child, lines, seen: Seen::default() }
    }

    /// Waits until it is as wanted. Long bodies take their time.
    fn until(&mut self, run: &mut Scenario, wanted: &str, is: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE * if is_long() { 20 } else { 1 };
        while !is(&self.seen) {
            assert!(Instant::now() < deadline, "not {wanted}: {:?}", self.seen);
            let (_, line) = self.lines.next().expect("the crowd stays");
            self.seen = serde_json::from_str(&line).unwrap();
            run.is_enough();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // At the end of its input it goes.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Waits until a sidecar has no more memory than that. It gives back while it works, so requests go on meanwhile.
fn until_memory(run: &mut Scenario, workload: &str, most: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        run.mix.answered(100);
        let memory = run.mesh.memory_of_sidecar(workload);
        if memory <= most {
            return;
        }
        assert!(Instant::now() < deadline, "{workload}: {} of {} MiB stay", memory / MIB, most / MIB);
    }
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_their_memory_comes_back() {
    let count = if is_long() { 10_000 } else { 1_500 };
    let mut run = Scenario::begin("10,000 idle connections", &shop(web(2), PLAIN), &[], &["h1=2", "h2=2"]);
    let before = run.mesh.memory_of_sidecar("client");
    let mut crowd = Crowd::start(&run.mesh, &["idle", &format!("--count={count}")]);
    crowd.until(&mut run, "all open", |seen| seen.answers.get(&200) == Some(&count));
    run.mix.answered(500);
    assert_eq!((crowd.seen.open, crowd.seen.ended), (count, 0));
    let grown = run.mesh.memory_of_sidecar("client").saturating_sub(before);
    assert!(grown < count as u64 * BYTES_PER_IDLE, "{} KiB each", grown / 1024 / count as u64);
    drop(crowd);
    until_memory(&mut run, "client", before + grown / 4);
    run.repeat(|run| run.mix.answered(100));
    run.end(&NOTHING);
}

#[test]
fn a_thousand_slow_connections_cost_little_and_nobody_waits_for_them() {
    let count = if is_long() { 1_000 } else { 200 };
    let mut run = Scenario::begin("1,000 slow readers and writers", &shop(web(2), PLAIN), &[], EVERYBODY);
    let before = ["client", "web"].map(|workload| run.mesh.memory_of_sidecar(workload));
    let readers = count / 4;
    let mut reading = Crowd::start(&run.mesh, &["reader", &format!("--count={readers}")]);
    let mut crowd = Crowd::start(&run.mesh, &["slow", &format!("--count={count}")]);
    // Some forty seconds: whatever those on the way are ready to take of the long answers is with them then.
    crowd.until(&mut run, "all answered a little", |seen| seen.bytes > 200 * count as u64);
    reading.until(&mut run, "all read a little", |seen| seen.bytes > 100 * readers as u64);
    assert_eq!((crowd.seen.open, crowd.seen.ended), (count, 0));
    assert_eq!((reading.seen.open, reading.seen.ended), (readers, 0));
    let most = count as u64 * BYTES_PER_SLOW + readers as u64 * BYTES_PER_READER;
    for (workload, before) in ["client", "web"].into_iter().zip(before) {
        let grown = run.mesh.memory_of_sidecar(workload).saturating_sub(before);
        println!("{workload}: {} KiB more", grown / 1024);
        assert!(grown < most, "{workload}: {} of {} KiB", grown / 1024, most / 1024);
    }
    run.repeat(|run| run.mix.answered(100));
    drop((crowd, reading));
    run.end(&NOTHING);
}

#[test]
fn a_body_of_ten_gigabytes_passes_through_a_few_megabytes() {
    let bytes = if is_long() { 10 * 1024 * MIB } else { 32 * MIB };
    let mut run = Scenario::begin("a body of 10 GB", &shop(web(1), PLAIN), &[], &["h1=2", "h2=2"]);
    let before = ["client", "web"].map(|workload| run.mesh.most_memory_of_sidecar(workload));
    let mut crowd = Crowd::start(&run.mesh, &["body", &format!("--bytes={bytes}")]);
    for eighth in 1..=8 {
        crowd.until(&mut run, "through", |seen| seen.bytes >= bytes / 8 * eighth);
        for (workload, before) in ["client", "web"].into_iter().zip(before) {
            let grown = run.mesh.most_memory_of_sidecar(workload).saturating_sub(before);
            assert!(grown < 24 * MIB, "{workload}: {} MiB of a body", grown / MIB);
        }
    }
    assert_eq!((crowd.seen.bytes, &crowd.seen.answers), (bytes, &BTreeMap::from([(200, 1)])));
    drop(crowd);
    run.repeat(|run| run.mix.answered(100));
    run.end(&NOTHING);
}

#[test]
fn who_is_answered_in_the_middle_of_a_long_body_has_the_answer_and_nobody_else_notices() {
    let name = "answers before the request is whole";
    let clients = [EVERYBODY, &["early=4"]].concat();
    let mut run = Scenario::begin(name, &shop(web(2), PLAIN), &[], &clients);
    run.repeat(|run| run.mix.answered(100));
    run.end(&Oracle::nothing(
        "POSTs of 1 MiB that the app answers before it has read any of it, with 413 and its end of the connection or with 200 and reading on: \
         each has that answer, and those who share a connection between the sidecars with it lose nothing, without a retry stanza",
    ));
}

#[test]
fn heads_without_an_end_are_refused_and_kept_by_nobody() {
    let count = if is_long() { 20_000 } else { 1_000 };
    let mut run = Scenario::begin("a flood of endless heads", &shop(web(2), PLAIN), &[], EVERYBODY);
    let before = run.mesh.most_memory_of_sidecar("client");
    let mut crowd = Crowd::start(&run.mesh, &["head", &format!("--count={count}")]);
    crowd.until(&mut run, "all ended", |seen| seen.ended == count);
    let statuses: Vec<u16> = crowd.seen.answers.keys().copied().collect();
    // Some lose the race between their answer and the reset behind it, and read nothing.
    assert_eq!(statuses, [431]);
    drop(crowd);
    let grown = run.mesh.most_memory_of_sidecar("client").saturating_sub(before);
    assert!(grown < 24 * MIB, "{} MiB", grown / MIB);
    run.repeat(|run| run.mix.answered(100));
    run.end(&NOTHING);
}

#[test]
fn an_app_with_too_many_connections_gets_no_more_and_keeps_those_that_it_has() {
    let manifests = shop_of("gamut.mesh/max-connections: '100'", web(2), PLAIN);
    let mut run = Scenario::begin("connections beyond the limit", &manifests, &[], EVERYBODY);
    run.repeat(|run| {
        let mut crowd = Crowd::start(&run.mesh, &["idle", "--count=150"]);
        crowd.until(run, "all open or ended", |seen| seen.open + seen.ended == 150 && seen.ended > 50);
        run.mix.answered(100);
        // The clients of the scenario have theirs; whoever came later was reset.
        assert!((80..100).contains(&crowd.seen.open), "{:?}", crowd.seen);
        drop(crowd);
        run.mix.go_on(Duration::from_millis(200));
        let metrics = metrics(&run.mesh);
        assert!(metrics.contains(r#"reason="overload""#), "{metrics}");
    });
    run.end(&NOTHING);
}
