//! The inbound listener: sockets, time limits and hand-over, in the order in which less and less can be told
//! to whom.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gamut_controller_api::{InboundPolicy, MtlsMode};
use gamut_identity::{Peer, explain, peer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Inbound, MeshProtocol, Settings,
    admit::{Admission, Refusal, is_mesh},
    app, plaintext,
};
use crate::{
    ahead::ReadAhead,
    detect::{self, Detected, Prefixed, Screened, Why, detect},
    drain::Phase,
    tcp::{self, BreakOff},
    telemetry::Direction,
};

/// How long a sidecar's handshake may take. A throttled peer needs a while; a hostile one holds no more than
/// a socket.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no file descriptors or memory for another connection.
const BREATHER: Duration = Duration::from_millis(50);

impl Inbound {
    /// Accepts redirected connections until the sidecar stops. Each is a task of its own.
    pub async fn accept(&self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.0.drain.reached(Phase::Closing) => return,
            };
            match accepted {
                Ok((stream, caller)) => {
                    let inbound = self.clone();
                    tokio::spawn(async move { inbound.take(stream, caller).await });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(BREATHER).await;
                }
            }
        }
    }

    /// A redirected connection: learns where it was going.
    async fn take(&self, stream: TcpStream, caller: SocketAddr) {
        let open = self.0.telemetry.connection(Direction::Inbound);
        self.0.drain.arrived();
        let limit = self.0.settings.max_connections;
        match tcp::original_destination(&stream, caller) {
            Ok(destination) if open.open() > limit.into() => {
                self.refuse(&Refusal::TooMany(limit), destination);
                stream.break_off();
            }
            Ok(destination) => self.serve(stream, destination).await,
            // Closed by the peer already, or connection tracking is full: where it was going is unknown.
            Err(error) => tracing::debug!(%error, "a connection without an original destination"),
        }
    }

    /// Serves a connection to `destination`, of this pod, from whoever it comes.
    pub async fn serve(&self, stream: TcpStream, destination: SocketAddr) {
        tcp::settle(&stream);
        tcp::expect_progress(&stream);
        if let Err(refusal) = self.0.settings.check_destination(destination) {
            return self.refuse(&refusal, destination);
        }
        let policy = (self.0.policy)();
        let silence = match Settings::mode(policy.as_deref(), destination.port()) {
            // No server is to speak first here: a throttled sidecar may take its time.
            Some(MtlsMode::Strict) => HANDSHAKE_TIMEOUT,
            _ => detect::SILENCE,
        };
        let (detected, stream) = match detect(stream, silence).await {
            Ok(known) => known,
            Err(error) => return tracing::debug!(%destination, %error, "a connection broke at its beginning"),
        };
        if detected == Detected::Opaque(Why::Silent) {
            self.0.telemetry.detect_timeout(Direction::Inbound);
        }
        match self.0.settings.admit(&detected, policy.as_deref(), destination.port()) {
            Admission::Plaintext if detected == Detected::Opaque(Why::Silent) => {
                self.after_silence(stream, policy, destination).await;
            }
            admission => self.carry_out(admission, stream, destination).await,
        }
    }

    /// Serves a caller that may come in and has said nothing yet: its server may be the one to speak first, or it is
    /// slow. Whoever says the first word decides.
    async fn after_silence(
        &self,
        stream: Prefixed<TcpStream>,
        policy: Option<Arc<InboundPolicy>>,
        destination: SocketAddr,
    ) {
        let _in_flight = self.0.drain.in_flight();
        let Some(stream) = stream.into_unread() else { return };
        let Some(app) = self.dial(destination, app::CONNECT_TIMEOUT).await else { return stream.break_off() };
        tokio::select! {
            biased;
            _ = stream.readable() => {}
            // From here on the caller is the app's; but not if it should turn out to be a sidecar.
            _ = app.readable() => {
                return self.join(Screened::new(stream, is_mesh), app, None, destination).await;
            }
        }
        let (detected, stream) = match detect(stream, detect::SILENCE).await {
            Ok(known) => known,
            Err(error) => return tracing::debug!(%destination, %error, "a connection broke at its beginning"),
        };
        match self.0.settings.admit(&detected, policy.as_deref(), destination.port()) {
            Admission::Plaintext => self.join(stream, app, None, destination).await,
            admission => {
                drop(app);
                self.carry_out(admission, stream, destination).await;
            }
        }
    }

    async fn carry_out(&self, admission: Admission, stream: Prefixed<TcpStream>, destination: SocketAddr) {
        match admission {
            Admission::Handshake => match self.shake_hands(stream).await {
                Ok((stream, protocol, peer)) => self.serve_stream(stream, protocol, peer, destination).await,
                Err(refusal) => self.refuse(&refusal, destination),
            },
            Admission::Plaintext => {
                let _in_flight = self.0.drain.in_flight();
                self.copy(stream, destination).await;
            }
            Admission::Refused { refusal, readable } => {
                self.refuse(&refusal, destination);
                if let Some(version) = readable {
                    plaintext::answer(stream, version, &refusal, &self.0.telemetry).await;
                }
            }
        }
    }

    /// The mesh's handshake: afterwards it is proved who the peer is.
    async fn shake_hands(
        &self,
        stream: Prefixed<TcpStream>,
    ) -> Result<(TlsStream<ReadAhead<Prefixed<TcpStream>>>, MeshProtocol, Peer), Refusal> {
        let failed = |why: String| Refusal::Handshake(why);
        let alpn = MeshProtocol::ALL.map(MeshProtocol::alpn);
        let config = self.0.identity.server_config(&alpn).map_err(|error| failed(error.to_string()))?;
        let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(ReadAhead::new(stream)));
        let stream = handshake
            .await
            .map_err(|_| failed(format!("it wasn't complete after {HANDSHAKE_TIMEOUT:?}")))?
            .map_err(|error| failed(explain(&error)))?;
        let (_, connection) = stream.get_ref();
        let protocol = connection
            .alpn_protocol()
            .and_then(MeshProtocol::of)
            .ok_or_else(|| failed("no protocol was agreed on".to_owned()))?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let peer = peer(chain).map_err(|error| failed(error.to_string()))?;
        Ok((stream, protocol, peer))
    }
}

/// Errors of `accept` that concern the one connection that is being accepted (accept(2), "Error handling").
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}
