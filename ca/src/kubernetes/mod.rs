//! The CA on a cluster: its key in a Secret, its roots in ConfigMaps, tokens judged by the API server.
//!
//! ```text
//! Secret gamut-ca ─watch─► Keeper ─► Current (signs)
//!                            │  ▲
//!                            │  └─► record: Secret gamut-ca-roots: what is published, since when
//!                            ▼
//!        ConfigMap gamut-system/gamut-trust-bundle ─► controller ─► sidecars
//!                            │
//!                            ├─ publish ─► the same in every namespace with sidecars ─► mounted into their pods
//!                            └─ publish_for_all ─► ClusterTrustBundle, where the kind is served
//! ```
//!
//! Any number of replicas does the same: what is made is made only if absent, what is replaced names the version that was read.

mod cluster_bundle;
mod keeper;
mod publish;
mod record;
mod review;
mod secret;

pub use self::secret::SecretError;
pub(crate) use self::{
    cluster_bundle::publish_for_all,
    keeper::Keeper,
    publish::publish,
    review::ClusterTokens,
    secret::{OWN, SecretStore},
};
