//! How a workload asks the CA for a certificate: one call, [`v1::IssueRequest`] in, [`v1::IssueResponse`] out.
//!
//! The caller proves who it is with a service account token in the call's metadata ([`bearer`], [`token_of`]); what it
//! asks for is a PKCS #10 request. What the CA does with both is in `gamut-ca`, what a workload does with the answer in
//! `gamut-identity`.

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

pub use v1::{
    certificate_authority_client::CertificateAuthorityClient,
    certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer},
};

/// The messages and the service, generated from `proto/ca.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::expect_used)]
pub mod v1 {
    tonic::include_proto!("gamut.ca.v1");
}

/// The audience that a token must be made for. A token for the API server is worth nothing to us, and ours nothing to it.
pub const AUDIENCE: &str = "gamut.mesh/ca";

/// The longest request or answer, in bytes, that either side reads: a CSR is under 1 KiB, a chain with roots a few.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The longest token, in bytes, that the CA looks at. Kubernetes' are about 1 KiB.
pub const MAX_TOKEN: usize = 8 * 1024;

const HEADER: &str = "authorization";
const SCHEME: &str = "Bearer ";

/// A token as the value of the call's `authorization` metadata, marked sensitive so that nothing prints it.
///
/// `None` when the token has bytes that a header can't carry.
pub fn bearer(token: &str) -> Option<MetadataValue<Ascii>> {
    let mut value = MetadataValue::try_from(format!("{SCHEME}{token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The token that a call carries: exactly one `authorization: Bearer` value of at most [`MAX_TOKEN`] bytes.
pub fn token_of(metadata: &MetadataMap) -> Option<&str> {
    let mut values = metadata.get_all(HEADER).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let token = value.to_str().ok()?.strip_prefix(SCHEME)?;
    (!token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(values: &[&str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append(HEADER, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn a_bearer_value_gives_its_token_back_and_never_prints_it() {
        let value = bearer("abc.def").unwrap();
        assert!(!format!("{value:?}").contains("abc"));
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER, value);
        assert_eq!(token_of(&metadata), Some("abc.def"));
    }

    #[test]
    fn anything_but_one_bearer_token_of_sensible_length_is_no_token() {
        let long = format!("{SCHEME}{}", "a".repeat(MAX_TOKEN + 1));
        for values in [
            &[][..],
            &["Bearer "],
            &["Basic abc"],
            &["bearer abc"],
            &["Bearer a", "Bearer b"],
            &[long.as_str()],
        ] {
            assert_eq!(token_of(&metadata(values)), None, "{values:?}");
        }
        assert!(bearer("two\nlines").is_none());
    }
}
