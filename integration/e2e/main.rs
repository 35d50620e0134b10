//! End-to-end tests: real processes, real namespaces, real TLS, a mesh of its own for each test.
//!
//! They are one program, so that they run side by side however many there are; `harness` is what they stand on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod addresses;
mod canary;
mod canary_controllers;
mod changes;
mod commands;
mod failures;
mod harness;
mod mtls;
mod pages;
mod prometheus;
mod protocols;
mod records;
mod routing;
#[path = "../secrets.rs"]
mod secrets;
mod sessions;
mod terminal;
mod up;
