//! What the injector logs, and the CA, which runs in this process here. In a process of its own, because it looks at everything that is
//! logged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "../../../integration/log.rs"]
mod log;
#[path = "../../../integration/secrets.rs"]
mod secrets;

use std::time::Duration;

use serde_json::json;

use self::common::Town;

#[tokio::test]
async fn no_key_and_no_token_is_in_a_log() {
    let (log, _guard) = log::Log::begin();
    let town = Town::new(Duration::from_secs(86_400)).await;
    town.api_server.put(
        "/api/v1/namespaces",
        json!({"metadata": {"name": "shop", "labels": {"gamut.mesh/inject": "enabled"}}}),
    );
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    let answer = town.connect().await.review(&pod).await;
    assert_eq!(answer["allowed"], true);
    let (token, key) = (town.file("token"), town.file("store/tls.key"));

    let log = log.text();
    assert!(log.contains("gamut_ca::audit") && log.contains("TRACE"), "all of it is there: {log}");
    secrets::assert_absent("the injector's token", secrets::signature(&token), &log);
    secrets::assert_absent("the CA's key", &secrets::private_part(&key), &log);
    assert!(!log.contains("PRIVATE"));
}
