//! What every process with an identity is told about its mesh, as flags and environment variables.

use std::path::PathBuf;

use crate::{
    CA_SERVICE_ACCOUNT, CaClient, Clock, DEFAULT_TRUST_DOMAIN, SYSTEM_NAMESPACE, SpiffeError, SpiffeId,
};

/// Which mesh a process belongs to, and how it gets its certificate there.
#[derive(clap::Args, Clone, Debug)]
pub struct MeshArgs {
    /// The mesh's trust domain
    #[arg(long, env = "GAMUT_TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN, value_name = "NAME")]
    pub trust_domain: String,
    /// The CA
    #[arg(
        long,
        env = "GAMUT_CA_ADDRESS",
        default_value = "gamut-ca.gamut-system.svc:15010",
        value_name = "HOST:PORT"
    )]
    pub ca_address: String,
    /// The service account token that the CA accepts; read again at each renewal
    #[arg(
        long,
        env = "GAMUT_TOKEN_FILE",
        default_value = "/var/run/secrets/gamut.mesh/token/token",
        value_name = "FILE"
    )]
    pub token_file: PathBuf,
    /// The roots that the CA's own certificate leads to, PEM
    #[arg(
        long,
        env = "GAMUT_ROOTS_FILE",
        default_value = "/var/run/secrets/gamut.mesh/roots/root.pem",
        value_name = "FILE"
    )]
    pub roots_file: PathBuf,
}

impl MeshArgs {
    /// The identity of a service account of this mesh.
    ///
    /// # Errors
    /// If trust domain and names don't make a SPIFFE ID.
    pub fn id(&self, namespace: &str, service_account: &str) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::new(&self.trust_domain, namespace, service_account)
    }

    /// The way to this mesh's CA.
    ///
    /// # Errors
    /// If the trust domain can't be part of a SPIFFE ID.
    pub fn ca_client(&self, clock: Clock) -> Result<CaClient, SpiffeError> {
        Ok(CaClient {
            address: self.ca_address.clone(),
            ca: self.id(SYSTEM_NAMESPACE, CA_SERVICE_ACCOUNT)?,
            token_file: self.token_file.clone(),
            roots_file: self.roots_file.clone(),
            clock,
        })
    }
}
