//! Too much of something, and what becomes of everything else meanwhile.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    control::serial,
    harness::{Mesh, PATIENCE, statuses},
    pods::{container, until_replaced},
    scenario::{EVERYBODY, Mix, Oracle, PLAIN, RETRIED, STREAMS, Scenario, in_node, recovers, shop, web},
    trust::call_anew,
};

/// How soon a sidecar takes new connections when it has file descriptors again, or was killed for want of memory.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How soon everything is in force that was changed while the disk was full, and certificates are signed and written down.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_sidecar_out_of_file_descriptors_serves_what_it_has_and_recovers() {
    let mut run = Scenario::begin(
        "sidecar out of file descriptors",
        &shop(web(2), PLAIN),
        &[],
        &["h1=2", "h2=2", "tcp=1"],
    );
    run.repeat(|run| {
        let sidecar = run.mesh.sidecar("client");
        let pid = sidecar.to_string();
        // As the sidecar's own user, who may do this to it; the hard limit stays.
        let limit = |number: &str| {
            let number = format!("--nofile={number}:");
            let in_sidecar = ["exec", "-n", "shop", "-c", "gamut-proxy", "deploy/client", "--"];
            run.mesh.run(&[&in_sidecar[..], &["prlimit", "--pid", &pid, &number]].concat());
        };
        limit("100");
        // A listener for each family. Two descriptors for each connection: far more than there are.
        let ips = run.mesh.pods("web").remove(0).ips;
        let hosts = ips.iter().map(|ip| if ip.contains(':') { format!("[{ip}]") } else { ip.clone() });
        let hosts: Vec<String> = hosts.collect();
        let crowds: Vec<Mix> =
            hosts.iter().map(|host| Mix::start_to(&run.mesh, host, &["tcp=100"])).collect();
        run.mix.go_on(Duration::from_secs(2));
        run.mix.answered(100);
        drop(crowds);
        let log = run.mesh.run(&["logs", "-n", "shop", "-c", "gamut-proxy", "deploy/client"]);
        assert!(log.contains("Too many open files"), "there were enough: {log}");
        limit("4096");
        let begin = Instant::now();
        for host in &hosts {
            let url = format!("http://{host}:8080/");
            recovers("a new connection", begin, BACK_WITHIN, || {
                let answer = run.mesh.try_to_ask("shop/deploy/client", &[&url]);
                statuses(&String::from_utf8_lossy(&answer.stdout)) == [200]
            });
        }
        assert_eq!(run.mesh.sidecar("client"), sidecar, "it is the same process");
        run.mix.answered(100);
    });
    run.end(&Oracle::nothing(
        "connections that are open go on, new ones wait, and are made within 10 s of there being room, by the same process",
    ));
}

/// A cgroup with room for nothing. Dropping it removes it.
struct Cramped {
    directory: PathBuf,
    /// Where the kernel counts whom it has killed for it.
    killed: &'static str,
}

impl Cramped {
    /// None where cgroups of memory can't be made here.
    fn new(mesh: &Mesh) -> Option<Self> {
        const HIERARCHIES: [(&str, &str, &str); 2] = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ];
        HIERARCHIES.into_iter().find_map(|(hierarchy, limit, killed)| {
            let cramped = Self { directory: PathBuf::from(hierarchy).join(&mesh.name), killed };
            fs::create_dir(&cramped.directory).ok()?;
            fs::write(cramped.directory.join(limit), "65536").ok()?;
            Some(cramped)
        })
    }

    /// Moves a process of the node's into it. What that has already stays; the next page that it needs there isn't.
    fn take_in(&self, mesh: &Mesh, process: Option<i32>) {
        let file = self.directory.join("cgroup.procs");
        in_node(mesh, &format!("echo {} > {}", process.unwrap(), file.display()));
    }

    fn killed(&self) -> u64 {
        let counts = fs::read_to_string(self.directory.join(self.killed)).unwrap();
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        count.trim().parse().unwrap()
    }
}

impl Drop for Cramped {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn a_sidecar_out_of_memory_is_killed_and_comes_back_and_the_others_serve() {
    let mut run = Scenario::begin("sidecar out of memory", &shop(web(3), RETRIED), &[], EVERYBODY);
    let Some(cramped) = Cramped::new(&run.mesh) else {
        return println!("skipped: no cgroup of memory can be made here");
    };
    let mut is_first = true;
    run.repeat(|run| {
        let before = cramped.killed();
        let victim = run.mesh.pods("web").remove(0);
        let pid = container(&victim, "sidecar");
        cramped.take_in(&run.mesh, pid);
        // It dies of the next page that it needs: for new connections it needs some.
        let newcomers = Mix::start(&run.mesh, &["tcp=50"]);
        let deadline = Instant::now() + PATIENCE;
        while cramped.killed() == before {
            assert!(Instant::now() < deadline, "it isn't killed");
            run.mix.answered(20);
        }
        drop(newcomers);
        let begin = Instant::now();
        until_replaced(&run.mesh, &victim.name, "sidecar", pid);
        let took = begin.elapsed();
        println!("a sidecar that was killed for want of memory: back after {took:?}");
        // The node waits longer before each further start, as kubelet does.
        assert!(!is_first || took < BACK_WITHIN, "it is back after {took:?}");
        is_first = false;
        run.mix.answered(200);
    });
    run.end(&Oracle {
        says: "the kernel kills the sidecar of one of three backends: GETs whose answer hasn't begun are tried elsewhere (retry stanza), and none \
               fails; POSTs on the way fail; answers and streams that have begun end with an error; it is back within 10 s of its first death",
        may_fail: &["post", "grpc", "websocket", "tcp"],
        fails_closed: None,
        may_break: STREAMS,
        longest_gap: Duration::from_secs(10),
    });
}

/// Who has had which certificate.
#[derive(Default)]
struct Serials(BTreeMap<String, String>);

impl Serials {
    /// Looks at those of now: none that somebody else has had.
    fn look(&mut self, mesh: &Mesh) {
        for pod in mesh.status().pods {
            let serial = pod.proxy.as_ref().and_then(|proxy| proxy["certificate"]["serial"].as_str());
            let Some(serial) = serial.map(str::to_owned) else { continue };
            let whose = self.0.entry(serial.clone()).or_insert_with(|| pod.uid.clone());
            assert_eq!(*whose, pod.uid, "{serial} was given twice");
        }
    }
}

/// The serials in the CA's audit log.
fn audited(mesh: &Mesh) -> Vec<String> {
    let log = mesh.run(&["logs", "node", "-c", "ca"]);
    let serial = |line: &str| Some(line.split_once("serial=\"")?.1.split_once('"')?.0.to_owned());
    log.lines().filter(|line| line.contains("issued")).filter_map(serial).collect()
}

/// Goes on until a component that was killed is ready again.
fn until_back(run: &mut Scenario, name: &str, killed: Option<i32>) {
    let deadline = Instant::now() + PATIENCE;
    let is_back = |mesh: &Mesh| {
        let components = mesh.status().components;
        components.iter().any(|it| it.name == name && it.ready && it.pid != killed)
    };
    while !is_back(&run.mesh) {
        assert!(Instant::now() < deadline, "the {name} doesn't come back");
        run.mix.answered(20);
    }
}

#[test]
fn a_full_disk_costs_nothing_and_what_was_changed_meanwhile_is_in_force_when_there_is_room() {
    // Certificates are renewed meanwhile.
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "10s")];
    let mut run = Scenario::begin("full disk", &shop(web(2), PLAIN), &leaves, EVERYBODY);
    let replicas = |number| web(number).in_namespace("shop");
    let mut number = 2;
    let mut serials = Serials::default();
    run.repeat(|run| {
        // All state and all logs of the node are below /run, in memory.
        in_node(
            &run.mesh,
            "mount -o remount,size=$(($(df -k --output=used /run | tail -1) + 64))k /run
             ! head -c 1M /dev/zero > /run/gamut/full 2> /dev/null",
        );
        run.mix.answered(100);
        let ca = run.mesh.component("ca");
        run.mesh.signal("KILL", run.mesh.component("controller").into_iter().chain(ca));
        until_back(run, "ca", ca);
        run.mesh.edit("all.yaml", &replicas(number), &replicas(5 - number));
        for _ in 0..8 {
            run.mix.go_on(Duration::from_secs(1));
            serials.look(&run.mesh);
        }
        call_anew(run);
        let begin = Instant::now();
        in_node(&run.mesh, "rm -f /run/gamut/full; mount -o remount,size=50% /run");
        run.mesh.settle();
        number = 5 - number;
        recovers("what was changed", begin, WRITTEN_WITHIN, || run.mesh.pods("web").len() == number);
        let before = serial(&run.mesh);
        recovers("a certificate's line in the audit log", begin, WRITTEN_WITHIN, || {
            let now = serial(&run.mesh);
            now != before && audited(&run.mesh).contains(&now.unwrap_or_default())
        });
        serials.look(&run.mesh);
        let audited = audited(&run.mesh);
        let different: HashSet<&String> = audited.iter().collect();
        assert_eq!(different.len(), audited.len(), "a serial was given twice: {audited:#?}");
        run.mix.answered(100);
    });
    run.end(&Oracle {
        says: "nothing fails while nothing can be written: logs are lost, certificates are renewed, controller and CA come back, and no serial is \
               given twice; what was changed meanwhile is in force, and certificates are in the audit log, within 30 s of there being room. Streams end \
               with their pods",
        may_break: STREAMS,
        longest_gap: Duration::from_secs(10),
        ..Oracle::nothing("")
    });
}
