//! One attempt to get a request answered by one endpoint.

use std::time::Duration;

use gamut_route::BackendId;
use http::{Request, Response, request::Parts};

use super::connect::{Connector, carrier};
use crate::{
    balance::{Picked, Spent},
    http::{
        Body, Carrier, DialError, HttpVersion, Reason, SendError,
        headers::{BadAnswer, BadRequest, Wishes, prepare_carried, prepare_request},
        replay::{MAX_REPLAY_BYTES, Replayable},
    },
};

/// A request on its way, which may be sent more than once.
pub(super) struct Outgoing {
    head: Option<Parts>,
    body: Source,
}

/// Where attempts get the body from.
enum Source {
    /// There is none.
    Empty,
    /// It passes through once. `None` while an attempt has it.
    Once(Option<Body>),
    /// What was read is kept, up to a limit.
    Replayable(Replayable),
}

/// An attempt without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the app is told if this was the last one.
    pub(super) reason: Reason,
    /// In words.
    pub(super) why: String,
    /// What it says about another attempt.
    pub(super) kind: Kind,
}

/// What a failed attempt says about another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There was no connection.
    Unconnected,
    /// Nobody was even called, for want of something on this side: file descriptors, ports, memory.
    NotDialled,
    /// The endpoint provably did nothing about the request.
    Unprocessed,
    /// A kept connection ended without a byte of an answer.
    Stale,
    /// Nobody knows what the endpoint did.
    Unknown,
    /// Nobody knows that either, when the attempt's time was over.
    Late,
    /// The endpoint has answered, in a way that can't be passed on (RFC 9112 section 6.3: two lengths, say). It has done what
    /// was asked, and would say so again.
    Garbled,
    /// It would be the same at any endpoint.
    Anywhere,
}

/// How requests of one connection are sent.
pub(super) struct Hop<'a> {
    pub(super) connector: &'a Connector,
    pub(super) version: HttpVersion,
    pub(super) wishes: &'a Wishes,
    /// The host of a request that names none.
    pub(super) authority: &'a str,
}

impl Outgoing {
    /// A request in normal form. `keep`: whether its body shall be kept for another attempt, as far as it may
    /// be.
    pub(super) fn new(head: Parts, body: Body, keep: bool) -> Self {
        let is_short = |body: &Body| {
            let length = http_body::Body::size_hint(body).exact();
            length.is_none_or(|length| length <= MAX_REPLAY_BYTES as u64)
        };
        let body = if http_body::Body::is_end_stream(&body) {
            Source::Empty
        } else if keep && is_short(&body) {
            Source::Replayable(Replayable::new(body))
        } else {
            Source::Once(Some(body))
        };
        Self { head: Some(head), body }
    }

    /// Whether doing it twice is the same as doing it once.
    pub(super) fn is_idempotent(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.method.is_idempotent())
    }

    /// Whether the request is still here, all of it.
    pub(super) fn is_whole(&self) -> bool {
        self.head.is_some()
            && match &self.body {
                Source::Empty => true,
                Source::Once(body) => body.is_some(),
                Source::Replayable(body) => body.is_whole(),
            }
    }

    /// The request for an attempt. `keep`: another may follow, so that the head is copied if the body can be
    /// had again.
    fn request(&mut self, keep: bool) -> Option<Request<Body>> {
        let (body, again) = match &mut self.body {
            Source::Empty => (Body::Empty, true),
            Source::Once(body) => (body.take()?, false),
            Source::Replayable(body) => (body.attempt()?, true),
        };
        let head = if keep && again { self.head.clone()? } else { self.head.take()? };
        Some(Request::from_parts(head, body))
    }

    fn put_back(&mut self, request: Request<Body>) {
        let (head, body) = request.into_parts();
        self.head = Some(head);
        if let Source::Once(place) = &mut self.body {
            *place = Some(body);
        }
    }
}

impl Hop<'_> {
    /// Sends a request to an endpoint and waits for the answer's head. `keep`: the request may be wanted
    /// again.
    ///
    /// # Errors
    /// [`Failure`]; the request is whole again if nothing of it was sent.
    pub(super) async fn send(
        &self,
        outgoing: &mut Outgoing,
        picked: &Picked,
        keep: bool,
    ) -> Result<Response<Body>, Failure> {
        let mut request = outgoing.request(keep).ok_or_else(Failure::gone)?;
        let endpoint = picked.endpoint();
        let carrier = carrier(self.version, endpoint, request.headers(), self.wishes);
        match carrier {
            Carrier::MuxH1 | Carrier::MuxH2 => prepare_carried(&mut request, self.wishes, self.authority),
            Carrier::H1 | Carrier::H2 => {
                prepare_request(&mut request, self.version, self.wishes, self.authority)
            }
        }
        .map_err(Failure::bad_request)?;
        let dial = || {
            let (connector, endpoint) = (self.connector.clone(), endpoint.clone());
            async move { connector.dial(&endpoint, carrier.into()).await }
        };
        match endpoint.pool.send(carrier, request, dial).await {
            Ok(response) => {
                picked.answered();
                Ok(response)
            }
            Err(error) => {
                if !matches!(error, SendError::Client(_)) {
                    picked.failed();
                }
                let failure = Failure::of(&error);
                if let SendError::Dial { request, .. } | SendError::Unsent { request, .. } = error {
                    outgoing.put_back(*request);
                }
                Err(failure)
            }
        }
    }
}

impl Failure {
    fn of(error: &SendError) -> Self {
        let (reason, kind) = match error {
            SendError::Dial { error: DialError::NoCertificate(_), .. } => {
                (Reason::NoCertificate, Kind::Anywhere)
            }
            SendError::Dial { error, .. } if error.is_ours() => (Reason::UpstreamConnect, Kind::NotDialled),
            SendError::Dial { .. } => (Reason::UpstreamConnect, Kind::Unconnected),
            SendError::Unsent { .. } => (Reason::UpstreamConnect, Kind::Unprocessed),
            SendError::Refused(_) => (Reason::UpstreamRefused, Kind::Unprocessed),
            SendError::Stale(_) => (Reason::UpstreamReset, Kind::Stale),
            SendError::Client(_) => (Reason::BadRequest, Kind::Anywhere),
            error if error.is_garbled() => (Reason::UpstreamReset, Kind::Garbled),
            SendError::Silent(_) | SendError::Broken(_) => (Reason::UpstreamReset, Kind::Unknown),
        };
        Self { reason, why: error.to_string(), kind }
    }

    pub(super) fn timed_out(why: String) -> Self {
        Self { reason: Reason::Timeout, why, kind: Kind::Late }
    }

    /// The request's time is over, whatever was going on.
    pub(super) fn request_timed_out(limit: Duration) -> Self {
        Self::timed_out(format!("the request took longer than its rule's limit, {limit:?}"))
    }

    pub(super) fn unasked_upgrade() -> Self {
        Self::anywhere(
            Reason::UpstreamReset,
            "the endpoint switched protocols, which the request had not asked for",
        )
    }

    pub(super) fn bad_answer(error: BadAnswer) -> Self {
        Self::anywhere(Reason::UpstreamReset, error)
    }

    pub(super) fn no_endpoint(backend: &BackendId) -> Self {
        Self::anywhere(
            Reason::NoEndpoint,
            format_args!("{backend} has no endpoint that takes traffic any more"),
        )
    }

    /// A retry that wasn't made, and what it would have been for.
    pub(super) fn over_budget(backend: &BackendId, spent: Spent, last: Result<Response<Body>, Self>) -> Self {
        let last = last.map_or_else(|failure| failure.why, |answer| format!("answered {}", answer.status()));
        Self::anywhere(
            Reason::RetryBudget,
            format_args!("{backend} isn't tried again, {spent}; the last attempt: {last}"),
        )
    }

    fn bad_request(error: BadRequest) -> Self {
        Self::anywhere(error.reason(), error)
    }

    /// Not to be seen: attempts are made only while the request is whole.
    fn gone() -> Self {
        Self::anywhere(Reason::UpstreamReset, "the request was sent already and not kept")
    }

    fn anywhere(reason: Reason, why: impl ToString) -> Self {
        Self { reason, why: why.to_string(), kind: Kind::Anywhere }
    }
}
