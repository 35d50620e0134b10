//! Connections that aren't HTTP, or that routes don't apply to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    Outbound,
    request::newer,
    retry::ELSEWHERE_PATIENCE,
    service::{Forward, Service},
};
use crate::{
    balance::{Failed, Picked, PodTarget},
    detect::Prefixed,
    http::{DialError, Io, Reason},
    inbound::MeshProtocol,
    tables::ServiceHandle,
    tcp::{self, BreakOff},
    telemetry::{Direction, TcpConnection},
};

/// How many endpoints of a backend are called before a connection is given up.
const MAX_CALLED: usize = 16;
/// How long a connection out of the mesh may take: what the kernel would have waited (some two minutes), as
/// the app's own would have.
const UNTOUCHED_TIMEOUT: Duration = Duration::from_secs(130);

/// An endpoint that took a connection.
struct Reached {
    upstream: Io,
    picked: Picked,
    counters: TcpConnection,
}

/// Why a connection goes nowhere.
struct Refused {
    reason: Reason,
    why: String,
}

impl Outbound {
    /// Carries a connection to one of the backends of the split that `choose` finds in the Service's table.
    pub(super) async fn forward(
        &self,
        stream: Prefixed<TcpStream>,
        client: IpAddr,
        service: &ServiceHandle,
        choose: impl Fn(&Service) -> &Forward,
    ) {
        let mut table = service.load_full();
        let mut reached = self.reach(client, choose(&table)).await;
        // Nothing of the connection has been sent: a table that came meanwhile may know somebody who takes it.
        while reached.is_err()
            && let Some(newer) = newer(service, &table)
        {
            table = newer;
            reached = self.reach(client, choose(&table)).await;
        }
        match reached {
            Ok(Reached { upstream, picked, counters }) => {
                carry(stream, upstream, picked, Some(counters)).await;
            }
            Err(Refused { reason, why }) => {
                let (service, reason) = (table.parent(), reason.as_str());
                self.0.telemetry.own_answer(Direction::Outbound, reason);
                tracing::debug!(%service, reason, "a connection of the app is reset: {why}");
                stream.break_off();
            }
        }
    }

    /// A connection to an endpoint of one of a split's backends. Nothing is sent before there is one, so that
    /// others may be called freely.
    async fn reach(&self, client: IpAddr, forward: &Forward) -> Result<Reached, Refused> {
        let refused = |reason: Reason, why: &dyn fmt::Display| Refused { reason, why: why.to_string() };
        let backend = forward
            .draw(rand::random())
            .ok_or_else(|| refused(Reason::NoBackend, &"no backend has a weight"))?;
        let target = backend.target.as_ref().map_err(|why| refused(Reason::InvalidBackend, why))?;
        target.cluster.admit().map_err(|overload| refused(Reason::Overload, &overload))?;
        let mut called: SmallVec<[SocketAddr; 4]> = SmallVec::new();
        let mut failed = None;
        let since = Instant::now();
        while called.len() < MAX_CALLED
            && since.elapsed() < ELSEWHERE_PATIENCE
            && let Some(picked) = target.cluster.pick(client, &called)
        {
            match self.dial(&picked).await {
                Ok(upstream) => {
                    target.cluster.answered(&picked);
                    let counters = backend.counters.tcp(&picked.endpoint().said);
                    return Ok(Reached { upstream, picked, counters });
                }
                Err(error) => {
                    backend.counters.connect_failed();
                    if !error.is_ours() && !matches!(error, DialError::NoCertificate(_)) {
                        target.cluster.failed(&picked, Failed::Alone);
                    }
                    called.push(picked.address());
                    failed = Some(error);
                }
            }
        }
        Err(match failed {
            None => {
                let why = format_args!("{} has no endpoint that takes traffic", target.cluster.id());
                refused(Reason::NoEndpoint, &why)
            }
            Some(error @ DialError::NoCertificate(_)) => refused(Reason::NoCertificate, &error),
            Some(error) => refused(Reason::UpstreamConnect, &error),
        })
    }

    /// Carries a connection to a pod that the app dialled by its own address.
    pub async fn to_pod(&self, stream: TcpStream, pod: &Arc<PodTarget>) {
        let picked = pod.pick();
        match self.dial(&picked).await {
            Ok(upstream) => carry(stream, upstream, picked, None).await,
            Err(error) => {
                self.0.telemetry.own_answer(Direction::Outbound, Reason::UpstreamConnect.as_str());
                tracing::debug!(pod = %picked.address(), "a connection of the app is reset: {error}");
                stream.break_off();
            }
        }
    }

    /// Carries a connection to where it was going, as if nobody had been in between.
    pub async fn untouched(&self, stream: TcpStream, destination: SocketAddr) {
        match tcp::connect(destination, UNTOUCHED_TIMEOUT).await {
            Ok(upstream) => {
                let copied = tcp::copy(stream, upstream).await;
                if let Err(error) = copied.end {
                    tracing::debug!(%destination, %error, "a connection out of the mesh broke");
                }
            }
            Err(error) => {
                tracing::debug!(%destination, %error, "a connection out of the mesh did not come about");
                stream.break_off();
            }
        }
    }

    async fn dial(&self, picked: &Picked) -> Result<Io, DialError> {
        let dialled = self.0.connector.dial(picked.endpoint(), MeshProtocol::Tcp).await;
        match &dialled {
            Ok(_) => drop(picked.answered()),
            Err(_) => picked.failed(),
        }
        dialled
    }
}

/// Copies both ways until both sides have ended.
async fn carry<IO>(stream: IO, upstream: Io, picked: Picked, counters: Option<TcpConnection>)
where
    IO: AsyncRead + AsyncWrite + BreakOff + Unpin,
{
    let copied = tcp::copy(stream, upstream).await;
    if let Some(counters) = counters {
        counters.received(copied.forth);
        counters.sent(copied.back);
    }
    if let Err(error) = copied.end {
        tracing::debug!(endpoint = %picked.address(), %error, "a connection of the app broke");
    }
}
