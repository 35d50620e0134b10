//! SPIFFE IDs, text in and a checked [`SpiffeId`] out.
//!
//! Ours always name a Kubernetes service account: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`. The
//! parser takes that one spelling and nothing else, so that two texts are equal exactly when they name the same account
//! and comparing bytes is enough everywhere. Rules: SPIFFE-ID section 2 (no percent-encoding, no empty or dot segments, no
//! query, fragment, port or user), narrowed to the names that Kubernetes allows in each place.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest trust domain, in bytes (SPIFFE-ID section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest namespace: an RFC 1123 label.
const MAX_NAMESPACE: usize = 63;
/// Longest service account name: an RFC 1123 subdomain.
const MAX_SERVICE_ACCOUNT: usize = 253;

/// Who a workload is: a service account of a namespace of a trust domain.
///
/// Cloning is cheap, comparing compares text. It can only be made from valid parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Why a text is not the SPIFFE ID of a service account. Hostile text is quoted with its odd characters escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpiffeError {
    /// Not of the one form that we issue.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Form(String),
    /// The trust domain is empty, too long, or has other characters than a-z, 0-9, '.', '-' and '_'.
    #[error("trust domain {0:?} must be 1 to {MAX_TRUST_DOMAIN} characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain(String),
    /// The namespace isn't an RFC 1123 label.
    #[error(
        "namespace {0:?} must be 1 to {MAX_NAMESPACE} characters of a-z, 0-9 and '-', starting and ending with a letter or digit"
    )]
    Namespace(String),
    /// The service account isn't an RFC 1123 subdomain.
    #[error(
        "service account {0:?} must be 1 to {MAX_SERVICE_ACCOUNT} characters of a-z, 0-9, '-' and '.', each part between dots starting and ending with a letter or digit"
    )]
    ServiceAccount(String),
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// If one of the parts could not be such a name in Kubernetes.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        if !is_trust_domain(trust_domain) {
            return Err(SpiffeError::TrustDomain(excerpt(trust_domain)));
        }
        if !is_label(namespace) {
            return Err(SpiffeError::Namespace(excerpt(namespace)));
        }
        if !is_subdomain(service_account) {
            return Err(SpiffeError::ServiceAccount(excerpt(service_account)));
        }
        Ok(Self(format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").into()))
    }

    /// The whole ID, as it stands in a certificate.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whose word it is.
    pub fn trust_domain(&self) -> &str {
        self.part(2)
    }

    /// The account's namespace.
    pub fn namespace(&self) -> &str {
        self.part(4)
    }

    /// The account's name.
    pub fn service_account(&self) -> &str {
        self.part(6)
    }

    /// A part of `spiffe:` `` `<trust domain>` `ns` `<namespace>` `sa` `<service account>`: none of them contains a slash.
    fn part(&self, index: usize) -> &str {
        self.0.split('/').nth(index).unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let form = || SpiffeError::Form(excerpt(text));
        let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut segments = rest.split('/');
        let parts = [
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ];
        let [Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None] =
            parts
        else {
            return Err(form());
        };
        Self::new(trust_domain, namespace, service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn is_trust_domain(text: &str) -> bool {
    (1..=MAX_TRUST_DOMAIN).contains(&text.len())
        && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= MAX_NAMESPACE
        && alphanumeric(text.bytes().next())
        && alphanumeric(text.bytes().next_back())
        && text.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Kubernetes checks each part of a subdomain as a label without a limit of its own; 253 is the limit of the whole.
fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text.len() <= MAX_SERVICE_ACCOUNT && text.split('.').all(part)
}

/// Enough of a text to recognise it by: what a stranger sent must not fill a log.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_account_is_taken_apart_and_prints_back() {
        let text = "spiffe://cluster.local/ns/shop/sa/web.v1";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "web.v1")
        );
        assert_eq!(id, SpiffeId::new("cluster.local", "shop", "web.v1").unwrap());
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for text in [
            "",
            "spiffe://",
            "spiffe:/cluster.local/ns/shop/sa/web",
            "SPIFFE://cluster.local/ns/shop/sa/web",
            "Spiffe://cluster.local/ns/shop/sa/web",
            "https://cluster.local/ns/shop/sa/web",
            " spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web ",
            "spiffe://cluster.local/ns/shop/sa/web\n",
            "spiffe://cluster.local/ns/shop/sa/web\0",
            "spiffe://cluster.local/ns/shop\0/sa/web",
            "spiffe://cluster.local\0.evil/ns/shop/sa/web",
            "spiffe://Cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local:443/ns/shop/sa/web",
            "spiffe://user@cluster.local/ns/shop/sa/web",
            "spiffe:///ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web/",
            "spiffe://cluster.local//ns/shop/sa/web",
            "spiffe://cluster.local/ns//sa/web",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns/shop/sa",
            "spiffe://cluster.local/ns/shop",
            "spiffe://cluster.local/ns/shop/sa/web/extra",
            "spiffe://cluster.local/NS/shop/sa/web",
            "spiffe://cluster.local/sa/web/ns/shop",
            "spiffe://cluster.local/ns/shop%2Fsa%2Fweb/sa/x",
            "spiffe://cluster.local/ns/sh%6Fp/sa/web",
            "spiffe://cluster.local/ns/./sa/web",
            "spiffe://cluster.local/ns/../sa/web",
            "spiffe://cluster.local/ns/shop/sa/..",
            "spiffe://cluster.local/ns/shop/sa/.web",
            "spiffe://cluster.local/ns/Shop/sa/web",
            "spiffe://cluster.local/ns/sh.op/sa/web",
            "spiffe://cluster.local/ns/-shop/sa/web",
            "spiffe://cluster.local/ns/shop-/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web?x=1",
            "spiffe://cluster.local/ns/shop/sa/web#x",
            "spiffe://cluster.local/ns/shop/sa/we\\b",
            "spiffe://cluster.local/ns/shop/sa/w\u{435}b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_longer_than_kubernetes_allows_are_refused() {
        let (label, subdomain) = ("n".repeat(63), "s".repeat(253));
        assert!(SpiffeId::new("td", &label, &subdomain).is_ok());
        assert!(SpiffeId::new("td", &"n".repeat(64), "web").is_err());
        assert!(SpiffeId::new("td", "shop", &"s".repeat(254)).is_err());
        assert!(SpiffeId::new(&"t".repeat(256), "shop", "web").is_err());
    }

    #[test]
    fn a_message_shows_hostile_text_escaped_and_shortened() {
        let message =
            format!("spiffe://{}\n/ns", "x".repeat(10_000)).parse::<SpiffeId>().unwrap_err().to_string();
        assert!(message.len() < 500 && !message.contains('\n'), "{message}");
        assert!(SpiffeId::new("td\x1b[31m", "a", "b").unwrap_err().to_string().contains("\\u{1b}"));
    }
}
