//! What people and controllers change while traffic flows.

use std::time::{Duration, Instant};

use crate::{
    harness::{assert_no_failure, service_with},
    scenario::{EVERYBODY, Oracle, Scenario, called, is_long, metrics, shop, web},
};

/// Without a `retry` stanza: nothing of this may need one.
const BOTH: &str = "backendRefs: [{name: web, port: 80, weight: 50}, {name: web2, port: 80, weight: 50}]";

const NOTHING: Oracle = Oracle::nothing("nothing fails and nothing breaks, without a retry stanza");

fn web2() -> Vec<String> {
    let ports = "[{name: http, port: 80, targetPort: 8080}]";
    vec![called("web2", 2).in_namespace("shop"), service_with("shop", "web2", "web2", ports, "")]
}

/// How often endpoints change: a thousand times a minute.
const MOVE: Duration = Duration::from_millis(60);

/// How often weights change.
const FLIP: Duration = Duration::from_millis(200);

#[test]
fn weights_that_change_five_times_a_second_cost_nothing() {
    let manifests = [shop(web(2), BOTH), web2()].concat();
    let mut run = Scenario::begin("weights flipped every 200 ms", &manifests, &[], EVERYBODY);
    let weights = |web: u32| {
        format!("[{{name: web, port: 80, weight: {web}}}, {{name: web2, port: 80, weight: {}}}]", 100 - web)
    };
    // All or nothing: that another backend answers than did before says that weights have come into force.
    run.mesh.edit("all.yaml", &weights(50), &weights(0));
    run.mesh.settle();
    let mut witness = run.mesh.load("shop/deploy/client", &["http://web/"]);
    let (mut from, mut flips) = (0, 0_u32);
    while flips < 25 || !run.is_enough() {
        let to = 100 - from;
        // Each has its time from when it was made: what a stall took isn't caught up with by changes that nobody could see.
        let changed = Instant::now();
        run.mesh.edit("all.yaml", &weights(from), &weights(to));
        from = to;
        flips += 1;
        run.mix.go_on_until(changed + FLIP);
    }
    run.mesh.settle();
    let last = if from == 100 { "web" } else { "web2" };
    // The next answer may be to a request that was on its way before.
    witness.more(1);
    witness.until_steady("the last change is in force", 50, |answer| answer.version == last);
    let answers = witness.finish();
    assert_no_failure(&answers);
    let in_force = answers.windows(2).filter(|two| two[0].version != two[1].version).count() as u32;
    println!("{in_force} of {flips} changes were seen");
    // How many do is how fast the machine is; that half of them do is asked of one that does nothing else.
    let least = if is_long() { flips / 2 } else { 2 };
    assert!((least..=flips).contains(&in_force), "{in_force} of {flips} changes came into force");
    run.end(&NOTHING);
}

#[test]
fn a_service_that_is_made_and_shifted_to_at_once_costs_nothing() {
    let to = |service: &str| format!("backendRefs: [{{name: {service}, port: 80}}]");
    let manifests = [shop(web(2), &to("web")), vec![called("web2", 2).in_namespace("shop")]].concat();
    let mut run = Scenario::begin("a Service added and shifted to at once", &manifests, &[], EVERYBODY);
    let mut current = "web".to_owned();
    let mut number = 0;
    while number < 5 || !run.is_enough() {
        number += 1;
        let next = format!("web-{number}");
        let ports = "[{name: http, port: 80, targetPort: 8080}]";
        run.mesh.save(&format!("{next}.yaml"), &service_with("shop", &next, "web2", ports, ""));
        // Nobody waits: its EndpointSlice is still to be made.
        run.mesh.edit("all.yaml", &to(&current), &to(&next));
        run.mix.answered(100);
        run.mesh.settle();
        std::fs::remove_file(run.mesh.directory().join(format!("{current}.yaml"))).unwrap_or_default();
        current = next;
    }
    run.end(&NOTHING);
}

#[test]
fn a_thousand_endpoint_changes_a_minute_cost_nothing() {
    let manifests = shop(web(3), "backendRefs: [{name: web, port: 80}, {name: by-hand, port: 80}]");
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<String> = addresses
            .iter()
            .map(|address| format!("{{addresses: [{address}], conditions: {{ready: true}}}}"))
            .collect();
        format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: by-hand, namespace: shop}}
spec:
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: by-hand-1, namespace: shop, labels: {{kubernetes.io/service-name: by-hand}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{}]
",
            endpoints.join(", ")
        )
    };
    let manifests = [manifests, vec![slice(&[])]].concat();
    // Half of the requests would go to a backend without endpoints: it gets them before anybody calls.
    let mut run =
        Scenario::begin_with("1,000 endpoint changes a minute", &manifests, &[], EVERYBODY, |mesh| {
            let pods = mesh.pods("web");
            let addresses: Vec<&str> = pods.iter().map(|pod| pod.ips[0].as_str()).collect();
            mesh.edit("all.yaml", &slice(&[]), &slice(&addresses));
            mesh.settle();
            addresses.iter().map(|address| (*address).to_owned()).collect::<Vec<String>>()
        });
    let addresses: Vec<String> = run.prepared.clone();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut before = slice(&all);
    let first = endpoints_of(&run, "by-hand");
    let (mut changes, begin) = (0_usize, Instant::now());
    while changes < 100 || !run.is_enough() {
        let without = changes % all.len();
        let others: Vec<&str> =
            all.iter().enumerate().filter(|(i, _)| *i != without).map(|(_, a)| *a).collect();
        let next = slice(&others);
        let changed = Instant::now();
        run.mesh.edit("all.yaml", &before, &next);
        before = next;
        changes += 1;
        run.mix.go_on_until(changed + MOVE);
    }
    let per_minute = changes as f64 / begin.elapsed().as_secs_f64() * 60.0;
    println!("{per_minute:.0} changes a minute");
    // As fast as the machine is, in the short form; the long one shall be what it is called.
    assert!(!is_long() || per_minute > 800.0, "{per_minute:.0} changes a minute");
    run.mesh.settle();
    assert_ne!(endpoints_of(&run, "by-hand"), first, "what changed came to the sidecar");
    run.end(&NOTHING);
}

/// Which endpoints of a Service the client's sidecar has, as the hash of what it was told.
fn endpoints_of(run: &Scenario, service: &str) -> String {
    let page = metrics(&run.mesh);
    let table = format!("gamut_table_info{{table=\"EndpointSet service/shop/{service}:");
    let is = |line: &&str| line.starts_with(&table);
    page.lines().find(is).unwrap_or_else(|| panic!("no endpoints of {service}: {page}")).to_owned()
}
