//! `gamut tap`: requests as they happen, as the sidecars of some pods tell them.
//!
//! ```text
//! world ─ pods, looked at again and again ─► a listener for each ─ asks its sidecar for what came since ─► one queue ─ filter ─► lines
//! ```
//!
//! A sidecar keeps its newest records while somebody asks, and never waits for who asks: what a tap is too slow for is lost, and
//! told as such. Who may tap a pod is who may forward its ports in a cluster, and root on a machine.

mod filter;
mod line;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use gamut_local::{ClientError, control::PodReport};
use gamut_proxy::record::{Record, tap::Tapped};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use self::{filter::Filter, line::Lines};
use crate::{
    output::{self, Colour, Format},
    world::{self, Line, Selection, Target, World},
};

#[derive(Debug, clap::Args)]
#[command(mut_arg("all_namespaces", world::with_sidecars_only))]
pub(crate) struct Args {
    /// Whose requests, sent and received: NAME (a pod), pod/NAME, deploy/NAME, statefulset/NAME, daemonset/NAME, job/NAME or svc/NAME.
    /// Without it, those of all pods of the namespaces
    #[arg(conflicts_with = "all_namespaces")]
    target: Option<Target>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    filter: Filter,
    /// End after so many requests
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// More columns, or data instead of text: a document for each request
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

/// How often pods are looked for: those of a rollout come and go.
const LOOK: Duration = Duration::from_secs(5);
/// How many pods are tapped at once.
const AT_ONCE: usize = 64;
/// How many answers may wait to be printed. Listeners wait then, and their sidecars don't.
const QUEUE: usize = 64;

/// A request as a sidecar told it, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Seen {
    /// The pod of the sidecar that told it, as `namespace/name`.
    sidecar: String,
    #[serde(flatten)]
    record: Record,
}

/// What a listener tells.
enum News {
    /// It listens: what is requested from now on will be told.
    Listening,
    /// Requests, oldest first, and how many came too fast.
    Requests(Vec<Record>, u64),
    /// It listens no more.
    Over(String),
}

pub(crate) fn run(args: &Args, colour: Colour) -> anyhow::Result<ExitCode> {
    world::ask(async {
        let world = args.selection.choice.world().await?;
        world.require(args.selection.namespace.as_deref()).await?;
        Tap::new(args, world, colour).run().await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The tap's state.
struct Tap<'a> {
    args: &'a Args,
    world: World,
    lines: Lines,
    /// Who is listened to, by name.
    listeners: BTreeMap<String, AbortHandle>,
    /// Those of the first look that don't listen yet.
    awaited: Option<BTreeSet<String>>,
    /// Requests to be printed. Until everybody listens, they wait: what is printed is all that there was from then on.
    waiting: VecDeque<Seen>,
    /// What was said already about pods that can't be tapped.
    told: BTreeSet<String>,
    /// How many requests were printed.
    printed: u64,
}

impl<'a> Tap<'a> {
    fn new(args: &'a Args, world: World, colour: Colour) -> Self {
        let lines = Lines::new(args.output, colour.wanted(&io::stdout()));
        let (listeners, told) = (BTreeMap::new(), BTreeSet::new());
        let (awaited, waiting) = (Some(BTreeSet::new()), VecDeque::new());
        Self { args, world, lines, listeners, awaited, waiting, told, printed: 0 }
    }

    /// Until enough was printed, or nobody reads it any more.
    async fn run(mut self) -> anyhow::Result<()> {
        let (tell, mut news) = mpsc::channel(QUEUE);
        self.look(&tell).await?;
        if let Some(awaited) = &mut self.awaited {
            awaited.extend(self.listeners.keys().cloned());
        }
        let mut again = interval(LOOK);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        again.reset();
        let mut gone = pin!(output::gone());
        loop {
            tokio::select! {
                () = &mut gone => return Ok(()),
                Some((pod, news)) = news.recv() => if !self.hear(&pod, news)? {
                    return Ok(());
                },
                _ = again.tick() => match self.look(&tell).await {
                    Err(error) if is_over(&error) => return Err(error),
                    // A world that doesn't answer for a while is no reason to end: who listens goes on.
                    Err(error) => self.say(format!("{error:#}")),
                    Ok(()) => if !self.forget_gone()? {
                        return Ok(());
                    }
                },
            }
        }
    }

    /// Waits no longer for pods that have gone: their listeners were ended without a word. Says whether to go on.
    fn forget_gone(&mut self) -> anyhow::Result<bool> {
        let awaited = self.awaited.iter().flatten();
        let gone: Vec<String> = awaited.filter(|name| !self.listeners.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|name| self.no_longer_awaited(name));
        if self.awaited.is_some() { Ok(true) } else { self.print() }
    }

    /// Listens to pods that are new, and forgets those that have gone.
    async fn look(&mut self, tell: &mpsc::Sender<(String, News)>) -> anyhow::Result<()> {
        let pods = self.pods().await?;
        let is_there = |name: &String| pods.iter().any(|pod| name_of(pod) == *name);
        self.listeners.retain(|name, listener| {
            is_there(name) || {
                listener.abort();
                false
            }
        });
        for pod in &pods {
            let name = name_of(pod);
            if self.listeners.contains_key(&name) {
                continue;
            }
            if self.listeners.len() == AT_ONCE {
                self.say(format!("{} of {} pods are tapped: the most at once", AT_ONCE, pods.len()));
                break;
            }
            let listener = listen(self.world.clone(), pod.clone(), tell.clone());
            self.listeners.insert(name, tokio::spawn(listener).abort_handle());
        }
        Ok(())
    }

    /// The pods with sidecars that are meant.
    async fn pods(&self) -> anyhow::Result<Vec<PodReport>> {
        let selection = &self.args.selection;
        let named = selection.namespace.as_deref();
        let pods = match &self.args.target {
            Some(target) => self.world.pods_of(target, self.world.namespace(named)).await?,
            None => {
                let pods = self.world.pods(named).await?.into_iter();
                pods.filter(|pod| selection.has(&pod.namespace)).collect()
            }
        };
        let meshed: Vec<PodReport> = pods.into_iter().filter(|pod| pod.meshed && !pod.terminating).collect();
        let whose =
            self.args.target.as_ref().map_or("none of the pods".to_owned(), |it| format!("no pod of {it}"));
        anyhow::ensure!(!meshed.is_empty(), "{whose} has a sidecar; `gamut status` shows who has");
        Ok(meshed)
    }

    /// Whether to go on.
    fn hear(&mut self, pod: &str, news: News) -> anyhow::Result<bool> {
        match news {
            News::Listening => self.no_longer_awaited(pod),
            News::Requests(records, missed) => {
                if missed > 0 {
                    self.say(format!("{missed} requests of {pod} came faster than they could be told"));
                }
                let records = records.into_iter().filter(|record| self.args.filter.passes(record));
                self.waiting.extend(records.map(|record| Seen { sidecar: pod.to_owned(), record }));
            }
            News::Over(reason) => {
                self.listeners.remove(pod);
                let nobody = self.listeners.is_empty() && self.waiting.is_empty() && self.awaited.is_some();
                anyhow::ensure!(!nobody, "pod {pod} can't be tapped: {reason}");
                if self.told.insert(format!("{pod} {reason}")) {
                    self.say(format!("without the requests of pod {pod}: {reason}"));
                }
                self.no_longer_awaited(pod);
            }
        }
        if self.awaited.is_some() { Ok(true) } else { self.print() }
    }

    /// Prints what waits, and says whether to go on.
    fn print(&mut self) -> anyhow::Result<bool> {
        while let Some(seen) = self.waiting.pop_front() {
            if !output::stream(self.lines.of(&seen)?.as_bytes())? {
                return Ok(false);
            }
            self.printed += 1;
            if self.args.count.is_some_and(|count| self.printed >= count) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says once, on standard error, that everybody who could be tapped at the start is.
    fn no_longer_awaited(&mut self, pod: &str) {
        let Some(awaited) = &mut self.awaited else { return };
        awaited.remove(pod);
        if awaited.is_empty() {
            self.awaited = None;
            let pods: Vec<&str> = self.listeners.keys().map(String::as_str).collect();
            self.say(format!("tapping {}; Ctrl-C ends", pods.join(", ")));
        }
    }

    fn say(&self, what: String) {
        output::tell(what);
    }
}

/// Asks a pod's sidecar for what came since, again and again, until it doesn't answer.
async fn listen(world: World, pod: PodReport, tell: mpsc::Sender<(String, News)>) {
    let name = name_of(&pod);
    let reason = match world.line(&pod.namespace, &pod.name).await {
        Ok(line) => follow(line, &name, &tell).await,
        Err(reason) => reason,
    };
    // Without anybody to tell, there is nothing to say.
    let _ = tell.send((name, News::Over(reason))).await;
}

/// Why it ended.
async fn follow(mut line: Line, name: &str, tell: &mpsc::Sender<(String, News)>) -> String {
    let mut path = "/tap".to_owned();
    let mut first = true;
    loop {
        let Tapped { last, missed, records } = match line.ask(&path).await {
            Ok(tapped) => tapped,
            Err(reason) => return reason,
        };
        path = format!("/tap?after={last}");
        let news = if first { News::Listening } else { News::Requests(records, missed) };
        first = false;
        if tell.send((name.to_owned(), news)).await.is_err() {
            return "nobody listens".to_owned();
        }
    }
}

/// Whether a `gamut up` has ended. Another one of its name would be another mesh.
fn is_over(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NotRunning { .. }))
}

fn name_of(pod: &PodReport) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_instance_is_the_end_of_its_tap_and_a_moment_of_silence_is_not() {
        let ended = ClientError::NotRunning { name: "default".to_owned(), running: Vec::new() };
        assert!(is_over(&ended.into()));
        assert!(!is_over(&ClientError::Refused("not now".to_owned()).into()));
        assert!(!is_over(&anyhow::anyhow!("context kind: no answer")));
    }
}
