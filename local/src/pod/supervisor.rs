//! One run of one container: starts it, probes it, passes signals on, tells how it ended.

use std::{
    fs, io,
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
    io::AsyncWriteExt as _,
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    container::ContainerSpec,
    lifecycle::Exit,
    output::Log,
    plan::ContainerPlan,
    probes::{self, Subject},
};
use crate::paths;

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
    /// Its process exists.
    Running(i32),
    /// Its startup probe has succeeded and its postStart hook is over.
    Started,
    /// Its readiness probe changed its mind.
    Ready(bool),
    /// It has ended after having run for so long. The last note.
    Exited(Exit, Duration),
}

/// What the run's own tasks find out.
enum Finding {
    Started,
    Ready(bool),
    Unhealthy(String),
}

/// Output is read for so long after the program has ended: a child that it left behind may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs a container once. `tell` gets the notes; signals come through `orders`.
pub(crate) async fn run(launch: Launch, mut orders: mpsc::UnboundedReceiver<Signal>, tell: impl Fn(Note)) {
    let (started, began) = (Timestamp::now(), Instant::now());
    let mut reason = None;
    let status = match start(&launch).await {
        Ok(child) => attend(&launch, child, &mut orders, &mut reason, &tell).await,
        Err(error) => Err(error),
    };
    let refusal = fs::read_to_string(&launch.spec.error_file).unwrap_or_default();
    let (code, signal, problem) = match status {
        Ok(status) => (status.code(), status.signal(), None),
        Err(error) => (Some(128), None, Some(error.to_string())),
    };
    let message = Some(refusal.trim().to_owned()).filter(|text| !text.is_empty()).or(problem).or(reason);
    let code = code.or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(128);
    tell(Note::Exited(Exit { code, signal, message, started, finished: Timestamp::now() }, began.elapsed()));
}

async fn start(launch: &Launch) -> io::Result<Child> {
    // Of an earlier run.
    match fs::remove_file(&launch.spec.error_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut command = Command::new(paths::EXECUTABLE);
    command
        .args(["internal", "container"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(&launch.spec)?).await?;
    }
    Ok(child)
}

async fn attend(
    launch: &Launch,
    mut child: Child,
    orders: &mut mpsc::UnboundedReceiver<Signal>,
    reason: &mut Option<String>,
    tell: &impl Fn(Note),
) -> io::Result<ExitStatus> {
    let process = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let Some(process) = process else { return child.wait().await };
    tell(Note::Running(process.as_raw()));

    let mut readers = JoinSet::new();
    if let Some(stdout) = child.stdout.take() {
        readers.spawn(launch.log.clone().pump(stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        readers.spawn(launch.log.clone().pump(stderr));
    }
    let (found, mut findings) = mpsc::unbounded_channel();
    let subject = Subject { process: process.as_raw(), ..launch.subject.clone() };
    let mut observers = JoinSet::new();
    observers.spawn(observe(launch.plan.clone(), subject, found));

    let mut kill_at = None;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = orders.recv() => send(process, signal),
            Some(finding) = findings.recv() => match finding {
                Finding::Started => tell(Note::Started),
                Finding::Ready(ready) => tell(Note::Ready(ready)),
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
        probes::repeat(startup, &subject, |told| {
            verdict = Some(told);
            false
        })
        .await;
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
                probes::repeat(probe, &subject, |verdict| tell(Finding::Ready(verdict.success))).await
            }
        }
    };
    let liveness = async {
        if let Some(probe) = &plan.liveness {
            probes::repeat(probe, &subject, |verdict| {
                verdict.success
                    || !tell(Finding::Unhealthy(format!("liveness probe failed: {}", verdict.problem)))
            })
            .await;
        }
    };
    tokio::join!(readiness, liveness);
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
