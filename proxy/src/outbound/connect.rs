//! A byte stream to an endpoint.
//!
//! To a sidecar: mutual TLS, whose ALPN says what it carries and whose SNI says which pod is meant. The
//! handshake proves that it is that pod; here its service account is compared with the endpoint's. To an
//! endpoint without a sidecar: as it is. To our own pod: into our own inbound, in memory, because what this
//! process sends is exempt from the redirect and would reach the app past its policy.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gamut_controller_api::Transport;
use gamut_identity::{Identity, Peer, SpiffeId, peer, server_name};
use gamut_route::Uid;
use http::HeaderMap;
use tokio::{io::duplex, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::{
    ahead::ReadAhead,
    balance::Endpoint,
    http::{Carrier, DialError, HttpVersion, Io, carry::goes_along, headers::Wishes},
    inbound::{Inbound, MeshProtocol},
    tcp, word,
};

/// How long a connection may take, with TLS and the other sidecar's word about its app.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// How long TCP alone may take. A lost SYN is sent again after one second; who takes neither is gone, as the network of a pod that
/// vanished answers nothing, or has its queue full, and the request is better off elsewhere.
pub(super) const TCP_TIMEOUT: Duration = Duration::from_millis(1500);
/// How many bytes may be on the way between our own halves.
const LOCAL_BUFFER_BYTES: usize = 64 * 1024;

/// Makes connections to endpoints. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: Identity,
    own: Arc<Peer>,
    inbound: Inbound,
}

/// What carries a request to an endpoint; the one place that decides it. Between sidecars requests of HTTP/1.1 share a
/// connection, so that those which come together share system calls and TLS records, but for upgrades and `Expect`.
pub(super) fn carrier(
    version: HttpVersion,
    endpoint: &Endpoint,
    head: &HeaderMap,
    wishes: &Wishes,
) -> Carrier {
    match version {
        HttpVersion::H2 if endpoint.is_meshed() => Carrier::MuxH2,
        HttpVersion::H2 => Carrier::H2,
        HttpVersion::H1 if endpoint.is_meshed() && goes_along(head, wishes) => Carrier::MuxH1,
        HttpVersion::H1 => Carrier::H1,
    }
}

impl Connector {
    /// A connector for the pod `pod`, which calls as `identity`.
    pub fn new(identity: Identity, pod: Uid, inbound: Inbound) -> Self {
        let own = Arc::new(Peer { id: identity.id().clone(), pod: Some(pod) });
        Self { identity, own, inbound }
    }

    /// Connects to an endpoint; for bytes, as far as the app behind its sidecar.
    ///
    /// # Errors
    /// [`DialError`]: nothing was sent.
    pub async fn dial(&self, endpoint: &Endpoint, protocol: MeshProtocol) -> Result<Io, DialError> {
        let address = endpoint.address();
        let _connecting = endpoint.connecting();
        let is_own = endpoint.pod_uid().is_some() && endpoint.pod_uid() == self.own.pod;
        let connecting = async {
            let mut io = match &endpoint.said.transport {
                _ if is_own => self.dial_own_pod(protocol, address),
                Transport::Plaintext => return connect(address, protocol).await.map(Io::Tcp),
                Transport::Mesh(id) => {
                    let pod = endpoint.pod_uid().ok_or(DialError::NoPod { address })?;
                    self.dial_sidecar(address, id, pod, protocol).await?
                }
            };
            if protocol == MeshProtocol::Tcp {
                let heard = word::hear(&mut io).await;
                heard.map_err(|error| DialError::App { address, error: Arc::new(error) })?;
            }
            Ok(io)
        };
        let late = |_| DialError::TimedOut { address, limit: CONNECT_TIMEOUT };
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(late)?
    }

    fn dial_own_pod(&self, protocol: MeshProtocol, address: SocketAddr) -> Io {
        let (near, far) = duplex(LOCAL_BUFFER_BYTES);
        let (inbound, own) = (self.inbound.clone(), Peer::clone(&self.own));
        tokio::spawn(async move { inbound.serve_stream(far, protocol, own, address).await });
        Io::Local(near)
    }

    async fn dial_sidecar(
        &self,
        address: SocketAddr,
        expected: &SpiffeId,
        pod: Uid,
        protocol: MeshProtocol,
    ) -> Result<Io, DialError> {
        // Before the connection: without a certificate there is nothing to say on it.
        let config = self
            .identity
            .client_config(&[protocol.alpn()])
            .map_err(|error| DialError::NoCertificate(error.to_string()))?;
        let stream = connect(address, protocol).await?;
        let handshake = |error| DialError::Handshake { address, error: Arc::new(error) };
        let stream = ReadAhead::dialled(stream);
        let tls = TlsConnector::from(config).connect(server_name(pod), stream).await.map_err(handshake)?;

        let (_, session) = tls.get_ref();
        if session.alpn_protocol() != Some(protocol.alpn()) {
            return Err(handshake(io::Error::other("the peer doesn't speak the mesh's protocol")));
        }
        let found = peer(session.peer_certificates().unwrap_or_default())
            .map_err(|error| handshake(io::Error::other(error)))?;
        if found.id != *expected || found.pod != Some(pod) {
            return Err(DialError::WrongPeer {
                address,
                found: describe(&found),
                expected: describe(&Peer { id: expected.clone(), pod: Some(pod) }),
            });
        }
        Ok(Io::Tls(Box::new(tls)))
    }
}

/// Connects in TCP. A peer that vanishes is found out by questions where requests share the connection
/// ([`crate::http::mux`]), else by the kernel.
async fn connect(address: SocketAddr, protocol: MeshProtocol) -> Result<TcpStream, DialError> {
    let stream = tcp::connect(address, TCP_TIMEOUT)
        .await
        .map_err(|error| DialError::Connect { address, error: Arc::new(error) })?;
    match protocol {
        MeshProtocol::H1 => tcp::expect_answers(&stream),
        MeshProtocol::MuxH1 | MeshProtocol::MuxH2 | MeshProtocol::Tcp => tcp::expect_progress(&stream),
    }
    Ok(stream)
}

fn describe(peer: &Peer) -> String {
    match peer.pod {
        Some(pod) => format!("{} in pod {pod}", peer.id),
        None => format!("{} in no pod", peer.id),
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_endpoint_that_vanishes_is_found_out_and_soon_where_short_requests_are_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for protocol in MeshProtocol::ALL {
            let stream = connect(listener.local_addr().unwrap(), protocol).await.unwrap();
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            let limits = (socket.tcp_user_timeout().unwrap(), socket.tcp_keepalive_time().unwrap().as_secs());
            let expected = match protocol {
                MeshProtocol::H1 => (Some(tcp::ANSWER_TIMEOUT), 5),
                _ => (Some(tcp::USER_TIMEOUT), 60),
            };
            assert_eq!(limits, expected, "{protocol:?}");
        }
    }
}
