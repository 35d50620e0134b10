//! The process: bind, get a certificate, watch, compile, serve; on a cluster also: try for the Lease.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use gamut_identity::{
    CONTROLLER_SERVICE_ACCOUNT, Clock, Identity, SYSTEM_NAMESPACE, SpiffeError, grpc, told_to_stop,
};
use gamut_kubernetes::{Campaign, Cluster, ConnectError, LeaseName};
use gamut_manifest::WatchError;
use thiserror::Error;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::transport::Server;
use tracing::{info, warn};

use crate::{
    admin,
    config::ControllerArgs,
    engine::{Engine, Handle},
    index::{Index, Settings},
    serve::Service,
    source::{KubernetesSource, Source, WriteTo, keep_mesh},
};

/// The Lease of the replica that writes statuses.
const LEASE: &str = "gamut-controller";

/// How long a connection may be silent before it is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long shutting down waits for statuses to be written.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// How many streams one connection may have; a sidecar has one.
const STREAMS: u32 = 4;

/// A controller whose sockets are bound.
pub struct Controller {
    grpc: TcpListener,
    admin: TcpListener,
    identity: Identity,
    engine: Handle,
    working: JoinHandle<()>,
    leading: Option<Leading>,
}

/// What only one replica does, on a cluster.
struct Leading {
    campaign: Campaign,
    mesh: JoinHandle<()>,
}

/// Why the controller can't start or go on.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// The trust domain.
    #[error("--trust-domain: {0}")]
    TrustDomain(#[from] SpiffeError),
    /// The objects can't be watched.
    #[error("--cluster-dir: {0}")]
    Source(#[from] WatchError),
    /// There is no cluster.
    #[error("{0}; or give --cluster-dir, to read objects from files")]
    Cluster(#[from] ConnectError),
    /// A port is taken, or an address isn't ours.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The gRPC server ended.
    #[error("the controller stopped serving: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Signals can't be received.
    #[error("can't wait for signals: {0}")]
    Signal(io::Error),
}

/// Runs `gamut controller` until SIGTERM or SIGINT.
///
/// # Errors
/// If it can't start; each message names the setting to change.
pub async fn run(args: ControllerArgs) -> Result<(), ControllerError> {
    let stop = told_to_stop(args.cluster_dir.is_none()).map_err(ControllerError::Signal)?;
    Controller::start(&args, Clock::system()).await?.serve(stop).await
}

impl Controller {
    /// Binds the sockets, begins to watch, and asks the CA for a certificate. Waits for neither of the last two.
    ///
    /// # Errors
    /// If a socket can't be bound or the objects can't be watched.
    pub async fn start(args: &ControllerArgs, clock: Clock) -> Result<Self, ControllerError> {
        let id = args.mesh.id(SYSTEM_NAMESPACE, CONTROLLER_SERVICE_ACCOUNT)?;
        let ca = args.mesh.ca_client(clock.clone())?;
        let (grpc, admin) = (listen(args.listen)?, listen(args.admin)?);
        let identity = Identity::start(id, ca, clock);
        let (source, leading) = source(args).await?;
        let index = Index::new(Settings {
            trust_domain: args.mesh.trust_domain.clone(),
            system_namespace: SYSTEM_NAMESPACE.to_owned(),
            mtls: args.mtls.into(),
            require_reference_grant: args.require_reference_grant,
        });
        let (engine, work) = Engine::new(source, index);
        Ok(Self { grpc, admin, identity, engine, working: tokio::spawn(work.run()), leading })
    }

    /// Where it listens: gRPC, admin.
    ///
    /// # Errors
    /// If the operating system doesn't say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc.local_addr()?, self.admin.local_addr()?))
    }

    /// Serves until `stop` is ready, then ends every subscription. Sidecars keep what they have and look for another
    /// replica.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), ControllerError> {
        let Self { grpc, admin, identity, engine, working, leading } = self;
        let address = grpc.local_addr().ok().map(tracing::field::display);
        info!(address, id = %identity.id(), "the controller is listening");
        let service = Service::new(engine.clone()).into_server();
        let tls = identity.clone();
        let connections = grpc::incoming(grpc, move || tls.server_config(grpc::ALPN));
        let stopping = engine.clone();
        let server = Server::builder()
            .max_concurrent_streams(STREAMS)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(service)
            .serve_with_incoming_shutdown(connections, async move {
                stop.await;
                info!("shutting down: subscriptions end, sidecars keep what they have");
                stopping.cut_off_all().await;
            });
        let served = tokio::select! {
            ended = server => ended,
            never = admin::serve(admin, engine, identity) => match never {},
        };
        // The server took the last handles of the engine with it: it writes what is due, and ends.
        if timeout(LAST_WRITES, working).await.is_err() {
            warn!("statuses that were due couldn't be written within {} s", LAST_WRITES.as_secs());
        }
        if let Some(Leading { campaign, mesh }) = leading {
            mesh.abort();
            campaign.release().await;
        }
        Ok(served?)
    }
}

/// Where objects come from, and, on a cluster, what this replica does while it leads.
async fn source(args: &ControllerArgs) -> Result<(Source, Option<Leading>), ControllerError> {
    if let Some(directory) = &args.cluster_dir {
        let writes = WriteTo { statuses: Some(args.status_dir.clone()), objects: Some(directory.clone()) };
        return Ok((Source::files(std::slice::from_ref(directory), writes)?, None));
    }
    let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
    let lease = LeaseName {
        namespace: SYSTEM_NAMESPACE.to_owned(),
        name: LEASE.to_owned(),
        holder: holder(&args.replica),
    };
    let (leadership, campaign) = Campaign::start(cluster.clone(), lease);
    let mesh = tokio::spawn(keep_mesh(cluster.clone(), leadership.clone()));
    let source = KubernetesSource::new(&cluster, SYSTEM_NAMESPACE, leadership);
    Ok((Source::Kubernetes(source), Some(Leading { campaign, mesh })))
}

/// A name for this process that no process had before: a pod's containers restart under the pod's name.
fn holder(replica: &str) -> String {
    format!("{replica}_{:08x}", rand::random::<u32>())
}

fn listen(address: SocketAddr) -> Result<TcpListener, ControllerError> {
    gamut_identity::listen(address).map_err(|source| ControllerError::Listen { address, source })
}
