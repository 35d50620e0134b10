//! A Lease: of several replicas one does what would be done twice otherwise.
//!
//! Whoever wants it looks at it every [`LOOK`]. It is free when nobody is named, or when its holder hasn't renewed it for [`TERM`] as
//! *we* saw it: clocks of different machines are never compared. A holder renews every [`RENEW`], and stops trusting itself
//! [`TRUST`] after it *asked* for the last renewal that succeeded: well before anybody else may take over. Every write names the
//! version that was read, so that of two who take it at once one fails.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use crate::{ApiError, Cluster, Created, MANAGED_BY, Replaced, core};

/// How long a Lease is its holder's without renewal.
const TERM: Duration = Duration::from_secs(15);
/// How long a holder trusts a renewal.
const TRUST: Duration = Duration::from_secs(10);
/// How often a holder renews.
const RENEW: Duration = Duration::from_secs(4);
/// How soon a holder tries again after a renewal that failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often others look.
const LOOK: Duration = Duration::from_secs(2);
/// How long giving it back may take at the end.
const RELEASE: Duration = Duration::from_secs(3);

/// Which Lease, and who wants it.
#[derive(Clone, Debug)]
pub struct LeaseName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.holderIdentity`: different for each process that ever was.
    pub holder: String,
}

/// Whether the Lease is ours. Clones see the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Until when it certainly is.
    until: watch::Receiver<Option<Instant>>,
}

/// The task that gets and keeps a Lease. Dropping it gives up without giving back: others wait for [`TERM`].
#[derive(Debug)]
pub struct Campaign {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Whether the Lease is ours now. May become false at any moment, by time alone.
    pub fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it is other than `held`, which the caller last knew: ours or not. False when nobody tries to get it any
    /// more. Cancel safe.
    pub async fn differs_from(&mut self, held: bool) -> bool {
        self.until.wait_for(|until| until.is_some() != held).await.is_ok()
    }
}

impl Campaign {
    /// Begins to try for a Lease.
    pub fn start(cluster: Cluster, lease: LeaseName) -> (Leadership, Self) {
        let (until, seen_until) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let candidate = Candidate { cluster, lease, seen: Seen::default(), until, problem: None };
        let task = tokio::spawn(candidate.run(stopped));
        (Leadership { until: seen_until }, Self { stop: Some(stop), task })
    }

    /// Stops, and gives the Lease back if it is ours, so that another needn't wait. Whatever is to be written under it must have
    /// been.
    pub async fn release(mut self) {
        if let Some(stop) = self.stop.take() {
            // A task that has ended needs no telling.
            let _ = stop.send(());
        }
        // What takes longer is cut off when this is dropped.
        let _ = timeout(RELEASE, &mut self.task).await;
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The Lease as it was seen last.
#[derive(Default)]
struct Seen {
    holder: String,
    renewed: Value,
    /// When we first saw it like this.
    since: Option<Instant>,
}

struct Candidate {
    cluster: Cluster,
    lease: LeaseName,
    seen: Seen,
    until: watch::Sender<Option<Instant>>,
    /// The last failure in words, so that it is logged once.
    problem: Option<String>,
}

impl Candidate {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let asked = Instant::now();
            // What takes half of the trust there is leaves time to try once more.
            let outcome = tokio::select! {
                outcome = timeout(TRUST / 2, self.round(asked)) => outcome,
                _ = &mut stop => break,
            };
            let failed = !matches!(outcome, Ok(Ok(())));
            self.note(match outcome {
                Ok(outcome) => outcome.err().map(|error| error.to_string()),
                Err(_) => Some("the API server takes too long".to_owned()),
            });
            let holds = self.until.borrow().is_some_and(|until| Instant::now() < until);
            if !holds {
                self.lose("it couldn't be renewed in time");
            }
            let pause = match (holds, failed) {
                (true, false) => RENEW,
                (true, true) => AGAIN,
                (false, _) => LOOK,
            };
            tokio::select! {
                () = sleep(pause.mul_f64(rand::rng().random_range(0.8..1.0))) => {}
                _ = &mut stop => break,
            }
        }
        self.release().await;
    }

    /// Looks at the Lease, and takes or renews it where that is ours to do.
    async fn round(&mut self, asked: Instant) -> Result<(), ApiError> {
        let LeaseName { namespace, name, holder } = &self.lease;
        let Some(lease) = self.cluster.get(&core::LEASE, Some(namespace), name).await? else {
            let taken = taken(
                &self.lease,
                json!({
                    "apiVersion": core::LEASE.api_version(),
                    "kind": core::LEASE.kind,
                    "metadata": {"namespace": namespace, "name": name, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
                }),
            );
            if let Created::New(_) = self.cluster.create(&core::LEASE, &taken).await? {
                self.win(asked);
            }
            return Ok(());
        };
        let held_by =
            lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        let renewed = lease.pointer("/spec/renewTime").cloned().unwrap_or_default();
        let wanted = if held_by == *holder {
            let mut renewed = lease;
            set(&mut renewed, "renewTime", now());
            renewed
        } else {
            if self.seen.since.is_none() || self.seen.holder != held_by || self.seen.renewed != renewed {
                self.seen = Seen { holder: held_by.clone(), renewed, since: Some(asked) };
            }
            self.lose(&format!("{held_by:?} has it"));
            let over = self.seen.since.is_some_and(|since| asked.duration_since(since) >= TERM);
            if !held_by.is_empty() && !over {
                return Ok(());
            }
            taken(&self.lease, lease)
        };
        match self.cluster.replace(&core::LEASE, &wanted).await? {
            Replaced::Done(_) => self.win(asked),
            // Somebody was faster, or only added a label: the next round will tell.
            Replaced::Outdated => {}
        }
        Ok(())
    }

    fn win(&self, asked: Instant) {
        if self.until.send_replace(Some(asked + TRUST)).is_none() {
            info!(
                "{} holds Lease {}/{}: this replica writes",
                self.lease.holder, self.lease.namespace, self.lease.name
            );
        }
    }

    fn lose(&self, reason: &str) {
        if self.until.send_replace(None).is_some() {
            warn!(
                "Lease {}/{} is lost: {reason}; another replica writes",
                self.lease.namespace, self.lease.name
            );
        }
    }

    fn note(&mut self, problem: Option<String>) {
        if let Some(problem) = problem.as_ref().filter(|problem| self.problem.as_ref() != Some(problem)) {
            warn!("Lease {}/{}: {problem}", self.lease.namespace, self.lease.name);
        }
        self.problem = problem;
    }

    /// Names nobody as holder, unless somebody else is.
    async fn release(self) {
        if self.until.send_replace(None).is_none() {
            return;
        }
        let LeaseName { namespace, name, holder } = &self.lease;
        let released = async {
            let Some(mut lease) = self.cluster.get(&core::LEASE, Some(namespace), name).await? else {
                return Ok(());
            };
            if lease.pointer("/spec/holderIdentity").and_then(Value::as_str) == Some(holder) {
                set(&mut lease, "holderIdentity", "".into());
                set(&mut lease, "renewTime", now());
                self.cluster.replace(&core::LEASE, &lease).await?;
            }
            Ok::<_, ApiError>(())
        };
        match released.await {
            Ok(()) => info!("Lease {namespace}/{name} is given back"),
            Err(error) => warn!("Lease {namespace}/{name} can't be given back: {error}"),
        }
    }
}

/// A Lease with us as its new holder.
fn taken(name: &LeaseName, mut lease: Value) -> Value {
    let before = lease.pointer("/spec/leaseTransitions").and_then(Value::as_u64);
    set(&mut lease, "holderIdentity", name.holder.clone().into());
    set(&mut lease, "leaseDurationSeconds", TERM.as_secs().into());
    set(&mut lease, "acquireTime", now());
    set(&mut lease, "renewTime", now());
    set(&mut lease, "leaseTransitions", before.map_or(0, |before| before + 1).into());
    lease
}

fn set(lease: &mut Value, field: &str, value: Value) {
    if let Some(lease) = lease.as_object_mut() {
        let spec = lease.entry("spec").or_insert_with(|| json!({}));
        if let Some(spec) = spec.as_object_mut() {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// `metav1.MicroTime`: always with six digits.
fn now() -> Value {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_lease_keeps_what_others_wrote_on_it_and_counts_its_holders() {
        let name = LeaseName {
            namespace: "gamut-system".into(),
            name: "gamut-controller".into(),
            holder: "b".into(),
        };
        let before = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"holderIdentity": "a", "leaseTransitions": 3}});
        let lease = taken(&name, before);
        assert_eq!(lease["metadata"]["labels"]["a"], "b");
        assert_eq!(lease["spec"]["holderIdentity"], "b");
        assert_eq!(lease["spec"]["leaseTransitions"], 4);
        assert_eq!(taken(&name, json!({}))["spec"]["leaseTransitions"], 0);
    }

    #[test]
    fn times_have_microseconds_as_the_api_wants_them() {
        let now = now();
        let (_, fraction) = now.as_str().unwrap().rsplit_once('.').unwrap();
        assert_eq!(fraction.len(), "123456Z".len(), "{now}");
    }

    #[test]
    fn a_holder_stops_trusting_itself_before_anybody_may_take_over() {
        assert!(TRUST < TERM);
        // A renewal that takes as long as it may, after the longest pause, and a second try of it fit in.
        assert!(RENEW + TRUST / 2 + AGAIN <= TRUST);
    }
}
