//! The connections to one upstream: idle HTTP/1.1 ones, newest first, and those that requests share ([`shared`]).
//!
//! A pool belongs to one endpoint, so nothing is looked up by address: whoever has the endpoint has its
//! connections, and when the endpoint is gone and its last answer has ended, they close.
//!
//! The race between "we send on an idle connection" and "the server closes it" can't be won, only made rare
//! and harmless: connections leave the pool before servers usually close them ([`PoolLimits`]), each is
//! looked at before its use, a request of which nothing was written goes over another connection, and one that
//! was written to a connection which then ended without a byte is told apart ([`SendError::Stale`]).

mod shared;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gamut_http1::client::Failed;
use http::{Request, Response};
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use self::shared::Shared;
use super::{
    body::{Body, BodyError},
    error::HttpError,
    h1::{self, H1},
    headers::HttpVersion,
    io::{DialError, Io},
};

/// What a pool keeps.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// How long a connection may lie idle.
    pub idle: Duration,
    /// How many HTTP/1.1 connections may lie idle; the longest idle one makes room.
    pub max_idle: usize,
}

/// The connections to one upstream.
pub struct Pool {
    limits: PoolLimits,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    /// The newest at the back.
    idle: VecDeque<Idle>,
    /// Of [`Carrier::H2`].
    h2: Shared,
    /// Of [`Carrier::MuxH1`].
    mux_h1: Shared,
    /// Of [`Carrier::MuxH2`].
    mux_h2: Shared,
    /// Whether [`Pool::sweep`] runs.
    swept: bool,
}

struct Idle {
    connection: Box<H1>,
    since: Instant,
}

/// How a request travels to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// As HTTP/1.1, on a connection of its own as long as it takes.
    H1,
    /// As HTTP/2, to an app.
    H2,
    /// Between sidecars ([`super::mux`]), one of HTTP/1.1 (see [`super::carry`]).
    MuxH1,
    /// Between sidecars, one of HTTP/2.
    MuxH2,
}

/// Why a request got no answer, by what may be done about it.
#[derive(Debug, Error)]
pub enum SendError {
    /// There was no connection; the request is unharmed.
    #[error("{error}")]
    Dial {
        /// Why.
        error: DialError,
        /// The request.
        request: Box<Request<Body>>,
    },
    /// The connection closed before anything of the request was written; the request is unharmed.
    #[error("the connection closed before the request was sent: {error}")]
    Unsent {
        /// Why.
        error: HttpError,
        /// The request.
        request: Box<Request<Body>>,
    },
    /// The peer says that it did nothing about the request (REFUSED_STREAM, GOAWAY).
    #[error("the server did not take the request: {0}")]
    Refused(HttpError),
    /// A connection that had carried other requests ended without a byte of an answer to this one. Most likely the
    /// server closed it as idle when the request was on its way; but it may have died of the request.
    #[error("a kept connection ended without an answer: {0}")]
    Stale(HttpError),
    /// A new connection ended without a byte of an answer.
    #[error("the connection ended without an answer: {0}")]
    Silent(HttpError),
    /// The request's own body broke off before the answer: the client went away, or what it sent was no body. The
    /// server has done nothing wrong.
    #[error("the request's body broke off: {0}")]
    Client(HttpError),
    /// The connection broke, or what came back was no HTTP. The server may or may not have done what was
    /// asked.
    #[error("the connection broke before the answer: {0}")]
    Broken(HttpError),
}

impl PoolLimits {
    /// For connections to apps. Servers close idle connections after 5 s (Node, Apache, uvicorn) to 75 s
    /// (nginx), gunicorn after 2 s; opening another within a cluster costs less than one lost POST. As many may lie
    /// idle as requests come at once: with 128, and 256 callers, every second request opened a connection, which
    /// doubled its cost and used up the machine's ports.
    pub const APP: Self = Self { idle: Duration::from_millis(1500), max_idle: 1024 };
    /// For connections to sidecars, which don't close idle connections themselves.
    pub const MESH: Self = Self { idle: Duration::from_secs(60), max_idle: 1024 };
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: PoolLimits) -> Arc<Self> {
        Arc::new(Self { limits, connections: Mutex::default() })
    }

    /// Sends a request that [`super::headers`] has prepared for its carrier, and waits for the answer's head.
    /// `dial` makes a new byte stream where no connection is free. Dropping the future, or later the answer's
    /// body, cancels the request.
    ///
    /// # Errors
    /// [`SendError`], which gives the request back where that is possible.
    pub async fn send<F>(
        self: &Arc<Self>,
        carrier: impl Into<Carrier>,
        request: Request<Body>,
        dial: impl Fn() -> F + Send,
    ) -> Result<Response<Body>, SendError>
    where
        F: Future<Output = Result<Io, DialError>> + Send + 'static,
    {
        match carrier.into() {
            Carrier::H1 => self.send_h1(request, dial).await,
            shared => self.send_shared(shared, request, dial).await,
        }
    }

    async fn send_h1<F>(
        self: &Arc<Self>,
        mut request: Request<Body>,
        dial: impl Fn() -> F + Send,
    ) -> Result<Response<Body>, SendError>
    where
        F: Future<Output = Result<Io, DialError>> + Send + 'static,
    {
        while let Some(connection) = self.take() {
            match h1::send(connection, request, self).await {
                Ok(response) => return Ok(response),
                Err(failed) => match SendError::of_h1(failed) {
                    SendError::Unsent { request: unsent, .. } => request = *unsent,
                    error @ SendError::Stale(_) => {
                        // Those that have been idle for longer are no better.
                        self.close_idle();
                        return Err(error);
                    }
                    error => return Err(error),
                },
            }
        }
        // Boxed, because a handshake is several KiB, which every request would carry along for the few that dial.
        match Box::pin(dial()).await {
            Ok(io) => h1::send(H1::new(io), request, self).await.map_err(SendError::of_h1),
            Err(error) => Err(SendError::Dial { error, request: Box::new(request) }),
        }
    }

    pub(super) fn take(&self) -> Option<Box<H1>> {
        loop {
            let Idle { mut connection, since } = self.lock().idle.pop_back()?;
            if since.elapsed() < self.limits.idle && connection.is_usable() {
                return Some(connection);
            }
        }
    }

    /// Closes the HTTP/1.1 connections that lie idle now.
    pub fn close_idle(&self) {
        self.lock().idle.clear();
    }

    /// Somebody says that the upstream is gone, or going: where answers are awaited of a sidecar, it is asked at once whether it is
    /// still there. One that drains says so, and is waited for.
    pub fn doubt(&self) {
        let connections = self.lock();
        connections.mux_h1.doubt();
        connections.mux_h2.doubt();
    }

    /// Takes a connection whose last answer has ended.
    pub(super) fn put(self: &Arc<Self>, connection: Box<H1>) {
        let mut connections = self.lock();
        if connections.idle.len() >= self.limits.max_idle {
            connections.idle.pop_front();
        }
        connections.idle.push_back(Idle { connection, since: Instant::now() });
        self.keep_swept(&mut connections);
    }

    /// Sees to it that connections which nobody takes any more are closed in time. The task ends when nothing
    /// is left.
    fn keep_swept(self: &Arc<Self>, connections: &mut Connections) {
        if std::mem::replace(&mut connections.swept, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        let idle = self.limits.idle;
        tokio::spawn(async move {
            let mut next = Some(Instant::now() + idle);
            while let Some(then) = next {
                sleep_until(then).await;
                next = pool.upgrade().and_then(|pool| pool.sweep());
            }
        });
    }

    /// Closes what has been idle for too long, and says when to look again.
    fn sweep(&self) -> Option<Instant> {
        let mut connections = self.lock();
        let now = Instant::now();
        let limit = self.limits.idle;
        connections.idle.retain(|idle| now.duration_since(idle.since) < limit);
        let Connections { idle, h2, mux_h1, mux_h2, .. } = &mut *connections;
        let oldest_shared = [h2, mux_h1, mux_h2].into_iter().filter_map(|shared| shared.sweep(now, limit));
        let next = oldest_shared.chain(idle.front().map(|idle| idle.since)).min();
        connections.swept = next.is_some();
        next.map(|oldest| oldest + limit)
    }

    /// Held for a push or a pop, never across an await. All tasks of a sidecar's data path share one thread,
    /// so nobody waits for it.
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SendError {
    /// Whether a server has answered, and not in HTTP: it would do so again.
    pub fn is_garbled(&self) -> bool {
        matches!(self, Self::Broken(HttpError::H1(gamut_http1::Error::Head(_))))
    }

    fn of_h1(failed: Failed<Body>) -> Self {
        match failed {
            Failed::Unsent { error, request } => Self::Unsent { error: error.into(), request },
            Failed::Silent { error, reused: true } => Self::Stale(error.into()),
            Failed::Silent { error, reused: false } => Self::Silent(error.into()),
            Failed::Broken(error) => Self::Broken(error.into()),
            Failed::Body(BodyError::Connection(error)) => Self::Client(error),
            Failed::Body(error) if error.is_clients() => Self::Client(gamut_http1::Error::Source.into()),
            Failed::Body(_) => Self::Broken(gamut_http1::Error::Source.into()),
        }
    }
}

impl From<HttpVersion> for Carrier {
    fn from(version: HttpVersion) -> Self {
        match version {
            HttpVersion::H1 => Self::H1,
            HttpVersion::H2 => Self::H2,
        }
    }
}

#[cfg(test)]
mod tests;
