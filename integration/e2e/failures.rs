//! What breaks while traffic flows: pods, containers, the controller, the CA.

use crate::harness::{Mesh, app, assert_no_failure, by_version, namespace, route, service, statuses};

fn shop(web: crate::harness::App) -> Vec<String> {
    vec![
        namespace("shop", "strict"),
        app("client").in_namespace("shop"),
        web.in_namespace("shop"),
        app("other").in_namespace("shop"),
        service("shop", "web"),
        service("shop", "other"),
        route(
            "shop",
            "web",
            "name: web",
            &["backendRefs: [{name: web, port: 80}]\nretry: {attempts: 3, backoff: 10ms}"],
        ),
    ]
}

fn restarts(mesh: &Mesh, name: &str) -> u32 {
    mesh.status()
        .components
        .iter()
        .filter(|component| component.name == name)
        .map(|component| component.restarts)
        .sum()
}

#[test]
fn a_pod_killed_under_load_costs_no_idempotent_request() {
    // What a killed pod may have processed is asked again because the route says so: `retry`.
    let mut mesh = Mesh::up(&shop(app("web").replicas(3)));
    let mut load = mesh.load("shop/deploy/client", &["http://web/", "--users=4"]);
    load.more(200);
    // Each of them once: what dies again and again is told once and then counted.
    for victim in &mesh.pods("web") {
        mesh.signal("KILL", victim.containers.iter().filter_map(|container| container.pid));
        let dead = format!("{}: container \"echo\" ended by signal 9", victim.name);
        mesh.output.until("the app is dead", |line| line.contains(&dead));
        load.more(200);
        mesh.settle();
    }
    let answers = load.finish();
    assert_no_failure(&answers);
    assert_eq!(by_version(&answers).len(), 1);
}

#[test]
fn a_crashed_container_is_started_again_and_serves() {
    let mut mesh = Mesh::up(&shop(app("web")));
    // A POST, which is made once: as a GET the route's retries would have the next container crash too.
    let crash = mesh.try_to_ask("shop/deploy/client", &["http://web/exit?status=3", "--method=POST"]);
    let answer = String::from_utf8_lossy(&crash.stdout).into_owned();
    assert!(statuses(&answer).iter().all(|status| *status >= 500), "{answer}");
    mesh.output.until("it is dead", |line| line.contains("container \"echo\" exited with status 3"));
    mesh.settle();
    let web = &mesh.pods("web")[0];
    let restarts: u32 = web.containers.iter().filter(|c| c.role == "app").map(|c| c.restarts).sum();
    assert_eq!(restarts, 1, "{web:#?}");
    assert_eq!(statuses(&mesh.ask("shop/deploy/client", &["http://web/"])), [200]);
}

#[test]
fn a_killed_controller_costs_nothing_and_changes_arrive_when_it_is_back() {
    let mesh = Mesh::up(&shop(app("web").replicas(2)));
    let mut load = mesh.load("shop/deploy/client", &["http://web/", "--users=2"]);
    load.more(100);
    mesh.signal("KILL", mesh.component("controller"));
    load.more(100);
    mesh.edit("all.yaml", "backendRefs: [{name: web, port: 80}]", "backendRefs: [{name: other, port: 80}]");
    load.until_steady("the change arrives", 50, |answer| answer.version == "other");
    assert_eq!(restarts(&mesh, "controller"), 1);
    assert_no_failure(&load.finish());
}

#[test]
fn a_killed_ca_costs_nothing_and_new_pods_get_their_certificates_when_it_is_back() {
    let mesh = Mesh::up(&shop(app("web")));
    let mut load = mesh.load("shop/deploy/client", &["http://web/"]);
    load.more(50);
    mesh.signal("KILL", mesh.component("ca"));
    mesh.edit("all.yaml", &app("web").in_namespace("shop"), &app("web").replicas(2).in_namespace("shop"));
    mesh.settle();
    assert_eq!(restarts(&mesh, "ca"), 1);
    let first = load.more(1)[0].pod.clone();
    load.until("an answer from the new pod too", |answer| answer.pod != first);
    assert_no_failure(&load.finish());
}

#[test]
fn a_pod_that_is_not_ready_gets_no_traffic_until_it_is_again() {
    let mesh = Mesh::up(&shop(app("web").replicas(2)));
    let mut load = mesh.load("shop/deploy/client", &["http://web/", "--users=2"]);
    let sick = load.more(1)[0].pod.clone();
    let address = mesh.pods("web").iter().find(|pod| pod.name == sick).unwrap().ips[0].clone();
    let health = |status: u16| {
        let url = format!("http://{address}:8080/healthz?status={status}");
        assert_eq!(statuses(&mesh.ask("shop/deploy/client", &[&url, "--method=PUT"])), [200]);
    };

    health(503);
    load.until_steady("only the other pod answers", 50, |answer| answer.pod != sick);
    let pods = mesh.pods("web");
    assert!(!pods.iter().find(|pod| pod.name == sick).unwrap().ready, "{pods:#?}");
    health(200);
    load.until("the pod answers again", |answer| answer.pod == sick);
    assert_no_failure(&load.finish());
}
