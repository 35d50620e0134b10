//! `examples/canary`, exactly as a reader of the README starts it: the split, the header, the session.

use crate::harness::{Mesh, by_version, fields};

#[test]
fn nine_in_ten_requests_get_version_one_and_the_tenth_the_canary() {
    let mesh = Mesh::example("canary");
    // Three thousand, so that three points are more than five standard deviations: chance alone never fails this.
    let answers = mesh.load("shop/deploy/client", &["http://web/", "--count=3000", "--users=4"]).finish();
    crate::harness::assert_no_failure(&answers);
    let canary = by_version(&answers)["v2"] as f64 / 30.0;
    assert!((canary - 10.0).abs() < 3.0, "{canary} % of the requests got the canary");

    let pods: std::collections::BTreeSet<&str> = answers.iter().map(|answer| answer.pod.as_str()).collect();
    assert_eq!(pods.len(), 4, "every pod of both versions answers: {pods:?}");
}

#[test]
fn who_asks_for_the_canary_by_header_always_gets_it() {
    let mesh = Mesh::example("canary");
    let out = mesh.ask("shop/deploy/client", &["http://web/", "-H", "x-canary:always", "--count=100"]);
    let versions = fields(&out, "ServiceVersion");
    assert_eq!(versions, vec!["v2"; 100]);
}

#[test]
fn a_session_is_kept_while_the_weights_flip_and_everybody_else_follows_them() {
    let mesh = Mesh::example("canary");
    let mut user = mesh.load("shop/deploy/client", &["http://web/", "--cookies"]);
    let mut strangers = mesh.load("shop/deploy/client", &["http://web/"]);
    user.more(50);

    mesh.edit("4-route.yaml", "weight: 10", "weight: 100");
    mesh.edit("4-route.yaml", "weight: 90", "weight: 0");
    mesh.settle();
    user.more(50);
    strangers.until_steady("all strangers get version two", 50, |answer| answer.version == "v2");

    mesh.edit("4-route.yaml", "weight: 0", "weight: 1");
    mesh.edit("4-route.yaml", "weight: 100", "weight: 0");
    mesh.settle();
    user.more(50);
    strangers.until_steady("all strangers get version one", 50, |answer| answer.version == "v1");

    mesh.edit("4-route.yaml", "weight: 0", "weight: 10");
    mesh.edit("4-route.yaml", "weight: 1\n", "weight: 90\n");
    mesh.settle();
    user.more(50);

    let (user, strangers) = (user.finish(), strangers.finish());
    crate::harness::assert_no_failure(&user);
    crate::harness::assert_no_failure(&strangers);
    assert!(user.len() >= 200);
    let mut pods: Vec<&str> = user.iter().map(|answer| answer.pod.as_str()).collect();
    pods.dedup();
    // Whether a pod was unready, or a container started again, says why.
    assert_eq!(pods.len(), 1, "the user was moved: {pods:?}\n{}", mesh.run(&["status"]));
}

#[test]
fn a_slip_of_the_keys_costs_no_request_and_is_told_with_the_word_that_was_meant() {
    let mut mesh = Mesh::example("canary");
    let mut user = mesh.load("shop/deploy/client", &["http://web/"]);
    user.more(20);
    mesh.edit("4-route.yaml", "weight: 90", "wieght: 50");
    let told = mesh.output.find("the misspelt field", |line| line.contains("wieght"));
    for words in
        ["error:", "4-route.yaml:", "HTTPRoute shop/web", "spec.rules[1].backendRefs[0]", "write weight"]
    {
        assert!(told.contains(words), "{words} in {told}");
    }
    mesh.output.until("what is kept, below the error", |line| {
        line.contains("warning:") && line.contains("last good version")
    });
    mesh.settle();
    user.more(50);
    mesh.edit("4-route.yaml", "wieght: 50", "weight: 0");
    mesh.settle();
    user.until_steady("the mended route is in force", 50, |answer| answer.version == "v2");
    crate::harness::assert_no_failure(&user.finish());
}

#[test]
fn status_tells_who_every_pod_is_for_how_long_and_that_it_has_the_newest_tables() {
    let mesh = Mesh::example("canary");
    let status: serde_json::Value = serde_json::from_str(&mesh.run(&["status", "-o", "json"])).unwrap();
    let pods = status["pods"].as_array().unwrap();
    assert_eq!(pods.len(), 5, "{status:#}");
    for pod in pods {
        let account = if pod["name"].as_str().unwrap().starts_with("client-") { "client" } else { "web" };
        let sidecar = &pod["sidecar"]["known"];
        assert_eq!(sidecar["identity"], format!("spiffe://cluster.local/ns/shop/sa/{account}"), "{pod:#}");
        let time =
            |field: &str| sidecar["certificate"][field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let hours = (time("expires").as_second() - time("issued").as_second()) / 3600;
        assert_eq!(hours, 24, "{pod:#}");
        assert!(sidecar["tables"]["subscribed"].as_u64().unwrap() > 0, "{pod:#}");
        assert_eq!(sidecar["tables"]["behind"], serde_json::json!([]), "{pod:#}");
    }
    assert!(
        status["components"].as_array().unwrap().iter().all(|component| component["ready"] == true),
        "{status:#}"
    );
}
