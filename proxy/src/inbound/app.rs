//! The way to the app: one pool of connections per address and port of the pod that is called.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::http::{Request, Response};

use crate::{
    http::{Body, DialError, HttpVersion, Io, Pool, PoolLimits, SendError},
    tcp,
};

/// How long the app may take to accept. It is on the same machine: longer means that its backlog is full.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where another sidecar waits for a word about it, and looks elsewhere after
/// [`crate::outbound::CONNECT_TIMEOUT`]: an app must not get a connection that nobody has any more.
pub(super) const WORD_TIMEOUT: Duration = Duration::from_secs(2);

/// How many addresses and ports are remembered before those that nobody uses are forgotten.
const MOST_UNUSED: usize = 64;

/// What the pod's callers call.
#[derive(Default)]
pub(super) struct Apps(Mutex<HashMap<SocketAddr, Arc<App>>>);

/// One address and port that the app listens on.
pub(super) struct App {
    address: SocketAddr,
    pool: Arc<Pool>,
}

impl Apps {
    /// The app behind an address; asked once per connection.
    pub(super) fn get(&self, address: SocketAddr) -> Arc<App> {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if apps.len() >= MOST_UNUSED && !apps.contains_key(&address) {
            // Somebody may try all ports. Forgetting closes idle connections, no others.
            apps.retain(|_, app| Arc::strong_count(app) > 1);
        }
        let app = || Arc::new(App { address, pool: Pool::new(PoolLimits::APP) });
        apps.entry(address).or_insert_with(app).clone()
    }
}

impl App {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a prepared request over an idle connection, or a new one. `is_ending`: the app may close what it has at any
    /// moment, so that nothing is sent over a connection that it may have closed.
    pub(super) async fn send(
        &self,
        version: HttpVersion,
        request: Request<Body>,
        is_ending: bool,
    ) -> Result<Response<Body>, SendError> {
        if is_ending {
            self.pool.close_idle();
        }
        let address = self.address;
        self.pool.send(version, request, move || dial(address)).await
    }
}

async fn dial(address: SocketAddr) -> Result<Io, DialError> {
    match tcp::connect(address, CONNECT_TIMEOUT).await {
        Ok(stream) => Ok(Io::Tcp(stream)),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err(DialError::TimedOut { address, limit: CONNECT_TIMEOUT })
        }
        Err(error) => Err(DialError::Connect { address, error: Arc::new(error) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn trying_all_ports_does_not_fill_memory_and_what_is_used_is_kept() {
        let apps = Apps::default();
        let used = apps.get("10.0.0.7:80".parse().unwrap());
        for port in 1000..5000 {
            apps.get(SocketAddr::new("10.0.0.7".parse().unwrap(), port));
        }
        assert!(apps.0.lock().unwrap().len() <= MOST_UNUSED);
        assert!(Arc::ptr_eq(&used, &apps.get("10.0.0.7:80".parse().unwrap())));
    }
}
