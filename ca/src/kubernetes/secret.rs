//! The Secret with the signing key, in the form of `kubernetes.io/tls` with the roots beside it, as cert-manager writes it.

use std::{collections::BTreeMap, time::SystemTime};

use gamut_identity::SYSTEM_NAMESPACE;
use gamut_kubernetes::{ApiError, Cluster, Created, MANAGED_BY, core};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tracing::info;

use crate::{
    authority::{Authority, AuthorityError},
    store::{CHAIN, KEY, ROOTS, Stored},
};

/// The Secret that we make ourselves.
pub(crate) const OWN: &str = "gamut-ca";

/// Why the Secret can't be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// No request got through.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It isn't there, and isn't ours to make.
    #[error("Secret {SYSTEM_NAMESPACE}/{0} doesn't exist (yet); --existing-secret names it")]
    Missing(String),
    /// An entry.
    #[error("Secret {SYSTEM_NAMESPACE}/{name}: data[{entry:?}] {reason}")]
    Entry {
        /// The Secret.
        name: String,
        /// Which entry.
        entry: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What it holds.
    #[error("Secret {SYSTEM_NAMESPACE}/{name}: {source}")]
    Authority {
        /// The Secret.
        name: String,
        /// What is wrong with it.
        source: AuthorityError,
    },
}

/// The Secret by name.
#[derive(Clone, Debug)]
pub(crate) struct SecretStore {
    pub(crate) name: String,
    /// Whether it is made where there is none.
    pub(crate) ours: bool,
}

impl SecretStore {
    /// Reads the Secret; makes one with a new root, if it is ours to make and there is none. Of two that make one at the same time
    /// both get the one that came first.
    ///
    /// # Errors
    /// If it isn't there, or the API server doesn't answer, or it lacks an entry.
    pub(crate) async fn open(
        &self,
        cluster: &Cluster,
        trust_domain: &str,
        now: SystemTime,
    ) -> Result<Stored, SecretError> {
        if let Some(secret) = cluster.get(&core::SECRET, Some(SYSTEM_NAMESPACE), &self.name).await? {
            return self.read(&secret);
        }
        if !self.ours {
            return Err(SecretError::Missing(self.name.clone()));
        }
        let stored = Authority::make(trust_domain, now)
            .map_err(|source| SecretError::Authority { name: self.name.clone(), source })?;
        match cluster.create(&core::SECRET, &self.written(&stored)).await? {
            Created::New(_) => {
                info!("made a new root in Secret {SYSTEM_NAMESPACE}/{}", self.name);
                Ok(stored)
            }
            Created::Existed => match cluster.get(&core::SECRET, Some(SYSTEM_NAMESPACE), &self.name).await? {
                Some(secret) => self.read(&secret),
                None => Err(SecretError::Missing(self.name.clone())),
            },
        }
    }

    /// Takes the three PEM texts out of a Secret.
    pub(crate) fn read(&self, secret: &Value) -> Result<Stored, SecretError> {
        let wrong = |entry, reason| SecretError::Entry { name: self.name.clone(), entry, reason };
        let data = Secret::deserialize(secret).ok().and_then(|secret| secret.data).unwrap_or_default();
        let text = |entry: &'static str| match data.get(entry) {
            None => Ok(None),
            Some(ByteString(bytes)) => {
                String::from_utf8(bytes.clone()).map(Some).map_err(|_| wrong(entry, "isn't text"))
            }
        };
        Ok(Stored {
            key: text(KEY)?.ok_or_else(|| wrong(KEY, "is missing"))?,
            chain: text(CHAIN)?.ok_or_else(|| wrong(CHAIN, "is missing"))?,
            // cert-manager leaves it empty where the issuer doesn't say.
            roots: text(ROOTS)?.filter(|roots| !roots.trim().is_empty()),
        })
    }

    fn written(&self, stored: &Stored) -> Value {
        let mut data = BTreeMap::from([
            (KEY, ByteString(stored.key.clone().into_bytes())),
            (CHAIN, ByteString(stored.chain.clone().into_bytes())),
        ]);
        data.extend(stored.roots.clone().map(|roots| (ROOTS, ByteString(roots.into_bytes()))));
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": SYSTEM_NAMESPACE, "name": self.name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "type": "kubernetes.io/tls",
            "data": data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> SecretStore {
        SecretStore { name: OWN.to_owned(), ours: true }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let stored = Stored { key: "key".into(), chain: "chain".into(), roots: Some("roots".into()) };
        let read = store().read(&store().written(&stored)).unwrap();
        assert_eq!((read.key, read.chain, read.roots), (stored.key, stored.chain, stored.roots));
    }

    #[test]
    fn an_entry_that_is_missing_is_named() {
        for (data, expected) in [
            (json!({}), "Secret gamut-system/gamut-ca: data[\"tls.key\"] is missing"),
            (json!({"tls.key": "a2V5"}), "Secret gamut-system/gamut-ca: data[\"tls.crt\"] is missing"),
            (
                json!({"tls.key": "/w==", "tls.crt": "a2V5"}),
                "Secret gamut-system/gamut-ca: data[\"tls.key\"] isn't text",
            ),
        ] {
            let error = store().read(&json!({"metadata": {}, "data": data})).err().unwrap();
            assert_eq!(error.to_string(), expected);
        }
        let empty_roots =
            json!({"metadata": {}, "data": {"tls.key": "a2V5", "tls.crt": "a2V5", "ca.crt": ""}});
        assert_eq!(store().read(&empty_roots).unwrap().roots, None);
    }
}
