//! What happens to those whom everybody trusts: a root that is replaced, and replaced again by the one before.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use gamut_ca::{Authority, FileStore};
use tempfile::TempDir;

use crate::{
    harness::PATIENCE,
    scenario::{EVERYBODY, Mix, Oracle, PLAIN, Scenario, in_node, shop, web},
};

/// Where the local runtime's CA keeps its key.
const STORE: &str = "/run/gamut/components/ca";
/// How long a certificate lives here: the shortest that the CA signs.
const LEAF: Duration = Duration::from_secs(10);

/// New connections with handshakes of their own: those that stand don't say who is believed now.
pub(crate) fn call_anew(run: &Scenario) {
    let mut crowd = Mix::start(&run.mesh, &["tcp=10"]);
    crowd.answered(50);
    assert_eq!(crowd.total(|counts| counts.failed + counts.broken + counts.corrupt), 0, "{}", crowd.told());
}

/// Goes on until all sidecars are as wanted, with new connections all the time.
fn until_sidecars(run: &mut Scenario, wanted: &str, is: impl Fn(&serde_json::Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        call_anew(run);
        let pods = ["client", "web"].into_iter().flat_map(|workload| run.mesh.pods(workload));
        if pods.into_iter().all(|pod| pod.proxy.as_ref().is_some_and(&is)) {
            return;
        }
        assert!(Instant::now() < deadline, "not all sidecars {wanted}");
        run.mix.answered(20);
    }
}

/// Puts what a CA signs with, and what it says is to be trusted, into its place, and has it begin anew.
fn restart_ca(run: &mut Scenario, signs: &Path, trusted: &[&Path]) {
    let trusted: Vec<String> = trusted.iter().map(|root| format!("{}/tls.crt", root.display())).collect();
    let signs = signs.display();
    in_node(
        &run.mesh,
        &format!("cp {signs}/tls.key {signs}/tls.crt {STORE}/ && cat {} > {STORE}/ca.crt", trusted.join(" ")),
    );
    let before = run.mesh.component("ca");
    run.mesh.signal("KILL", before);
    let deadline = Instant::now() + PATIENCE;
    while run.mesh.component("ca").is_none_or(|now| Some(now) == before) {
        assert!(Instant::now() < deadline, "the CA doesn't come back");
        run.mix.answered(20);
    }
    run.mesh.settle();
}

/// As docs/tasks/rotate-the-root.md has it: both are trusted everywhere before the new one signs, and the old one until its last
/// certificate has ended.
fn rotate(run: &mut Scenario, from: &Path, to: &Path) {
    let trusts = |number: usize| {
        move |proxy: &serde_json::Value| proxy["roots"].as_array().is_some_and(|roots| roots.len() == number)
    };
    restart_ca(run, from, &[from, to]);
    until_sidecars(run, "trust both roots", trusts(2));
    restart_ca(run, to, &[to, from]);
    let last = Instant::now() + LEAF;
    while Instant::now() < last {
        call_anew(run);
        run.mix.answered(20);
    }
    restart_ca(run, to, &[to]);
    until_sidecars(run, "trust the new root alone", trusts(1));
}

#[test]
fn roots_that_are_replaced_with_overlap_cost_nothing_there_and_back() {
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "10s")];
    let mut run = Scenario::begin("root rotation, there and back", &shop(web(2), PLAIN), &leaves, EVERYBODY);
    let files = TempDir::with_prefix("gamut-chaos-").unwrap();
    let [first, second] = ["first", "second"].map(|name| files.path().join(name));
    in_node(&run.mesh, &format!("cp -r {STORE} {}", first.display()));
    let root = Authority::make("cluster.local", SystemTime::now()).unwrap();
    FileStore::new(&second).create(&root).unwrap();
    run.repeat(|run| {
        rotate(run, &first, &second);
        rotate(run, &second, &first);
    });
    run.end(&Oracle::nothing(
        "nothing fails and nothing breaks while all certificates move to another root and back; new connections are made all the time",
    ));
}
