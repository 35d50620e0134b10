//! `gamut up`: one machine as a cluster, in the foreground.
//!
//! All that it says goes to standard error; standard output belongs to the command that it runs, if it runs one.

mod live;

use std::{
    ffi::OsString,
    future,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use gamut_local::{
    InstanceName, Machine, UpOptions,
    control::{Event, Summary},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use self::live::Live;
use crate::{
    dash::Page,
    failure,
    output::{Colour, Tone},
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

    /// How long CMD may have to wait until everything is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 120, hide_short_help = true)]
    timeout: u32,

    /// Run CMD although there are errors in the manifests
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
    let Args { paths, name, verbose, no_page, trust_domain, timeout, keep_going, command } = args;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let options = UpOptions { name: name.clone(), paths, verbose, trust_domain };
    let mut live = Live::new(name.clone());
    let mut screen = Screen::new(name.clone(), colour);
    let machine = Machine::start(&options)?;
    if command.is_empty() && !no_page {
        show_page(name, &mut screen);
    }
    let (state, not_run) = (State::Starting, None);
    let mut session = Session { machine, state, command, keep_going, not_run, exit: 0 };

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
            status = command_ended(state) => {
                session.exit = status.context("waiting for the command")?;
                session.stop().await;
            }
            _ = interrupts.recv() => session.on_signal(&mut screen).await,
            _ = terminations.recv() => session.on_signal(&mut screen).await,
            () = at(waits_for_ready.then_some(ready_deadline)) => {
                session.not_run = Some(format!("not ready after {timeout} s; {}", screen.all_that_is_missing()));
                session.exit = 1;
                session.stop().await;
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
    /// Why the command isn't run.
    not_run: Option<String>,
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
    async fn on_event(&mut self, event: Event, screen: &mut Screen) -> anyhow::Result<()> {
        match event {
            Event::Fatal { .. } => {
                if self.waits_for_ready() {
                    self.not_run = Some("the machine can't go on".to_owned());
                }
                self.state = State::Failed;
            }
            // Whoever runs a command against a mesh wants this mesh and not what is left of it.
            Event::Read { errors: errors @ 1.. } if self.waits_for_ready() && !self.keep_going => {
                let errors = count(errors, "error");
                self.not_run = Some(format!("{errors} in the manifests; mend them, or add --keep-going"));
                self.exit = 1;
                self.stop().await;
            }
            // Whoever waits for the end isn't told of what comes nearer meanwhile.
            Event::Ready(_) | Event::Waiting { .. } if matches!(self.state, State::Stopping) => return Ok(()),
            _ => {}
        }
        let ready = matches!(event, Event::Ready(_));
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
        if let Some(why) = &self.not_run {
            screen.error(&not_run(&self.command, why));
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

/// Standard error: lines that stay, and on a terminal one at the bottom that says what is waited for.
struct Screen {
    instance: InstanceName,
    terminal: bool,
    colour: bool,
    /// Everything was ready once.
    started: bool,
    /// There are routes, whose splits can be shown.
    routes: bool,
    waiting: Vec<String>,
    /// Changes of manifests that aren't in effect everywhere yet.
    changes: Vec<String>,
    /// The line at the bottom is to be replaced.
    transient: bool,
}

impl Screen {
    fn new(instance: InstanceName, colour: Colour) -> Self {
        Self {
            instance,
            terminal: io::stderr().is_terminal(),
            colour: colour.wanted(&io::stderr()),
            started: false,
            routes: false,
            waiting: Vec::new(),
            changes: Vec::new(),
            transient: false,
        }
    }

    fn show(&mut self, event: Event, hints: bool) {
        match event {
            Event::Waiting { what } => self.wait_for(what),
            Event::Ready(summary) => {
                self.waiting.clear();
                self.started = true;
                self.routes = summary.routes > 0;
                let tone = if summary.errors == 0 { Tone::Good } else { Tone::Doubtful };
                self.say(&self.toned(&headline(&summary), tone));
                if hints {
                    self.hints(&summary);
                }
            }
            Event::Reloaded { changes } => {
                for change in changes {
                    if !self.changes.contains(&change) {
                        self.changes.push(change);
                    }
                }
                self.transient(&format!("reloading: {}", self.changes.join(", ")));
            }
            Event::Settled { milliseconds } => {
                self.waiting.clear();
                let changes = std::mem::take(&mut self.changes).join(", ");
                self.say(&format!("reloaded: {changes}; in effect everywhere after {milliseconds} ms"));
            }
            Event::Notice { text } => self.warn(&text),
            Event::Problem { text } | Event::Fatal { text } => self.error(&text),
            Event::Mended { text } => self.say(&format!("no longer a problem: {text}")),
            Event::Output { source, line } => {
                self.line(&format!("{} {line}", self.dim(&format!("[{source}]"))))
            }
            Event::Read { .. } | Event::Stopped => {}
        }
    }

    fn hints(&mut self, summary: &Summary) {
        let name = match self.instance == InstanceName::default() {
            true => String::new(),
            false => format!(" --name {}", self.instance),
        };
        self.line("try, in another terminal:");
        self.line(&format!("  gamut status{name}"));
        if summary.routes > 0 {
            self.line(&format!("  gamut routes{name}"));
        }
        if let Some(example) = &summary.example {
            self.line(&format!("  gamut exec{name} {example}"));
        }
        self.line("save a manifest to change what runs; Ctrl-C stops and leaves nothing behind");
    }

    /// On a terminal always; in a log during the start, when something else has come first in line.
    fn wait_for(&mut self, what: Vec<String>) {
        let next = self.waiting.first() != what.first();
        self.waiting = what;
        let text = self.still_waiting();
        match self.terminal {
            true => self.transient(&text),
            false if next && !self.started => self.line(&text),
            false => {}
        }
    }

    /// A line on a terminal that the next one replaces; cut, because a line that has wrapped can't be.
    fn transient(&mut self, text: &str) {
        const WIDTH: usize = 79;

        if self.terminal {
            self.clear();
            let short: String = text.chars().take(WIDTH).collect();
            self.write(&self.dim(&short));
            self.transient = true;
        }
    }

    /// Whether there is a line at the bottom for the split as it is: on a terminal, while nothing is waited for.
    fn has_live_view(&self) -> bool {
        self.terminal && self.routes && self.waiting.is_empty() && self.changes.is_empty()
    }

    /// The split as it is, or that there is nothing to tell.
    fn live(&mut self, line: Option<String>) {
        match line {
            Some(line) => self.transient(&line),
            None => self.clear(),
        }
    }

    fn still_waiting(&self) -> String {
        match self.waiting.as_slice() {
            [] => "waiting".to_owned(),
            [only] => format!("waiting for {only}"),
            [first, rest @ ..] => format!("waiting for {first}, and {} more", rest.len()),
        }
    }

    fn all_that_is_missing(&self) -> String {
        format!("waiting for {}", self.waiting.join("; "))
    }

    fn say(&mut self, text: &str) {
        self.line(&format!("gamut: {text}"));
    }

    fn warn(&mut self, text: &str) {
        self.line(&format!("gamut: {} {text}", self.toned("warning:", Tone::Doubtful)));
    }

    fn error(&mut self, text: &str) {
        self.line(&format!("gamut: {} {text}", self.red("error:")));
    }

    fn line(&mut self, text: &str) {
        self.clear();
        self.write(&format!("{text}\n"));
    }

    fn clear(&mut self) {
        if self.transient {
            self.write("\r\x1b[K");
            self.transient = false;
        }
    }

    /// A closed standard error is no reason to stop a mesh.
    fn write(&self, text: &str) {
        let mut stream = io::stderr().lock();
        let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    }

    fn toned(&self, text: &str, tone: Tone) -> String {
        tone.paint(text, self.colour)
    }

    fn red(&self, text: &str) -> String {
        self.toned(text, Tone::Bad)
    }

    fn dim(&self, text: &str) -> String {
        self.toned(text, Tone::Faint)
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn not_run(command: &[OsString], why: &str) -> String {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    format!("`{}` was not run: {why}", words.join(" "))
}

fn headline(summary: &Summary) -> String {
    let namespaces = match summary.namespaces.as_slice() {
        [] => String::new(),
        [one] => format!(" in namespace {one}"),
        many => format!(" in namespaces {}", many.join(", ")),
    };
    let errors = match summary.errors {
        0 => String::new(),
        errors => format!(", with {},", count(errors, "error")),
    };
    format!(
        "ready{errors} after {:.1} s: {} ({} in the mesh), {}, {}{namespaces}",
        Duration::from_millis(summary.milliseconds).as_secs_f64(),
        count(summary.pods, "pod"),
        summary.meshed,
        count(summary.services, "Service"),
        count(summary.routes, "route"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_not_run_is_named_with_the_reason() {
        let command = ["curl", "-s", "http://web/"].map(OsString::from);
        assert_eq!(
            not_run(&command, "1 error in the manifests; mend it"),
            "`curl -s http://web/` was not run: 1 error in the manifests; mend it"
        );
    }

    #[test]
    fn the_headline_counts_what_became_ready() {
        let summary = Summary {
            milliseconds: 2130,
            pods: 5,
            meshed: 5,
            namespaces: vec!["canary".to_owned()],
            services: 3,
            routes: 1,
            errors: 0,
            example: None,
        };
        assert_eq!(
            headline(&summary),
            "ready after 2.1 s: 5 pods (5 in the mesh), 3 Services, 1 route in namespace canary"
        );
        let summary = Summary { errors: 3, ..summary };
        assert!(
            headline(&summary).starts_with("ready, with 3 errors, after 2.1 s: "),
            "{}",
            headline(&summary)
        );
    }
}
