//! Service account tokens for pods and for the mesh's own processes, from an issuer of the node's own.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use gamut_ca::{LocalIssuer, TokenRequest, local_issuer::LocalIssuerError};
use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;

use crate::pod::{data::Data, downward};

/// The audience of tokens that don't name one: the API server's.
const API_SERVER: &str = "https://kubernetes.default.svc.cluster.local";

/// Makes tokens. Its key is in this process only.
pub(crate) struct Tokens {
    issuer: LocalIssuer,
}

/// A token can't be made.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error("waits for ServiceAccount {0}, which doesn't exist (yet); add it to the manifests")]
    NoServiceAccount(String),
    #[error(transparent)]
    Issuer(#[from] LocalIssuerError),
}

impl Tokens {
    pub(crate) fn new() -> Result<Self, TokenError> {
        Ok(Self { issuer: LocalIssuer::generate()? })
    }

    /// What the CA checks tokens with, PEM.
    pub(crate) fn public_key(&self) -> &str {
        self.issuer.public_key()
    }

    /// A token of a pod's service account, bound to the pod.
    pub(crate) fn for_pod(
        &self,
        pod: &Pod,
        data: &Data,
        audience: &str,
        lifetime: Duration,
    ) -> Result<String, TokenError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let service_account = downward::service_account(pod);
        let service_account_uid = data
            .service_account(namespace, service_account)
            .ok_or_else(|| TokenError::NoServiceAccount(format!("{namespace}/{service_account}")))?;
        self.mint(&TokenRequest {
            namespace,
            service_account,
            service_account_uid,
            pod: pod.metadata.name.as_deref().unwrap_or_default(),
            pod_uid: pod.metadata.uid.as_deref().unwrap_or_default(),
            audience: if audience.is_empty() { API_SERVER } else { audience },
            lifetime,
        })
    }

    /// Any token.
    pub(crate) fn mint(&self, request: &TokenRequest<'_>) -> Result<String, TokenError> {
        Ok(self.issuer.mint(request, SystemTime::now())?)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}
