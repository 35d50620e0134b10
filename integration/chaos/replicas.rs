//! What happens to those who tell sidecars what to obey: replicas of the controller that disagree, and one that is away for long.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Mesh, PATIENCE, service_with},
    scenario::{EVERYBODY, Oracle, Scenario, called, in_node, is_long, shop, web},
    trust::call_anew,
};

/// Without a `retry` stanza.
const BOTH: &str = "backendRefs: [{name: web, port: 80, weight: 10}, {name: web2, port: 80, weight: 90}]";

fn two_backends() -> Vec<String> {
    let ports = "[{name: http, port: 80, targetPort: 8080}]";
    let web2 = [called("web2", 3).in_namespace("shop"), service_with("shop", "web2", "web2", ports, "")];
    [shop(web(2), BOTH), web2.to_vec()].concat()
}

/// Remembers the cluster as it is now.
fn remember(mesh: &Mesh) {
    in_node(mesh, "mkdir /run/gamut/past && cp -r /run/gamut/cluster /run/gamut/past/");
}

/// A second replica of the controller.
struct Replica<'m> {
    mesh: &'m Mesh,
    child: Child,
}

impl<'m> Replica<'m> {
    /// One whose cluster stands still: what was [remembered](remember) is all that it ever knows.
    fn lagging(mesh: &'m Mesh) -> Self {
        Self::start(mesh, "/run/gamut/past/cluster")
    }

    /// One that knows what the first knows.
    fn equal(mesh: &'m Mesh) -> Self {
        in_node(mesh, "mkdir -p /run/gamut/past");
        Self::start(mesh, "/run/gamut/cluster")
    }

    fn start(mesh: &'m Mesh, cluster: &str) -> Self {
        let components = "/run/gamut/components";
        let script = format!(
            "echo $$ > /run/gamut/past/pid; exec /run/gamut/bin/gamut controller --listen 0.0.0.0:15112 --admin 127.0.0.1:15114 \
             --ca-address 10.244.0.1:15010 --token-file {components}/controller-token --roots-file {components}/root.pem \
             --cluster-dir {cluster} --status-dir /run/gamut/past/status --replica gamut-controller-past"
        );
        let mut command: Command = mesh.exec_command("node", &["sh", "-c", &script]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ready = ["--retry", "600", "--retry-all-errors", "--retry-delay", "0", "--retry-max-time", "60"];
        in_node(mesh, &format!("curl -sf {} http://127.0.0.1:15114/ready", ready.join(" ")));
        Self { mesh, child }
    }

    /// How many sidecars it serves.
    fn subscribers(&self) -> usize {
        let status = in_node(self.mesh, "curl -sf http://127.0.0.1:15114/status");
        let status: Value = serde_json::from_str(&status).unwrap();
        status["subscribers"].as_array().map_or(0, Vec::len)
    }
}

impl Drop for Replica<'_> {
    fn drop(&mut self) {
        let killed = self.mesh.exec("node", &["sh", "-c", "kill -KILL $(cat /run/gamut/past/pid)"]);
        if killed.status.success() {
            let _ = self.child.wait();
        }
    }
}

/// From now on sidecars that look for a controller find the second replica.
fn lead_to_the_second(mesh: &Mesh) {
    in_node(
        mesh,
        "nft 'add table ip chaos; add chain ip chaos in { type nat hook prerouting priority -110; }; \
         add rule ip chaos in tcp dport 15012 dnat to 10.244.0.1:15112'",
    );
}

#[test]
fn replicas_of_the_controller_that_disagree_cost_nothing() {
    let name = "replicas of the controller disagree";
    let mut run = Scenario::begin_with(name, &two_backends(), &[], EVERYBODY, |mesh| {
        remember(mesh);
        // Of all this the other one hears nothing: another split, an endpoint that is gone, a pod that is new.
        mesh.edit("all.yaml", "weight: 10}", "weight: 60}");
        mesh.edit(
            "all.yaml",
            &called("web2", 3).in_namespace("shop"),
            &called("web2", 2).in_namespace("shop"),
        );
        mesh.edit("all.yaml", &web(2).in_namespace("shop"), &web(3).in_namespace("shop"));
        mesh.settle();
        Vec::new()
    });
    let sidecars = run.mesh.status().pods.iter().filter(|pod| pod.meshed).count();
    run.repeat(|run| {
        let Scenario { mesh, mix, .. } = run;
        let past = Replica::lagging(mesh);
        lead_to_the_second(mesh);
        mesh.signal("KILL", mesh.component("controller"));
        let deadline = Instant::now() + PATIENCE;
        while past.subscribers() < sidecars {
            assert!(Instant::now() < deadline, "{} of {sidecars} sidecars came", past.subscribers());
            mix.answered(20);
        }
        mix.answered(200);
        // The past knows nothing of the newest pod: that opens no door.
        let newest = mesh.pods("web").into_iter().max_by_key(|pod| pod.ips.clone()).unwrap();
        let plain = mesh.ask("node", &[&format!("http://{}:8080/", newest.ips[0])]);
        assert_eq!(crate::harness::statuses(&plain), [403], "{plain}");
        in_node(mesh, "nft delete table ip chaos");
        drop(past);
        mesh.settle();
        mix.answered(200);
    });
    run.end(&Oracle::nothing(
        "nothing fails and nothing breaks, without a retry stanza, while all sidecars go back to a controller that knows an older split and an \
         endpoint that is gone, and forward again; a strict pod that it doesn't know stays strict",
    ));
}

#[test]
fn a_controller_that_hangs_is_left_for_another_replica() {
    let name = "controller hangs beside another replica";
    let mut run = Scenario::begin(name, &two_backends(), &[], EVERYBODY);
    let sidecars = run.mesh.status().pods.iter().filter(|pod| pod.meshed).count();
    run.repeat(|run| {
        let Scenario { mesh, mix, .. } = run;
        let second = Replica::equal(mesh);
        let hung = mesh.component("controller");
        mesh.signal("STOP", hung);
        let deadline = Instant::now() + PATIENCE;
        // It is asked after 10 s of silence, and given up after 10 more. Connections that there are stay, and say nothing; a Service leads new ones to who is ready.
        lead_to_the_second(mesh);
        while second.subscribers() < sidecars {
            assert!(Instant::now() < deadline, "{} of {sidecars} sidecars came", second.subscribers());
            mix.answered(20);
        }
        // What is changed now is in force by the second's word, for the first says none.
        let web2 = |mesh: &Mesh| sent_to(mesh, "shop/web2:80");
        mesh.edit("all.yaml", "name: web2, port: 80, weight: 90}", "name: web2, port: 80, weight: 0}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = web2(mesh);
            mix.answered(200);
            if web2(mesh) == before {
                break;
            }
            assert!(Instant::now() < deadline, "the change doesn't arrive");
        }
        mesh.edit("all.yaml", "name: web2, port: 80, weight: 0}", "name: web2, port: 80, weight: 90}");
        in_node(mesh, "nft delete table ip chaos");
        mesh.signal("CONT", hung);
        drop(second);
        mesh.settle();
        mix.answered(200);
    });
    run.end(&Oracle::nothing(
        "nothing fails and nothing breaks; within 30 s all sidecars have left the controller that hangs for its other replica, and what is \
         changed then is in force",
    ));
}

/// How many requests the client's sidecar has sent to a backend.
fn sent_to(mesh: &Mesh, backend: &str) -> u64 {
    let client = mesh.pods("client").remove(0).proxy.unwrap_or_default();
    let backends = client["backends"].as_array().cloned().unwrap_or_default();
    let of = backends.iter().filter(|counted| counted["backend"] == backend);
    of.filter_map(|counted| counted["requests"].as_u64()).sum()
}

#[test]
fn a_controller_that_is_away_for_long_costs_nothing_and_changes_arrive_when_it_is_back() {
    let away = Duration::from_secs(if is_long() { 600 } else { 12 });
    // Certificates end and are renewed meanwhile.
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "10s")];
    let mut run = Scenario::begin("controller away for long", &two_backends(), &leaves, EVERYBODY);
    let hung = run.mesh.component("controller");
    run.mesh.signal("STOP", hung);
    run.mesh.edit(
        "all.yaml",
        "weight: 10}, {name: web2, port: 80, weight: 90}",
        "weight: 100}, {name: web2, port: 80, weight: 0}",
    );
    run.mix.go_on(away);
    call_anew(&run);
    run.mesh.signal("KILL", hung);
    call_anew(&run);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = sent_to(&run.mesh, "shop/web2:80");
        run.mix.answered(200);
        if sent_to(&run.mesh, "shop/web2:80") == before {
            break;
        }
        assert!(Instant::now() < deadline, "the change doesn't arrive");
    }
    run.repeat(|run| run.mix.answered(100));
    run.end(&Oracle::nothing(
        "nothing fails and nothing breaks while the controller hangs for ten minutes (12 s in CI) and certificates are renewed; what was changed \
         meanwhile is in force within a minute of its return with an empty memory",
    ));
}
