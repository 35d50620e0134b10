//! tonic over our TLS: [`incoming`] for servers, [`connect`] for clients.
//!
//! tonic's own TLS would take certificates once, at start. Here each connection asks for the configuration of now.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, lookup_host},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint, Uri, server::Connected};
use tower::service_fn;
use tracing::{debug, warn};

use crate::{
    explain::explain,
    handle::ConfigError,
    peer::{Peer, peer},
};

/// The ALPN list of gRPC.
pub const ALPN: &[&[u8]] = &[b"h2"];

/// How long a stranger may take over TCP's and TLS's handshakes.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long TCP may take to one address. A cluster IP may lead to a replica that has just gone, and does so for as long as the
/// same socket tries: a new one is led anew. A lost SYN is sent again after one second.
const REACH: Duration = Duration::from_millis(1500);
/// How many handshakes go on at the same time; further connections wait in the kernel.
const HANDSHAKES: usize = 256;
/// How long to wait when no connection can be accepted, as when out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is calling; tonic puts it into each request's extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where from.
    pub address: SocketAddr,
    /// The verified identity; `None` where the server asks for no certificates.
    pub peer: Option<Peer>,
}

/// A TLS connection that a client made.
pub struct Accepted {
    stream: TlsStream<TcpStream>,
    caller: Caller,
}

/// Not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not an address of the form HOST:PORT")]
pub struct AddressError(String);

/// Accepts connections and does their handshakes, many at a time, with the configuration that `config` gives for each.
///
/// Goes on until the stream is dropped; what goes wrong with one connection is that one's end.
pub fn incoming(
    listener: TcpListener,
    config: impl Fn() -> Result<Arc<ServerConfig>, ConfigError> + Send + 'static,
) -> impl Stream<Item = Result<Accepted, io::Error>> {
    let (done, connections) = mpsc::channel(HANDSHAKES);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, config, done.clone()) => {}
            () = done.closed() => {}
        }
    });
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    config: impl Fn() -> Result<Arc<ServerConfig>, ConfigError>,
    done: mpsc::Sender<Result<Accepted, io::Error>>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    // The semaphore is never closed.
    while let Ok(permit) = handshakes.clone().acquire_owned().await {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!("can't accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let config = match config() {
            Ok(config) => config,
            Err(error) => {
                warn!(%address, "connection refused: {error}");
                continue;
            }
        };
        let done = done.clone();
        tokio::spawn(async move {
            match timeout(HANDSHAKE, handshake(stream, address, config)).await {
                Ok(Ok(accepted)) => {
                    drop(permit);
                    // Closed: the server is shutting down.
                    let _ = done.send(Ok(accepted)).await;
                }
                Ok(Err(error)) => debug!(%address, "TLS handshake failed: {}", explain(&error)),
                Err(_) => debug!(%address, "TLS handshake took more than {} s", HANDSHAKE.as_secs()),
            }
        });
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
) -> io::Result<Accepted> {
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let peer = match stream.get_ref().1.peer_certificates() {
        Some(chain) => Some(peer(chain).map_err(io::Error::other)?),
        None => None,
    };
    Ok(Accepted { stream, caller: Caller { address, peer } })
}

/// An endpoint for `host:port`, with a limit on the time to connect. Add keep-alive and the like, then [`connect`].
///
/// # Errors
/// If it isn't a host and a port.
pub fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let error = || AddressError(address.to_owned());
    // The scheme is tonic's way to say "TLS isn't yours to do".
    let uri: Uri = format!("http://{address}").parse().map_err(|_| error())?;
    if uri.port_u16().is_none() || uri.path() != "/" || server_name(&uri).is_err() {
        return Err(error());
    }
    Ok(Endpoint::from(uri).connect_timeout(HANDSHAKE))
}

/// Connects a channel with this configuration, which must say who the server is. It reconnects by itself, with the same one.
///
/// # Errors
/// If the first connection or its handshake fails; [`explain`](crate::explain()) tells why.
pub async fn connect(
    endpoint: Endpoint,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = service_fn(move |uri: Uri| {
        let config = config.clone();
        async move { timeout(HANDSHAKE, dial(uri, config)).await.map_err(io::Error::from)? }
    });
    endpoint.connect_with_connector(connector).await
}

async fn dial(
    uri: Uri,
    config: Arc<ClientConfig>,
) -> io::Result<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>> {
    let name = server_name(&uri)?;
    let port = uri.port_u16().ok_or_else(|| io::Error::other("the address has no port"))?;
    let stream = reach(lookup_host((&*name.to_str(), port)).await?).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(TokioIo::new(stream))
}

/// A connection to the first of the addresses that takes one.
async fn reach(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the name has no address");
    for address in addresses {
        match timeout(REACH, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::Error::new(io::ErrorKind::TimedOut, format!("{address} doesn't answer")),
        }
    }
    Err(failed)
}

fn server_name(uri: &Uri) -> io::Result<ServerName<'static>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
