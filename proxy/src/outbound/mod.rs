//! What the app dials.
//!
//! ```text
//! (redirect) -> listener -> original destination -> tables
//!     Service  -> what it speaks -> HTTP, per request: match -> filters -> split -> session -> balance
//!                                -> bytes, the app's own TLS, per connection: split -> balance
//!     pod      -> that pod
//!     not ours -> untouched
//!     no answer, or the proxy's own ports -> reset
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | `listener` | accepts, and finds out where the app wanted to go |
//! | `connection` | what becomes of a connection |
//! | [`service`] | a route table, made ready for requests |
//! | `request`, `report` | a request's life, from its head to the end of its answer |
//! | `choose` | split, sessions, balancing |
//! | `send`, `retry` | one attempt; the next one |
//! | `blame` | what an attempt says about its endpoint's health |
//! | `mirror` | copies |
//! | `connect` | a byte stream to an endpoint: mTLS, plaintext, or our own inbound |
//! | `bytes` | connections that aren't HTTP |
//!
//! Deliberately absent: anything that waits for the controller once a destination is known, and any fallback
//! to plaintext.

mod blame;
mod bytes;
mod choose;
mod connect;
mod connection;
mod listener;
mod mirror;
mod report;
mod request;
mod retry;
mod send;
pub mod service;

use std::{net::IpAddr, sync::Arc};

use tokio::sync::Semaphore;

pub use self::{
    connect::{CONNECT_TIMEOUT, Connector},
    retry::MAX_ELSEWHERE,
    service::Service,
};
use crate::{
    config::{MAX_CONNECTIONS, Ports},
    tables::Tables,
    telemetry::Telemetry,
};

/// The outbound half of a sidecar. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Outbound(Arc<Shared>);

/// Whose outbound it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pod's addresses: the proxy's own ports behind them are no destination.
    pub ips: Vec<IpAddr>,
    /// Ports of other workloads whose bytes are never looked at.
    pub opaque_ports: Ports,
    /// How many connections the app may have open. What is beyond is reset.
    pub max_connections: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { ips: Vec::new(), opaque_ports: Ports::default(), max_connections: MAX_CONNECTIONS }
    }
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    tables: Tables,
    connector: Connector,
    telemetry: Telemetry,
    /// How many copies of requests may be on the way.
    mirrors: Arc<Semaphore>,
}

impl Outbound {
    /// An outbound that finds its destinations in `tables` and reaches them through `connector`.
    pub fn new(settings: Settings, tables: Tables, connector: Connector, telemetry: Telemetry) -> Self {
        let mirrors = Arc::new(Semaphore::new(mirror::MAX_IN_FLIGHT));
        Self(Arc::new(Shared { settings, tables, connector, telemetry, mirrors }))
    }
}
