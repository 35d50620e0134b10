//! Going away without losing a request, in three phases.
//!
//! ```text
//! Serving --notice--> Draining --stop--> Stopping --quiet--> Closing --(nothing in flight, or time is up)--> exit
//! ```
//!
//! **Draining** begins with the pod's termination (the preStop hook's notice), while other sidecars may still
//! send new work, because the news of it is still spreading. So everything is accepted and served, but peers
//! are told to take their next requests elsewhere: by a frame where requests share a connection, and on HTTP/1.1 by the
//! next answer's `connection: close`. An idle HTTP/1.1 connection isn't closed: a request may be on its way.
//!
//! **Stopping** begins with SIGTERM, which a native sidecar gets when the app has exited. Whoever still comes is
//! answered that the app isn't there, so that he asks another pod; a closed port would leave him with half an
//! exchange now and then.
//!
//! **Closing** begins when nobody has come for [`QUIET`]. Listeners close; what is in flight may end until the
//! drain time is over.
//!
//! Who holds what: one [`Control`] is the process's; a [`Notice`] begins draining and may be cloned and
//! dropped freely; a [`Drain`] watches, and holding it delays nothing; an [`InFlight`] delays the exit until
//! it is dropped.

use std::{
    convert::Infallible,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use crate::config::ports;

/// How far the process is on its way out. Phases only move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not at all.
    Serving,
    /// Peers are asked to leave; whoever comes is served.
    Draining,
    /// The app is gone; whoever comes is told so.
    Stopping,
    /// Nobody new is let in.
    Closing,
}

/// When nobody has come for so long, the news has spread.
pub const QUIET: Duration = Duration::from_secs(1);

/// The process's hold on its own end.
pub struct Control {
    phase: watch::Sender<Phase>,
    /// Kept so that [`Drain::in_flight`] works while nothing is in flight.
    held: mpsc::Sender<Infallible>,
    /// Ends when `held` and every [`InFlight`] are gone. Nothing is ever sent, as the type shows.
    all_gone: mpsc::Receiver<Infallible>,
    /// How often somebody has come.
    arrivals: Arc<AtomicU64>,
}

/// May begin the draining: the admin endpoint's handle.
#[derive(Clone, Debug)]
pub struct Notice(watch::Sender<Phase>);

/// Watches the phase.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: watch::Receiver<Phase>,
    held: mpsc::WeakSender<Infallible>,
    arrivals: Arc<AtomicU64>,
}

/// Says to a connection whether its peer should be asked to leave.
#[derive(Clone, Debug)]
pub struct Leave {
    phase: watch::Receiver<Phase>,
    from_the_start: bool,
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
        Self { phase: watch::Sender::new(Phase::Serving), held, all_gone, arrivals: Arc::default() }
    }

    /// A handle to begin the draining with.
    pub fn notice(&self) -> Notice {
        Notice(self.phase.clone())
    }

    /// A handle to watch with.
    pub fn watch(&self) -> Drain {
        let mut phase = self.phase.subscribe();
        if *phase.borrow() > Phase::Serving {
            phase.mark_changed();
        }
        Drain { phase, held: self.held.downgrade(), arrivals: Arc::clone(&self.arrivals) }
    }

    /// Waits until nobody comes any more, lets nobody new in, and waits until nothing is in flight; for `limit` at
    /// most. True: nothing was cut off.
    pub async fn stop(self, limit: Duration) -> bool {
        let Self { phase, held, mut all_gone, arrivals } = self;
        advance(&phase, Phase::Stopping);
        let ending = async {
            quiet(&arrivals).await;
            advance(&phase, Phase::Closing);
            drop(held);
            all_gone.recv().await
        };
        timeout(limit, ending).await.is_ok()
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

    /// Whether the process is on its way out. One atomic load: asked per request.
    pub fn has_begun(&self) -> bool {
        self.phase.has_changed().unwrap_or(true)
    }

    /// For a connection that begins now.
    pub fn leave(&self) -> Leave {
        let mut phase = self.phase.clone();
        let from_the_start = *phase.borrow_and_update() >= Phase::Stopping;
        Leave { phase, from_the_start }
    }

    /// Somebody has come: a connection, or a request on one.
    pub fn arrived(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }

    /// Delays the process's exit until the returned value is dropped.
    pub fn in_flight(&self) -> InFlight {
        InFlight(self.held.upgrade())
    }
}

impl Leave {
    /// Whether the peer should take its next request elsewhere: the phase has changed since it connected, or it came
    /// when there was nothing here any more. One atomic load: asked per answer.
    pub fn is_due(&self) -> bool {
        self.from_the_start || self.phase.has_changed().unwrap_or(true)
    }
}

/// Waits until nobody has come for [`QUIET`]. Who never had a caller has none to wait for.
async fn quiet(arrivals: &AtomicU64) {
    let mut seen = 0;
    loop {
        let now = arrivals.load(Ordering::Relaxed);
        if now == seen {
            return;
        }
        seen = now;
        sleep(QUIET).await;
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

    #[tokio::test(start_paused = true)]
    async fn who_still_comes_is_let_in_until_it_has_been_quiet() {
        let control = Control::new();
        let drain = control.watch();
        drain.arrived();
        let begin = Instant::now();
        let stopping = tokio::spawn(control.stop(Duration::from_secs(30)));
        for _ in 0..3 {
            tokio::time::sleep(QUIET * 9 / 10).await;
            drain.arrived();
            assert_eq!(drain.phase(), Phase::Stopping);
        }
        drain.reached(Phase::Closing).await;
        assert!(stopping.await.unwrap());
        assert!((QUIET * 3..QUIET * 5).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_stops_coming_is_waited_for_no_longer_than_for_requests() {
        let control = Control::new();
        let drain = control.watch();
        drain.arrived();
        let begin = Instant::now();
        let stopping = tokio::spawn(control.stop(Duration::from_secs(30)));
        while !stopping.is_finished() {
            drain.arrived();
            tokio::time::sleep(QUIET / 2).await;
        }
        assert!(!stopping.await.unwrap());
        assert!(begin.elapsed() < Duration::from_secs(31));
    }

    #[tokio::test]
    async fn a_connection_is_asked_to_leave_at_the_next_phase_and_in_the_last_ones_at_once() {
        let control = Control::new();
        let (notice, drain) = (control.notice(), control.watch());
        let early = drain.leave();
        assert!(!early.is_due() && !drain.has_begun());
        notice.begin();
        assert!(early.is_due() && drain.has_begun() && control.watch().has_begun());
        let late = drain.leave();
        assert!(!late.is_due(), "there is nowhere better to go yet");
        control.stop(Duration::ZERO).await;
        assert!(late.is_due() && drain.leave().is_due());
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
        assert!(drain.phase() >= Phase::Stopping);
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
