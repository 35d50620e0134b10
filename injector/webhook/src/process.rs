//! The process: bind, watch, get a certificate, serve, and look after the webhook's `caBundle`.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use gamut_identity::{
    Clock, INJECTOR_SERVICE_ACCOUNT, Identity, SYSTEM_NAMESPACE, SpiffeError, told_to_stop,
};
use gamut_kubernetes::{Cluster, ConnectError};
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinSet};
use tracing::info;

use crate::{
    admin::Admin, ca_bundle, config::InjectorArgs, faults, follow::Problems, metrics::Metrics,
    namespaces::Namespaces, reconcile, serve::Webhook,
};

/// An injector whose sockets are bound.
pub struct Injector {
    https: TcpListener,
    listener: TcpListener,
    identity: Identity,
    webhook: Arc<Webhook>,
    admin: Admin,
    /// What goes on beside serving; it ends with this.
    tasks: JoinSet<()>,
}

/// Why the injector can't start.
#[derive(Debug, Error)]
pub enum InjectorError {
    /// The trust domain.
    #[error("--trust-domain: {0}")]
    TrustDomain(#[from] SpiffeError),
    /// There is no cluster.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// A port is taken, or an address isn't ours.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals can't be received.
    #[error("can't wait for signals: {0}")]
    Signal(io::Error),
}

/// Runs `gamut injector` until SIGTERM or SIGINT.
///
/// # Errors
/// If it can't start; each message names the setting to change.
pub async fn run(args: InjectorArgs) -> Result<(), InjectorError> {
    let stop = told_to_stop(false).map_err(InjectorError::Signal)?;
    Injector::start(&args, Clock::system()).await?.serve(stop).await;
    Ok(())
}

impl Injector {
    /// Binds the sockets, begins to watch, and asks the CA for a certificate. Waits for neither of the last two.
    ///
    /// # Errors
    /// If a socket can't be bound, or there is no cluster.
    pub async fn start(args: &InjectorArgs, clock: Clock) -> Result<Self, InjectorError> {
        let id = args.mesh.id(SYSTEM_NAMESPACE, INJECTOR_SERVICE_ACCOUNT)?;
        let ca = args.mesh.ca_client(clock.clone())?;
        let (https, listener) = (listen(args.listen)?, listen(args.admin)?);
        let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
        let identity = Identity::start(id, ca, clock);

        let mut tasks = JoinSet::new();
        let problems = Problems::default();
        let namespaces = Namespaces::start(cluster.clone(), &problems, &mut tasks);
        let ca_bundle = ca_bundle::start(&cluster, &problems, &mut tasks);
        let replica = args.replica.clone();
        let without_sidecar =
            reconcile::start(&cluster, &namespaces, args.sidecars(), replica, &problems, &mut tasks);
        faults::start(&cluster, args.replica.clone(), &problems, &mut tasks);
        let metrics = Arc::new(Metrics::default());
        let webhook = Webhook::new(namespaces.clone(), args.sidecars(), metrics.clone());
        let admin = Admin {
            identity: identity.clone(),
            webhook: webhook.clone(),
            metrics,
            namespaces,
            ca_bundle,
            without_sidecar,
            problems,
        };
        Ok(Self { https, listener, identity, webhook, admin, tasks })
    }

    /// Where it listens: HTTPS, admin.
    ///
    /// # Errors
    /// If the operating system doesn't say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.https.local_addr()?, self.listener.local_addr()?))
    }

    /// Serves until `stop` is ready, then lets what is going on end.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { https, listener, identity, webhook, admin, tasks: _tasks } = self;
        let address = https.local_addr().ok().map(tracing::field::display);
        info!(address, id = %identity.id(), "the injector is listening");
        tokio::select! {
            () = webhook.serve(https, identity, stop) => {}
            never = admin.serve(listener) => match never {},
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, InjectorError> {
    gamut_identity::listen(address).map_err(|source| InjectorError::Listen { address, source })
}
