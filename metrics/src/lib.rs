//! Prometheus' text format, which every process of the mesh writes, and what a page of it holds, which tests compare with
//! the documentation.
//!
//! Written by hand: the format is a page of rules, and a registry would want to own the counters, which belong to the code
//! that counts.

mod documented;
mod page;

pub use documented::{Family, differences, families};
pub use page::{Kind, Page};
