//! The certificate authority: `gamut ca`.
//!
//! ```text
//! sidecar --(CSR + service account token, over TLS)--> service
//!                                      token -> authenticate -> Workload (identity, pod)
//!                                      CSR + Workload -> authority -> leaf, chain, roots
//! ```
//! [`authority`] holds the signing key and is the only thing that signs; [`authenticate`] says who a token speaks for, and what
//! it says is what gets signed: nothing in a request can add to it. [`serve`] puts both behind gRPC. On a cluster `kubernetes` keeps
//! the key in a Secret, has the API server judge tokens and publishes the roots, and `rotation` says when a new root signs; on
//! one machine [`store`] keeps the key in files and [`local_issuer`] makes the tokens.
//!
//! Deliberately absent: revocation (leaves live a day; renewing is what's refused), a database of what was issued (the audit
//! log has every serial), any way to ask for a name.

mod admin;
pub mod authenticate;
pub mod authority;
mod bundle;
mod config;
mod current;
pub mod issue;
mod kubernetes;
mod limit;
pub mod local_issuer;
mod metrics;
mod rotation;
pub mod serve;
mod service;
mod status;
pub mod store;

pub use authenticate::{LocalTokens, TokenReview, Workload};
pub use authority::{Authority, AuthorityError, InProcess};
pub use bundle::{BundleError, TRUST_BUNDLE, TRUST_BUNDLE_KEY};
pub use config::CaArgs;
pub use current::Current;
pub use kubernetes::SecretError;
pub use local_issuer::{LocalIssuer, TokenRequest};
pub use serve::{Ca, CaError, run};
pub use status::CaStatus;
pub use store::{FileStore, StoreError, Stored};
