//! What goes on at a backend's endpoints, whichever rule sent it: what is in flight, what was shed, who is ejected.
//!
//! Some of these numbers are also what limits are held against ([`crate::balance`]), so that what is shown is what is
//! decided by.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use tokio::time::Instant;

/// The counters of one backend's endpoints.
#[derive(Debug, Default)]
pub struct EndpointCounters {
    in_flight: AtomicU32,
    connecting: AtomicU32,
    shed: [AtomicU64; Limit::ALL.len()],
    ejections: AtomicU64,
    refused_ejections: AtomicU64,
    ejected: Mutex<Vec<EjectedEndpoint>>,
}

/// What a sidecar limits of each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Requests that aren't answered to their end, and connections of other bytes.
    Requests,
    /// Connections that are being opened.
    Connecting,
}

/// An endpoint that gets nothing for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EjectedEndpoint {
    /// Its address.
    pub address: SocketAddr,
    /// The pod's name; none for what is no pod.
    pub pod: Option<String>,
    /// Until when.
    pub until: Instant,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Connecting];

    /// The limit as metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connecting => "connecting",
        }
    }
}

impl EndpointCounters {
    /// A request or connection begins.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request or connection has ended.
    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A connection begins to be opened.
    pub fn begin_connecting(&self) {
        self.connecting.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is open, or isn't going to be.
    pub fn end_connecting(&self) {
        self.connecting.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are being opened.
    pub fn connecting(&self) -> u32 {
        self.connecting.load(Ordering::Relaxed)
    }

    /// Counts a request that a limit turned away.
    pub fn shed(&self, limit: Limit) {
        if let Some(counter) = self.shed.get(limit as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many each limit turned away.
    pub fn all_shed(&self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::ALL.into_iter().zip(&self.shed).map(|(limit, n)| (limit, n.load(Ordering::Relaxed)))
    }

    /// Counts an ejection.
    pub fn ejected(&self) {
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an endpoint was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Counts a failure that would have ejected its endpoint if enough others were left.
    pub fn ejection_refused(&self) {
        self.refused_ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// How many such failures there were.
    pub fn refused_ejections(&self) -> u64 {
        self.refused_ejections.load(Ordering::Relaxed)
    }

    /// Says who is ejected from now on.
    pub fn set_ejected(&self, ejected: Vec<EjectedEndpoint>) {
        *self.lock() = ejected;
    }

    /// Who is ejected at this moment.
    pub fn ejected_at(&self, now: Instant) -> Vec<EjectedEndpoint> {
        self.lock().iter().filter(|ejected| now < ejected.until).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<EjectedEndpoint>> {
        self.ejected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
