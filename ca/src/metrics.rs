//! The CA's page of metrics: what was issued and refused, and until when the roots are good.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gamut_metrics::{Kind, Page};

/// How many calls were answered how, since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Certificates.
    pub(crate) issued: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

/// Why no certificate was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token isn't good.
    Token,
    /// The tokens can't be reviewed at present.
    Review,
    /// The pod asks too often.
    Limit,
    /// The request asks for what isn't the caller's, or is no honest one.
    Request,
    /// It can't be signed.
    Sign,
}

impl Refusal {
    const ALL: [Self; 5] = [Self::Token, Self::Review, Self::Limit, Self::Request, Self::Sign];

    fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Review => "review",
            Self::Limit => "limit",
            Self::Request => "request",
            Self::Sign => "sign",
        }
    }
}

impl Metrics {
    /// Counts a refusal.
    pub(crate) fn refused(&self, why: Refusal) {
        if let Some(counter) = self.refused.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Writes all of it. `good_until`: when what signs at present ends.
    pub(crate) fn render(&self, page: &mut Page, good_until: SystemTime) {
        const ISSUED: &str = "gamut_ca_certificates_issued_total";
        page.family(ISSUED, Kind::Counter, "Certificates that were issued.");
        page.sample(ISSUED, &[], self.issued.load(Relaxed));
        const REFUSED: &str = "gamut_ca_requests_refused_total";
        page.family(REFUSED, Kind::Counter, "Requests that got none: token, review, limit, request, sign.");
        for (why, counter) in Refusal::ALL.into_iter().zip(&self.refused) {
            page.sample(REFUSED, &[("reason", why.as_str())], counter.load(Relaxed));
        }
        const SIGNER: &str = "gamut_ca_signer_not_after_seconds";
        page.family(
            SIGNER,
            Kind::Gauge,
            "When the certificate that signs at present ends, in seconds since 1970.",
        );
        let seconds = good_until.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        page.sample(SIGNER, &[], seconds);
    }
}

#[cfg(test)]
mod tests {
    use gamut_identity::metrics::Life;

    use super::*;

    #[test]
    fn every_metric_is_documented_as_it_is_served() {
        let metrics = Metrics::default();
        metrics.refused(Refusal::Limit);
        let mut page = Page::default();
        page.build(env!("CARGO_PKG_VERSION"));
        metrics.render(&mut page, UNIX_EPOCH);
        let life = Life { not_after: UNIX_EPOCH, lifetime: Duration::from_secs(86_400) };
        gamut_identity::metrics::render(&mut page, Some(life), 0);
        let page = page.finish();
        assert!(page.contains("gamut_ca_requests_refused_total{reason=\"limit\"} 1\n"), "{page}");
        let document = include_str!("../../docs/reference/metrics.md");
        let differences = gamut_metrics::differences(document, "CA", &page);
        assert!(differences.is_empty(), "docs/reference/metrics.md:\n{}", differences.join("\n"));
    }
}
