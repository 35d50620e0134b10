//! Counters, and the page of them (Prometheus text format).

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// What was answered, since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Pods that got a sidecar.
    pub(crate) injected: AtomicU64,
    /// Pods that were left as they are.
    pub(crate) skipped: AtomicU64,
    /// Pods that were refused.
    pub(crate) refused: AtomicU64,
    /// Requests that weren't answered with a review.
    pub(crate) failed: AtomicU64,
}

/// A gauge, or a family of them by their labels.
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// Labels as they are written, such as `{namespace="shop"}`, and a value each.
    pub(crate) values: Vec<(String, f64)>,
}

impl Metrics {
    /// The page.
    pub(crate) fn page(&self, gauges: &[Gauge]) -> String {
        let mut page = String::from(
            "# HELP gamut_injector_reviews_total Pods and other requests that the API server sent, by what became of them.\n\
             # TYPE gamut_injector_reviews_total counter\n",
        );
        let outcomes = [
            ("injected", &self.injected),
            ("skipped", &self.skipped),
            ("refused", &self.refused),
            ("failed", &self.failed),
        ];
        for (outcome, count) in outcomes {
            // Writing to a String doesn't fail.
            let _ = writeln!(
                page,
                "gamut_injector_reviews_total{{outcome=\"{outcome}\"}} {}",
                count.load(Relaxed)
            );
        }
        for Gauge { name, help, values } in gauges {
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (labels, value) in values {
                let _ = writeln!(page, "{name}{labels} {value}");
            }
        }
        page
    }
}
