//! What the reference says about traffic and ports is true of the code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

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

#[test]
fn every_test_that_the_traffic_table_names_exists() {
    let reference = fs::read_to_string(format!("{ROOT}/docs/reference/traffic.md")).unwrap();
    let mut sources = String::new();
    for folder in ["proxy/src", "proxy/tests", "netfilter/tests", "integration/e2e"] {
        collect(&Path::new(ROOT).join(folder), &mut sources);
    }
    // Names of tests are sentences; names of anything else in the table are shorter.
    let names = reference
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| !name.starts_with("gamut_") && name.matches('_').count() >= 3);
    let missing: Vec<_> = names.filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/reference/traffic.md names tests that don't exist: {missing:?}");
}

fn collect(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
