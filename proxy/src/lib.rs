//! The sidecar.
//!
//! ```text
//! app ----(redirect)--> outbound --mTLS--> (redirect) --> inbound of the other pod --> its app
//!                          |                                  |
//!                       tables  <---- controller ---->     policy
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`init`] | the redirect rules, written once by the init container |
//! | [`outbound`] | what the app dials: table, match, split, session, [`balance`], mTLS |
//! | [`inbound`] | what dials the pod: mesh TLS, peer, policy, the app |
//! | [`detect`] | what a connection speaks, by its first bytes |
//! | [`http`], [`tcp`], [`ahead`] | plumbing of both: HTTP messages and pools; bytes; what TLS reads from and writes to |
//! | [`word`] | what one sidecar says to another before bytes |
//! | [`tables`] | what the controller says, and when it may be used |
//! | [`probes`] | the kubelet's probes, which know no mTLS |
//! | [`drain`] | going away without losing a request |
//! | [`admin`], [`telemetry`], [`record`] | what a person or a scraper sees, off the data path's thread |

pub mod admin;
pub mod ahead;
pub mod balance;
pub mod config;
pub mod detect;
pub mod drain;
pub mod http;
pub mod inbound;
pub mod outbound;
pub mod probes;
pub mod record;
pub mod redirect;
mod run;
pub mod tables;
pub mod tcp;
pub mod telemetry;
pub mod word;

pub use config::ProxyArgs;
pub use redirect as init;
pub use run::{RunError, run};
