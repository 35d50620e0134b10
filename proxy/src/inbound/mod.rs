//! What dials the pod.
//!
//! ```text
//! (redirect) -> listener -> original destination -> first bytes -> admit
//!     mesh TLS  -> handshake: peer, pod  -> h1 | h2 | tcp -> the app, at the address that was dialled
//!     others    -> strict: refused       permissive: their bytes to the app, as they are
//! ```
//!
//! The app is dialled at the original pod IP, not at 127.0.0.1: what listens on localhost only stays private.
//! [`admit`] holds the decisions and no sockets, [`listener`] the sockets and no decisions; [`http`] and
//! [`app`] carry requests on.
//!
//! [`Inbound::serve_stream`] is also how outbound reaches its own pod when a split chooses that: no TLS then,
//! but the same policy, limits and counters.

mod admit;
mod app;
mod http;
mod listener;
mod plaintext;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gamut_controller_api::InboundPolicy;
use gamut_identity::{Identity, Peer};
use gamut_route::Uid;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

pub use self::admit::Refusal;
use self::{admit::Log, app::Apps};
use crate::{
    drain::Drain,
    http::Carrier,
    tcp::{self, BreakOff},
    telemetry::{Direction, Telemetry},
    word::{self, Word},
};

/// The inbound half of a sidecar; cloning is cheap.
#[derive(Clone)]
pub struct Inbound(Arc<Shared>);

/// Whose inbound it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pod's UID, which callers must mean.
    pub pod: Uid,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// How many connections callers may have open. What is beyond is reset.
    pub max_connections: u32,
}

struct Shared {
    settings: Settings,
    identity: Identity,
    policy: Policy,
    telemetry: Telemetry,
    drain: Drain,
    apps: Apps,
    log: Log,
}

/// Says how the pod takes traffic in, now; `None`: the controller hasn't said it yet, and nobody is let in.
pub type Policy = Box<dyn Fn() -> Option<Arc<InboundPolicy>> + Send + Sync>;

/// What a connection between sidecars carries; its ALPN says which, so that nobody detects twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    /// HTTP/1.1.
    H1,
    /// Many requests ([`crate::http::mux`]), of HTTP/1.1.
    MuxH1,
    /// Many requests, of HTTP/2.
    MuxH2,
    /// Bytes, behind a word about the app ([`crate::word`]).
    Tcp,
}

impl MeshProtocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::H1, Self::MuxH1, Self::MuxH2, Self::Tcp];
    /// What every ALPN of the mesh begins with, of later versions too. No other TLS is ours.
    const PREFIX: &[u8] = b"gamut/";

    /// The protocol's ALPN.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"gamut/1-h1",
            Self::MuxH1 => b"gamut/1-mux-h1",
            Self::MuxH2 => b"gamut/1-mux-h2",
            Self::Tcp => b"gamut/2-tcp",
        }
    }

    /// The protocol that a handshake agreed on.
    pub fn of(alpn: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.alpn() == alpn)
    }
}

impl From<Carrier> for MeshProtocol {
    /// [`Carrier::H2`] is for endpoints without a sidecar, which are spoken to as they are.
    fn from(carrier: Carrier) -> Self {
        match carrier {
            Carrier::H1 => Self::H1,
            Carrier::MuxH1 => Self::MuxH1,
            Carrier::MuxH2 | Carrier::H2 => Self::MuxH2,
        }
    }
}

impl Inbound {
    /// An inbound that asks `policy` for each connection and request.
    pub fn new(
        settings: Settings,
        identity: Identity,
        policy: Policy,
        telemetry: Telemetry,
        drain: Drain,
    ) -> Self {
        let (apps, log) = (Apps::default(), Log::default());
        Self(Arc::new(Shared { settings, identity, policy, telemetry, drain, apps, log }))
    }

    /// Serves the byte stream of a peer that has proved who it is, until it ends. `destination` is the
    /// address and port of our pod that was dialled.
    pub async fn serve_stream<IO>(&self, io: IO, protocol: MeshProtocol, peer: Peer, destination: SocketAddr)
    where
        IO: AsyncRead + AsyncWrite + BreakOff + Unpin + Send + 'static,
    {
        if let Err(refusal) = self.authorize(&peer, destination) {
            return self.refuse(&refusal, destination);
        }
        // Held to the connection's end: what is being served delays the sidecar's exit.
        let _in_flight = self.0.drain.in_flight();
        match protocol {
            MeshProtocol::H1 => http::serve(self.clone(), io, Carrier::H1, peer, destination).await,
            MeshProtocol::MuxH1 => http::serve(self.clone(), io, Carrier::MuxH1, peer, destination).await,
            MeshProtocol::MuxH2 => http::serve(self.clone(), io, Carrier::MuxH2, peer, destination).await,
            MeshProtocol::Tcp => self.carry(io, &peer, destination).await,
        }
    }

    /// Whether a mesh peer may use this port; asked per connection and per request, because policy changes
    /// under both.
    ///
    /// # Errors
    /// Why not.
    fn authorize(&self, _peer: &Peer, destination: SocketAddr) -> Result<(), Refusal> {
        self.0.settings.check_destination(destination)?;
        // Identity-based rules will be read here; until the controller has said anything, the answer is no.
        (self.0.policy)().ok_or(Refusal::NoPolicy)?;
        Ok(())
    }

    /// Carries bytes between a sidecar and the app, when it has been told that there is somebody to take them.
    async fn carry<IO>(&self, mut io: IO, peer: &Peer, destination: SocketAddr)
    where
        IO: AsyncRead + AsyncWrite + BreakOff + Unpin,
    {
        let app = self.dial(destination, app::WORD_TIMEOUT).await;
        let word = if app.is_some() { Word::Taken } else { Word::NotTaken };
        match (word::say(&mut io, word).await, app) {
            (Ok(()), Some(app)) => self.join(io, app, Some(peer), destination).await,
            // Not broken off, which could take the word back.
            (Ok(()), None) => drop(io.shutdown().await),
            (Err(error), _) => tracing::debug!(%destination, %error, "a sidecar left before it was told"),
        }
    }

    /// Carries bytes between a caller without a sidecar and the app.
    async fn copy<IO>(&self, io: IO, destination: SocketAddr)
    where
        IO: AsyncRead + AsyncWrite + BreakOff + Unpin,
    {
        match self.dial(destination, app::CONNECT_TIMEOUT).await {
            Some(app) => self.join(io, app, None, destination).await,
            // Breaking off is all that can be said on a byte stream.
            None => io.break_off(),
        }
    }

    async fn dial(&self, destination: SocketAddr, limit: Duration) -> Option<TcpStream> {
        let dialled = tcp::connect(destination, limit).await;
        dialled
            .inspect_err(|error| {
                self.0.telemetry.own_answer(Direction::Inbound, crate::http::Reason::AppConnect.as_str());
                tracing::debug!(%destination, %error, "the app took no connection");
            })
            .ok()
    }

    async fn join<IO>(&self, io: IO, app: TcpStream, peer: Option<&Peer>, destination: SocketAddr)
    where
        IO: AsyncRead + AsyncWrite + BreakOff + Unpin,
    {
        let counters = self.0.telemetry.inbound(destination.port()).tcp(peer.map(|peer| &peer.id));
        let copied = tcp::copy(io, app).await;
        counters.received(copied.forth);
        counters.sent(copied.back);
        if let Err(error) = copied.end {
            tracing::debug!(%destination, %error, "a connection to the app broke");
        }
    }

    /// Counts and logs a connection that isn't served.
    fn refuse(&self, refusal: &Refusal, destination: SocketAddr) {
        self.0.telemetry.own_answer(Direction::Inbound, refusal.reason());
        self.0.log.refused(refusal, destination);
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
