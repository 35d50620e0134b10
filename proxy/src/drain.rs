//! Going away without losing a request, in two phases.
//!
//! ```text
//! Serving --notice--> Draining --stop--> Stopping --(nothing in flight, or time is up)--> exit
//! ```
//!
//! **Draining** begins with the pod's termination (the preStop hook's notice), while other sidecars may still
//! send new work, because the news of it is still spreading. So everything is accepted and served, but peers
//! are told to take their next requests elsewhere: GOAWAY, `connection: close`.
//!
//! **Stopping** begins with SIGTERM, which a native sidecar gets when the app has exited. Listeners close;
//! what is in flight may end until the drain time is over.
//!
//! Who holds what: one [`Control`] is the process's; a [`Notice`] begins draining and may be cloned and
//! dropped freely; a [`Drain`] watches, and holding it delays nothing; an [`InFlight`] delays the exit until
//! it is dropped.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::config::ports;

/// How far the process is on its way out. Phases only move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// Peers are asked to leave; whoever comes is served.
    Draining,
    /// Nobody new is let in.
    Stopping,
}

/// The process's hold on its own end.
pub struct Control {
    phase: watch::Sender<Phase>,
    /// Kept so that [`Drain::in_flight`] works while nothing is in flight.
    held: mpsc::Sender<Infallible>,
    /// Ends when `held` and every [`InFlight`] are gone. Nothing is ever sent, as the type shows.
    all_gone: mpsc::Receiver<Infallible>,
}

/// May begin the draining: the admin endpoint's handle.
#[derive(Clone, Debug)]
pub struct Notice(watch::Sender<Phase>);

/// Watches the phase.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    held: mpsc::WeakSender<Infallible>,
}

/// Something that the process waits for before it exits: a connection.
#[derive(Clone, Debug)]
pub struct InFlight(
    #[expect(dead_code, reason = "dropping it is its meaning")] Option<mpsc::Sender<Infallible>>,
);

impl Control {
    /// A process that serves.
    pub fn new() -> Self {
        let (held, all_gone) = mpsc::channel(1);
        Self { phase: watch::Sender::new(Phase::Serving), held, all_gone }
    }

    /// A handle to begin the draining with.
    pub fn notice(&self) -> Notice {
        Notice(self.phase.clone())
    }

    /// A handle to watch with.
    pub fn watch(&self) -> Drain {
        Drain { phase: self.phase.subscribe(), held: self.held.downgrade() }
    }

    /// Lets nobody new in, and waits until nothing is in flight or `limit` is over. True: nothing was cut
    /// off.
    pub async fn stop(self, limit: Duration) -> bool {
        let Self { phase, held, mut all_gone } = self;
        advance(&phase, Phase::Stopping);
        drop(held);
        timeout(limit, all_gone.recv()).await.is_ok()
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Notice {
    /// Begins the draining, if it hasn't begun.
    pub fn begin(&self) {
        advance(&self.0, Phase::Draining);
    }
}

impl Drain {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits for this phase or a later one.
    pub async fn reached(&self, phase: Phase) {
        let mut watch = self.phase.clone();
        // The sender gone means that the process is being torn down: the last phase.
        let _ = watch.wait_for(|&now| now >= phase).await;
    }

    /// Waits until peers that are connected now should be asked to leave: for draining, or, if that has begun
    /// already, for stopping. Whoever connects during the draining has nowhere better to go yet.
    pub async fn next(&self) {
        let next = if self.phase() < Phase::Draining { Phase::Draining } else { Phase::Stopping };
        self.reached(next).await;
    }

    /// Delays the process's exit until the returned value is dropped.
    pub fn in_flight(&self) -> InFlight {
        InFlight(self.held.upgrade())
    }
}

/// `gamut drain`, the sidecar's preStop hook: tells the sidecar of this pod to begin draining.
///
/// # Errors
/// If no sidecar answers on the admin port, or it doesn't do it.
pub fn notify() -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let admin = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::ADMIN);
    let no_sidecar =
        |error: io::Error| io::Error::new(error.kind(), format!("no sidecar answers on {admin}: {error}"));
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).map_err(no_sidecar)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("POST /drain HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(no_sidecar)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(no_sidecar)?;
    match answer.lines().next() {
        Some(status) if status.starts_with("HTTP/1.1 200 ") => Ok(()),
        status => Err(io::Error::other(format!("the sidecar answered {:?}", status.unwrap_or_default()))),
    }
}

fn advance(phase: &watch::Sender<Phase>, to: Phase) {
    phase.send_if_modified(|now| {
        let moves = *now < to;
        if moves {
            *now = to;
            tracing::info!(phase = ?to, "going away");
        }
        moves
    });
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_what_is_in_flight_and_for_nothing_else() {
        let control = Control::new();
        let drain = control.watch();
        let request = drain.in_flight();
        let begin = Instant::now();
        let stopping = tokio::spawn(control.stop(Duration::from_secs(30)));
        drain.reached(Phase::Stopping).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(request);
        assert!(stopping.await.unwrap());
        assert_eq!(begin.elapsed(), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endless_request_is_cut_off_when_time_is_up() {
        let control = Control::new();
        let _request = control.watch().in_flight();
        let begin = Instant::now();
        assert!(!control.stop(Duration::from_secs(30)).await);
        assert_eq!(begin.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test]
    async fn an_idle_process_stops_at_once() {
        assert!(Control::new().stop(Duration::MAX).await);
    }

    #[tokio::test]
    async fn notices_begin_the_draining_once_and_never_undo_the_stopping() {
        let control = Control::new();
        let (notice, drain) = (control.notice(), control.watch());
        assert_eq!(drain.phase(), Phase::Serving);
        notice.begin();
        notice.begin();
        drain.reached(Phase::Draining).await;
        assert_eq!(drain.phase(), Phase::Draining);
        control.stop(Duration::ZERO).await;
        notice.begin();
        assert_eq!(drain.phase(), Phase::Stopping);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_are_asked_to_leave_once_per_connection() {
        let control = Control::new();
        let notice = control.notice();
        let early = control.watch();
        let early = tokio::spawn(async move { early.next().await });
        tokio::task::yield_now().await;
        notice.begin();
        early.await.unwrap();

        let late = control.watch();
        let late = tokio::spawn(async move { late.next().await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!late.is_finished(), "connected while draining: served until the stop");
        control.stop(Duration::ZERO).await;
        late.await.unwrap();
    }
}
