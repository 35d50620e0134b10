//! `gamut ca`'s command line and environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use gamut_identity::DEFAULT_TRUST_DOMAIN;
use jiff::SignedDuration;

/// Below this, renewing is all that anybody does.
const SHORTEST_LEAF: Duration = Duration::from_secs(10);
/// Above this, a stolen key is good for too long: there is no revocation.
const LONGEST_LEAF: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Settings of `gamut ca`.
#[derive(Args, Clone, Debug)]
pub struct CaArgs {
    /// Where sidecars ask for certificates (gRPC over TLS)
    #[arg(long, env = "GAMUT_CA_LISTEN", default_value = "[::]:15010", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where /healthz, /ready, /metrics and /status answer (plain HTTP)
    #[arg(long, env = "GAMUT_CA_ADMIN", default_value = "127.0.0.1:15011", value_name = "ADDRESS:PORT")]
    pub admin: SocketAddr,
    /// The mesh's trust domain
    #[arg(long, env = "GAMUT_TRUST_DOMAIN", default_value = DEFAULT_TRUST_DOMAIN, value_name = "NAME")]
    pub trust_domain: String,
    /// The cluster to work for, if not the one that this pod runs in, or KUBECONFIG's
    #[arg(long, env = "GAMUT_KUBECONFIG", value_name = "FILE", conflicts_with = "store_dir")]
    pub kubeconfig: Option<PathBuf>,
    /// Sign with the key of this Secret in gamut-system, as cert-manager writes it (tls.key, tls.crt, ca.crt), instead of one made
    /// here
    #[arg(long, env = "GAMUT_CA_EXISTING_SECRET", value_name = "NAME", conflicts_with = "store_dir")]
    pub existing_secret: Option<String>,
    /// Without a cluster: keeps the signing key (tls.key, tls.crt) and the roots (ca.crt); made at the first start unless they
    /// are there
    #[arg(long, env = "GAMUT_CA_STORE_DIR", value_name = "DIR", requires = "issuer_key_file")]
    pub store_dir: Option<PathBuf>,
    /// Write the roots here: *.json as the ConfigMap gamut-system/gamut-trust-bundle, *.pem as PEM; may be repeated
    #[arg(long, env = "GAMUT_CA_BUNDLE_FILE", value_delimiter = ',', value_name = "FILE")]
    pub bundle_file: Vec<PathBuf>,
    /// Without a cluster: public key (PEM) of the local issuer of service account tokens
    #[arg(long, env = "GAMUT_CA_ISSUER_KEY_FILE", value_name = "FILE", requires = "store_dir")]
    pub issuer_key_file: Option<PathBuf>,
    /// How long a certificate is good, from 10s to 720h
    #[arg(long, env = "GAMUT_CA_LEAF_LIFETIME", default_value = "24h", value_parser = leaf_lifetime, value_name = "DURATION")]
    pub leaf_lifetime: Duration,
}

fn leaf_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime: SignedDuration = text.parse().map_err(|_| "write it like 24h or 90m")?;
    Duration::try_from(lifetime)
        .ok()
        .filter(|lifetime| (SHORTEST_LEAF..=LONGEST_LEAF).contains(lifetime))
        .ok_or_else(|| "it must be from 10s to 720h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_written_like_durations_and_stay_in_their_range() {
        assert_eq!(leaf_lifetime("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(leaf_lifetime("1h30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["", "24", "a day", "9s", "721h", "-1h"] {
            assert!(leaf_lifetime(wrong).is_err(), "{wrong}");
        }
    }
}
