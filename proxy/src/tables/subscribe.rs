//! The subscription: one task that owns the [`View`], talks to the controller and answers the data path's questions.
//!
//! ```text
//!    start
//!      v
//!  Connecting ──── Hello{held} ───► Connected: deliveries in; acks, refusals, interest out
//!   ^      | no                        |
//!   |      v                           | the stream ends, or the peer stops answering
//!  BackingOff (exponential, jittered) <┘
//! ```
//!
//! In every state questions are answered from the view, which keeps what was delivered last. It is meant to run on the
//! admin thread's runtime: opening a large table must not hold up a request.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use gamut_controller_api::{Key, proto, wire};
use gamut_identity::{Identity, SpiffeId, explain, explain_status, grpc};
use gamut_route::Uid;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::{
    Destination, Dump, NoAnswer, Question, Shared, SubscriptionState, Tables, TablesStatus,
    gather::Gathered,
    status::with_remedy,
    view::{Changes, Delivery, Limits, View},
};
use crate::telemetry::Telemetry;

/// How often idle addresses are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// How long a connection may be silent before it is asked whether it lives, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The first wait after a connection that failed, before jitter; each further one is twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// How many questions wait for the task before those who ask have to.
const QUESTIONS: usize = 1024;

/// Who subscribes, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port` of the controller.
    pub controller: String,
    /// Who the controller must be.
    pub controller_identity: SpiffeId,
    /// Our pod's namespace.
    pub namespace: String,
    /// Our pod's name.
    pub pod_name: String,
    /// Our pod.
    pub pod: Uid,
    /// How long an address's first use waits for an answer. 5 s unless set.
    pub patience: Duration,
    /// How much is held.
    pub limits: Limits,
}

/// The task. Created with [`Subscription::new`], then [`Subscription::run`].
pub struct Subscription {
    settings: Settings,
    identity: Identity,
    view: View,
    shared: Arc<Shared>,
    questions: mpsc::Receiver<Question>,
    waiting: HashMap<SocketAddr, Vec<oneshot::Sender<Result<Destination, NoAnswer>>>>,
    loaded: watch::Sender<bool>,
    applied: watch::Sender<u64>,
    connection: Connection,
    /// Where messages go, from the Hello on; what is wanted while the connection comes about follows it in order.
    outbox: Option<Outbox>,
    /// The newest delivery that waits for its ack: a table of it waits for endpoints.
    unacknowledged: Option<u64>,
}

/// How it stands with the controller.
enum Connection {
    Away { since: Instant, reason: String },
    Up { since: Instant },
}

/// What goes to the controller. It is as long as our own acks and first uses make it, which the view bounds.
type Outbox = mpsc::UnboundedSender<proto::FromProxy>;

impl Subscription {
    /// The task and the handle on what it will hold.
    pub fn new(settings: Settings, identity: Identity, telemetry: Telemetry) -> (Tables, Self) {
        let (asking, questions) = mpsc::channel(QUESTIONS);
        let (loaded, is_loaded) = watch::channel(false);
        let (applied, is_applied) = watch::channel(0);
        let shared = Arc::new(Shared {
            addresses: ArcSwap::default(),
            policy: ArcSwapOption::empty(),
            questions: asking,
            loaded: is_loaded,
            applied: is_applied,
            patience: settings.patience,
        });
        let view = View::new(settings.namespace.clone(), settings.pod, settings.limits, telemetry);
        let away = Connection::Away { since: now(), reason: "it hasn't been reached yet".to_owned() };
        let subscription = Self {
            settings,
            identity,
            view,
            shared: shared.clone(),
            questions,
            waiting: HashMap::new(),
            loaded,
            applied,
            connection: away,
            outbox: None,
            unacknowledged: None,
        };
        (Tables { shared }, subscription)
    }

    /// Subscribes and reconnects until it is dropped.
    pub async fn run(mut self) {
        let mut failures = 0;
        loop {
            let reason = match self.connect().await {
                Ok(stream) => {
                    info!(controller = %self.settings.controller, "subscribed");
                    self.connection = Connection::Up { since: now() };
                    let (delivered, reason) = self.follow(stream).await;
                    failures = if delivered { 0 } else { failures };
                    reason
                }
                Err(reason) => reason,
            };
            self.lost(reason);
            failures += 1;
            let wait = backoff(failures);
            self.meanwhile(sleep(wait)).await;
        }
    }

    /// One try to get a stream. Says Hello.
    async fn connect(&mut self) -> Result<Streaming<proto::FromController>, String> {
        let (outbox, messages) = mpsc::unbounded_channel();
        self.outbox = Some(outbox);
        self.unacknowledged = None;
        let (held, changes) = self.view.connect();
        self.send(proto::from_proxy::Message::Hello(self.hello(&held)));
        self.carry_out(changes);
        let (identity, settings) = (self.identity.clone(), self.settings.clone());
        let subscribe = async move {
            identity.ready().await;
            let config = identity
                .client_config_to(&settings.controller_identity, grpc::ALPN)
                .map_err(|error| error.to_string())?;
            let endpoint = grpc::endpoint(&settings.controller)
                .map_err(|error| error.to_string())?
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true);
            let channel = grpc::connect(endpoint, config).await.map_err(|error| explain(&error))?;
            let mut client = proto::controller_client::ControllerClient::new(channel)
                .max_decoding_message_size(wire::MAX_MESSAGE_FROM_CONTROLLER);
            let answer = client.subscribe(UnboundedReceiverStream::new(messages)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| explain_status(&status))
        };
        self.meanwhile(subscribe).await
    }

    fn hello(&self, held: &[(Key, gamut_controller_api::Version)]) -> proto::Hello {
        let held = held
            .iter()
            .map(|(key, version)| proto::Held { key: Some(key.into()), version: version.to_wire().to_vec() });
        proto::Hello {
            pod_uid: self.settings.pod.to_string(),
            namespace: self.settings.namespace.clone(),
            pod_name: self.settings.pod_name.clone(),
            proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
            held: held.collect(),
        }
    }

    /// Takes deliveries in until the stream ends. Says whether there was any, and why it ended.
    async fn follow(&mut self, mut stream: Streaming<proto::FromController>) -> (bool, String) {
        let mut delivered = false;
        let mut gathered = Gathered::default();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(message)) => {
                        let more = message.more;
                        self.refuse_unnamed(gathered.add(message));
                        if !more {
                            delivered = true;
                            self.deliver(std::mem::take(&mut gathered).delivery);
                        }
                    }
                    Ok(None) => return (delivered, "it ended the stream".to_owned()),
                    Err(status) => return (delivered, explain_status(&status)),
                },
                Some(question) = self.questions.recv() => self.answer(question),
                () = until(self.view.due()) => self.tick(),
                _ = sweep.tick() => {
                    let changes = self.view.sweep(now());
                    self.carry_out(changes);
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let number = delivery.number;
        debug!(number, resources = delivery.resources.len(), "delivery");
        let changes = self.view.deliver(delivery, now());
        self.unacknowledged = Some(number);
        self.carry_out(changes);
        self.applied.send_modify(|applied| *applied += 1);
        if !*self.loaded.borrow() && self.view.loaded() {
            info!("everything that was wanted at the start is here");
            self.loaded.send_replace(true);
        }
    }

    /// What waited for endpoints has waited for long enough.
    fn tick(&mut self) {
        let changes = self.view.tick(now());
        self.carry_out(changes);
        self.applied.send_modify(|applied| *applied += 1);
    }

    /// Says that everything that was delivered is held, unless a table is about to come into force: who waits for a change
    /// waits for that too.
    fn acknowledge(&mut self) {
        if self.view.due().is_none()
            && let Some(delivery) = self.unacknowledged.take()
        {
            self.send(proto::from_proxy::Message::Ack(proto::Ack { delivery }));
        }
    }

    /// Resources whose keys can't be read: all that can be done is to say so.
    fn refuse_unnamed(&self, refusals: Vec<proto::Refusal>) {
        for refusal in refusals {
            warn!("a resource was refused: {}", refusal.reason);
            self.send(proto::from_proxy::Message::Refusal(refusal));
        }
    }

    fn carry_out(&mut self, changes: Changes) {
        if let Some(policy) = changes.policy {
            self.shared.policy.store(Some(policy));
        }
        if let Some(roots) = changes.roots {
            self.identity.set_roots(roots);
        }
        if let Some(addresses) = changes.addresses {
            self.shared.addresses.store(Arc::new(addresses));
        }
        for (delivery, key, reason) in changes.refusals {
            warn!("{key} was refused: {reason}");
            let refusal = proto::Refusal { delivery, key: Some((&key).into()), reason };
            self.send(proto::from_proxy::Message::Refusal(refusal));
        }
        if !changes.subscribe.is_empty() || !changes.unsubscribe.is_empty() {
            let keys = |keys: &[Key]| keys.iter().map(Into::into).collect();
            self.send(proto::from_proxy::Message::Interest(proto::Interest {
                subscribe: keys(&changes.subscribe),
                unsubscribe: keys(&changes.unsubscribe),
                number: changes.interest,
            }));
        }
        self.acknowledge();
        self.answer_waiting();
    }

    /// Runs something that takes its time while nothing is delivered, and answers questions meanwhile.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result,
                Some(question) = self.questions.recv() => self.answer(question),
                () = until(self.view.due()) => self.tick(),
            }
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Address { address, reply } => match self.view.ask(address, now()) {
                Ok(changes) => {
                    self.waiting.entry(address).or_default().push(reply);
                    self.carry_out(changes);
                }
                Err(reason) => drop(reply.send(Err(reason))),
            },
            Question::WhyNot { address, reply } => {
                if let Some(waiting) = self.waiting.get_mut(&address) {
                    waiting.retain(|reply| !reply.is_closed());
                }
                self.waiting.retain(|_, waiting| !waiting.is_empty());
                drop(reply.send(self.why_not(address)));
            }
            Question::Status { reply } => drop(reply.send(self.status())),
            Question::Dump { reply } => {
                let inbound_policy = self.shared.policy.load_full();
                drop(reply.send(Dump { inbound_policy, ..self.view.dump() }));
            }
        }
    }

    /// Answers everybody whose address can be used now, or never will be.
    fn answer_waiting(&mut self) {
        let view = &self.view;
        self.waiting.retain(|address, waiting| {
            let answer = match (view.destination(*address), view.hopeless(*address)) {
                (Some(destination), _) => Ok(destination),
                (None, Some(reason)) => Err(reason),
                (None, None) => return true,
            };
            waiting.drain(..).for_each(|reply| drop(reply.send(answer.clone())));
            false
        });
    }

    fn why_not(&self, address: SocketAddr) -> NoAnswer {
        match &self.connection {
            Connection::Away { reason, .. } => NoAnswer::ControllerAway { address, reason: reason.clone() },
            Connection::Up { .. } => {
                let missing: Vec<String> = self.view.missing(address).iter().map(Key::to_string).collect();
                NoAnswer::Late { address, missing: missing.join(", ") }
            }
        }
    }

    fn status(&self) -> TablesStatus {
        let address = self.settings.controller.clone();
        let controller = match &self.connection {
            Connection::Up { since } => {
                SubscriptionState::Connected { address, seconds: since.elapsed().as_secs() }
            }
            Connection::Away { since, reason } => SubscriptionState::Away {
                address,
                seconds: since.elapsed().as_secs(),
                reason: reason.clone(),
            },
        };
        TablesStatus { controller, tables: self.view.status(now()) }
    }

    fn lost(&mut self, reason: String) {
        let controller = &self.settings.controller;
        let reason = with_remedy(reason);
        let since = match &self.connection {
            Connection::Up { .. } => {
                warn!(%controller, "the subscription ended, what was delivered stays in force: {reason}");
                now()
            }
            Connection::Away { since, reason: before } => {
                if *before != reason {
                    warn!(%controller, "can't subscribe: {reason}");
                }
                *since
            }
        };
        self.connection = Connection::Away { since, reason };
        self.outbox = None;
    }

    fn send(&self, message: proto::from_proxy::Message) {
        if let Some(outbox) = &self.outbox {
            // Closed: the stream has ended, which `follow` is about to notice.
            let _ = outbox.send(proto::FromProxy { message: Some(message) });
        }
    }
}

/// The runtime's time.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until then; for ever where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Exponential with full jitter: a thousand sidecars that lost the same controller don't come back at the same moment.
fn backoff(failures: u32) -> Duration {
    let ceiling = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_BACKOFF);
    ceiling.mul_f64(rand::random_range(0.5..1.0))
}
