//! Reports in, pages out.

use gamut_controller_api::MtlsMode;

use super::*;
use crate::{
    status::{Sessions, Tables},
    world::Component,
};

fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

fn pod(name: &str, sidecar: Option<Sidecar>) -> Pod {
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        ips: vec!["10.244.0.7".to_owned(), "fd00:244::7".to_owned()],
        phase: "Running".to_owned(),
        ready: true,
        restarts: 0,
        sidecar,
    }
}

fn sidecar(certificate: Option<(&str, &str)>, tables: Tables) -> Option<Sidecar> {
    Some(Sidecar::Known(KnownSidecar {
        identity: "spiffe://cluster.local/ns/shop/sa/web".to_owned(),
        certificate: certificate
            .map(|(from, to)| Certificate { issued: from.parse().unwrap(), expires: to.parse().unwrap() }),
        mtls: Some(MtlsStatus { mode: MtlsMode::Strict, except: vec![9090] }),
        renewal_error: None,
        tables,
        ejected: Vec::new(),
    }))
}

fn report(pods: Vec<Pod>) -> Report {
    let component = |name: &str| Component {
        name: name.to_owned(),
        pod: None,
        ready: true,
        restarts: 0,
        died_of: None,
        trouble: None,
        runs: true,
    };
    Report {
        world: Place::Instance {
            name: "default".to_owned(),
            started: "2026-01-31T11:47:10Z".parse().unwrap(),
            paths: vec!["examples/canary".to_owned()],
        },
        components: vec![component("ca"), component("controller")],
        pods,
        sessions: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
        waiting_for: Vec::new(),
    }
}

const GOOD: Option<(&str, &str)> = Some(("2026-01-31T11:48:00Z", "2026-02-01T11:48:00Z"));
const EXPIRED: Option<(&str, &str)> = Some(("2026-01-30T10:00:00Z", "2026-01-31T10:00:00Z"));

#[test]
fn a_healthy_mesh_is_a_table_and_one_good_line() {
    let newest = Tables { subscribed: 9, ..Tables::default() };
    let report = report(vec![
        pod("web-1", sidecar(GOOD, newest.clone())),
        pod("web-2", sidecar(GOOD, newest)),
        pod("legacy", None),
    ]);
    insta::assert_snapshot!(page(&report, now(), false).render(false));
    insta::assert_snapshot!("wide", page(&report, now(), true).render(false));
}

#[test]
fn a_clusters_components_are_shown_with_their_pods() {
    let newest = Tables { subscribed: 9, ..Tables::default() };
    let mut report = report(vec![pod("web-1", sidecar(GOOD, newest))]);
    report.world = Place::Cluster {
        context: "kind".to_owned(),
        server: "https://10.0.0.10:6443".to_owned(),
        version: "v1.34.4".to_owned(),
    };
    for component in &mut report.components {
        component.pod = Some(format!("gamut-{}-5d4f-x", component.name));
    }
    insta::assert_snapshot!(page(&report, now(), false).render(false));
}

#[test]
fn pods_that_are_over_are_shown_as_such_and_not_waited_for() {
    let newest = Tables { subscribed: 9, ..Tables::default() };
    let mut done = pod("job-1", Some(Sidecar::Silent("its sidecar hasn't started yet".to_owned())));
    done.phase = "Succeeded".to_owned();
    let mut going =
        pod("web-0", Some(Sidecar::Silent("its sidecar can't be asked: pod not found".to_owned())));
    going.phase = "Terminating".to_owned();
    let pods = vec![pod("web-1", sidecar(GOOD, newest)), done, going];
    let text = page(&report(pods), now(), false).render(false);
    assert!(text.contains("job-1  Completed"), "{text}");
    assert!(text.contains("all 1 sidecars have the newest tables"), "{text}");
    assert!(!text.contains("hasn't started") && !text.contains("not found"), "{text}");
}

#[test]
fn a_namespace_without_any_sidecar_is_no_healthy_one() {
    let newest = Tables { subscribed: 9, ..Tables::default() };
    let mut forgotten = pod("web-1", None);
    forgotten.namespace = "forgotten".to_owned();
    let mut report = report(vec![pod("client", sidecar(GOOD, newest)), pod("legacy", None), forgotten]);
    let text = page(&report, now(), false).render(false);
    assert!(text.contains("namespace forgotten: its pod has no sidecar; if"), "{text}");
    assert!(!text.contains("namespace shop:"), "one of its pods has a sidecar: {text}");
    report.world = Place::Machine;
    assert!(!page(&report, now(), false).render(false).contains("its pod has no"), "not of a cluster");
}

#[test]
fn sidecars_with_the_newest_tables_and_an_old_certificate_are_not_said_to_be_well() {
    let newest = Tables { subscribed: 9, ..Tables::default() };
    let pods = vec![pod("web-1", sidecar(GOOD, newest.clone())), pod("web-2", sidecar(EXPIRED, newest))];
    let text = page(&report(pods), now(), false).render(false);
    assert!(text.contains("the certificates of 1 of 2 sidecars have expired"), "{text}");
    assert!(!text.contains("all 2 sidecars"), "{text}");
}

#[test]
fn whatever_is_wrong_has_its_line() {
    let behind = Tables {
        subscribed: 9,
        behind: vec!["RouteTable shop/web:80 for shop".to_owned()],
        refused: vec!["RouteTable shop/api:80 for shop: rule 3 has no backend".to_owned()],
        controller_away: None,
    };
    let away = Tables {
        subscribed: 9,
        controller_away: Some("the controller is away for 4s".to_owned()),
        ..Tables::default()
    };
    let expired = Some(("2026-01-30T10:00:00Z", "2026-01-31T10:00:00Z"));
    let mut report = report(vec![
        pod("behind", sidecar(GOOD, behind)),
        pod("away", sidecar(expired, away)),
        pod("new", sidecar(None, Tables::default())),
        pod("silent", Some(Sidecar::Silent("its sidecar doesn't answer".to_owned()))),
    ]);
    report.pods[2].ready = false;
    report.pods[3].phase = "Pending".to_owned();
    report.components[1].ready = false;
    report.components[1].restarts = 2;
    report.problems = vec!["web.yaml:3: Deployment shop/web: spec.replicas: \"two\" is no number".to_owned()];
    report.warnings =
        vec!["web.yaml:3: Deployment shop/web: annotation gamut.mesh/mtsl is unknown".to_owned()];
    report.waiting_for = vec!["pod shop/new".to_owned()];
    insta::assert_snapshot!(page(&report, now(), false).render(false));
}

#[test]
fn endpoints_that_get_nothing_are_told_with_whose_they_are_and_for_how_long() {
    let mut calling = sidecar(GOOD, Tables { subscribed: 9, ..Tables::default() });
    let Some(Sidecar::Known(known)) = &mut calling else { panic!("a sidecar") };
    let ejected = |pod: Option<&str>, seconds: i64| Ejected {
        backend: "shop/web:80".to_owned(),
        address: "10.244.0.5:8080".parse().unwrap(),
        pod: pod.map(str::to_owned),
        until: now() + jiff::SignedDuration::from_secs(seconds),
    };
    known.ejected = vec![ejected(Some("web-1"), 12), ejected(None, 180)];
    let text = page(&report(vec![pod("client", calling)]), now(), false).render(false);
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("gets nothing")).collect();
    assert_eq!(
        lines,
        [
            "shop/client: web-1 (10.244.0.5:8080) of shop/web:80 gets nothing for 12s: requests to it failed",
            "shop/client: 10.244.0.5:8080 of shop/web:80 gets nothing for 3m: requests to it failed",
        ]
    );
}

#[test]
fn sessions_have_a_table_of_their_own_where_there_were_any() {
    let mut report = report(Vec::new());
    let outcomes = [("kept", 1890), ("started", 12), ("moved", 3), ("foreign", 1)];
    report.sessions = vec![Sessions {
        of: "httproute/shop/web, rule split".to_owned(),
        outcomes: outcomes.map(|(name, count)| (name.to_owned(), count)).into(),
    }];
    let page = page(&report, now(), false).render(false);
    let lines: Vec<&str> =
        page.lines().filter(|line| line.contains("MOVED") || line.contains("split")).collect();
    assert_eq!(
        lines,
        [
            "SESSIONS OF                     KEPT  STARTED  MOVED  EXPIRED  MALFORMED  FOREIGN",
            "httproute/shop/web, rule split  1890  12       3      0        0          1",
        ]
    );
}
