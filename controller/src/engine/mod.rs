//! The engine: one task that owns the [`Index`] and everybody who subscribes.
//!
//! ```text
//! Source ──batches──► Index ──topics──► Board: compile each subscribed key once, compare versions
//!                       │                 └──deliveries──► bounded queue of each subscriber ──► serve
//!                       └──due──► Reporter ──► Writer (statuses, the session-key Secret)
//! ```
//!
//! Nothing here waits for anybody: a batch is compiled and queued when it arrives, so that the removal of an endpoint is
//! on its way as soon as it is known. A change that concerns very many is queued in parts, which others overtake. A subscriber whose queue is full is cut off; it comes back, says what it holds, and
//! gets the difference. Nobody is served before the source has told everything that existed at the start: an
//! answer compiled from half a cluster would be wrong everywhere.

mod board;
mod status;
mod subscriber;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gamut_controller_api::{Key, Version};
use gamut_route::{NamespacedName, Uid};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, yield_now},
    time::{Instant, interval, sleep_until},
};
use tracing::{info, warn};

use self::board::Board;
pub use self::{
    board::{Delivery, Interest},
    status::{ControllerStatus, RefusedKey, SettingsStatus, SourceStatus, SubscriberStatus},
};
use crate::{
    index::Index,
    source::{Source, SourceEvent, Write, Writer},
    status::Reporter,
};

/// How many commands wait for the task before those who give them have to.
const COMMANDS: usize = 1024;
/// How many addresses of its own namespace a sidecar is told to load at the start.
const MAX_SUGGESTED: usize = 512;
/// How long after a failed write it is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// How many commands and batches come before the rest of a wide change at most.
const TURNS: u32 = 64;
/// How often it is looked whether session keys are to be rotated.
const ROTATION: Duration = Duration::from_secs(60);

/// Who subscribes. Checked against its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod's name. Nobody checks it: it is for people.
    pub pod: String,
    /// Its pod.
    pub uid: Uid,
    /// The sidecar's version.
    pub proxy_version: String,
}

/// A subscriber's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub(crate) u64);

/// What a new subscriber gets.
#[derive(Debug)]
pub struct Subscribed {
    /// Its number, for what it says later.
    pub id: SubscriberId,
    /// What it is to be sent.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// Why it was cut off, when it is.
    pub cut_off: oneshot::Receiver<CutOff>,
}

/// Why the engine ends a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutOff {
    /// It doesn't take deliveries as fast as they are made.
    #[error("deliveries aren't taken as fast as they are made; come back and say what is held")]
    Slow,
    /// It wants more than anybody may.
    #[error("no more than {0} keys can be subscribed to")]
    TooManyKeys(usize),
    /// The controller is shutting down.
    #[error("the controller is shutting down; another takes over")]
    ShuttingDown,
}

/// A way to the engine. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    synced: watch::Receiver<bool>,
}

#[derive(Debug)]
enum Command {
    Subscribe { who: Who, held: HashMap<Key, Version>, reply: oneshot::Sender<Subscribed> },
    Interest { id: SubscriberId, interest: Interest },
    Ack { id: SubscriberId, delivery: u64 },
    Refused { id: SubscriberId, delivery: u64, key: Key, reason: String },
    Gone { id: SubscriberId },
    Status { reply: oneshot::Sender<ControllerStatus> },
    WriteFailed(Box<Write>),
    CutOffAll,
}

/// The task.
pub struct Engine {
    source: Source,
    index: Index,
    reporter: Reporter,
    board: Board,
    commands: mpsc::Receiver<Command>,
    synced: watch::Sender<bool>,
    /// Those who came before the source was synced.
    early: Vec<(Who, HashMap<Key, Version>, oneshot::Sender<Subscribed>)>,
    /// True from shutting down on: nobody is added any more.
    ending: bool,
    writes: mpsc::UnboundedSender<Write>,
    /// How many of them aren't carried out yet.
    unwritten: Arc<AtomicUsize>,
    writing: JoinHandle<()>,
    write_again: Option<Instant>,
}

impl Engine {
    /// An engine over a source, and the way to it. Statuses go to the source's writer.
    pub fn new(source: Source, index: Index) -> (Handle, Self) {
        let (command, commands) = mpsc::channel(COMMANDS);
        let (synced, is_synced) = watch::channel(false);
        let (writes, due) = mpsc::unbounded_channel();
        let unwritten = Arc::new(AtomicUsize::new(0));
        let failed = command.clone().downgrade();
        let writing = tokio::spawn(write_all(source.writer(), due, unwritten.clone(), failed));
        let reporter = Reporter::new(source.is_shared());
        let engine = Self {
            source,
            index,
            reporter,
            board: Board::default(),
            commands,
            synced,
            early: Vec::new(),
            ending: false,
            writes,
            unwritten,
            writing,
            write_again: None,
        };
        (Handle { commands: command, synced: is_synced }, engine)
    }

    /// Works until every [`Handle`] is gone and what was due is written. When the source ends, what was known last stays in
    /// force.
    pub async fn run(mut self) {
        self.work().await;
        drop(self.writes);
        // It ends when it has written what is left; if it had panicked there would be nothing left to do.
        let _ = self.writing.await;
    }

    async fn work(&mut self) {
        let mut source_ended = false;
        let mut rotation = interval(ROTATION);
        let mut turns = 0_u32;
        loop {
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS) && self.board.has_more() {
                self.board.send_more(&self.index);
            }
            tokio::select! {
                batch = self.source.next(), if !source_ended => match batch {
                    Some(events) => self.apply(events),
                    None => {
                        warn!("the source has ended; what it told last stays in force");
                        source_ended = true;
                    }
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = sleep_until(self.write_again.unwrap_or_else(Instant::now)), if self.write_again.is_some() => {
                    self.write_again = None;
                    self.report();
                }
                // Everybody else has had a turn: what was queued before is on its way, and what came meanwhile comes first.
                () = yield_now(), if self.board.has_more() => self.board.send_more(&self.index),
                _ = rotation.tick() => self.report(),
            }
        }
    }

    fn apply(&mut self, events: Vec<SourceEvent>) {
        for event in &events {
            if let SourceEvent::Leads(leads) = event {
                self.reporter.lead(*leads);
            }
        }
        let topics = self.index.apply(events);
        if !self.index.synced() {
            return;
        }
        self.board.refresh(&self.index, &topics);
        self.report();
        if !*self.synced.borrow() {
            info!("everything that exists is known; serving");
            self.synced.send_replace(true);
            for (who, held, reply) in std::mem::take(&mut self.early) {
                self.subscribe(who, held, reply);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Subscribe { .. } if self.ending => {}
            Command::Subscribe { who, held, reply } if self.index.synced() => {
                self.subscribe(who, held, reply)
            }
            Command::Subscribe { who, held, reply } => self.early.push((who, held, reply)),
            Command::Interest { id, interest } => self.board.interest(&self.index, id, interest),
            Command::Ack { id, delivery } => self.board.acknowledged(id, delivery),
            Command::Refused { id, delivery, key, reason } => self.board.refused(id, delivery, &key, reason),
            Command::Gone { id } => self.board.leave(id),
            Command::Status { reply } => {
                let source = SourceStatus {
                    synced: self.index.synced(),
                    problems: self.problems(),
                    resource_version: self.source.resource_version(),
                    unwritten: self.unwritten.load(Ordering::Acquire),
                };
                let status = ControllerStatus::new(self.index.settings(), source, self.board.status());
                // Whoever asked may have gone.
                let _ = reply.send(status);
            }
            Command::WriteFailed(write) => {
                self.reporter.failed(&write);
                self.write_again.get_or_insert_with(|| Instant::now() + WRITE_AGAIN);
            }
            Command::CutOffAll => {
                self.ending = true;
                self.early.clear();
                self.board.cut_off_all();
            }
        }
    }

    fn subscribe(&mut self, who: Who, held: HashMap<Key, Version>, reply: oneshot::Sender<Subscribed>) {
        let suggested = suggestions(&self.index, &who.namespace);
        let subscribed = self.board.join(&self.index, who, held, suggested);
        if let Err(subscribed) = reply.send(subscribed) {
            self.board.leave(subscribed.id);
        }
    }

    /// What can't be read at present: files and kinds, then objects.
    fn problems(&self) -> Vec<String> {
        let objects = self.index.broken().iter().map(|(id, why)| format!("{id}: {why}"));
        self.source.problems().iter().cloned().chain(objects).collect()
    }

    /// Hands over what has to be written.
    fn report(&mut self) {
        for write in self.reporter.due(&mut self.index) {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            // The writer lives as long as we do.
            let _ = self.writes.send(write);
        }
    }
}

impl Handle {
    /// Adds a subscriber that holds `held`. Waits until the source is synced; `None` when the engine has ended.
    pub async fn subscribe(&self, who: Who, held: HashMap<Key, Version>) -> Option<Subscribed> {
        let (reply, subscribed) = oneshot::channel();
        self.commands.send(Command::Subscribe { who, held, reply }).await.ok()?;
        subscribed.await.ok()
    }

    /// What a subscriber wants, and what it doesn't want any more.
    pub async fn interest(&self, id: SubscriberId, interest: Interest) {
        self.tell(Command::Interest { id, interest }).await;
    }

    /// A subscriber holds everything of a delivery and of those before it.
    pub async fn acknowledged(&self, id: SubscriberId, delivery: u64) {
        self.tell(Command::Ack { id, delivery }).await;
    }

    /// A subscriber can't use what a delivery brought for a key.
    pub async fn refused(&self, id: SubscriberId, delivery: u64, key: Key, reason: String) {
        self.tell(Command::Refused { id, delivery, key, reason }).await;
    }

    /// A subscriber has gone.
    pub async fn gone(&self, id: SubscriberId) {
        self.tell(Command::Gone { id }).await;
    }

    /// What `/status` shows; `None` when the engine has ended.
    pub async fn status(&self) -> Option<ControllerStatus> {
        let (reply, status) = oneshot::channel();
        self.commands.send(Command::Status { reply }).await.ok()?;
        status.await.ok()
    }

    /// Whether everything that exists is known.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Ends every subscription, for shutting down.
    pub async fn cut_off_all(&self) {
        self.tell(Command::CutOffAll).await;
    }

    async fn tell(&self, command: Command) {
        // An engine that has ended has no subscribers left.
        let _ = self.commands.send(command).await;
    }
}

/// The addresses of a namespace's Services: its own sidecars will probably use some of them.
fn suggestions(index: &Index, namespace: &str) -> Vec<SocketAddr> {
    let first = NamespacedName::new(namespace, "");
    let services = index.world().services.range(first..).take_while(|(name, _)| name.namespace == namespace);
    let addresses = services.flat_map(|(_, service)| {
        let ports = service.ports.iter().map(|port| port.number);
        ports.flat_map(|port| service.cluster_ips().iter().map(move |ip| SocketAddr::new(*ip, port)))
    });
    addresses.take(MAX_SUGGESTED).collect()
}

/// Carries out writes one after the other, so that the engine never waits for a disk or an API server. Of several for one
/// object only the newest counts.
async fn write_all(
    writer: Writer,
    mut due: mpsc::UnboundedReceiver<Write>,
    unwritten: Arc<AtomicUsize>,
    failed: mpsc::WeakSender<Command>,
) {
    let mut batch = Vec::new();
    loop {
        let taken = due.recv_many(&mut batch, usize::MAX).await;
        if taken == 0 {
            return;
        }
        let mut newest: BTreeMap<String, Write> = BTreeMap::new();
        for write in batch.drain(..) {
            newest.insert(target(&write), write);
        }
        for write in newest.into_values() {
            if let Err(error) = writer.write(&write).await {
                warn!("{error}; trying again in {} s", WRITE_AGAIN.as_secs());
                let Some(failed) = failed.upgrade() else { return };
                let _ = failed.send(Command::WriteFailed(Box::new(write))).await;
            }
        }
        unwritten.fetch_sub(taken, Ordering::Release);
    }
}

/// What a write is about.
fn target(write: &Write) -> String {
    let name = |object: &Value| {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        format!("{} {}/{}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
    };
    match write {
        Write::Status { id, .. } => format!("status {id}"),
        Write::Create(object) => format!("create {}", name(object)),
        Write::Replace(object) => format!("replace {}", name(object)),
    }
}
