//! The byte stream to an upstream, whatever it runs over, and why there may be none.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nix::errno::Errno;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::HttpError;
use crate::{
    ahead::ReadAhead,
    tcp::{self, BreakOff},
};

/// A connection to an upstream.
pub enum Io {
    /// The bytes as they are.
    Tcp(TcpStream),
    /// Mutual TLS to a sidecar.
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
    /// To the inbound half of this very process: a split chose one's own pod.
    Local(DuplexStream),
}

/// Why no connection to an upstream came about. Nothing of a request has been sent when this happens.
#[derive(Clone, Debug, Error)]
pub enum DialError {
    /// The TCP connection was refused, or its network can't be reached.
    #[error("{address} did not take a connection: {error}")]
    Connect {
        /// Who was called.
        address: SocketAddr,
        /// What the kernel said.
        error: Arc<io::Error>,
    },
    /// The connection, the TLS handshake included, took too long.
    #[error("{address} did not complete a connection within {limit:?}")]
    TimedOut {
        /// Who was called.
        address: SocketAddr,
        /// The limit.
        limit: Duration,
    },
    /// This sidecar has no certificate that is still good, so it can't prove who it is: nothing is sent.
    #[error("this sidecar has no valid certificate: {0}")]
    NoCertificate(String),
    /// The TLS handshake failed.
    #[error("the TLS handshake with {address} failed: {error}")]
    Handshake {
        /// Who was called.
        address: SocketAddr,
        /// Ours or the peer's complaint.
        error: Arc<io::Error>,
    },
    /// The TLS handshake worked, but with somebody else than the endpoint was said to be.
    #[error("{address} proved to be {found}, but {expected} was expected")]
    WrongPeer {
        /// Who was called.
        address: SocketAddr,
        /// Who answered.
        found: String,
        /// Who should have.
        expected: String,
    },
    /// There is a sidecar, but it has no connection to the app behind it, or doesn't say that it has.
    #[error("the sidecar at {address} has no connection to its app: {error}")]
    App {
        /// Who was called.
        address: SocketAddr,
        /// What it said instead.
        error: Arc<io::Error>,
    },
    /// The controller says that there is a sidecar, but not of which pod.
    #[error("{address} is said to be in the mesh, but as no pod's")]
    NoPod {
        /// Who wasn't called.
        address: SocketAddr,
    },
    /// The byte stream is there, but HTTP on it failed before the first request.
    #[error("HTTP could not be started: {0}")]
    Http(Arc<HttpError>),
    /// It closed as soon as it was there, and so did those before it.
    #[error("the connection closed before anything was sent on it")]
    Closed,
}

impl DialError {
    /// Whether it was this machine that had nothing left to call anybody with.
    pub fn is_ours(&self) -> bool {
        let Self::Connect { error, .. } = self else { return false };
        let number = error.raw_os_error().map(Errno::from_raw);
        matches!(
            number,
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL)
        )
    }
}

impl Io {
    /// See [`tcp::allow_pauses`]. In memory nobody vanishes.
    pub(super) fn allow_pauses(&self) {
        match self {
            Self::Tcp(tcp) => tcp::allow_pauses(tcp),
            Self::Tls(tls) => tcp::allow_pauses(tls.get_ref().0.get_ref()),
            Self::Local(_) => {}
        }
    }
}

impl BreakOff for Io {
    fn break_off(&self) {
        match self {
            Self::Tcp(tcp) => tcp.break_off(),
            Self::Tls(tls) => tls.get_ref().0.break_off(),
            Self::Local(local) => local.break_off(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Local(local) => Pin::new(local).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Local(local) => Pin::new(local).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Local(local) => Pin::new(local).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Local(local) => local.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Local(local) => Pin::new(local).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Local(local) => Pin::new(local).poll_shutdown(cx),
        }
    }
}
