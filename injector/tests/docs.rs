//! The reference page and the code name the same labels and annotations.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use gamut_injector::{Config, INJECT, INJECTED, POD_ANNOTATIONS, PREFIX};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/annotations.md");

/// Those of routes, which the controller reads and the injector doesn't know.
const ROUTE_ANNOTATIONS: [&str; 2] = ["gamut.mesh/session-persistence", "gamut.mesh/session-scope"];

/// The first cell of each row, where it is one of our names.
fn documented(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    cells.map(|(name, _)| name).filter(|name| name.starts_with(PREFIX)).collect()
}

#[test]
fn every_name_has_its_row_and_every_row_its_name() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let known: BTreeSet<&str> =
        POD_ANNOTATIONS.iter().copied().chain([INJECT, INJECTED]).chain(ROUTE_ANNOTATIONS).collect();
    assert_eq!(documented(&page), known);
}

#[test]
fn the_defaults_on_the_page_are_the_codes() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let config = Config::default();
    let row =
        |name: &str| page.lines().find(|line| line.starts_with(&format!("| `{PREFIX}{name}`"))).unwrap();
    for (name, default) in [
        ("drain-time", config.drain_time),
        ("log-level", config.log_level),
        ("cpu-request", config.resources.cpu_request.unwrap()),
        ("memory-request", config.resources.memory_request.unwrap()),
    ] {
        assert!(row(name).contains(&format!("| `{default}` |")), "{name}: {default}");
    }
}
