//! What the CA writes down. In a process of its own, because it looks at everything that is logged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "../../integration/log.rs"]
mod log;
#[path = "../../integration/secrets.rs"]
mod secrets;

use std::fs;

use common::{POD, Town, web};

#[tokio::test]
async fn every_certificate_has_its_line_in_the_audit_log_and_no_secret_does() {
    let (log, _guard) = log::Log::begin();
    let town = Town::new();
    let ca = town.start().await;
    let (_, certificate) = town.sidecar(&ca).await;
    let token = fs::read_to_string(town.path("token")).unwrap();
    ca.stop().await;

    let log = log.text();
    let line = log.lines().find(|line| line.contains("gamut_ca::audit")).unwrap();
    for part in [certificate.serial(), web().as_str(), "shop/web-0", POD, "127.0.0.1:"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    secrets::assert_absent("the token", secrets::signature(&token), &log);
    let key = fs::read_to_string(town.path("store").join("tls.key")).unwrap();
    secrets::assert_absent("the CA's key", &secrets::private_part(&key), &log);
    assert!(!log.contains("PRIVATE"));
}
