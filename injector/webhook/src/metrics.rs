//! Counters, and the page of them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gamut_metrics::{Kind, Page};

use crate::status::Cause;

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

impl Metrics {
    /// Writes all of it. `without_sidecar`: pods by namespace and cause.
    pub(crate) fn render(
        &self,
        page: &mut Page,
        without_sidecar: &BTreeMap<(String, Cause), usize>,
        ca_bundle_written: bool,
    ) {
        const REVIEWS: &str = "gamut_injector_reviews_total";
        page.family(
            REVIEWS,
            Kind::Counter,
            "Pods and other requests that the API server sent, by what became of them: injected, skipped, refused, failed.",
        );
        let outcomes = [
            ("injected", &self.injected),
            ("skipped", &self.skipped),
            ("refused", &self.refused),
            ("failed", &self.failed),
        ];
        for (outcome, count) in outcomes {
            page.sample(REVIEWS, &[("outcome", outcome)], count.load(Relaxed));
        }
        const WITHOUT: &str = "gamut_injector_pods_without_sidecar";
        page.family(WITHOUT, Kind::Gauge, "Pods that should have a sidecar and don't.");
        for ((namespace, cause), count) in without_sidecar {
            page.sample(WITHOUT, &[("namespace", namespace), ("cause", cause.label())], count);
        }
        const WRITTEN: &str = "gamut_injector_ca_bundle_written";
        page.family(
            WRITTEN,
            Kind::Gauge,
            "1 while the webhook configuration's caBundle holds the published roots.",
        );
        page.sample(WRITTEN, &[], u8::from(ca_bundle_written));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use gamut_identity::metrics::Life;

    use super::*;

    #[test]
    fn every_metric_is_documented_as_it_is_served() {
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        let without_sidecar = BTreeMap::from([(("shop".to_owned(), Cause::HostNetwork), 1)]);
        Metrics::default().render(&mut page, &without_sidecar, true);
        let life = Life { not_after: UNIX_EPOCH, lifetime: Duration::from_secs(86_400) };
        gamut_identity::metrics::render(&mut page, Some(life), 0);
        let document = include_str!("../../../docs/reference/metrics.md");
        let differences = gamut_metrics::differences(document, "Injector", &page.finish());
        assert!(differences.is_empty(), "docs/reference/metrics.md:\n{}", differences.join("\n"));
    }
}
