//! When a root is trusted and when it signs, so that replacing one breaks no handshake.
//!
//! ```text
//! new root ──published── SPREAD ──► signs ─────────────────────────────► ...
//! old root ──signs────────────────► published only, until its last leaf has ended ──► dropped
//! ```
//!
//! A record of what is published is the memory: each root with the time since when it is there, and, once it is no longer among the
//! CA's own, until when. So the order holds across restarts and replicas, and whatever becomes of what is published. What a user puts
//! into `ca.crt` is published whole, as long as it is there.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use gamut_identity::{Roots, to_pem};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};

use crate::authority::SUPPORTED_SKEW;

/// How long a root is published before it signs. Sidecars hear of it within seconds from the controller; files that are mounted
/// from ConfigMaps take kubelet a minute and a half.
pub(crate) const SPREAD: Duration = Duration::from_secs(120);

/// The roots that are published, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Published(Vec<Root>);

#[derive(Clone, Debug, PartialEq)]
struct Root {
    certificate: CertificateDer<'static>,
    times: Times,
}

/// A root's times, as they are kept in the record.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Times {
    /// When it was published first.
    since: Timestamp,
    /// When it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl Published {
    /// Reads a record: certificates as PEM, times as JSON. Times that are missing or can't be read are long ago, and
    /// certificates that can't be read are none: the CA's own are added anyway.
    pub(crate) fn read(pem: &str, times: &str) -> Self {
        let times: BTreeMap<String, Times> = serde_json::from_str(times).unwrap_or_default();
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
        let certificates = certificates.filter(|certificate| Roots::new([certificate.clone()]).is_ok());
        let root = |certificate: CertificateDer<'static>| {
            let known = times.get(&fingerprint(&certificate)).copied();
            Root { certificate, times: known.unwrap_or(Times { since: Timestamp::UNIX_EPOCH, until: None }) }
        };
        Self(certificates.map(root).collect())
    }

    /// Whether there is no root.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The times, for [`Published::read`].
    pub(crate) fn times(&self) -> String {
        let times: BTreeMap<String, Times> =
            self.0.iter().map(|root| (fingerprint(&root.certificate), root.times)).collect();
        serde_json::to_string(&times).unwrap_or_default()
    }

    /// The certificates, PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.iter().map(|root| to_pem(&root.certificate)).collect()
    }

    /// The memory when this is what is really published, PEM: a root that isn't there can't have spread since.
    #[must_use]
    pub(crate) fn seen(mut self, published: &str, now: Timestamp) -> Self {
        let there: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(published.as_bytes()).filter_map(Result::ok).collect();
        for root in self.0.iter_mut().filter(|root| !there.contains(&root.certificate)) {
            root.times.since = now;
        }
        self
    }

    /// What is to be published when the CA's own roots are these: its own first, then those that leaves of at most
    /// `leaf_lifetime` may still lead to.
    #[must_use]
    pub(crate) fn with(&self, own: &Roots, leaf_lifetime: Duration, now: Timestamp) -> Self {
        let known =
            |certificate: &CertificateDer<'_>| self.0.iter().find(|root| root.certificate == *certificate);
        // Where nothing was ever published nobody trusts anything else: there is nothing to wait for.
        let first = if self.0.is_empty() { Timestamp::UNIX_EPOCH } else { now };
        let own: Vec<Root> = own
            .certificates()
            .iter()
            .map(|certificate| {
                let since = known(certificate).map_or(first, |root| root.times.since);
                Root { certificate: certificate.clone(), times: Times { since, until: None } }
            })
            .collect();
        // It may sign until the new one has spread, and clocks may differ.
        let last_leaf = now + whole(SPREAD) + whole(leaf_lifetime) + whole(SUPPORTED_SKEW);
        let retired = self.0.iter().filter(|root| own.iter().all(|own| own.certificate != root.certificate));
        let retired: Vec<Root> = retired
            .map(|root| {
                let until = Some(root.times.until.unwrap_or(last_leaf));
                Root { certificate: root.certificate.clone(), times: Times { until, ..root.times } }
            })
            .filter(|root| root.times.until.is_none_or(|until| now < until))
            .collect();
        Self(own.into_iter().chain(retired).collect())
    }

    /// Whether all of these roots have been published for long enough to sign.
    pub(crate) fn has_spread(&self, own: &Roots, now: Timestamp) -> bool {
        let spread = |certificate: &CertificateDer<'_>| {
            let root = self.0.iter().find(|root| root.certificate == *certificate);
            root.is_some_and(|root| root.times.since + whole(SPREAD) <= now)
        };
        own.certificates().iter().all(spread)
    }

    /// When the next root may sign, or is dropped.
    pub(crate) fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.0.iter().flat_map(|root| [Some(root.times.since + whole(SPREAD)), root.times.until]);
        times.flatten().filter(|time| now < *time).min()
    }
}

/// A certificate's SHA-256, hexadecimal.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest(&SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Durations of ours are constants or come from the command line, and are far below the limit.
fn whole(duration: Duration) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(duration.as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::authority::{Authority, LEAF_LIFETIME};

    fn root() -> Roots {
        let stored = Authority::make("cluster.local", SystemTime::now()).unwrap();
        Roots::from_pem(stored.chain.as_bytes()).unwrap()
    }

    fn roots(published: &Published) -> Roots {
        Roots::from_pem(published.pem().as_bytes()).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn first(own: &Roots) -> Published {
        Published::default().with(own, LEAF_LIFETIME, at(0))
    }

    #[test]
    fn the_first_root_signs_at_once() {
        let own = root();
        let published = first(&own);
        assert!(published.has_spread(&own, at(0)));
        assert_eq!(published.pem(), own.to_pem());
        assert_eq!(published.next_change(at(0)), None);
    }

    #[test]
    fn a_new_root_is_published_beside_the_old_one_before_it_signs() {
        let (old, new) = (root(), root());
        let published = first(&old).with(&new, LEAF_LIFETIME, at(1_000));
        assert_eq!(roots(&published), new.and(&old).unwrap());
        assert!(!published.has_spread(&new, at(1_000)));
        assert!(!published.has_spread(&new, at(1_119)));
        assert_eq!(published.next_change(at(1_000)), Some(at(1_120)));
        assert!(published.has_spread(&new, at(1_120)));
    }

    #[test]
    fn an_old_root_is_trusted_until_its_last_leaf_has_ended_however_often_that_is_looked_at() {
        let (old, new) = (root(), root());
        let mut published = first(&old).with(&new, LEAF_LIFETIME, at(0));
        let end = 120 + 86_400 + 3_600;
        for seconds in [60, 3_600, 80_000, end - 1] {
            published = published.with(&new, LEAF_LIFETIME, at(seconds));
            assert_eq!(roots(&published).certificates().len(), 2, "after {seconds} s");
        }
        assert_eq!(published.next_change(at(end - 1)), Some(at(end)));
        assert_eq!(roots(&published.with(&new, LEAF_LIFETIME, at(end))), new);
    }

    #[test]
    fn a_root_that_comes_back_is_trusted_as_before() {
        let (old, new) = (root(), root());
        let changed = first(&old).with(&new, LEAF_LIFETIME, at(0));
        let back = changed.with(&old, LEAF_LIFETIME, at(10));
        assert!(back.has_spread(&old, at(10)));
        assert_eq!(roots(&back), old.and(&new).unwrap());
    }

    #[test]
    fn roots_that_a_user_announces_beforehand_sign_without_delay_later() {
        let (old, new) = (root(), root());
        let announced = first(&old).with(&old.and(&new).unwrap(), LEAF_LIFETIME, at(0));
        assert!(announced.has_spread(&new, at(200)));
    }

    #[test]
    fn the_memory_survives_being_written_and_read() {
        let (old, new) = (root(), root());
        let published = first(&old).with(&new, LEAF_LIFETIME, at(0));
        assert_eq!(Published::read(&published.pem(), &published.times()), published);
    }

    #[test]
    fn a_root_that_somebody_takes_away_while_it_spreads_begins_anew_and_the_old_one_is_not_forgotten() {
        let (old, new) = (root(), root());
        let both = first(&old).with(&new, LEAF_LIFETIME, at(0));
        let seen = |published: &str| both.clone().seen(published, at(100)).with(&new, LEAF_LIFETIME, at(100));
        assert_eq!(seen(&both.pem()), both);
        for left in [String::new(), old.to_pem(), root().to_pem()] {
            let again = seen(&left);
            assert_eq!(again.pem(), both.pem(), "whole, and nothing of anybody else's");
            assert!(!again.has_spread(&new, at(219)) && again.has_spread(&new, at(220)));
            assert_eq!(
                again.next_change(at(220)),
                both.next_change(at(220)),
                "the old one ends when it would have"
            );
        }
    }

    #[test]
    fn what_somebody_else_wrote_over_it_is_no_obstacle() {
        let own = root();
        let spoiled = Published::read("-----BEGIN CERTIFICATE-----\nnonsense", "nonsense");
        assert!(spoiled.with(&own, LEAF_LIFETIME, at(0)).has_spread(&own, at(0)));
        assert!(Published::read(&own.to_pem(), "").has_spread(&own, at(0)));
    }
}
