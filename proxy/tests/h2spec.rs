//! h2spec (github.com/summerwind/h2spec) against the end that takes HTTP/2: outbound, where an app calls.
//!
//! Runs where h2spec is in `PATH`, or where `GAMUT_H2SPEC` names it (`go install github.com/summerwind/h2spec/cmd/h2spec@latest`), and says so
//! where it isn't. [`OF_APPS`] says what may fail; anything else fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod caller;
mod mesh;

use std::{net::SocketAddr, time::Duration};

use caller::{App, Caller};
use gamut_proxy::http::{Body, HttpVersion};
use http::Response;
use tokio::{process::Command, time::timeout};

/// How long all of its cases may take at one end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What may fail where apps call, by the words of h2spec.
const OF_APPS: &[&str] = &[
    // What begins otherwise isn't HTTP/2 but bytes of whatever the port's protocol is; whoever doesn't understand them resets.
    "Sends invalid connection preface",
];

/// The cases that fail at an address; `None` where there is no h2spec.
async fn failures(address: SocketAddr) -> Option<Vec<String>> {
    let program = std::env::var("GAMUT_H2SPEC").unwrap_or_else(|_| "h2spec".to_owned());
    let port = address.port().to_string();
    let mut command = Command::new(&program);
    command.args(["--host", "127.0.0.1", "--port", &port, "--timeout", "2"]).kill_on_drop(true);
    let output = match timeout(PATIENCE, command.output()).await.expect("h2spec's end") {
        Ok(output) => String::from_utf8(output.stdout).unwrap(),
        Err(error) => {
            println!("skipped: {program}: {error}");
            return None;
        }
    };
    assert!(output.contains(" tests, "), "{output}");
    println!("{}", output.split_once("Failures:").map_or(output.as_str(), |(_, failures)| failures));
    let failed = output.lines().filter_map(|line| line.trim().strip_prefix("× "));
    let mut failed: Vec<String> = failed.map(str::to_owned).collect();
    failed.sort();
    failed.dedup();
    Some(failed)
}

/// What fails at an address each time of three, and isn't known. Where the app's answer, and with it the stream's end, came before the
/// frames that a case is about, it asks something else: that is no failure of every time.
async fn failing(address: SocketAddr, known: &[&str]) -> Vec<String> {
    let mut failing: Option<Vec<String>> = None;
    for _ in 0..3 {
        let Some(mut failed) = failures(address).await else { return Vec::new() };
        failed.retain(|case| !known.iter().any(|known| case.contains(known)));
        failed.retain(|case| failing.as_ref().is_none_or(|before| before.contains(case)));
        if failed.is_empty() {
            return failed;
        }
        failing = Some(failed);
    }
    failing.unwrap_or_default()
}

async fn app() -> App {
    App::speaking(HttpVersion::H2, |_| async { Response::new(Body::from("hello, h2spec".to_owned())) }).await
}

#[tokio::test]
async fn an_app_that_speaks_http_2_to_its_sidecar_finds_the_specification() {
    let app = app().await;
    let caller = Caller::new(Vec::new(), &[("shop/web:80", vec![app.endpoint("web-0")])]).await;
    assert_eq!(failing(caller.entrance, OF_APPS).await, Vec::<String>::new());
}
