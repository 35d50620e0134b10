//! Makes service account tokens where there is no API server to make them: on one machine.
//!
//! They have the shape of Kubernetes' own bound tokens and go the same way (a file in the pod's projected volume), so that
//! the sidecar and the CA do on one machine what they do on a cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use thiserror::Error;

use crate::authenticate::{Bound, Claims, Reference, SUBJECT};

/// The `iss` of local tokens.
pub const ISSUER: &str = "https://tokens.gamut.mesh";

/// A key that signs tokens. It exists in memory only; those who check tokens get its public half.
pub struct LocalIssuer {
    key: EncodingKey,
    public_key: String,
}

/// The token that a pod's projected volume asks for.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The service account's name.
    pub service_account: &'a str,
    /// The service account's UID.
    pub service_account_uid: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// The pod's UID.
    pub pod_uid: &'a str,
    /// Who shall accept it.
    pub audience: &'a str,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// The cryptographic library refuses.
#[derive(Debug, Error)]
pub enum LocalIssuerError {
    /// No key: there is no entropy.
    #[error("can't make a key to sign tokens with: {0}")]
    Key(#[from] rcgen::Error),
    /// No token.
    #[error("can't sign a token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl LocalIssuer {
    /// Makes an issuer with a new key.
    ///
    /// # Errors
    /// If there is no entropy.
    pub fn generate() -> Result<Self, LocalIssuerError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self { key: EncodingKey::from_ec_der(key.serialized_der()), public_key: key.public_key_pem() })
    }

    /// The public half, PEM: what `gamut ca --issuer-key-file` reads.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// Signs a token, valid from `now` on.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn mint(&self, request: &TokenRequest<'_>, now: SystemTime) -> Result<String, LocalIssuerError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let reference = |name: &str, uid: &str| Reference { name: name.to_owned(), uid: uid.to_owned() };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: format!("{SUBJECT}{}:{}", request.namespace, request.service_account),
            aud: vec![request.audience.to_owned()],
            iat: now,
            nbf: now,
            exp: now.saturating_add(request.lifetime.as_secs()),
            kubernetes: Bound {
                namespace: request.namespace.to_owned(),
                pod: Some(reference(request.pod, request.pod_uid)),
                serviceaccount: reference(request.service_account, request.service_account_uid),
            },
        };
        Ok(encode(&Header::new(Algorithm::ES256), &claims, &self.key)?)
    }
}
