//! One run of one container: starts it, probes it, passes signals on, tells how it ended.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncRead,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    container::{ContainerSpec, Starting},
    lifecycle::Exit,
    output::Log,
    plan::ContainerPlan,
    probes::{self, Subject, Verdict},
};
/// Everything that a run needs.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) plan: Arc<ContainerPlan>,
    pub(crate) spec: ContainerSpec,
    pub(crate) subject: Subject,
    pub(crate) log: Log,
    /// Between SIGTERM and SIGKILL when a probe ends it.
    pub(crate) grace: Duration,
}

/// What happens to a container while it runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Note {
    /// Its program runs.
    Running(i32),
    /// Its startup probe has succeeded and its postStart hook is over.
    Started,
    /// Its readiness probe changed its mind.
    Ready(bool),
    /// A probe that it waits for has failed, in another way than before.
    Failing(String),
    /// It has ended after having run for so long. The last note.
    Exited(Exit, Duration),
}

/// What the run's own tasks find out.
enum Finding {
    Started,
    Ready(bool),
    Failing(String),
    Unhealthy(String),
}

/// Output is read for so long after the program has ended: a child that it left behind may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a container once. `tell` gets the notes; signals come through `orders`.
pub(crate) async fn run(launch: Launch, mut orders: mpsc::UnboundedReceiver<Signal>, tell: impl Fn(Note)) {
    let (started, began) = (Timestamp::now(), Instant::now());
    let mut reason = None;
    let status = match Starting::spawn(&launch.spec, Stdio::piped).await {
        Ok(starting) => attend(&launch, starting, &mut orders, &mut reason, &tell).await,
        Err(error) => Err(error),
    };
    let (code, signal) = match status {
        Ok(status) => (status.code(), status.signal()),
        Err(error) => {
            reason = Some(error.to_string());
            (Some(128), None)
        }
    };
    let code = code.or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(128);
    let exit = Exit { code, signal, message: reason, started, finished: Timestamp::now() };
    tell(Note::Exited(exit, began.elapsed()));
}

/// Until it has ended. `reason`: why, if it wasn't the program's own doing.
async fn attend(
    launch: &Launch,
    mut starting: Starting,
    orders: &mut mpsc::UnboundedReceiver<Signal>,
    reason: &mut Option<String>,
    tell: &impl Fn(Note),
) -> io::Result<ExitStatus> {
    let child = &mut starting.child;
    let process = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let Some(process) = process else { return child.wait().await };
    let mut readers = JoinSet::new();
    readers.spawn(pump(launch.log.clone(), stdout));
    readers.spawn(pump(launch.log.clone(), stderr));

    tokio::select! {
        refusal = starting.refusal() => match refusal {
            Some(refusal) => *reason = Some(refusal),
            None => tell(Note::Running(process.as_raw())),
        },
        Some(signal) = orders.recv() => send(process, signal),
    }
    let (found, mut findings) = mpsc::unbounded_channel();
    let mut observers = JoinSet::new();
    if reason.is_none() {
        let subject = Subject { process: process.as_raw(), ..launch.subject.clone() };
        observers.spawn(observe(launch.plan.clone(), subject, found));
    }
    let mut kill_at = None;
    let status = loop {
        tokio::select! {
            status = starting.child.wait() => break status,
            Some(signal) = orders.recv() => send(process, signal),
            Some(finding) = findings.recv() => match finding {
                Finding::Started => tell(Note::Started),
                Finding::Ready(ready) => tell(Note::Ready(ready)),
                Finding::Failing(problem) => tell(Note::Failing(problem)),
                Finding::Unhealthy(problem) => {
                    if kill_at.is_none() {
                        *reason = Some(problem);
                        send(process, Signal::SIGTERM);
                        kill_at = Some(Instant::now() + launch.grace);
                    }
                }
            },
            () = sleep_until(kill_at) => {
                send(process, Signal::SIGKILL);
                kill_at = None;
            }
        }
    };
    observers.abort_all();
    // What it left behind in its session has no purpose any more.
    if let Err(error) = killpg(process, Signal::SIGKILL) {
        tracing::trace!(%process, %error, "nothing was left behind");
    }
    let last_words = async { while readers.join_next().await.is_some() {} };
    if timeout(LAST_WORDS, last_words).await.is_err() {
        readers.abort_all();
    }
    status
}

async fn pump(log: Log, stream: Option<impl AsyncRead + Unpin>) {
    if let Some(stream) = stream {
        log.pump(stream).await;
    }
}

/// postStart and the startup probe first, then readiness and liveness for as long as the container runs.
async fn observe(plan: Arc<ContainerPlan>, subject: Subject, found: mpsc::UnboundedSender<Finding>) {
    // Who doesn't listen any more will end this task next.
    let tell = |finding| found.send(finding).is_ok();
    if let Some(hook) = &plan.post_start
        && let Err(problem) = probes::attempt(hook, &subject).await
    {
        tell(Finding::Unhealthy(format!("postStart hook failed: {problem}")));
        return;
    }
    if let Some(startup) = &plan.startup {
        let mut verdict = None;
        let report = |told| {
            verdict = Some(told);
            false
        };
        probes::repeat(startup, &subject, report, failing("startup", &found)).await;
        if let Some(verdict) = verdict.filter(|verdict| !verdict.success) {
            tell(Finding::Unhealthy(format!("startup probe failed: {}", verdict.problem)));
            return;
        }
    }
    tell(Finding::Started);

    let readiness = async {
        match &plan.readiness {
            None => drop(tell(Finding::Ready(true))),
            Some(probe) => {
                let report = |verdict: Verdict| tell(Finding::Ready(verdict.success));
                probes::repeat(probe, &subject, report, failing("readiness", &found)).await
            }
        }
    };
    let liveness = async {
        if let Some(probe) = &plan.liveness {
            let report = |verdict: Verdict| {
                verdict.success
                    || !tell(Finding::Unhealthy(format!("liveness probe failed: {}", verdict.problem)))
            };
            probes::repeat(probe, &subject, report, |_| {}).await;
        }
    };
    tokio::join!(readiness, liveness);
}

/// Passes a probe's failures on, each one that isn't as the one before.
fn failing(probe: &str, found: &mpsc::UnboundedSender<Finding>) -> impl FnMut(&str) {
    let mut last = String::new();
    move |problem| {
        if last != problem {
            last = problem.to_owned();
            // Who doesn't listen any more will end this task next.
            let _ = found.send(Finding::Failing(format!("{probe} probe: {problem}")));
        }
    }
}

fn send(process: Pid, signal: Signal) {
    // It isn't reaped while this task holds it, so the number is still its own.
    if let Err(error) = kill(process, signal) {
        tracing::debug!(%process, %signal, %error, "a container can't be signalled");
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep(deadline.saturating_duration_since(Instant::now())).await,
        None => std::future::pending().await,
    }
}
