//! What the reference says about ports is true of the code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use gamut_proxy::init::{self, InitArgs};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_rules_in_the_reference_are_those_that_are_written() {
    let reference = fs::read_to_string(format!("{ROOT}/docs/reference/ports.md")).unwrap();
    let args = InitArgs {
        skip_outbound_ports: Default::default(),
        skip_inbound_ports: Default::default(),
        proxy_uid: gamut_proxy::config::PROXY_UID,
    };
    let rules = init::ruleset(&args).to_string();
    assert!(reference.contains(&format!("```\n{rules}```")), "docs/reference/ports.md should show\n{rules}");
}
