//! What happens to packets on their way.

use std::time::Duration;

use crate::{
    pods::nft,
    scenario::{EVERYBODY, Oracle, Scenario, shop, web},
};

#[test]
fn lost_packets_cost_time_and_nothing_else() {
    // Without a retry stanza: what TCP repairs needs none.
    let rule = "backendRefs: [{name: web, port: 80}]";
    let mut run = Scenario::begin("2 of 100 packets lost", &shop(web(2), rule), &[], EVERYBODY);
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
