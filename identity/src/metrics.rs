//! The metrics of a certificate, which every process of the mesh has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gamut_metrics::{Kind, Page};

use crate::Identity;

impl Identity {
    /// Writes when the certificate ends and how getting the next one goes.
    pub fn render_metrics(&self, page: &mut Page) {
        let failures = self.status().borrow().failures;
        render(page, self.certificate().map(|certificate| certificate.not_after()), failures);
    }
}

/// Writes what [`Identity::render_metrics`] would of such an identity.
pub fn render(page: &mut Page, not_after: Option<SystemTime>, failures: u32) {
    const NOT_AFTER: &str = "gamut_certificate_not_after_seconds";
    page.family(
        NOT_AFTER,
        Kind::Gauge,
        "When the process's own certificate ends, in seconds since 1970; absent before the first.",
    );
    if let Some(not_after) = not_after {
        let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        page.sample(NOT_AFTER, &[], seconds);
    }
    const FAILURES: &str = "gamut_certificate_failures";
    page.family(FAILURES, Kind::Gauge, "Tries to get a certificate that failed since the last that didn't.");
    page.sample(FAILURES, &[], failures);
}
