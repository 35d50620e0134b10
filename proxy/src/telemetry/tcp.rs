//! Connections of opaque bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counters of one workload's connections.
#[derive(Debug, Default)]
pub(super) struct TcpCounters {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// An open connection. Dropping it counts it as closed.
#[derive(Debug)]
#[must_use = "dropping it counts the connection as closed"]
pub struct TcpConnection(Arc<TcpCounters>);

impl TcpConnection {
    pub(super) fn open(counters: &Arc<TcpCounters>) -> Self {
        counters.opened.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }

    /// Counts bytes from the client to the server.
    pub fn received(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes from the server to the client.
    pub fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

impl TcpCounters {
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    pub(super) fn closed(&self) -> u64 {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}
