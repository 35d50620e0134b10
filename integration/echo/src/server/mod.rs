//! The server: listeners on their ports, a task per connection, and an orderly end on SIGTERM.

mod http;
mod knobs;
mod report;
mod tcp;
mod tls;

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicU16},
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::EchoError;

/// What the server listens on and who it says it is.
#[derive(Debug, clap::Args)]
#[group(id = "server")]
pub(crate) struct Args {
    /// A port for HTTP/1.1, HTTP/2 without TLS, gRPC and WebSocket; may be given several times
    #[arg(long = "port", value_name = "PORT", default_value = "8080")]
    ports: Vec<u16>,
    /// The same as --port, by the name that the conformance suite uses
    #[arg(long, value_name = "PORT")]
    grpc: Vec<u16>,
    /// A port that sends every byte back
    #[arg(long, value_name = "PORT")]
    tcp: Vec<u16>,
    /// A port that greets with a line before it sends every byte back, as SMTP or MySQL do
    #[arg(long, value_name = "PORT")]
    server_first: Vec<u16>,
    /// A port, also given as --port or not, that speaks TLS
    #[arg(long, value_name = "PORT", requires = "crt", requires = "key")]
    tls: Vec<u16>,
    /// The certificate chain of the --tls ports, PEM
    #[arg(long, value_name = "FILE")]
    crt: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What to answer as ServiceVersion
    #[arg(long = "version", value_name = "TEXT", env = "VERSION", default_value = "")]
    service_version: String,
    /// How long requests and connections may take to finish after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration)]
    grace: Duration,
    /// A file that takes a line with the id of each request that has one (`?id=a`), before anything is done about it
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

/// What all connections share.
pub(crate) struct App {
    service_version: String,
    hostname: String,
    /// The status that `/healthz` answers with.
    health: AtomicU16,
    /// How many requests there were of late for each key of `fail` and `slow`.
    counts: Mutex<HashMap<String, u32>>,
    /// Where ids of requests go.
    journal: Option<File>,
}

/// Where a request came in.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// The caller as the socket has it.
    from: IpAddr,
    /// The port it came to.
    port: u16,
}

/// What a port speaks.
#[derive(Clone)]
pub(crate) enum Protocol {
    Http,
    Https(TlsAcceptor),
    Tcp,
    ServerFirst,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, EchoError> {
    let mut listeners = Vec::new();
    for (port, protocol) in args.protocols()? {
        listeners.push((listen(port).await?, protocol));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let journal = args.journal.map(|file| {
        let journal = OpenOptions::new().append(true).create(true).open(&file);
        journal.map_err(|source| EchoError::Journal { file, source })
    });
    let server = Server::start(listeners, App::new(args.service_version, journal.transpose()?));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop(args.grace).await;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Each port, once, and what it speaks.
    fn protocols(&self) -> Result<Vec<(u16, Protocol)>, EchoError> {
        let plain = self.ports.iter().chain(&self.grpc).filter(|port| !self.tls.contains(port));
        let mut all: Vec<_> = plain.map(|port| (*port, Protocol::Http)).collect();
        all.extend(self.tcp.iter().map(|port| (*port, Protocol::Tcp)));
        all.extend(self.server_first.iter().map(|port| (*port, Protocol::ServerFirst)));
        if let (false, Some(crt), Some(key)) = (self.tls.is_empty(), &self.crt, &self.key) {
            let acceptor = tls::acceptor(crt, key)?;
            all.extend(self.tls.iter().map(|port| (*port, Protocol::Https(acceptor.clone()))));
        }
        Ok(all)
    }
}

impl App {
    pub(crate) fn new(service_version: String, journal: Option<File>) -> Self {
        let hostname = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        Self {
            service_version,
            hostname: hostname.unwrap_or_default(),
            health: AtomicU16::new(200),
            counts: Mutex::default(),
            journal,
        }
    }

    /// One write for each line: whatever happens to this process next, and whoever else writes to the file, the line is whole.
    fn write_down(&self, id: &str) {
        let Some(mut journal) = self.journal.as_ref() else { return };
        if let Err(error) = journal.write_all(format!("{id}\n").as_bytes()) {
            tracing::warn!(%error, "journal");
        }
    }
}

/// A running server. Dropping it stops accepting; connections that are there go on.
pub(crate) struct Server {
    accepting: JoinSet<()>,
    /// Dropped when no more shall be accepted.
    open: watch::Sender<()>,
    connections: Arc<GracefulShutdown>,
    /// Ends with the last connection of bytes.
    bytes: mpsc::Receiver<()>,
}

/// What connections leave their traces in, so that the end waits for them.
#[derive(Clone)]
struct Traces {
    connections: Arc<GracefulShutdown>,
    /// Held by each connection of bytes.
    bytes: mpsc::Sender<()>,
}

impl Server {
    pub(crate) fn start(listeners: Vec<(TcpListener, Protocol)>, app: App) -> Self {
        let app = Arc::new(app);
        let connections = Arc::new(GracefulShutdown::new());
        let (open, is_open) = watch::channel(());
        let (sender, bytes) = mpsc::channel(1);
        let traces = Traces { connections: Arc::clone(&connections), bytes: sender };
        let accepting = listeners.into_iter().map(|(listener, protocol)| {
            accept(listener, protocol, Arc::clone(&app), traces.clone(), is_open.clone())
        });
        Self { accepting: accepting.collect(), open, connections, bytes }
    }

    /// Lets requests and connections that are on their way finish, for as long as `grace`.
    pub(crate) async fn stop(self, grace: Duration) {
        let Self { mut accepting, open, connections, mut bytes } = self;
        // Closing the listeners first makes the kernel refuse whoever comes now, which callers can safely try elsewhere.
        drop(open);
        while accepting.join_next().await.is_some() {}
        if let Some(connections) = Arc::into_inner(connections) {
            let all = async { tokio::join!(connections.shutdown(), bytes.recv()) };
            let _ = tokio::time::timeout(grace, all).await;
        }
    }
}

/// Both families on one socket where the machine has IPv6, else IPv4 alone.
async fn listen(port: u16) -> Result<TcpListener, EchoError> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(EchoError::Listen { address: both, source: error })
        }
        Err(_) => {
            let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            TcpListener::bind(address).await.map_err(|source| EchoError::Listen { address, source })
        }
    }
}

async fn accept(
    listener: TcpListener,
    protocol: Protocol,
    app: Arc<App>,
    traces: Traces,
    mut is_open: watch::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = is_open.changed() => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a caller that left before it was accepted: the next one may succeed.
                tracing::warn!(%error, "accept");
                tokio::task::yield_now().await;
                continue;
            }
        };
        serve(stream, from, &protocol, &app, &traces);
    }
    // Closing resets whoever the kernel has let in and nobody has accepted yet.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, from)) = listener.accept() {
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            serve(stream, from, &protocol, &app, &traces);
        }
    }
}

/// Serves a connection in a task of its own.
fn serve(stream: TcpStream, from: SocketAddr, protocol: &Protocol, app: &Arc<App>, traces: &Traces) {
    // What is written goes out: a trailer that waits for the client's acknowledgement comes 40 ms late.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the caller has left already");
    }
    let port = stream.local_addr().map_or(0, |address| address.port());
    let arrival = Arrival { from: from.ip().to_canonical(), port };
    let watcher = || traces.connections.watcher();
    match protocol {
        Protocol::Http => drop(tokio::spawn(serve_http(stream, arrival, app.clone(), watcher()))),
        Protocol::Https(acceptor) => {
            drop(tokio::spawn(serve_https(stream, acceptor.clone(), arrival, app.clone(), watcher())));
        }
        Protocol::Tcp | Protocol::ServerFirst => {
            let greeting = matches!(protocol, Protocol::ServerFirst).then(|| app.hostname.clone());
            let trace = traces.bytes.clone();
            tokio::spawn(async move {
                match greeting {
                    None => tcp::echo(stream).await,
                    Some(hostname) => tcp::greet_and_echo(stream, hostname).await,
                }
                drop(trace);
            });
        }
    }
}

async fn serve_https(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    arrival: Arrival,
    app: Arc<App>,
    watcher: Watcher,
) {
    match acceptor.accept(stream).await {
        Ok(stream) => serve_http(stream, arrival, app, watcher).await,
        Err(error) => tracing::debug!(%error, "handshake"),
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    arrival: Arrival,
    app: Arc<App>,
    watcher: Watcher,
) {
    let service = hyper::service::service_fn(move |request| http::answer(Arc::clone(&app), arrival, request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "connection");
    }
}
