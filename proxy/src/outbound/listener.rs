//! Accepts what the redirect rules lead here.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::Outbound;
use crate::{
    config::ports,
    tcp::{self, BreakOff},
};

/// How long accepting pauses where the process has no file descriptors left. Connections wait in the kernel's
/// queue meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

impl Outbound {
    /// Serves the connections of a listener until the future is dropped. Those that were accepted go on.
    pub async fn serve(&self, listener: &TcpListener) {
        tcp::settle(listener);
        let entrance = listener.local_addr().ok();
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    let outbound = self.clone();
                    tokio::spawn(async move { outbound.accepted(stream, client, entrance).await });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection of the app can be accepted for now");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn accepted(&self, stream: TcpStream, client: SocketAddr, entrance: Option<SocketAddr>) {
        let destination = match tcp::original_destination(&stream, client) {
            Ok(destination) => destination,
            Err(error) => {
                // Somebody dialled the listener itself.
                tracing::debug!(%client, %error, "a connection that was not redirected is closed");
                return stream.break_off();
            }
        };
        if self.is_own(destination) || entrance == Some(destination) {
            tracing::debug!(%client, %destination, "a connection to the proxy's own port is closed");
            return stream.break_off();
        }
        self.connect(stream, tcp::canonical(client).ip(), destination).await;
    }

    /// Only the proxy's ports in our own pod are refused: the same numbers elsewhere are somebody's apps.
    fn is_own(&self, destination: SocketAddr) -> bool {
        let here = destination.ip().is_loopback() || self.0.settings.ips.contains(&destination.ip());
        here && ports::OWN.contains(&destination.port())
    }
}

/// Errors of accept(2) that are about the connection that would have been next.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}
