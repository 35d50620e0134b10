//! Faults under load: what a mesh loses when its parts are killed, hung, cut off or changed, held to an oracle for each.
//!
//! `scenario` keeps clients of every kind calling ([`gamut echo mix`]) while a scenario does its worst again and again, compares
//! what they counted with what the scenario allows, and writes it down in `results.json`. A short form of each runs in CI;
//! `integration/chaos/run` is the long one, and renews `results.json` (README.md).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bounds;
mod control;
#[allow(dead_code, unused_imports, reason = "shared with the end-to-end tests, each of which uses its part")]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod limits;
mod network;
mod pods;
mod replicas;
mod routes;
mod scenario;
mod trust;
