//! The process: open the store or the Secret, publish the roots, certify oneself, serve.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use gamut_ca_api::{CertificateAuthorityServer, MAX_MESSAGE};
use gamut_identity::{
    CA_SERVICE_ACCOUNT, Clock, Identity, SYSTEM_NAMESPACE, SpiffeError, SpiffeId, grpc, told_to_stop,
};
use gamut_kubernetes::{Cluster, ConnectError};
use thiserror::Error;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tonic::transport::Server;
use tracing::info;

use crate::{
    admin,
    authenticate::{LocalTokens, Rejected, TokenReview, Workload},
    authority::{Authority, AuthorityError, InProcess},
    bundle::{self, BundleError},
    config::CaArgs,
    current::Current,
    kubernetes::{self, ClusterTokens, Keeper, SecretError, SecretStore},
    metrics::Metrics,
    service::Service,
    status::{Problems, Reporter},
    store::{FileStore, StoreError},
};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How many calls one connection may have going; a sidecar makes one.
const CALLS: u32 = 4;
/// How long one connection may last: a sidecar's is over with its one call, and idle ones must not pile up.
const CONNECTION: Duration = Duration::from_secs(60);

/// A CA whose sockets are bound.
pub struct Ca {
    grpc: TcpListener,
    admin: SocketAddr,
    identity: Identity,
    service: Service<Tokens>,
    /// What goes on beside serving; it ends with this.
    tasks: JoinSet<()>,
}

/// Who judges tokens.
enum Tokens {
    Local(LocalTokens),
    Cluster(ClusterTokens),
}

impl TokenReview for Tokens {
    async fn review(&self, token: &str) -> Result<Workload, Rejected> {
        match self {
            Self::Local(tokens) => tokens.review(token).await,
            Self::Cluster(tokens) => tokens.review(token).await,
        }
    }
}

/// Why the CA can't start or go on.
#[derive(Debug, Error)]
pub enum CaError {
    /// The trust domain.
    #[error("--trust-domain: {0}")]
    TrustDomain(#[from] SpiffeError),
    /// Neither a cluster nor a store.
    #[error("{0}; or give --store-dir and --issuer-key-file, to work without a cluster")]
    Cluster(#[from] ConnectError),
    /// The Secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the store.
    #[error("--store-dir {path}: {source}", path = path.display())]
    Authority {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        source: AuthorityError,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The token issuer's public key.
    #[error("--issuer-key-file {path}: {reason}; it must be a public key, PEM, ECDSA P-256", path = path.display())]
    IssuerKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A port is taken, or an address isn't ours.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The gRPC server ended.
    #[error("the CA stopped serving: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// Signals can't be received.
    #[error("can't wait for signals: {0}")]
    Signal(io::Error),
}

/// Runs `gamut ca` until SIGTERM or SIGINT.
///
/// # Errors
/// If it can't start; each message names the setting to change.
pub async fn run(args: CaArgs) -> Result<(), CaError> {
    let stop = told_to_stop(args.store_dir.is_none()).map_err(CaError::Signal)?;
    Ca::start(&args, Clock::system()).await?.serve(stop).await
}

impl Ca {
    /// Binds the sockets, opens or makes the authority, and writes the bundle. On a cluster that may take as long as a Secret takes to come; the
    /// admin port answers meanwhile.
    ///
    /// # Errors
    /// If any of it isn't possible.
    pub async fn start(args: &CaArgs, clock: Clock) -> Result<Self, CaError> {
        let id = SpiffeId::new(&args.trust_domain, SYSTEM_NAMESPACE, CA_SERVICE_ACCOUNT)?;
        let (grpc, listener) = (listen(args.listen)?, listen(args.admin)?);
        let unknown = |source| CaError::Listen { address: args.admin, source };
        let admin = listener.local_addr().map_err(unknown)?;
        let (mut tasks, pages) = (JoinSet::new(), Arc::new(OnceLock::new()));
        let shown = pages.clone();
        tasks.spawn(async move { match admin::serve(listener, shown).await {} });
        let (reporter, tokens) = match (&args.store_dir, &args.issuer_key_file) {
            (Some(store), Some(key)) => on_one_machine(args, store, key, &clock)?,
            _ => on_a_cluster(args, &clock, &mut tasks).await?,
        };
        let authority = reporter.authority.clone();
        let identity =
            InProcess { authority: authority.clone(), id, pod: None, clock: clock.clone() }.start();
        identity.ready().await;
        let metrics = Arc::new(Metrics::default());
        pages.get_or_init(|| admin::Pages {
            reporter,
            metrics: metrics.clone(),
            authority: authority.clone(),
            identity: identity.clone(),
        });
        let service = Service::new(authority, tokens, clock, metrics);
        Ok(Self { grpc, admin, identity, service, tasks })
    }

    /// Where it listens: gRPC, admin.
    ///
    /// # Errors
    /// If the operating system doesn't say.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.grpc.local_addr()?, self.admin))
    }

    /// Serves until `stop` is ready, then lets the calls that are going on end.
    ///
    /// # Errors
    /// If the server fails.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), CaError> {
        let Self { grpc, admin: _, identity, service, tasks: _tasks } = self;
        let address = grpc.local_addr().ok().map(tracing::field::display);
        info!(address, id = %identity.id(), "the CA is ready");
        let service = CertificateAuthorityServer::new(service).max_decoding_message_size(MAX_MESSAGE);
        let connections = grpc::incoming(grpc, move || identity.server_config_for_anyone(grpc::ALPN));
        let server = Server::builder()
            .timeout(CALL)
            .max_concurrent_streams(CALLS)
            .max_connection_age(CONNECTION)
            .max_connection_age_grace(CALL)
            .add_service(service)
            .serve_with_incoming_shutdown(connections, stop);
        Ok(server.await?)
    }
}

async fn on_a_cluster(
    args: &CaArgs,
    clock: &Clock,
    tasks: &mut JoinSet<()>,
) -> Result<(Reporter, Tokens), CaError> {
    let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
    let secret = SecretStore {
        name: args.existing_secret.clone().unwrap_or_else(|| kubernetes::OWN.to_owned()),
        ours: args.existing_secret.is_none(),
    };
    let keeper =
        Keeper::start(cluster.clone(), secret, &args.trust_domain, args.leaf_lifetime, clock.clone()).await?;
    let reporter = Reporter { authority: keeper.current(), problems: keeper.problems() };
    let bundle = keeper.bundle();
    tasks.spawn(keeper.run());
    tasks.spawn(kubernetes::publish(cluster.clone(), bundle.clone()));
    tasks.spawn(kubernetes::publish_for_all(cluster.clone(), bundle));
    Ok((reporter, Tokens::Cluster(ClusterTokens::new(cluster, &args.trust_domain))))
}

fn on_one_machine(
    args: &CaArgs,
    store: &Path,
    issuer_key: &Path,
    clock: &Clock,
) -> Result<(Reporter, Tokens), CaError> {
    let tokens = local_tokens(args, issuer_key, clock)?;
    let authority = open(args, store, clock)?;
    for path in &args.bundle_file {
        bundle::write(path, authority.roots())?;
    }
    let authority = Current::from(Arc::new(authority));
    // What can't be done ends the process here.
    let (_, problems) = watch::channel(Problems::default());
    Ok((Reporter { authority, problems }, Tokens::Local(tokens)))
}

fn open(args: &CaArgs, directory: &Path, clock: &Clock) -> Result<Authority, CaError> {
    let unusable = |source| CaError::Authority { path: directory.to_owned(), source };
    let store = FileStore::new(directory);
    let now = clock.now();
    let stored = match store.load()? {
        Some(stored) => stored,
        None => {
            let stored = Authority::make(&args.trust_domain, now).map_err(unusable)?;
            store.create(&stored)?;
            info!(directory = %directory.display(), "made a new root");
            stored
        }
    };
    Authority::open(&stored, args.leaf_lifetime, now).map_err(unusable)
}

fn local_tokens(args: &CaArgs, path: &Path, clock: &Clock) -> Result<LocalTokens, CaError> {
    let unusable = |reason: String| CaError::IssuerKey { path: path.to_owned(), reason };
    let key = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    LocalTokens::new(&key, &args.trust_domain, clock.clone()).map_err(|error| unusable(error.to_string()))
}

fn listen(address: SocketAddr) -> Result<TcpListener, CaError> {
    gamut_identity::listen(address).map_err(|source| CaError::Listen { address, source })
}
