//! Connections of a pool that requests share: usually one, and another when its streams run out.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{sync::watch, time::Instant};

use super::{Carrier, Pool, SendError};
use crate::http::{
    HttpError,
    body::{Body, BodyError},
    h2::client::{self as h2, H2},
    io::{DialError, Io},
    mux::client::{self as mux, Mux},
    sending::Unanswered,
};

/// The connections of one carrier.
#[derive(Default)]
pub(super) struct Shared {
    open: Vec<Connection>,
    /// The one attempt to get another, which all requests that need it wait for.
    dialing: Option<Dialing>,
}

struct Connection {
    speaks: Speaks,
    /// When it was last given a request or seen busy.
    used: Instant,
}

/// What a connection speaks: HTTP/2 with apps, and with sidecars what sidecars do.
enum Speaks {
    H2(H2),
    Mux(Mux),
}

/// A request that was handed to one of both.
enum Exchange {
    H2(h2::Exchange),
    Mux(mux::Exchange),
}

/// A dial's outcome: when the sender is gone, `None` means that it worked.
type Dialing = watch::Receiver<Option<DialError>>;

/// How many connections may die before a request could be sent on them. One is the usual race; more is a server that
/// closes whatever it accepts.
const MAX_DEAD_CONNECTIONS: u32 = 2;

impl Pool {
    /// Sends a request over a connection that it shares with others.
    pub(super) async fn send_shared<F>(
        self: &Arc<Self>,
        carrier: Carrier,
        mut request: Request<Body>,
        dial: impl Fn() -> F + Send,
    ) -> Result<Response<Body>, SendError>
    where
        F: Future<Output = Result<Io, DialError>> + Send + 'static,
    {
        let h1 = carrier == Carrier::MuxH1;
        let mut died = 0;
        loop {
            let mut dialing = match self.hand_over(carrier, request, &dial) {
                Ok(Ok(exchange)) => {
                    let answered = exchange.answer().await;
                    return answered.map_err(|unanswered| SendError::of_shared(unanswered, h1));
                }
                Ok(Err(unanswered)) => return Err(SendError::of_shared(unanswered, h1)),
                Err((unsent, dialing)) => {
                    request = unsent;
                    dialing
                }
            };
            while dialing.changed().await.is_ok() {}
            let failed = dialing.borrow().clone();
            let failed = failed.or_else(|| {
                died += u32::from(!self.lock().shared(carrier).is_open());
                (died > MAX_DEAD_CONNECTIONS).then_some(DialError::Closed)
            });
            if let Some(error) = failed {
                return Err(SendError::Dial { error, request: Box::new(request) });
            }
        }
    }

    /// Hands a request to a connection that takes it; else gives it back with what it has to wait for: the dial that is
    /// under way, or one that is begun here.
    #[expect(clippy::result_large_err, reason = "the request goes on from here either way")]
    fn hand_over<F>(
        self: &Arc<Self>,
        carrier: Carrier,
        request: Request<Body>,
        dial: impl Fn() -> F,
    ) -> Result<Result<Exchange, Unanswered>, (Request<Body>, Dialing)>
    where
        F: Future<Output = Result<Io, DialError>> + Send + 'static,
    {
        let mut connections = self.lock();
        let shared = connections.shared(carrier);
        if let Some(connection) = shared.with_room() {
            connection.used = Instant::now();
            return Ok(connection.speaks.send(request, carrier));
        }
        if let Some(dialing) = &shared.dialing {
            return Err((request, dialing.clone()));
        }
        let (report, dialing) = watch::channel(None);
        shared.dialing = Some(dialing.clone());
        let stream = dial();
        let home = Arc::downgrade(self);
        // A task, for the dial must go on when the request that began it is cancelled: others wait for it
        // too.
        tokio::spawn(async move {
            let connection = match stream.await {
                Ok(io) => Speaks::begin(io, carrier).await,
                Err(error) => Err(error),
            };
            let Some(home) = home.upgrade() else { return };
            let mut connections = home.lock();
            let shared = connections.shared(carrier);
            shared.dialing = None;
            match connection {
                Ok(speaks) => {
                    shared.open.push(Connection { speaks, used: Instant::now() });
                    home.keep_swept(&mut connections);
                }
                Err(error) => {
                    report.send_replace(Some(error));
                }
            }
        });
        Err((request, dialing))
    }
}

impl super::Connections {
    fn shared(&mut self, carrier: Carrier) -> &mut Shared {
        match carrier {
            Carrier::H1 | Carrier::H2 => &mut self.h2,
            Carrier::MuxH1 => &mut self.mux_h1,
            Carrier::MuxH2 => &mut self.mux_h2,
        }
    }
}

impl Speaks {
    async fn begin(io: Io, carrier: Carrier) -> Result<Self, DialError> {
        match carrier {
            Carrier::MuxH1 | Carrier::MuxH2 => Ok(Self::Mux(Mux::new(io))),
            Carrier::H1 | Carrier::H2 => {
                let shaken = H2::handshake(io).await;
                shaken.map(Self::H2).map_err(|error| DialError::Http(Arc::new(HttpError::H2(error))))
            }
        }
    }

    /// Whether it takes another request now.
    fn has_room(&self) -> bool {
        match self {
            Self::H2(h2) => h2.has_room(),
            Self::Mux(mux) => mux.has_room(),
        }
    }

    /// Whether it takes requests at all.
    fn is_open(&mut self) -> bool {
        match self {
            Self::H2(h2) => h2.is_open(),
            Self::Mux(mux) => mux.is_open(),
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Self::H2(h2) => h2.is_idle(),
            Self::Mux(mux) => mux.is_idle(),
        }
    }

    fn send(&mut self, request: Request<Body>, carrier: Carrier) -> Result<Exchange, Unanswered> {
        match self {
            Self::H2(h2) => h2.send(request).map(Exchange::H2),
            Self::Mux(mux) => mux.send(request, carrier == Carrier::MuxH1).map(Exchange::Mux),
        }
    }
}

impl Exchange {
    async fn answer(self) -> Result<Response<Body>, Unanswered> {
        match self {
            Self::H2(exchange) => exchange.answer().await,
            Self::Mux(exchange) => exchange.answer().await,
        }
    }
}

impl Shared {
    /// The first connection that takes a request; those that take none any more are let go.
    fn with_room(&mut self) -> Option<&mut Connection> {
        self.open.retain_mut(|connection| connection.speaks.is_open());
        self.open.iter_mut().find(|connection| connection.speaks.has_room())
    }

    fn is_open(&mut self) -> bool {
        self.open.iter_mut().any(|connection| connection.speaks.is_open())
    }

    /// Has the sidecar asked on each connection whether it is still there. Apps aren't: HTTP/2 servers may take pings amiss.
    pub(super) fn doubt(&self) {
        for connection in &self.open {
            if let Speaks::Mux(mux) = &connection.speaks {
                mux.doubt();
            }
        }
    }

    /// Lets go what has been idle for `limit`, and says since when the others are.
    pub(super) fn sweep(&mut self, now: Instant, limit: Duration) -> Option<Instant> {
        self.open.retain_mut(|connection| {
            if !connection.speaks.is_idle() {
                connection.used = now;
            }
            connection.speaks.is_open() && now.duration_since(connection.used) < limit
        });
        self.open.iter().map(|connection| connection.used).min()
    }
}

impl SendError {
    fn of_shared(unanswered: Unanswered, h1: bool) -> Self {
        match unanswered {
            Unanswered::Client(BodyError::Connection(error)) => Self::Client(error),
            Unanswered::Client(error) if error.is_clients() => {
                Self::Client(gamut_http1::Error::Source.into())
            }
            Unanswered::Client(_) => Self::Broken(gamut_http1::Error::Source.into()),
            Unanswered::Refused(error) => Self::Refused(error),
            Unanswered::Ended { error, was_tried: true } if h1 => Self::Stale(error),
            Unanswered::Ended { error, was_tried: false } if h1 => Self::Silent(error),
            Unanswered::Ended { error, .. } | Unanswered::Broken(error) => Self::Broken(error),
        }
    }
}
