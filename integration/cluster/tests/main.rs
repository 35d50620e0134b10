//! The control plane against a real Kubernetes. See `harness` for how a cluster is named, and what happens without one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod authority;
mod cli;
mod controller;
mod harness;
mod injector;
mod install;
mod machine;
mod outages;
mod own_pki;
mod pages;
mod person;
mod remedies;
mod roles;
mod rotation;
mod shop;
mod workloads;
