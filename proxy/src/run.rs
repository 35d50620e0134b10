//! A sidecar's life, from its settings to its exit.
//!
//! ```text
//! admin thread:   certificate worker, subscription, admin and metrics pages
//! main thread:    outbound, inbound, probes      (one thread: nothing on the data path contends)
//! ```
//!
//! Order of the start: ports first, because a port that is taken is a mistake to report at once, and because
//! connections may queue from then on; then certificate and subscription, which wait for the network; then
//! everything is served, closed until policy and certificate are there. The probe port says when that is.
//!
//! Order of the end (see [`crate::drain`]): the notice, by `gamut drain`; SIGTERM; what is in flight, at most
//! for the drain time or until a second signal; what was recorded and isn't written yet.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use gamut_identity::{CONTROLLER_SERVICE_ACCOUNT, Clock, Identity, SYSTEM_NAMESPACE, SpiffeError, listen};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    admin::{Background, Shown},
    config::{ProxyArgs, ports, workload},
    drain::Control,
    inbound::{self, Inbound},
    outbound::{self, Connector, Outbound},
    probes::ProbePort,
    record::{self, Hub, tap::Taps, trace::Sampling},
    tables::{self, Subscription, Tables},
    tcp,
    telemetry::{Telemetry, Workload},
};

/// How long an address's first use waits for the controller.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the exit waits for the last lines of the access log, in case that nobody reads them.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// Why a sidecar can't start.
#[derive(Debug, Error)]
pub enum RunError {
    /// A port that it needs is taken, or may not be taken.
    #[error("can't listen on {address} ({what}): {cause}; ports 15000-15021 of a pod belong to its sidecar")]
    Listen {
        /// What the port is for.
        what: &'static str,
        /// The port.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// Trust domain, namespace and service account make no identity.
    #[error("GAMUT_TRUST_DOMAIN, GAMUT_POD_NAMESPACE and GAMUT_SERVICE_ACCOUNT make no identity: {0}")]
    Identity(#[from] SpiffeError),
    /// No thread, no event queue, no signal handler.
    #[error("can't {doing}: {cause}")]
    System {
        /// What was attempted.
        doing: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// The admin or metrics port.
    #[error("{0}")]
    Admin(io::Error),
}

/// Runs a sidecar until it is told to stop. Returns when nothing is in flight any more, or the drain time is
/// over.
///
/// # Errors
/// If it can't start. Later trouble is logged, shown by `/status`, and outlived.
pub fn run(args: ProxyArgs) -> Result<(), RunError> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(system("start the runtime"))?.block_on(live(args))
}

async fn live(args: ProxyArgs) -> Result<(), RunError> {
    let begin = Instant::now();
    // Signals first: one that comes during the start must not be lost.
    let mut signals = Signals::new().map_err(system("handle signals"))?;
    let listeners = Listeners::open()?;
    let background = Background::start().map_err(system("start the admin thread"))?;
    let control = Control::new();

    let (identity, tables, telemetry, taps, records) = connect(&args, &background).await?;
    let shown = Shown {
        identity: identity.clone(),
        tables: tables.clone(),
        telemetry: telemetry.clone(),
        taps,
        drain: control.notice(),
    };
    let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::ADMIN);
    let metrics = SocketAddr::new(listeners.everywhere, ports::METRICS);
    background.serve(shown, admin, metrics).await.map_err(RunError::Admin)?;

    serve(&args, listeners, identity, tables, telemetry, &control);
    tracing::info!(
        pod = %format_args!("{}/{}", args.pod_namespace, args.pod_name),
        version = env!("CARGO_PKG_VERSION"),
        started_in = ?begin.elapsed(),
        "the sidecar runs; its probe port says when it is ready"
    );

    signals.next().await;
    tokio::select! {
        all = control.stop(args.drain_time) => match all {
            true => tracing::info!("nothing is in flight any more"),
            false => {
                tracing::warn!(drain_time = ?args.drain_time, "the drain time is over: what is in flight is cut off");
            }
        },
        () = signals.next() => tracing::warn!("told to stop again: what is in flight is cut off"),
    }
    records.end().await;
    Ok(())
}

/// Starts what the control plane is reached with, on the admin thread.
async fn connect(
    args: &ProxyArgs,
    background: &Background,
) -> Result<(Identity, Tables, Telemetry, Taps, Records), RunError> {
    let id = args.mesh.id(&args.pod_namespace, &args.service_account)?;
    let issuer = args.mesh.ca_client(Clock::system())?;
    let own = Workload {
        name: workload(&args.pod_name).to_owned(),
        namespace: args.pod_namespace.clone(),
        principal: id.to_string(),
    };
    let records = record::Settings {
        access_log: args.access_log,
        json: args.log_format == "json",
        spans: args.traces_to.clone().map(|collector| (collector, Sampling(args.traces_share))),
    };
    let (recorder, taps, hub) = Hub::new(records, &own).map_err(system("start the access log's thread"))?;
    let (end, ended) = oneshot::channel();
    let ended = async {
        let _ = ended.await;
    };
    let records = Records { end, hub: background.spawn(hub.run(ended)) };
    let telemetry = Telemetry::recording(own, recorder);
    // The certificate worker belongs to the runtime that starts it.
    let starting = background.spawn(async move { Identity::start(id, issuer, Clock::system()) });
    let identity = starting.await.map_err(|error| RunError::Admin(io::Error::other(error)))?;
    let settings = tables::Settings {
        controller: args.controller_address.clone(),
        controller_identity: args.mesh.id(SYSTEM_NAMESPACE, CONTROLLER_SERVICE_ACCOUNT)?,
        namespace: args.pod_namespace.clone(),
        pod_name: args.pod_name.clone(),
        pod: args.pod_uid,
        patience: PATIENCE,
        limits: tables::view::Limits { balance: args.balance(), ..Default::default() },
    };
    let (tables, subscription) = Subscription::new(settings, identity.clone(), telemetry.clone());
    background.spawn(subscription.run());
    Ok((identity, tables, telemetry, taps, records))
}

/// Starts the data path on this thread.
fn serve(
    args: &ProxyArgs,
    listeners: Listeners,
    identity: Identity,
    tables: Tables,
    telemetry: Telemetry,
    control: &Control,
) {
    let policy = {
        let tables = tables.clone();
        Box::new(move || tables.policy())
    };
    let settings = inbound::Settings {
        pod: args.pod_uid,
        ips: args.pod_ips.clone(),
        max_connections: args.max_connections,
    };
    let inbound = Inbound::new(settings, identity.clone(), policy, telemetry.clone(), control.watch());
    let connector = Connector::new(identity.clone(), args.pod_uid, inbound.clone());
    let settings = outbound::Settings {
        ips: args.pod_ips.clone(),
        opaque_ports: args.opaque_ports.clone(),
        max_connections: args.max_connections,
    };
    let outbound = Outbound::new(settings, tables.clone(), connector, telemetry);

    for listener in listeners.outbound {
        let outbound = outbound.clone();
        tokio::spawn(async move { outbound.serve(&listener).await });
    }
    tokio::spawn(async move { inbound.accept(listeners.inbound).await });
    let pod = args.pod_ips.first().copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let probes = ProbePort { probes: args.probes.clone(), pod, identity, tables };
    tokio::spawn(probes.serve(listeners.probes, control.watch()));
}

/// What hands records on, on the admin thread.
struct Records {
    /// Dropped to have it end.
    end: oneshot::Sender<Infallible>,
    hub: JoinHandle<()>,
}

impl Records {
    /// Waits until all that was recorded is written.
    async fn end(self) {
        drop(self.end);
        if timeout(WRITTEN_WITHIN, self.hub).await.is_err() {
            tracing::warn!("nobody reads the access log: its last lines are lost");
        }
    }
}

/// The ports of the data path.
struct Listeners {
    /// One for each family that the loopback interface has.
    outbound: Vec<TcpListener>,
    inbound: TcpListener,
    probes: TcpListener,
    /// The address that stands for all: `::`, or `0.0.0.0` where the pod has no IPv6.
    everywhere: IpAddr,
}

impl Listeners {
    fn open() -> Result<Self, RunError> {
        let open = |what, ip: IpAddr, port| {
            let address = SocketAddr::new(ip, port);
            listen(address).map_err(|cause| RunError::Listen { what, address, cause })
        };
        let mut outbound = vec![open("outbound", Ipv4Addr::LOCALHOST.into(), ports::OUTBOUND)?];
        let everywhere: IpAddr = if tcp::has_ipv6() {
            outbound.push(open("outbound", Ipv6Addr::LOCALHOST.into(), ports::OUTBOUND)?);
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let inbound = open("inbound", everywhere, ports::INBOUND)?;
        let probes = open("probes", everywhere, ports::PROBES)?;
        Ok(Self { outbound, inbound, probes, everywhere })
    }
}

/// SIGTERM from the kubelet, SIGINT from a terminal.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Takes as many file descriptors as the system allows: a connection costs two, and the soft limit is often
/// 1024 for the sake of programs that use `select`.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |cause| RunError::System { doing, cause }
}
