//! What becomes of a connection: who its destination is, and what it speaks.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gamut_route::table::AppProtocol;
use tokio::net::TcpStream;

use super::{Outbound, Service, request::Connection};
use crate::{
    detect::{self, Detected, Prefixed, Why},
    http::{HttpVersion, Reason, server},
    tables::{Destination, ServiceHandle},
    tcp::BreakOff,
    telemetry::Direction,
};

/// How long a client may take to say the first word where the port is said to be HTTP or TLS: as long as it
/// likes, for servers of these never speak first. (A day, which `Instant` can add.)
const UNHURRIED: Duration = Duration::from_secs(24 * 60 * 60);

impl Outbound {
    /// Serves a connection of `client` to `destination`, whatever that is.
    pub async fn connect(&self, stream: TcpStream, client: IpAddr, destination: SocketAddr) {
        let open = self.0.telemetry.connection(Direction::Outbound);
        let limit = self.0.settings.max_connections;
        if open.open() > limit.into() {
            self.0.telemetry.own_answer(Direction::Outbound, Reason::Overload.as_str());
            tracing::debug!(%destination, limit, "the app has too many connections (gamut.mesh/max-connections): this one is reset");
            return stream.break_off();
        }
        match self.0.tables.resolve(destination).await {
            Ok(Destination::Service(service)) => self.to_service(stream, client, destination, service).await,
            Ok(Destination::Pod(pod)) => self.to_pod(stream, &pod).await,
            Ok(Destination::NotOurs) => self.untouched(stream, destination).await,
            Err(reason) => {
                self.0.telemetry.own_answer(Direction::Outbound, Reason::NoTable.as_str());
                tracing::warn!(%destination, "the app's connection is reset: {reason}");
                stream.break_off();
            }
        }
    }

    /// Serves a connection to a Service's port.
    pub async fn to_service(
        &self,
        stream: TcpStream,
        client: IpAddr,
        destination: SocketAddr,
        service: ServiceHandle,
    ) {
        let speaks = match self.detect(stream, destination, service.load().protocol()).await {
            Ok(speaks) => speaks,
            Err(error) => {
                tracing::debug!(%destination, %error, "the app broke its connection off");
                return;
            }
        };
        match speaks {
            Speaks::Http(version, stream) => {
                let connection =
                    Arc::new(Connection::new(self.clone(), service, version, client, destination));
                let answer = move |request| {
                    let connection = Arc::clone(&connection);
                    // For as long as it takes: as a part of the connection it would be most of what an idle one costs.
                    Box::pin(async move { connection.answer(request).await })
                };
                // The app is the last to leave its pod, so there is nobody to be told to go elsewhere.
                if let Err(error) = server::serve(stream, version, answer, std::future::pending()).await {
                    if let Some(code) = error.closed_for() {
                        self.0.telemetry.http2_closed(Direction::Outbound, code);
                    }
                    tracing::debug!(%destination, %error, "the app's connection ended badly");
                }
            }
            Speaks::Tls(server_name, stream) => {
                self.forward(stream, client, &service, |table| table.tls(server_name.as_deref())).await;
            }
            Speaks::Bytes(stream) => {
                self.forward(stream, client, &service, Service::tcp).await;
            }
        }
    }

    /// What a connection speaks: what its port is said to, else what its first bytes look like.
    async fn detect(
        &self,
        stream: TcpStream,
        destination: SocketAddr,
        said: AppProtocol,
    ) -> std::io::Result<Speaks> {
        let port = destination.port();
        let opaque = match said {
            AppProtocol::Opaque => true,
            AppProtocol::Detect => {
                self.0.settings.opaque_ports.contains(port)
                    || AppProtocol::assumed(port) == AppProtocol::Opaque
            }
            AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Tls => false,
        };
        if opaque {
            return Ok(Speaks::Bytes(Prefixed::nothing(stream)));
        }
        let silence = if said == AppProtocol::Detect { detect::SILENCE } else { UNHURRIED };
        let (detected, stream) = detect::detect(stream, silence).await?;
        if said == AppProtocol::Detect && detected == Detected::Opaque(Why::Silent) {
            self.0.telemetry.detect_timeout(Direction::Outbound);
        }
        Ok(match (said, detected) {
            (AppProtocol::Tls, Detected::Tls(hello)) | (AppProtocol::Detect, Detected::Tls(hello)) => {
                Speaks::Tls(hello.server_name, stream)
            }
            (AppProtocol::Tls, _) => Speaks::Bytes(stream),
            (_, Detected::Http2) => Speaks::Http(HttpVersion::H2, stream),
            (_, Detected::Http1) => Speaks::Http(HttpVersion::H1, stream),
            // Said to be HTTP: what is none is answered 400 and doesn't get past the routes.
            (AppProtocol::Http | AppProtocol::Http2, _) => Speaks::Http(HttpVersion::H1, stream),
            (_, Detected::Opaque(_) | Detected::Tls(_)) => Speaks::Bytes(stream),
        })
    }
}

enum Speaks {
    Http(HttpVersion, Prefixed<TcpStream>),
    /// The app's own TLS, with the name that it calls.
    Tls(Option<String>, Prefixed<TcpStream>),
    Bytes(Prefixed<TcpStream>),
}
