//! `gamut up`: one machine as a cluster, in the foreground.
//!
//! All that it says goes to standard error; standard output belongs to the command that it runs, if it runs one.

mod live;
mod screen;

use std::{ffi::OsString, future, io, path::PathBuf, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use gamut_injector::values;
use gamut_local::{InstanceName, Machine, Traces, UpOptions, control::Event};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use self::{live::Live, screen::Screen};
use crate::{
    dash::Page,
    failure,
    output::{Colour, count},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kubernetes manifests: files, or directories with *.yaml, *.yml and *.json; read again when they are saved
    #[arg(short = 'f', long = "filename", required = true, value_name = "DIR|FILE", num_args = 1..)]
    paths: Vec<PathBuf>,

    /// The instance's name, if several run at once
    #[arg(long, value_name = "NAME", env = gamut_local::INSTANCE_VARIABLE, default_value_t)]
    name: InstanceName,

    /// Show what containers and components print
    #[arg(short, long)]
    verbose: bool,

    /// Don't serve the live page, whose address is printed where no CMD is run
    #[arg(long)]
    no_page: bool,

    /// The trust domain of all identities
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", hide_short_help = true)]
    trust_domain: String,

    /// Where sidecars send spans (OTLP), as grpc://HOST:PORT or http://HOST:PORT/PATH that pods can reach; nowhere if not given
    #[arg(long, env = "GAMUT_SIDECAR_TRACES_TO", value_parser = values::collector, value_name = "ADDRESS", hide_short_help = true)]
    traces_to: Option<String>,

    /// The share of traces that begin at a sidecar and are exported, 0 to 1
    #[arg(long, env = "GAMUT_SIDECAR_TRACES_SHARE", value_parser = values::share, value_name = "SHARE", hide_short_help = true)]
    traces_share: Option<String>,

    /// How long CMD may have to wait until everything is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 120, hide_short_help = true)]
    timeout: u32,

    /// Run CMD although there are errors in the manifests, and exit with its status whatever is told of routes
    #[arg(long)]
    keep_going: bool,

    /// Run this on the host when everything is ready, then stop and exit with its status
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// How long an orderly end may take before everything is simply ended. The node itself allows less.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Must be called on the main thread: the machine ends with the thread that started it.
pub(crate) fn run(args: Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(up(args, colour))
}

async fn up(args: Args, colour: Colour) -> anyhow::Result<ExitCode> {
    let Args { paths, name, verbose, no_page, timeout, keep_going, command, .. } = args;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let traces = Traces { to: args.traces_to, share: args.traces_share };
    let options = UpOptions { name: name.clone(), paths, verbose, trust_domain: args.trust_domain, traces };
    let mut live = Live::new(name.clone());
    let mut screen = Screen::new(name.clone(), colour);
    let machine = Machine::start(&options)?;
    if command.is_empty() && !no_page {
        show_page(name, &mut screen);
    }
    let mut session = Session::new(machine, command, keep_going);

    let ready_deadline = Instant::now() + Duration::from_secs(timeout.into());
    let mut stop_deadline = None;
    loop {
        let waits_for_ready = session.waits_for_ready();
        let Session { machine, state, .. } = &mut session;
        tokio::select! {
            event = machine.event() => match event {
                Some(event) => session.on_event(event, &mut screen).await?,
                None => break,
            },
            status = command_ended(state) => session.has_run(status.context("waiting for the command")?).await,
            _ = interrupts.recv() => session.on_signal(&mut screen).await,
            _ = terminations.recv() => session.on_signal(&mut screen).await,
            () = at(waits_for_ready.then_some(ready_deadline)) => {
                let why = format!("not ready after {timeout} s; {}", screen.all_that_is_missing());
                session.fail(not_run(&session.command, &why)).await;
            }
            line = live.next(), if matches!(state, State::Ready) && screen.has_live_view() => screen.live(line),
            () = at(stop_deadline) => break,
        }
        if matches!(session.state, State::Stopping) && stop_deadline.is_none() {
            stop_deadline = Some(Instant::now() + STOP_PATIENCE);
        }
    }
    screen.clear();
    session.end(&mut screen).await
}

/// A mesh without its page is still a mesh.
fn show_page(name: InstanceName, screen: &mut Screen) {
    match Page::of_instance(name) {
        Ok(page) => screen.say(&format!("live page at {}", page.url())),
        Err(error) => screen.warn(&format!("there is no live page: {}", failure::one_line(&error))),
    }
}

/// The machine, and how far it is.
struct Session {
    machine: Machine,
    state: State,
    command: Vec<OsString>,
    keep_going: bool,
    /// How much was told of routes when the command began.
    complaints: usize,
    /// Why the command wasn't run, or its success isn't believed: what is said last.
    verdict: Option<String>,
    exit: u8,
}

type Running = Pin<Box<dyn Future<Output = io::Result<u8>>>>;

enum State {
    Starting,
    Ready,
    /// The user's command runs; a second signal ends everything.
    Command {
        running: Running,
        interrupted: bool,
    },
    Stopping,
    Failed,
}

impl Session {
    fn new(machine: Machine, command: Vec<OsString>, keep_going: bool) -> Self {
        let state = State::Starting;
        Self { machine, state, command, keep_going, complaints: 0, verdict: None, exit: 0 }
    }

    async fn on_event(&mut self, event: Event, screen: &mut Screen) -> anyhow::Result<()> {
        match event {
            Event::Fatal { .. } => {
                if self.waits_for_ready() {
                    self.verdict = Some(not_run(&self.command, "the machine can't go on"));
                }
                self.state = State::Failed;
            }
            // Whoever runs a command against a mesh wants this mesh and not what is left of it.
            Event::Read { errors: errors @ 1.. } if self.waits_for_ready() && !self.keep_going => {
                let why =
                    format!("{} in the manifests; mend them, or add --keep-going", count(errors, "error"));
                self.fail(not_run(&self.command, &why)).await;
            }
            // Whoever waits for the end isn't told of what comes nearer meanwhile.
            Event::Ready(_) | Event::Waiting { .. } if matches!(self.state, State::Stopping) => return Ok(()),
            _ => {}
        }
        let ready = matches!(event, Event::Ready(_));
        if let Event::Ready(summary) = &event {
            self.complaints = summary.conditions;
        }
        screen.show(event, self.command.is_empty());
        if ready && matches!(self.state, State::Starting) {
            self.state = match self.command.is_empty() {
                true => State::Ready,
                false => {
                    let running = self.machine.run(&self.command).context("starting the command")?;
                    State::Command { running: Box::pin(running), interrupted: false }
                }
            };
        }
        Ok(())
    }

    async fn on_signal(&mut self, screen: &mut Screen) {
        match &mut self.state {
            // The command hears signals as well and decides what to do; its end is the end.
            State::Command { interrupted, .. } if !*interrupted => *interrupted = true,
            State::Starting | State::Ready => {
                screen.say("stopping; once more to end at once");
                self.stop().await;
            }
            State::Command { .. } | State::Stopping | State::Failed => {
                self.state = State::Failed;
                self.exit = 130;
                self.machine.kill().await;
            }
        }
    }

    /// The command has ended. A test that passes although a route isn't in force hasn't tested that route.
    async fn has_run(&mut self, status: u8) {
        self.exit = status;
        match status {
            0 if self.complaints > 0 && !self.keep_going => {
                self.fail(not_believed(&self.command, self.complaints)).await;
            }
            _ => self.stop().await,
        }
    }

    async fn fail(&mut self, verdict: String) {
        self.verdict = Some(verdict);
        self.exit = 1;
        self.stop().await;
    }

    async fn stop(&mut self) {
        self.state = State::Stopping;
        self.machine.stop().await;
    }

    fn waits_for_ready(&self) -> bool {
        matches!(self.state, State::Starting) && !self.command.is_empty()
    }

    /// The machine has ended, or has had its time.
    async fn end(mut self, screen: &mut Screen) -> anyhow::Result<ExitCode> {
        self.machine.kill().await;
        // Last, where people look for what became of their command.
        if let Some(verdict) = &self.verdict {
            screen.error(verdict);
        }
        match self.state {
            State::Stopping => Ok(ExitCode::from(self.exit)),
            State::Failed => Ok(ExitCode::from(self.exit.max(1))),
            State::Starting if !self.command.is_empty() => {
                anyhow::bail!(not_run(&self.command, "the machine has ended by itself"))
            }
            State::Starting | State::Ready => anyhow::bail!("the machine has ended by itself"),
            State::Command { running, .. } => {
                screen.error("the machine has ended by itself");
                let status = running.await.context("waiting for the command")?;
                Ok(ExitCode::from(status.max(1)))
            }
        }
    }
}

/// Never, while no command runs.
async fn command_ended(state: &mut State) -> io::Result<u8> {
    match state {
        State::Command { running, .. } => running.await,
        _ => future::pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => future::pending().await,
    }
}

fn not_run(command: &[OsString], why: &str) -> String {
    format!("`{}` was not run: {why}", words(command))
}

fn not_believed(command: &[OsString], complaints: usize) -> String {
    format!(
        "`{}` succeeded, but not on what is written: routes aren't in force, or hardly meant ({} above); mend them, or add \
         --keep-going",
        words(command),
        count(complaints, "error"),
    )
}

fn words(command: &[OsString]) -> String {
    command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_not_run_or_is_not_believed_is_named_with_the_reason() {
        let command = ["curl", "-s", "http://web/"].map(OsString::from);
        assert_eq!(
            not_run(&command, "1 error in the manifests; mend it"),
            "`curl -s http://web/` was not run: 1 error in the manifests; mend it"
        );
        let not_believed = not_believed(&command, 2);
        assert!(
            not_believed.starts_with("`curl -s http://web/` succeeded, but not on what is written"),
            "{not_believed}"
        );
        assert!(not_believed.contains("(2 errors above)"), "{not_believed}");
    }
}
