//! What happens to the control plane while traffic flows: the controller, the CA, certificates.

use std::time::{Duration, Instant};

use crate::{
    harness::{Mesh, PATIENCE, app, namespace, service, statuses},
    scenario::{EVERYBODY, Oracle, PLAIN, Scenario, metrics, shop, web},
    trust::call_anew,
};

/// How long a sidecar waits for the controller's word about an address (docs/reference/control-plane.md).
const RESET_AFTER: Duration = Duration::from_secs(5);

/// How long the caller would wait, that is reset: far longer, whatever a busy machine adds.
const ASKS_FOR: Duration = Duration::from_secs(20);

/// Nothing is to be noticed.
const NOTHING: Oracle =
    Oracle::nothing("nothing fails and nothing breaks: the data path doesn't need the control plane");

#[test]
fn a_controller_that_dies_hangs_and_forgets_costs_nothing() {
    let mut run = Scenario::begin("controller killed, hung, back", &shop(web(3), PLAIN), &[], EVERYBODY);
    run.repeat(|run| {
        run.mesh.signal("KILL", run.mesh.component("controller"));
        // Connections that stand know where they lead; new ones must too.
        call_anew(run);
        run.mix.answered(100);
        run.mesh.settle();
        let hung = run.mesh.component("controller");
        run.mesh.signal("STOP", hung);
        run.mix.go_on(Duration::from_secs(2));
        call_anew(run);
        run.mesh.signal("CONT", hung);
        run.mesh.settle();
        run.mix.answered(100);
    });
    run.end(&NOTHING);
}

/// The serial number of the client's certificate.
pub(crate) fn serial(mesh: &Mesh) -> Option<String> {
    let status = mesh.pods("client").remove(0).proxy?;
    Some(status["certificate"]["serial"].as_str()?.to_owned())
}

#[test]
fn certificates_are_renewed_without_anybodys_notice() {
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "10s")];
    let mut run = Scenario::begin("leaf renewal", &shop(web(3), PLAIN), &leaves, EVERYBODY);
    let mut renewals = 0;
    while renewals < 2 || !run.is_enough() {
        let before = serial(&run.mesh);
        let deadline = Instant::now() + PATIENCE;
        while serial(&run.mesh) == before {
            assert!(Instant::now() < deadline, "the certificate isn't renewed");
            // Connections that stand need none any more.
            call_anew(&run);
            run.mix.answered(20);
        }
        renewals += 1;
    }
    run.end(&NOTHING);
}

#[test]
fn a_ca_that_is_away_for_less_than_certificates_have_left_costs_nothing() {
    // Renewed between 15 and 21 s, so that 4 s without a CA leave room.
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "30s")];
    let mut run = Scenario::begin("CA away within the margin", &shop(web(3), PLAIN), &leaves, EVERYBODY);
    let first = serial(&run.mesh);
    let deadline = Instant::now() + 2 * PATIENCE;
    // Four of five seconds have no CA, whenever the first renewal is due.
    while serial(&run.mesh) == first || !run.is_enough() {
        assert!(Instant::now() < deadline || run.is_enough(), "the certificate isn't renewed");
        let hung = run.mesh.component("ca");
        run.mesh.signal("STOP", hung);
        run.mix.go_on(Duration::from_secs(4));
        call_anew(&run);
        run.mesh.signal("CONT", hung);
        run.mix.go_on(Duration::from_secs(1));
    }
    run.end(&NOTHING);
}

#[test]
fn without_a_certificate_new_connections_fail_closed_until_there_is_one() {
    let leaves = [("GAMUT_CA_LEAF_LIFETIME", "10s")];
    let mut manifests = shop(web(2), PLAIN);
    // Somebody whom nobody has called yet: there is no connection that was made in time.
    manifests.extend([app("other").in_namespace("shop"), service("shop", "other")]);
    let mut run = Scenario::begin("CA away for too long", &manifests, &leaves, &["h1=4"]);
    let ask = |run: &Scenario| {
        let output = run.mesh.try_to_ask("shop/deploy/client", &["http://other/"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let hung = run.mesh.component("ca");
    run.mesh.signal("STOP", hung);
    // No certificate is younger than the CA's last moment, and nobody has called `other` yet: its connections can't be old ones.
    run.mix.go_on(Duration::from_secs(12));
    let answer = ask(&run);
    assert!(statuses(&answer) == [503] && answer.contains("no-certificate"), "{answer}");
    run.mesh.signal("CONT", hung);
    let begin = Instant::now();
    while statuses(&ask(&run)) != [200] {
        assert!(begin.elapsed() < Duration::from_secs(30), "it doesn't recover");
        run.mix.go_on(Duration::from_millis(200));
    }
    while !run.is_enough() {
        run.mix.answered(100);
    }
    run.end(&Oracle {
        says: "new connections are refused with 503 no-certificate once the leaf has ended, and are made again within 30 s of the CA's return; \
               requests on connections that were made in time go on; nothing fails for another reason",
        may_fail: &[],
        fails_closed: Some("no-certificate"),
        may_break: &[],
        longest_gap: Duration::from_secs(5),
    });
}

#[test]
fn a_new_destination_fails_closed_without_the_controller_and_is_reached_when_it_is_back() {
    let mut manifests = shop(web(2), PLAIN);
    // Of another namespace: nothing of it is loaded before its first use.
    manifests.extend([
        namespace("bank", "strict"),
        app("safe").in_namespace("bank"),
        service("bank", "safe"),
    ]);
    let mut run = Scenario::begin("a new destination without a controller", &manifests, &[], EVERYBODY);
    let timeout = format!("--timeout={}s", ASKS_FOR.as_secs());
    let ask = |run: &Scenario| run.mesh.try_to_ask("shop/deploy/client", &["http://safe.bank/", &timeout]);
    let hung = run.mesh.component("controller");
    run.mesh.signal("STOP", hung);
    let begin = Instant::now();
    let refused = ask(&run);
    let after = begin.elapsed();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && why.contains("reset by peer"),
        "nobody knows where it leads: {refused:?}"
    );
    // No later than that, or the caller would have given up by itself and said so.
    assert!((RESET_AFTER..ASKS_FOR).contains(&after), "it was reset after {after:?}");
    let metrics = metrics(&run.mesh);
    let counted = r#"gamut_own_answers_total{direction="outbound",reason="no-table"} 1"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let log = run.mesh.run(&["logs", "-n", "shop", "-c", "gamut-proxy", "deploy/client"]);
    assert!(log.contains("the app's connection is reset: "), "{log}");
    run.mix.answered(100);
    run.mesh.signal("CONT", hung);
    let begin = Instant::now();
    while !ask(&run).status.success() {
        assert!(begin.elapsed() < Duration::from_secs(30), "it isn't reached");
        run.mix.answered(20);
    }
    run.repeat(|run| run.mix.answered(100));
    run.end(&Oracle::nothing(
        "a first use of an address is reset after 5 s while the controller hangs, and succeeds within 30 s of its return; \
         nobody else notices",
    ));
}
