//! What the controller says, as the data path sees it.
//!
//! ```text
//! controller --gRPC--> subscribe --deliveries--> view --activations--> Tables --one atomic load--> a connection
//!                          ^                                              |
//!                          +------------- "what is 10.96.0.7:80?" --------+   (first use only)
//! ```
//!
//! [`Tables::get`] never waits and never locks: it loads an immutable map. A connection that finds its destination
//! there keeps the [`ServiceHandle`], and every request of it loads the newest table through it. Only an address that
//! nobody has asked about yet takes the slow way, [`Tables::resolve`], which asks the controller and waits, but not
//! for ever. Whether a table may be used yet is decided in [`view`]; how deliveries get here is [`subscribe`]'s.

mod gather;
pub mod parts;
pub mod status;
pub mod subscribe;
pub mod view;

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use gamut_controller_api::InboundPolicy;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    parts::{Parts, Refusal},
    status::{Dump, SubscriptionState, TableState, TableStatus, TablesStatus, is_of_other_roots},
    subscribe::{Settings, Subscription},
};
use crate::{balance::PodTarget, outbound::service::Service};

/// The current table of one Service and port. A connection keeps the handle; a request loads it once.
pub type ServiceHandle = Arc<ArcSwap<Service>>;

/// What an address leads to.
#[derive(Clone)]
pub enum Destination {
    /// A Service's port: its rules apply.
    Service(ServiceHandle),
    /// One pod, dialled directly.
    Pod(Arc<PodTarget>),
    /// Nothing of the mesh's: bytes pass through untouched.
    NotOurs,
}

/// The handle that the data path holds. Clones are the same.
#[derive(Clone)]
pub struct Tables {
    shared: Arc<Shared>,
}

/// What the subscription writes and the data path reads.
pub(crate) struct Shared {
    /// Every address that has an answer which can be used now.
    pub(crate) addresses: ArcSwap<HashMap<SocketAddr, Entry>>,
    /// How our own pod takes traffic in; none until the controller has said it.
    pub(crate) policy: ArcSwapOption<InboundPolicy>,
    /// What the data path asks the subscription.
    questions: mpsc::Sender<Question>,
    /// True once everything that was wanted at the start has arrived.
    loaded: watch::Receiver<bool>,
    /// How often something was brought into force: by a delivery, or because it had waited for long enough.
    applied: watch::Receiver<u64>,
    /// How long a first use waits for its answer.
    patience: Duration,
}

/// One address of the map.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) destination: Destination,
    /// Set by use, cleared when the subscription looks for addresses that nobody uses.
    pub(crate) used: Arc<AtomicBool>,
}

/// What the data path and the admin port ask the subscription.
pub(crate) enum Question {
    /// An address's first use. Answered when the destination can be used, or with the reason why that can't be expected.
    Address { address: SocketAddr, reply: oneshot::Sender<Result<Destination, NoAnswer>> },
    /// Why an address has no answer after all this time. The question behind it is given up.
    WhyNot { address: SocketAddr, reply: oneshot::Sender<NoAnswer> },
    /// What `/status` shows.
    Status { reply: oneshot::Sender<TablesStatus> },
    /// What `/config_dump` shows.
    Dump { reply: oneshot::Sender<Dump> },
}

/// An address couldn't be answered in time. The connection is closed: it must not be guessed what it was meant for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// The controller can't be asked.
    #[error("{address} hasn't been used before and the controller can't be asked about it: {reason}")]
    ControllerAway {
        /// What was dialled.
        address: SocketAddr,
        /// The last error of the connection to it.
        reason: String,
    },
    /// The controller was asked and what is still missing didn't arrive in time.
    #[error("the controller hasn't answered in time for {address}: waiting for {missing}")]
    Late {
        /// What was dialled.
        address: SocketAddr,
        /// The keys that are missing.
        missing: String,
    },
    /// The first table for the Service behind the address was refused, so there is no last good one.
    #[error("the table for {address} was refused: {reason}")]
    Refused {
        /// What was dialled.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// More addresses are in use than may be subscribed to.
    #[error(
        "{address} can't be asked about: {limit} other addresses are in use, which is the most there can be"
    )]
    TooMany {
        /// What was dialled.
        address: SocketAddr,
        /// How many there can be.
        limit: usize,
    },
    /// The sidecar is going away.
    #[error("{0} can't be asked about: the sidecar is shutting down")]
    ShuttingDown(SocketAddr),
}

impl Tables {
    /// Tables with these destinations and no controller behind them: what else is asked for has no answer. For who measures
    /// or tests what works on tables.
    pub fn holding(destinations: impl IntoIterator<Item = (SocketAddr, Destination)>) -> Self {
        let entry = |destination| Entry { destination, used: Arc::default() };
        let addresses = destinations.into_iter().map(|(address, destination)| (address, entry(destination)));
        let shared = Shared {
            addresses: ArcSwap::from_pointee(addresses.collect()),
            policy: ArcSwapOption::empty(),
            questions: mpsc::channel(1).0,
            loaded: watch::channel(true).1,
            applied: watch::channel(0).1,
            patience: Duration::ZERO,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What the address leads to, if that is known and can be used. One atomic load, no lock.
    pub fn get(&self, address: SocketAddr) -> Option<Destination> {
        self.shared.addresses.load().get(&address).map(Entry::touch)
    }

    /// What the address leads to; asks the controller on first use and waits for as long as [`Settings::patience`] says.
    ///
    /// # Errors
    /// When there is no answer that can be used by then. The caller closes the connection.
    pub async fn resolve(&self, address: SocketAddr) -> Result<Destination, NoAnswer> {
        if let Some(destination) = self.get(address) {
            return Ok(destination);
        }
        match tokio::time::timeout(self.shared.patience, self.ask(address)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.why_not(address).await),
        }
    }

    /// How our own pod takes traffic in. `None` before the controller's first answer: nothing is let in.
    pub fn policy(&self) -> Option<Arc<InboundPolicy>> {
        self.shared.policy.load_full()
    }

    /// True once policy, roots and the tables of our own namespace have arrived for the first time.
    pub fn loaded(&self) -> bool {
        *self.shared.loaded.borrow()
    }

    /// Waits until [`Tables::loaded`]; false when the subscription ended before.
    pub async fn until_loaded(&self) -> bool {
        self.shared.loaded.clone().wait_for(|loaded| *loaded).await.is_ok()
    }

    /// How often something was brought into force, for who waits for a change: by a delivery, or because it had waited for
    /// long enough.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.clone()
    }

    /// What `/status` shows; `None` when the subscription has ended.
    pub async fn status(&self) -> Option<TablesStatus> {
        let (reply, status) = oneshot::channel();
        self.shared.questions.send(Question::Status { reply }).await.ok()?;
        status.await.ok()
    }

    /// What `/config_dump` shows; `None` when the subscription has ended.
    pub async fn dump(&self) -> Option<Dump> {
        let (reply, dump) = oneshot::channel();
        self.shared.questions.send(Question::Dump { reply }).await.ok()?;
        dump.await.ok()
    }

    async fn ask(&self, address: SocketAddr) -> Result<Destination, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let question = Question::Address { address, reply };
        self.shared.questions.send(question).await.map_err(|_| NoAnswer::ShuttingDown(address))?;
        answer.await.map_err(|_| NoAnswer::ShuttingDown(address))?
    }

    async fn why_not(&self, address: SocketAddr) -> NoAnswer {
        let (reply, reason) = oneshot::channel();
        match self.shared.questions.send(Question::WhyNot { address, reply }).await {
            Ok(()) => reason.await.unwrap_or(NoAnswer::ShuttingDown(address)),
            Err(_) => NoAnswer::ShuttingDown(address),
        }
    }
}

impl Entry {
    fn touch(&self) -> Destination {
        // Written only when it changes, so that connections on several threads don't fight for the cache line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.destination.clone()
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service(_) => "Service",
            Self::Pod(_) => "Pod",
            Self::NotOurs => "NotOurs",
        })
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("addresses", &self.shared.addresses.load().len())
            .finish_non_exhaustive()
    }
}
