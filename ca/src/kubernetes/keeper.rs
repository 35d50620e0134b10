//! Keeps the authority what the Secret says, in the order that [`rotation`](crate::rotation) demands.

use std::{sync::Arc, time::Duration};

use gamut_identity::{Clock, Roots, SYSTEM_NAMESPACE};
use gamut_kubernetes::{
    ApiError, Cluster, Created, Event, MANAGED_BY, Replaced, Resource, Selection, Watch, core,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    SecretError, SecretStore,
    record::{self, RECORD},
};
use crate::{
    authority::{Authority, AuthorityError},
    bundle::{TRUST_BUNDLE, TRUST_BUNDLE_KEY},
    current::Current,
    rotation::Published,
    status::Problems,
    store::Stored,
};

/// How long to wait after a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// How long until everything is looked at again, whatever is told: deadlines are computed from clocks, which may be set.
const ROUND: Duration = Duration::from_secs(10 * 60);

/// The task that follows the Secret.
pub(crate) struct Keeper {
    cluster: Cluster,
    secret: SecretStore,
    leaf_lifetime: Duration,
    clock: Clock,
    /// What signs.
    signing: Stored,
    /// The newest that can be used; it will sign as soon as its roots have spread.
    newest: (Stored, Roots),
    current: Current,
    /// What was published last, for when somebody deletes the record of it.
    known: Option<Published>,
    /// What is published, PEM.
    bundle: watch::Sender<String>,
    problems: watch::Sender<Problems>,
}

/// What is told of the objects that are followed.
enum News {
    /// The Secret with the signing key.
    Key(Event),
    /// What is published, or the record of it.
    Published,
}

impl Keeper {
    /// Opens the Secret, or makes it, and publishes its roots. Waits for the API server, and for a Secret that somebody else makes.
    ///
    /// # Errors
    /// If what the Secret holds can't be used: there is nothing else to sign with.
    pub(crate) async fn start(
        cluster: Cluster,
        secret: SecretStore,
        trust_domain: &str,
        leaf_lifetime: Duration,
        clock: Clock,
    ) -> Result<Self, SecretError> {
        let mut told = String::new();
        let stored = loop {
            match secret.open(&cluster, trust_domain, clock.now()).await {
                Ok(stored) => break stored,
                Err(error @ (SecretError::Api(_) | SecretError::Missing(_))) => {
                    let error = error.to_string();
                    if error != told {
                        warn!("waiting: {error}");
                        told = error;
                    }
                    sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        };
        let unusable = |source| SecretError::Authority { name: secret.name.clone(), source };
        let authority = Authority::open(&stored, leaf_lifetime, clock.now()).map_err(unusable)?;
        let newest = (stored.clone(), authority.roots().clone());
        let current = Current::from(Arc::new(authority));
        let (bundle, _) = watch::channel(String::new());
        let problems = watch::Sender::default();
        let mut keeper = Self {
            cluster,
            secret,
            leaf_lifetime,
            clock,
            signing: stored,
            newest,
            current,
            known: None,
            bundle,
            problems,
        };
        loop {
            match keeper.round().await {
                // Nothing may be handed out, and nothing published elsewhere, before it is known what is to be.
                Ok(Duration::ZERO) => {}
                Ok(_) => return Ok(keeper),
                Err(error) => {
                    warn!("waiting: {error}");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// What signs, now and later.
    pub(crate) fn current(&self) -> Current {
        self.current.clone()
    }

    /// What is published, now and later, PEM.
    pub(crate) fn bundle(&self) -> watch::Receiver<String> {
        self.bundle.subscribe()
    }

    /// What can't be done, now and later.
    pub(crate) fn problems(&self) -> watch::Receiver<Problems> {
        self.problems.subscribe()
    }

    /// Follows the Secret, the published ConfigMap and the record of it, for ever.
    pub(crate) async fn run(mut self) {
        let (tell, mut told) = mpsc::channel(4);
        let (cluster, name) = (self.cluster.clone(), self.secret.name.clone());
        let published = |_| News::Published;
        let secret = watch_one(&cluster, core::SECRET, &name, News::Key, tell.clone());
        let record = watch_one(&cluster, core::SECRET, RECORD, published, tell.clone());
        let bundle = watch_one(&cluster, core::CONFIG_MAP, TRUST_BUNDLE, published, tell);
        let work = async {
            let mut next = Duration::ZERO;
            loop {
                // Nothing told in time: a deadline has come.
                if let Ok(Some(News::Key(event))) = timeout(next, told.recv()).await {
                    self.hear(event);
                }
                let round = self.round().await.map_err(|error| {
                    let problem = format!("the trust bundle can't be kept: {error}; it stays as it is");
                    warn!("{problem}");
                    problem
                });
                self.problems.send_modify(|problems| problems.bundle = round.clone().err());
                next = round.unwrap_or(AGAIN);
            }
        };
        tokio::join!(secret, record, bundle, work);
    }

    fn hear(&mut self, event: Event) {
        let name = &self.secret.name;
        let object = match event {
            Event::Applied(object) => object,
            Event::Deleted(_) => {
                let problem = format!(
                    "Secret {SYSTEM_NAMESPACE}/{name} was deleted; its key signs on until this process ends"
                );
                warn!("{problem}");
                self.problems.send_modify(|problems| problems.secret = Some(problem));
                return;
            }
            Event::Complete | Event::NotServed => return,
        };
        let opened = self.secret.read(&object).and_then(|stored| {
            if stored.key == self.newest.0.key
                && stored.chain == self.newest.0.chain
                && stored.roots == self.newest.0.roots
            {
                return Ok(None);
            }
            let authority = Authority::open(&stored, self.leaf_lifetime, self.clock.now());
            let authority =
                authority.map_err(|source| SecretError::Authority { name: name.clone(), source })?;
            Ok(Some((stored, authority.roots().clone())))
        });
        self.problems.send_modify(|problems| {
            let told = |error: &SecretError| format!("{error}; what it held before goes on signing");
            problems.secret = opened.as_ref().err().map(told);
        });
        match opened {
            Ok(None) => {}
            Ok(Some(newest)) => {
                info!(
                    "Secret {SYSTEM_NAMESPACE}/{name} has changed: its roots are published, and sign when they have spread"
                );
                self.newest = newest;
            }
            Err(error) => error!("{error}; what it held before goes on signing"),
        }
    }

    /// Publishes what is to be published and signs with what may sign; says when to look again at the latest. Zero: nothing is done
    /// yet, because somebody else wrote at the same time.
    async fn round(&mut self) -> Result<Duration, RoundError> {
        let map = self.cluster.get(&core::CONFIG_MAP, Some(SYSTEM_NAMESPACE), TRUST_BUNDLE).await?;
        let record = self.cluster.get(&core::SECRET, Some(SYSTEM_NAMESPACE), RECORD).await?;
        let published = published(map.as_ref());
        let recorded = record.as_ref().and_then(record::read);
        // Without any record what is published is all that anybody remembers.
        let before = recorded.clone().or_else(|| self.known.clone());
        let before = before.unwrap_or_else(|| Published::read(&published, ""));
        let now = Timestamp::try_from(self.clock.now()).unwrap_or_default();
        let after = before.seen(&published, now).with(&self.newest.1, self.leaf_lifetime, now);
        let pem = after.pem();
        // First the record, so that nothing is published that nobody would remember. Where somebody else wrote, their state counts.
        if recorded.as_ref() != Some(&after) && !record::write(&self.cluster, record, &after).await? {
            return Ok(Duration::ZERO);
        }
        if published != pem && !self.publish(map, &pem).await? {
            return Ok(Duration::ZERO);
        }
        self.known = Some(after.clone());
        if after.has_spread(&self.newest.1, now) && self.signing.key != self.newest.0.key {
            info!("the new signing key is in use");
        }
        if after.has_spread(&self.newest.1, now) {
            self.signing = self.newest.0.clone();
        }
        let open = Stored { roots: Some(pem.clone()), ..self.signing.clone() };
        self.current.replace(Authority::open(&open, self.leaf_lifetime, self.clock.now())?);
        self.bundle.send_if_modified(|known| {
            *known != pem && {
                *known = pem;
                true
            }
        });
        let wait =
            after.next_change(now).map(|next| Duration::try_from(next.duration_since(now)).unwrap_or(AGAIN));
        Ok(wait.unwrap_or(ROUND).clamp(Duration::from_secs(1), ROUND))
    }

    /// False if somebody else wrote in between.
    async fn publish(&self, before: Option<Value>, pem: &str) -> Result<bool, ApiError> {
        let exists = before.is_some();
        let mut map = before.unwrap_or_else(|| empty(SYSTEM_NAMESPACE));
        map["data"][TRUST_BUNDLE_KEY] = pem.into();
        map["metadata"]["labels"][MANAGED_BY.0] = MANAGED_BY.1.into();
        Ok(match exists {
            true => matches!(self.cluster.replace(&core::CONFIG_MAP, &map).await?, Replaced::Done(_)),
            false => matches!(self.cluster.create(&core::CONFIG_MAP, &map).await?, Created::New(_)),
        })
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// The ConfigMap before anything is in it.
pub(super) fn empty(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": TRUST_BUNDLE}})
}

/// What the ConfigMap holds, PEM.
fn published(map: Option<&Value>) -> String {
    let pem = map.and_then(|map| map.get("data")?.get(TRUST_BUNDLE_KEY)?.as_str());
    pem.unwrap_or_default().to_owned()
}

/// Tells what becomes of one object.
async fn watch_one(
    cluster: &Cluster,
    resource: Resource,
    name: &str,
    news: impl Fn(Event) -> News,
    tell: mpsc::Sender<News>,
) {
    let mut watch = Watch::new(cluster.clone(), resource, Selection::named(Some(SYSTEM_NAMESPACE), name));
    let mut told = String::new();
    loop {
        match watch.next().await {
            Ok(events) => {
                told.clear();
                for event in events {
                    if tell.send(news(event)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let error = error.to_string();
                if error != told {
                    warn!("{error}; what was known stays in force");
                    told = error;
                }
            }
        }
    }
}
