//! What the reference says about ports and defaults is true of the code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use gamut_proxy::{
    balance::{Settings, settings::EjectAfter},
    config::MAX_CONNECTIONS,
    init::{self, InitArgs},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_rules_in_the_reference_are_those_that_are_written() {
    let reference = fs::read_to_string(format!("{ROOT}/docs/reference/ports.md")).unwrap();
    let args = InitArgs {
        skip_outbound_ports: Default::default(),
        skip_inbound_ports: Default::default(),
        proxy_uid: None,
    };
    let rules = init::ruleset(&args, gamut_proxy::config::PROXY_UID).to_string();
    assert!(reference.contains(&format!("```\n{rules}```")), "docs/reference/ports.md should show\n{rules}");
}

#[test]
fn the_defaults_of_bounds_in_the_reference_are_the_codes() {
    let page = fs::read_to_string(format!("{ROOT}/docs/reference/annotations.md")).unwrap();
    let Settings { eject_after, slow_start, max_requests, max_connecting } = Settings::default();
    for (annotation, default) in [
        ("eject-after", EjectAfter(eject_after).to_string()),
        ("slow-start", format!("{slow_start:?}")),
        ("max-requests", max_requests.to_string()),
        ("max-connecting", max_connecting.to_string()),
        ("max-connections", MAX_CONNECTIONS.to_string()),
    ] {
        let row =
            page.lines().find(|line| line.starts_with(&format!("| `gamut.mesh/{annotation}`"))).unwrap();
        assert!(row.contains(&format!("| `{default}` |")), "{annotation}: {default}");
    }
}
