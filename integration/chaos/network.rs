//! What happens to packets on their way.

use std::{process::Stdio, time::Duration};

use crate::{
    harness::Lines,
    pods::nft,
    scenario::{EVERYBODY, Oracle, PLAIN, Scenario, in_node, shop, web},
};

// What TCP repairs needs no retry stanza.

#[test]
fn lost_packets_cost_time_and_nothing_else() {
    let mut run = Scenario::begin("2 of 100 packets lost", &shop(web(2), PLAIN), &[], EVERYBODY);
    let pods: Vec<String> =
        ["client", "web"].iter().flat_map(|workload| run.mesh.pods(workload)).map(|pod| pod.name).collect();
    for pod in &pods {
        nft(
            &run.mesh,
            pod,
            "add table inet chaos
            add chain inet chaos in { type filter hook input priority -300; }
            add rule inet chaos in iifname != \"lo\" numgen random mod 100 < 2 counter drop",
        );
    }
    run.repeat(|run| run.mix.answered(100));
    for pod in &pods {
        let lost = run.mesh.exec(&format!("shop/pod/{pod}"), &["nft", "list table inet chaos"]);
        let lost = String::from_utf8_lossy(&lost.stdout).into_owned();
        assert!(!lost.contains("packets 0 "), "nothing was lost: {lost}");
        nft(&run.mesh, pod, "delete table inet chaos");
    }
    run.end(&Oracle {
        longest_gap: Duration::from_secs(10),
        ..Oracle::nothing(
            "2 of 100 packets between pods are lost, in both directions: nothing fails and nothing breaks",
        )
    });
}

#[test]
fn packets_that_come_late_and_out_of_order_cost_time_and_nothing_else() {
    let mut run = Scenario::begin("packets late and out of order", &shop(web(2), PLAIN), &[], EVERYBODY);
    let helper = concat!(env!("CARGO_MANIFEST_DIR"), "/../integration/chaos/delay.py");
    let mut late = run.mesh.exec_command("node", &["python3", helper, "late0"]);
    let mut late = late.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = Lines::of("delay.py", late.stdout.take().unwrap());
    told.until("ready", |line| line == "ready");
    // What any pod sends goes through it, but for what is for the node itself.
    in_node(
        &run.mesh,
        "for conf in all late0; do echo 0 > /proc/sys/net/ipv4/conf/$conf/rp_filter; done
         for family in -4 -6; do
             ip $family route add default dev late0 table 100
             ip -o link show type veth | cut -d: -f2 | cut -d@ -f1 | while read pod; do ip $family rule add iif $pod lookup 100; done
         done",
    );
    run.repeat(|run| run.mix.answered(100));
    in_node(
        &run.mesh,
        "for family in -4 -6; do while ip $family rule del lookup 100 2>/dev/null; do :; done; done",
    );
    drop(late.stdin.take());
    let (_, counts) = told.until("its counts", |line| line != "ready");
    let counts: Vec<u64> = counts.split_whitespace().map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] > 2000 && counts[1] > 100, "of {} packets {} were overtaken", counts[0], counts[1]);
    late.wait().unwrap();
    run.end(&Oracle {
        longest_gap: Duration::from_secs(10),
        ..Oracle::nothing(
            "packets between pods take 1 to 5 ms, one of twenty 30 ms more, so that others overtake it: nothing fails and nothing breaks",
        )
    });
}
