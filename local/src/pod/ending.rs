//! How a container is ended: its preStop hook, its turn, SIGTERM, and SIGKILL when time is up.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::{
    actions::Action,
    probes::{self, Subject},
};

/// Sidecars get at least this long after the app has ended.
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// An order to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// SIGKILL at the latest then.
    pub(crate) deadline: Instant,
    /// Whether preStop hooks are run. Nobody is left to be polite to when the whole node stops.
    pub(crate) hooks: bool,
}

/// The end of one container.
pub(crate) struct Ender {
    pub(crate) pre_stop: Option<(Action, Subject)>,
    /// The containers, by index, that must have ended before this one is told to.
    pub(crate) before: Vec<usize>,
    /// Its signals.
    pub(crate) orders: mpsc::UnboundedSender<Signal>,
}

impl Ender {
    /// Sends the signals in their time. `alive`: the containers that run, by index.
    pub(crate) async fn run(
        self,
        mut stop: watch::Receiver<Option<Stop>>,
        mut alive: watch::Receiver<Vec<usize>>,
    ) {
        let hooks = stop.borrow().is_some_and(|stop| stop.hooks);
        if let Some((hook, subject)) = self.pre_stop.filter(|_| hooks) {
            tokio::select! {
                outcome = probes::attempt(&hook, &subject) => if let Err(problem) = outcome {
                    tracing::warn!(problem, "a preStop hook failed");
                },
                () = deadline(&mut stop) => {}
            }
        }
        let turn = |alive: &Vec<usize>| !alive.iter().any(|index| self.before.contains(index));
        // Its other end is kept until the last container has ended.
        let _ = alive.wait_for(turn).await;
        let earliest = match self.before.is_empty() {
            true => Instant::now(),
            false => Instant::now() + SIDECAR_GRACE,
        };
        // A container that has ended meanwhile has dropped its end.
        let _ = self.orders.send(Signal::SIGTERM);
        tokio::join!(deadline(&mut stop), sleep_until(earliest));
        let _ = self.orders.send(Signal::SIGKILL);
    }
}

/// Until the order's deadline, which may be moved closer meanwhile.
async fn deadline(stop: &mut watch::Receiver<Option<Stop>>) {
    loop {
        let Some(order) = *stop.borrow_and_update() else { return };
        tokio::select! {
            () = sleep_until(order.deadline) => return,
            changed = stop.changed() => if changed.is_err() {
                sleep_until(order.deadline).await;
                return;
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn sleep_hook(seconds: u64) -> Option<(Action, Subject)> {
        Some((Action::Sleep(Duration::from_secs(seconds)), Subject::nobody()))
    }

    /// An app's container (0) and a sidecar (1) that are being ended.
    struct Ending {
        began: Instant,
        stop: watch::Sender<Option<Stop>>,
        alive: watch::Sender<Vec<usize>>,
        app: mpsc::UnboundedReceiver<Signal>,
        sidecar: mpsc::UnboundedReceiver<Signal>,
    }

    fn end(hooks: bool, app_hook: Option<(Action, Subject)>) -> Ending {
        let began = Instant::now();
        let (stop, stopped) = watch::channel(Some(Stop { deadline: began + GRACE, hooks }));
        let (alive, watched) = watch::channel(vec![0, 1]);
        let (app_orders, app) = mpsc::unbounded_channel();
        let (sidecar_orders, sidecar) = mpsc::unbounded_channel();
        let of_app = Ender { pre_stop: app_hook, before: Vec::new(), orders: app_orders };
        let of_sidecar = Ender { pre_stop: None, before: vec![0], orders: sidecar_orders };
        tokio::spawn(of_app.run(stopped.clone(), watched.clone()));
        tokio::spawn(of_sidecar.run(stopped, watched));
        Ending { began, stop, alive, app, sidecar }
    }

    #[tokio::test(start_paused = true)]
    async fn the_app_is_told_at_once_and_killed_when_its_time_is_up() {
        let mut ending = end(true, None);
        assert_eq!(
            (ending.app.recv().await, ending.began.elapsed()),
            (Some(Signal::SIGTERM), Duration::ZERO)
        );
        assert_eq!(ending.app.recv().await, Some(Signal::SIGKILL));
        assert_eq!(ending.began.elapsed().as_secs(), GRACE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pre_stop_hook_comes_before_the_signal_and_counts_towards_the_grace_period() {
        let mut ending = end(true, sleep_hook(4));
        assert_eq!(ending.app.recv().await, Some(Signal::SIGTERM));
        assert_eq!(ending.began.elapsed().as_secs(), 4);
        assert_eq!(ending.app.recv().await, Some(Signal::SIGKILL));
        assert_eq!(ending.began.elapsed().as_secs(), GRACE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sidecar_is_told_when_the_app_has_ended_and_gets_a_moment_however_late_that_is() {
        let mut ending = end(true, None);
        sleep_until(ending.began + Duration::from_secs(9)).await;
        assert_eq!(ending.sidecar.try_recv().ok(), None);
        ending.alive.send_replace(vec![1]);
        assert_eq!(ending.sidecar.recv().await, Some(Signal::SIGTERM));
        assert_eq!(ending.began.elapsed().as_secs(), 9);
        assert_eq!(ending.sidecar.recv().await, Some(Signal::SIGKILL));
        assert_eq!(ending.began.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_without_hooks_or_with_less_time_is_obeyed() {
        let mut ending = end(false, sleep_hook(4));
        assert_eq!(
            (ending.app.recv().await, ending.began.elapsed()),
            (Some(Signal::SIGTERM), Duration::ZERO)
        );
        ending
            .stop
            .send_replace(Some(Stop { deadline: ending.began + Duration::from_secs(1), hooks: false }));
        assert_eq!(ending.app.recv().await, Some(Signal::SIGKILL));
        assert_eq!(ending.began.elapsed().as_secs(), 1);
    }
}
