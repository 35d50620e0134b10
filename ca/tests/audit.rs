//! What the CA writes down. In a process of its own, because it looks at everything that is logged.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "../../integration/secrets.rs"]
mod secrets;

use std::{
    fs, io,
    io::Write,
    sync::{Arc, Mutex},
};

use common::{POD, Town, web};

/// A writer that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn every_certificate_has_its_line_in_the_audit_log_and_no_secret_does() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::TRACE);
    let _guard = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());
    let town = Town::new();
    let ca = town.start().await;
    let (_, certificate) = town.sidecar(&ca).await;
    let token = fs::read_to_string(town.path("token")).unwrap();
    ca.stop().await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("gamut_ca::audit")).unwrap();
    for part in [certificate.serial(), web().as_str(), "shop/web-0", POD, "127.0.0.1:"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    secrets::assert_absent("the token", secrets::signature(&token), &log);
    let key = fs::read_to_string(town.path("store").join("tls.key")).unwrap();
    secrets::assert_absent("the CA's key", &secrets::private_part(&key), &log);
    assert!(!log.contains("PRIVATE"));
}
