//! Whether, where and when a request is tried again.
//!
//! Without a `retry` stanza, only what was provably not processed, at once, at another endpoint of the same
//! backend: nobody can tell the difference but by the missing error. Besides, an idempotent request (RFC 9110
//! section 9.2.2) on a kept connection that ended without a byte of an answer is sent again, once for each such
//! connection, which is as far as RFC 9112 section 9.3.1 lets a proxy go: over a new one to the same endpoint, or
//! elsewhere if the endpoint is leaving. With a stanza, also its status codes, and for idempotent methods broken
//! connections and attempts that ran into `backendRequest`; after a pause, at another endpoint if there is one.
//! `attempts: 0` turns all of it off.
//!
//! The backend's retry budget (GEP-3388) limits all of these together, but for what moves on from an endpoint that did
//! nothing about the request: no app gets it once more by that. Beyond the budget the client is answered 503, as the
//! specification demands, whatever the last attempt showed.

use std::{net::SocketAddr, pin::pin, time::Duration};

use gamut_route::table::Retry;
use http::{Response, StatusCode, header::CONNECTION};
use smallvec::SmallVec;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    blame::judge,
    request::Connection,
    send::{Failure, Hop, Kind, Outgoing},
    service::{Backend, Rule, Target},
};
use crate::{
    balance::Picked,
    http::{
        Body, HttpVersion,
        answer::{self, Seen},
    },
};

/// How often a request that wasn't processed is taken elsewhere: a Deployment that shrinks may leave most of the
/// endpoints that are known for a moment.
pub const MAX_ELSEWHERE: u32 = 16;
/// How long it goes on being taken elsewhere, for bytes too: endpoints that vanished without a word take
/// [`TCP_TIMEOUT`](super::connect::TCP_TIMEOUT) each, those that say nothing on a connection
/// [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT).
pub(super) const ELSEWHERE_PATIENCE: Duration = Duration::from_secs(16);
/// How many endpoints may leave a request unanswered on a kept connection: should they all have died of it, it shall be
/// few.
const MAX_STALE: usize = 4;
/// A backoff grows to this and no further.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// An answer and who gave it.
pub(super) struct Delivered {
    pub(super) response: Response<Body>,
    pub(super) picked: Picked,
    /// When the attempt's time is over, its body's included.
    pub(super) until: Option<Instant>,
}

/// Gets a request answered, by `first` or, where it may be tried again, by others. `deadline` is when the request's
/// own time is over; who calls keeps it too, for pauses between attempts.
///
/// # Errors
/// The last attempt's failure.
pub(super) async fn deliver(
    connection: &Connection,
    rule: &Rule,
    (backend, target): (&Backend, &Target),
    first: Picked,
    hop: &Hop<'_>,
    mut outgoing: Outgoing,
    deadline: Option<Instant>,
) -> Result<Delivered, Failure> {
    let mut retries = Retries::new(rule.retry.as_ref(), outgoing.is_idempotent());
    let mut tried: SmallVec<[_; 4]> = SmallVec::new();
    let mut picked = first;
    target.cluster.requested();
    loop {
        tried.push(picked.address());
        let until = rule.timeouts.backend_request.map(|limit| Instant::now() + limit);
        // A copy of the head is worth its price where the request may be wanted again: only a sidecar or HTTP/2 can
        // say that it did nothing.
        let keep = are_on(rule)
            && (rule.retry.is_some()
                || retries.idempotent
                || picked.is_meshed()
                || hop.version == HttpVersion::H2);
        let end = until.into_iter().chain(deadline).min();
        let attempted = {
            // In one place, whichever way it is awaited.
            let mut attempt = pin!(hop.send(&mut outgoing, &picked, keep));
            match end {
                Some(end) => timeout_at(end, attempt).await.unwrap_or_else(|_| {
                    picked.failed();
                    Err(late(target, rule, until.is_none_or(|until| end < until)))
                }),
                None => attempt.as_mut().await,
            }
        };
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        // What was left of the request's time for a later attempt may have been too little for anybody.
        if !is_over || tried.len() == 1 {
            judge(&target.cluster, &picked, &attempted);
        }
        let outcome = match &attempted {
            Ok(response) => Outcome::of(response, &picked),
            Err(failure) => Outcome::from(failure.kind),
        };
        if attempted.as_ref().is_err_and(|failure| failure.kind == Kind::Unconnected) {
            backend.counters.connect_failed();
            picked.pod_uid().into_iter().for_each(|pod| target.cluster.unreachable(pod));
        }
        let other = || target.cluster.pick(connection.client(), &tried);
        let next = match outcome {
            _ if is_over || !outgoing.is_whole() => None,
            Outcome::Stale => {
                let leaving = !target.cluster.takes(&picked) || attempted.as_ref().is_ok_and(says_close);
                retries.stale(picked.address(), leaving, other)
            }
            outcome => retries.next(outcome, other),
        };
        let Some(next) = next else {
            return attempted.map(|response| Delivered { response, picked, until });
        };
        if next.costs(outcome)
            && let Err(spent) = target.cluster.retry()
        {
            backend.counters.retry_refused();
            return Err(Failure::over_budget(target.cluster.id(), spent, attempted));
        }
        // What was answered is given up, and with it its connection, before anybody else is asked.
        drop(attempted);
        backend.counters.retried();
        picked = match next {
            Next::Afresh => picked.again(),
            Next::Elsewhere(other) => other,
            Next::After(pause) => {
                sleep(pause).await;
                let anybody = || target.cluster.pick(connection.client(), &[]);
                match target.cluster.pick(connection.client(), &tried).or_else(anybody) {
                    Some(picked) => picked,
                    None => return Err(Failure::no_endpoint(target.cluster.id())),
                }
            }
        };
    }
}

/// The failure of an attempt whose time was over, or with it all of the request's.
fn late(target: &Target, rule: &Rule, all: bool) -> Failure {
    if all {
        return Failure::request_timed_out(rule.timeouts.request.unwrap_or_default());
    }
    let limit = rule.timeouts.backend_request.unwrap_or_default();
    Failure::timed_out(format!("{} took longer than backendRequest, {limit:?}", target.cluster.id()))
}

/// Whether a sidecar has answered that its pod is going away.
fn says_close(response: &Response<Body>) -> bool {
    response.headers().get(CONNECTION).is_some_and(|value| value == "close")
}

/// What an attempt showed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// An answer with this status.
    Answered(StatusCode),
    /// The sidecar of an app that broke off has answered so in its place.
    Broken(StatusCode),
    /// Provably nothing was done about the request.
    Unprocessed,
    /// A kept connection ended without a byte of an answer, the endpoint's or the one to the app behind it.
    Stale,
    /// Nobody knows.
    Unknown,
    /// Trying again is useless.
    Final,
}

impl Outcome {
    fn of(response: &Response<Body>, picked: &Picked) -> Self {
        let signal = if picked.endpoint().is_meshed() { answer::signal(response.headers()) } else { None };
        match signal.map(|signal| signal.seen) {
            Some(Seen::Nothing) => {
                picked.failed();
                Self::Unprocessed
            }
            Some(Seen::NoAnswer) => Self::Stale,
            Some(Seen::Broken) => Self::Broken(response.status()),
            Some(Seen::Perhaps) | None => Self::Answered(response.status()),
        }
    }
}

impl From<Kind> for Outcome {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unconnected | Kind::NotDialled | Kind::Unprocessed => Self::Unprocessed,
            Kind::Stale => Self::Stale,
            Kind::Unknown | Kind::Late => Self::Unknown,
            Kind::Garbled | Kind::Anywhere => Self::Final,
        }
    }
}

/// Where to next.
#[derive(Debug)]
enum Next<P> {
    /// To the same endpoint, over a new connection.
    Afresh,
    Elsewhere(P),
    After(Duration),
}

impl<P> Next<P> {
    /// Whether it is a retry, as far as the backend's budget goes.
    fn costs(&self, outcome: Outcome) -> bool {
        !matches!((outcome, self), (Outcome::Unprocessed, Self::Elsewhere(_)))
    }
}

/// What is left of a request's chances.
struct Retries<'a> {
    stanza: Option<&'a Retry>,
    idempotent: bool,
    /// Who left the request unanswered on a kept connection.
    stale: SmallVec<[SocketAddr; MAX_STALE]>,
    elsewhere: u32,
    attempts: u32,
    since: Instant,
}

/// Whether anything is ever tried again under a rule.
pub(super) fn are_on(rule: &Rule) -> bool {
    rule.retry.as_ref().is_none_or(|stanza| stanza.attempts > 0)
}

impl<'a> Retries<'a> {
    fn new(stanza: Option<&'a Retry>, idempotent: bool) -> Self {
        let since = Instant::now();
        Self { stanza, idempotent, stale: SmallVec::new(), elsewhere: 0, attempts: 0, since }
    }

    /// What to do about a kept connection to the endpoint `at` that ended without a byte.
    fn stale<P>(&mut self, at: SocketAddr, leaving: bool, other: impl Fn() -> Option<P>) -> Option<Next<P>> {
        let is_off = self.stanza.is_some_and(|stanza| stanza.attempts == 0);
        if is_off || !self.idempotent {
            return None;
        }
        let is_first = !self.stale.contains(&at);
        if self.stale.len() < MAX_STALE {
            if is_first {
                self.stale.push(at);
                if !leaving {
                    return Some(Next::Afresh);
                }
            }
            if let Some(next) = self.elsewhere(&other) {
                return Some(next);
            }
            if is_first {
                return Some(Next::Afresh);
            }
        }
        self.next(Outcome::Stale, other)
    }

    fn elsewhere<P>(&mut self, other: impl FnOnce() -> Option<P>) -> Option<Next<P>> {
        if self.elsewhere >= MAX_ELSEWHERE || self.since.elapsed() >= ELSEWHERE_PATIENCE {
            return None;
        }
        let other = other()?;
        self.elsewhere += 1;
        Some(Next::Elsewhere(other))
    }

    fn next<P>(&mut self, outcome: Outcome, other: impl FnOnce() -> Option<P>) -> Option<Next<P>> {
        if self.stanza.is_some_and(|stanza| stanza.attempts == 0) {
            return None;
        }
        if outcome == Outcome::Unprocessed
            && let Some(next) = self.elsewhere(other)
        {
            return Some(next);
        }
        let stanza = self.stanza.filter(|stanza| self.attempts < stanza.attempts)?;
        let again = match outcome {
            Outcome::Answered(status) => stanza.codes.contains(&status.as_u16()),
            Outcome::Broken(status) => self.idempotent || stanza.codes.contains(&status.as_u16()),
            Outcome::Unprocessed => true,
            Outcome::Stale | Outcome::Unknown => self.idempotent,
            Outcome::Final => false,
        };
        again.then(|| {
            let pause = backoff(stanza.backoff, self.attempts, rand::random());
            self.attempts += 1;
            Next::After(pause)
        })
    }
}

/// The base interval, doubled with each attempt, and up to half as much again so that clients that failed
/// together don't come back together. Never less than the base, which the specification calls the minimum.
fn backoff(base: Duration, earlier: u32, random: f64) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(earlier).unwrap_or(u32::MAX));
    doubled.min(MAX_BACKOFF.max(base)).mul_f64(1.0 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn stanza(attempts: u32) -> Retry {
        Retry { codes: vec![503], attempts, backoff: Duration::from_millis(100) }
    }

    fn next(retries: &mut Retries<'_>, outcome: Outcome) -> Option<Next<()>> {
        retries.next(outcome, || Some(()))
    }

    #[test]
    fn everything_by_which_an_app_may_be_asked_again_is_a_retry_for_the_budget() {
        let (afresh, elsewhere, later) = (Next::Afresh, Next::Elsewhere(()), Next::After(Duration::ZERO));
        assert!(!elsewhere.costs(Outcome::Unprocessed), "nobody was asked yet");
        assert!(later.costs(Outcome::Unprocessed), "the stanza's own");
        for outcome in [UNAVAILABLE, Outcome::Stale, Outcome::Unknown] {
            assert!([&afresh, &elsewhere, &later].iter().all(|next| next.costs(outcome)), "{outcome:?}");
        }
    }

    const UNAVAILABLE: Outcome = Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE);

    #[test]
    fn without_a_stanza_only_the_unprocessed_goes_elsewhere_and_not_for_ever() {
        for method in [Method::GET, Method::POST] {
            let mut retries = Retries::new(None, method.is_idempotent());
            for outcome in [UNAVAILABLE, Outcome::Unknown, Outcome::Final] {
                assert!(next(&mut retries, outcome).is_none(), "{outcome:?}");
            }
            for _ in 0..MAX_ELSEWHERE {
                assert!(matches!(next(&mut retries, Outcome::Unprocessed), Some(Next::Elsewhere(()))));
            }
            assert!(next(&mut retries, Outcome::Unprocessed).is_none());
        }
    }

    #[tokio::test]
    async fn a_stale_connection_is_replaced_once_for_each_endpoint_and_for_idempotent_methods_alone() {
        let at = |number: u8| SocketAddr::from(([10, 0, 0, number], 80));
        let other = || Some(());
        let mut post = Retries::new(None, false);
        assert!(post.stale(at(1), false, other).is_none());

        let mut get = Retries::new(None, true);
        assert!(matches!(get.stale(at(1), false, other), Some(Next::Afresh)));
        assert!(matches!(get.stale(at(1), false, other), Some(Next::Elsewhere(()))), "not twice at the same");
        assert!(matches!(get.stale(at(2), true, other), Some(Next::Elsewhere(()))), "not at one that leaves");
        assert!(
            matches!(get.stale(at(3), true, || None::<()>), Some(Next::Afresh)),
            "unless there is no other"
        );
        assert!(matches!(get.stale(at(4), false, other), Some(Next::Afresh)));
        assert!(get.stale(at(5), false, other).is_none(), "four are enough");
    }

    #[tokio::test]
    async fn a_stale_connection_beyond_that_is_a_broken_one() {
        let at = SocketAddr::from(([10, 0, 0, 1], 80));
        let stanza = stanza(1);
        let mut retries = Retries::new(Some(&stanza), true);
        assert!(matches!(retries.stale(at, false, || None::<()>), Some(Next::Afresh)));
        assert!(matches!(retries.stale(at, false, || None::<()>), Some(Next::After(_))));
        assert!(retries.stale(at, false, || None::<()>).is_none());
    }

    #[test]
    fn where_there_is_nobody_else_the_unprocessed_waits_for_its_stanza() {
        let alone = |retries: &mut Retries<'_>| retries.next::<()>(Outcome::Unprocessed, || None);
        assert!(alone(&mut Retries::new(None, true)).is_none());
        let stanza = stanza(1);
        let mut retries = Retries::new(Some(&stanza), false);
        assert!(matches!(alone(&mut retries), Some(Next::After(_))));
        assert!(alone(&mut retries).is_none());
    }

    #[test]
    fn what_may_have_been_processed_is_repeated_only_if_that_is_harmless() {
        let stanza = stanza(5);
        for (method, again) in [
            (Method::GET, true),
            (Method::HEAD, true),
            (Method::PUT, true),
            (Method::DELETE, true),
            (Method::OPTIONS, true),
            (Method::POST, false),
            (Method::PATCH, false),
        ] {
            let mut retries = Retries::new(Some(&stanza), method.is_idempotent());
            assert_eq!(next(&mut retries, Outcome::Unknown).is_some(), again, "{method}");
        }
    }

    #[test]
    fn a_named_code_is_tried_again_as_often_as_the_stanza_says() {
        let stanza = stanza(2);
        let mut retries = Retries::new(Some(&stanza), false);
        assert!(next(&mut retries, Outcome::Answered(StatusCode::BAD_GATEWAY)).is_none());
        assert!(matches!(next(&mut retries, UNAVAILABLE), Some(Next::After(_))));
        assert!(matches!(next(&mut retries, UNAVAILABLE), Some(Next::After(_))));
        assert!(next(&mut retries, UNAVAILABLE).is_none());
    }

    #[test]
    fn zero_attempts_turn_everything_off() {
        let stanza = stanza(0);
        let mut retries = Retries::new(Some(&stanza), true);
        for outcome in [Outcome::Unprocessed, UNAVAILABLE] {
            assert!(next(&mut retries, outcome).is_none(), "{outcome:?}");
        }
        assert!(retries.stale(SocketAddr::from(([10, 0, 0, 1], 80)), false, || Some(())).is_none());
    }

    #[test]
    fn pauses_double_with_jitter_are_never_below_the_base_and_stay_bounded() {
        let base = Duration::from_millis(100);
        for (earlier, doubled) in [(0, 100), (1, 200), (4, 1600)] {
            let doubled = Duration::from_millis(doubled);
            assert_eq!(backoff(base, earlier, 0.0), doubled);
            assert_eq!(backoff(base, earlier, 1.0), doubled.mul_f64(1.5));
        }
        assert_eq!(backoff(base, 40, 0.0), MAX_BACKOFF);
        assert_eq!(backoff(Duration::from_secs(60), 3, 0.0), Duration::from_secs(60));
    }
}
