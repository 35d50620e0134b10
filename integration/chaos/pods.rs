//! What happens to the pods that are called.

use std::time::{Duration, Instant};

use gamut_local::control::PodReport;

use crate::{
    harness::{App, Mesh, PATIENCE, fields},
    scenario::{EVERYBODY, Oracle, PLAIN, RETRIED, STREAMS, Scenario, in_node, shop, web},
    trust::call_anew,
};

/// How soon a backend that can't be reached any more is ejected by the sidecars that call it, where attempts have a limit of 2 s.
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// Pods come and go, each in good order.
const MOVED: Oracle = Oracle {
    may_break: STREAMS,
    longest_gap: Duration::from_secs(10),
    ..Oracle::nothing(
        "no request fails, POST included, and no new TCP connection; streams end with their pods, with an error",
    )
};

/// Everybody, and new TCP connections all the time.
const NEWCOMERS: &[&str] =
    &["h1=4", "h2=2", "post=4", "slow=2", "grpc=1", "websocket=1", "tcp=1", "connect=2"];

pub(crate) fn container(pod: &PodReport, role: &str) -> Option<i32> {
    pod.containers.iter().find(|container| container.role == role).and_then(|container| container.pid)
}

/// The same container of another process, running again.
pub(crate) fn until_replaced(mesh: &Mesh, pod: &str, role: &str, pid: Option<i32>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        mesh.settle();
        let pods = mesh.pods("web");
        let now = pods.iter().find(|report| report.name == pod).and_then(|report| container(report, role));
        if now.is_some() && now != pid {
            return;
        }
        assert!(Instant::now() < deadline, "{pod}: {role} isn't started again");
    }
}

#[test]
fn a_rolling_restart_costs_no_request() {
    let mut run = Scenario::begin("rolling restart", &shop(web(3), PLAIN), &[], NEWCOMERS);
    let mut versions = ["web", "web2", "web3", "web4"].into_iter().cycle();
    let mut version = versions.next().unwrap();
    run.repeat(|run| {
        let next = versions.next().unwrap();
        run.mesh.edit("all.yaml", &format!("value: {version}}}"), &format!("value: {next}}}"));
        version = next;
        run.mesh.settle();
        run.mix.answered(100);
    });
    run.end(&MOVED);
}

#[test]
fn scaling_up_and_down_costs_no_request() {
    let mut run = Scenario::begin("scale 1 -> 5 -> 1", &shop(web(1), PLAIN), &[], NEWCOMERS);
    run.repeat(|run| {
        for (from, to) in [(1, 5), (5, 1)] {
            let replicas =
                |number| format!("  replicas: {number}\n  selector: {{matchLabels: {{app: web}}}}");
            run.mesh.edit("all.yaml", &replicas(from), &replicas(to));
            run.mesh.settle();
            run.mix.answered(100);
        }
    });
    run.end(&MOVED);
}

#[test]
fn an_app_killed_costs_no_idempotent_request() {
    let mut run = Scenario::begin("app killed -9", &shop(web(3), RETRIED), &[], EVERYBODY);
    run.repeat(|run| {
        let victim = run.mesh.pods("web").remove(0);
        let pid = container(&victim, "app");
        run.mesh.signal("KILL", pid);
        // Who comes now meets an app that doesn't listen, until that is known.
        call_anew(run);
        until_replaced(&run.mesh, &victim.name, "app", pid);
        run.mix.answered(200);
    });
    run.end(&Oracle {
        says: "GETs whose answer hasn't begun are tried elsewhere (retry stanza), and none fails; POSTs that the app may have seen fail; \
               answers and streams that have begun end with an error, never as if they were whole; connections that are made then are taken elsewhere",
        may_fail: &["post", "grpc", "websocket", "tcp"],
        fails_closed: None,
        may_break: STREAMS,
        longest_gap: Duration::from_secs(10),
    });
}

#[test]
fn a_sidecar_killed_costs_no_idempotent_request() {
    let mut run = Scenario::begin("sidecar killed -9", &shop(web(3), RETRIED), &[], EVERYBODY);
    run.repeat(|run| {
        let victim = run.mesh.pods("web").remove(0);
        let pid = container(&victim, "sidecar");
        run.mesh.signal("KILL", pid);
        until_replaced(&run.mesh, &victim.name, "sidecar", pid);
        run.mix.answered(200);
    });
    run.end(&Oracle {
        says: "GETs whose answer hasn't begun are tried elsewhere (retry stanza), and none fails; POSTs on the way fail; answers and streams \
               that have begun end with an error",
        may_fail: &["post", "grpc", "websocket", "tcp"],
        fails_closed: None,
        may_break: STREAMS,
        longest_gap: Duration::from_secs(10),
    });
}

/// The process that holds a pod's namespaces: it shares its network with the pod's containers, and no container is made of it.
fn sandbox(mesh: &Mesh, pod: &PodReport) -> Option<i32> {
    let script = format!(
        "for process in /proc/[0-9]*; do
             [ \"$(readlink $process/ns/net)\" = \"$(readlink /proc/{}/ns/net)\" ] || continue
             tr '\\0' ' ' < $process/cmdline | grep -q ' internal sandbox ' && echo ${{process#/proc/}}
         done || true",
        container(pod, "app").unwrap()
    );
    in_node(mesh, &script).trim().parse().ok()
}

#[test]
fn a_sandbox_killed_costs_no_request_and_its_pod_is_made_anew() {
    let mut run = Scenario::begin("sandbox killed -9", &shop(web(3), PLAIN), &[], EVERYBODY);
    run.repeat(|run| {
        let victim = run.mesh.pods("web").remove(0);
        let before = sandbox(&run.mesh, &victim);
        run.mesh.signal("KILL", [before.unwrap()]);
        until_replaced(&run.mesh, &victim.name, "app", container(&victim, "app"));
        let now = run.mesh.pods("web").into_iter().find(|pod| pod.name == victim.name).unwrap();
        assert_ne!(sandbox(&run.mesh, &now), before);
        assert_ne!(container(&now, "sidecar"), container(&victim, "sidecar"));
        assert_eq!(now.ips, victim.ips);
        run.mix.answered(200);
    });
    run.end(&Oracle {
        // An app that dies without notice may just have taken it.
        may_fail: &["tcp"],
        says: "no request fails, POST included; streams end with their pod, with an error, and so may a new TCP connection",
        ..MOVED
    });
}

/// Drops what comes to a pod from the client's, or this of it, as nftables has it.
fn cut(mesh: &Mesh, pod: &str, what: &str) {
    drop_packets(mesh, pod, &[("in", "saddr", what)]);
}

/// Drops whatever goes either way between a pod and the client's: nothing that is under way ends.
fn unplug(mesh: &Mesh, pod: &str) {
    drop_packets(mesh, pod, &[("in", "saddr", ""), ("out", "daddr", "")]);
}

fn drop_packets(mesh: &Mesh, pod: &str, rules: &[(&str, &str, &str)]) {
    let mut commands = "add table inet chaos
        add chain inet chaos in { type filter hook input priority -300; }
        add chain inet chaos out { type filter hook output priority -300; }\n"
        .to_owned();
    for ip in &mesh.pods("client")[0].ips {
        let family = if ip.contains(':') { "ip6" } else { "ip" };
        for (chain, client, what) in rules {
            commands += &format!("add rule inet chaos {chain} {family} {client} {ip} {what} drop\n");
        }
    }
    nft(mesh, pod, &commands);
}

/// One of two backends has no network any more, from one moment to the next. Nobody is told: the node, which asks whether it is ready,
/// still reaches it.
fn unplugged(name: &'static str, backends: App, clients: &[&str]) {
    // Longer than the ten seconds after which it counts as gone, and one more attempt to reach it.
    let clients = [clients, &["--timeout=30s"]].concat();
    let mut run = Scenario::begin(name, &shop(backends, RETRIED), &[], &clients);
    let victim = run.mesh.pods("web").remove(0).name;
    unplug(&run.mesh, &victim);
    run.mix.go_on(Duration::from_secs(15));
    nft(&run.mesh, &victim, "delete table inet chaos");
    run.repeat(|run| run.mix.answered(100));
    run.end(&Oracle {
        says: "GETs on the way are tried elsewhere within ten seconds, without a limit of their own and without anybody's word, and none fails; \
               POSTs on the way fail",
        may_fail: &["post"],
        fails_closed: None,
        may_break: &[],
        longest_gap: Duration::from_secs(18),
    });
}

#[test]
fn requests_to_a_sidecar_whose_network_is_gone_are_taken_elsewhere_in_ten_seconds() {
    unplugged("one of two backends unplugged", web(2), &["h1=1", "h2=1", "post=4"]);
}

#[test]
fn requests_to_an_app_without_a_sidecar_whose_network_is_gone_are_taken_elsewhere_in_ten_seconds() {
    unplugged("one of two backends without sidecars unplugged", web(2).unmeshed(), &["h1=1", "post=4"]);
}

/// As pods that are deleted by force while nobody can tell: their processes are killed, and nobody answers at their addresses
/// any more.
#[test]
fn pods_that_vanish_while_the_controller_is_away_cost_a_moment_each() {
    let clients = &["h1=1", "h2=1", "post=4", "tcp=1"];
    let name = "two of three backends vanish, and the controller hangs";
    let mut run = Scenario::begin(name, &shop(web(3), RETRIED), &[], clients);
    run.repeat(|run| {
        let hung = run.mesh.component("controller");
        run.mesh.signal("STOP", hung);
        let victims = &run.mesh.pods("web")[..2];
        for victim in victims {
            cut(&run.mesh, &victim.name, "tcp flags & (syn|ack) == syn");
        }
        let sidecars = victims.iter().filter_map(|victim| container(victim, "sidecar"));
        run.mesh.signal("KILL", sidecars);
        run.mix.go_on(Duration::from_secs(10));
        for victim in victims {
            nft(&run.mesh, &victim.name, "delete table inet chaos");
        }
        run.mesh.signal("CONT", hung);
        for victim in victims {
            until_replaced(&run.mesh, &victim.name, "sidecar", container(victim, "sidecar"));
        }
        run.mix.answered(200);
    });
    run.end(&Oracle {
        says: "who meets them is taken to the third after 1.5 s for each; POSTs on the way fail, streams that have begun end with an error",
        may_fail: &["post", "tcp"],
        fails_closed: None,
        may_break: STREAMS,
        longest_gap: Duration::from_secs(7),
    });
}

/// Runs commands of nftables in a pod.
pub(crate) fn nft(mesh: &Mesh, pod: &str, commands: &str) {
    let done = mesh.exec(&format!("shop/pod/{pod}"), &["nft", commands]);
    assert!(done.status.success(), "nft in {pod}: {done:?}");
}

#[test]
fn a_backend_that_is_cut_off_is_found_and_left_aside_and_comes_back() {
    let rule = "backendRefs: [{name: web, port: 80}]\ntimeouts: {request: 20s, backendRequest: 2s}\nretry: {attempts: 3, backoff: 10ms}";
    let mut run = Scenario::begin(
        "one of three backends cut off",
        &shop(web(3), rule),
        &[],
        &["h1=8", "h2=2", "post=4"],
    );
    run.repeat(|run| {
        let victim = run.mesh.pods("web").remove(0).name;
        cut(&run.mesh, &victim, "");
        let begin = Instant::now();
        let is_ejected = |run: &mut Scenario| {
            run.mix.answered(20);
            let client = run.mesh.pods("client").remove(0).proxy.unwrap_or_default();
            client["endpoints"].to_string().contains(&format!("\"pod\":\"{victim}\""))
        };
        while !is_ejected(run) {
            assert!(begin.elapsed() < FOUND_WITHIN, "{victim} is cut off and still called");
        }
        // Its time is over now and then, until the next attempt fails.
        while !run.mesh.run(&["status"]).contains(&format!(": {victim} (")) {
            assert!(begin.elapsed() < PATIENCE, "gamut status doesn't tell it");
            run.mix.answered(20);
        }
        run.mix.answered(200);
        nft(&run.mesh, &victim, "delete table inet chaos");
        let begin = Instant::now();
        let is_called = |run: &Scenario| {
            let answers = run.mesh.ask("shop/deploy/client", &["http://web/", "--count=100"]);
            fields(&answers, "Hostname").contains(&victim.as_str())
        };
        while !is_called(run) {
            assert!(begin.elapsed() < 2 * PATIENCE, "{victim} is well and not called");
        }
    });
    run.end(&Oracle {
        says: "attempts have 2 s: GETs that meet the backend are tried elsewhere after that, and none fails; POSTs fail with 504; the backend is \
               ejected within 30 s, and called again when it is well",
        may_fail: &["post"],
        fails_closed: None,
        may_break: &[],
        longest_gap: Duration::from_secs(5),
    });
}
