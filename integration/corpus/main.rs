//! The corpus: what the specification says, as cases that were written from its text, asked twice.
//!
//! ```text
//! cases/TOPIC/NAME.yaml ─ case ─┬─ table: the controller's index, then the library that `gamut explain` asks
//!                               └─ mesh:  one `gamut up` with all cases, requests through real sidecars
//! CLAUSES.md ─ clauses ─ every clause has cases, and every case has clauses
//! ```
//!
//! `case` says what a case looks like. A case that only one of the two ways can show says why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answer;
mod case;
mod clauses;
#[allow(dead_code, unused_imports, reason = "shared with the end-to-end tests, which use more of it")]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod mesh;
mod table;
