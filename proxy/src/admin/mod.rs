//! What a person or a scraper sees of a sidecar, on a thread and runtime of its own: a scrape must not hurt the tail, and
//! a stuck data path must still be able to say so.
//!
//! | port | path | what |
//! |---|---|---|
//! | `127.0.0.1:15000` | `/ready` | 200 once traffic is taken, else 503 and what is missing |
//! | | `/status` | [`ProxyStatus`] as JSON |
//! | | `/config_dump` | every table in force as JSON; no keys |
//! | | `/tap?after=N` | what was requested since ([`Tapped`](crate::record::tap::Tapped)) as JSON; waits for it a little. Without `after`: from now on |
//! | | `/metrics` | as below |
//! | | `POST /drain` | begins the draining ([`crate::drain`]); what `gamut drain` sends |
//! | `[::]:15020` | `/metrics` | Prometheus text |
//!
//! The subscription runs here too ([`Background::spawn`]): opening a large table takes time that no request should wait.

mod metrics;
mod server;
mod status;

use std::{future::Future, io, net::SocketAddr, thread};

use gamut_identity::Identity;
use tokio::{net::TcpListener, runtime, sync::oneshot};

pub use self::status::{
    BackendStatus, CertificateStatus, ConnectionsStatus, EjectedStatus, EndpointsStatus, MtlsStatus,
    ProxyStatus, Readiness, RootStatus, SessionStatus, readiness,
};
use crate::{drain::Notice, record::tap::Taps, tables::Tables, telemetry::Telemetry};

/// The admin thread and its runtime. Dropping it ends the runtime and all that was spawned on it.
#[derive(Debug)]
pub struct Background {
    runtime: runtime::Handle,
    /// Dropped to end the thread.
    _alive: oneshot::Sender<std::convert::Infallible>,
}

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Who we are.
    pub identity: Identity,
    /// What the controller says.
    pub tables: Tables,
    /// What was counted.
    pub telemetry: Telemetry,
    /// The newest requests.
    pub taps: Taps,
    /// What `POST /drain` begins.
    pub drain: Notice,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives us no thread or no event queue.
    pub fn start() -> io::Result<Self> {
        let background = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = background.handle().clone();
        let (alive, ended) = oneshot::channel();
        let run = move || drop(background.block_on(ended));
        thread::Builder::new().name("gamut-admin".to_owned()).spawn(run)?;
        Ok(Self { runtime: handle, _alive: alive })
    }

    /// Runs something on the admin thread.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(task)
    }

    /// Serves the pages: all of them at `admin`, the metrics alone at `metrics`. Returns when both ports are open, with the
    /// addresses that they have.
    ///
    /// # Errors
    /// When a port can't be opened; the message names it.
    pub async fn serve(
        &self,
        shown: Shown,
        admin: SocketAddr,
        metrics: SocketAddr,
    ) -> io::Result<(SocketAddr, SocketAddr)> {
        let opened = async move {
            let (admin, metrics) = (open(admin)?, open(metrics)?);
            let addresses = (admin.local_addr()?, metrics.local_addr()?);
            tokio::spawn(server::serve(admin, server::Pages::All, shown.clone()));
            tokio::spawn(server::serve(metrics, server::Pages::Metrics, shown));
            Ok(addresses)
        };
        self.spawn(opened).await.map_err(io::Error::other)?
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    gamut_identity::listen(address)
        .map_err(|error| io::Error::new(error.kind(), format!("can't listen on {address}: {error}")))
}
