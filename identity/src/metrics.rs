//! The metrics of a certificate, which every process of the mesh has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gamut_metrics::{Kind, Page};

use crate::{Certificate, Identity};

/// What of a certificate's life there is to watch.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// When it ends.
    pub not_after: SystemTime,
    /// For how long it was good when it came.
    pub lifetime: Duration,
}

impl Identity {
    /// Writes when the certificate ends, how long it lives and how getting the next one goes.
    pub fn render_metrics(&self, page: &mut Page) {
        let life = |certificate: &Certificate| Life {
            not_after: certificate.not_after(),
            lifetime: certificate.lifetime(),
        };
        let failures = self.status().borrow().failures;
        render(page, self.certificate().as_deref().map(life), failures);
    }
}

/// Writes what [`Identity::render_metrics`] would of such an identity.
pub fn render(page: &mut Page, life: Option<Life>, failures: u32) {
    const NOT_AFTER: &str = "gamut_certificate_not_after_seconds";
    page.family(
        NOT_AFTER,
        Kind::Gauge,
        "When the process's own certificate ends, in seconds since 1970; absent before the first.",
    );
    if let Some(Life { not_after, .. }) = life {
        let seconds = not_after.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        page.sample(NOT_AFTER, &[], seconds);
    }
    const LIFETIME: &str = "gamut_certificate_lifetime_seconds";
    page.family(LIFETIME, Kind::Gauge, "For how long that certificate was good when it came, in seconds.");
    if let Some(Life { lifetime, .. }) = life {
        page.sample(LIFETIME, &[], lifetime.as_secs());
    }
    const FAILURES: &str = "gamut_certificate_failures";
    page.family(FAILURES, Kind::Gauge, "Tries to get a certificate that failed since the last that didn't.");
    page.sample(FAILURES, &[], failures);
}
