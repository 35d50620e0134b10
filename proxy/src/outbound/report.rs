//! What is said and counted about a request: own answers, and answers that have ended.

use std::sync::Arc;

use bytes::Bytes;
use gamut_controller_api::Transport;
use gamut_route::{path::PathError, table::RuleOrigin};
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;

use super::{
    choose::NoChoice,
    send::Failure,
    service::{Backend, Rule, Service, Target},
};
use crate::{
    balance::Picked,
    http::{Answer, Body, Guard, Reason, answer, headers::BadRequest},
    record::{Begun, End},
    telemetry::{Answered, BackendCounters, Direction, Method, Protocol, SessionOutcome, Telemetry},
};

/// A request, as far as reports go.
#[derive(Clone)]
pub(super) struct Call {
    begin: Instant,
    method: Method,
    grpc: bool,
    /// `None` while nobody wants records.
    record: Option<Box<Begun>>,
}

/// An answer in place of a backend's, and where it is counted.
pub(super) struct Own<'s> {
    answer: Answer<'s>,
    counters: &'s BackendCounters,
}

/// Counts an answer when its body has ended or is given up, and keeps its endpoint busy until then.
pub(super) struct Count {
    picked: Picked,
    counters: Arc<BackendCounters>,
    answered: Answered,
    begin: Instant,
    record: Option<Box<(Box<Begun>, End)>>,
}

impl Call {
    /// A request whose head has just come.
    pub(super) fn begin<B>(telemetry: &Telemetry, request: &mut Request<B>) -> Self {
        let grpc = answer::is_grpc(request.headers());
        let method = request.method().into();
        let record = telemetry.recorder().begin(Direction::Outbound, request);
        Self { begin: Instant::now(), method, grpc, record }
    }

    /// When the head came.
    pub(super) fn began(&self) -> Instant {
        self.begin
    }

    /// Counts and makes an answer of the proxy's own.
    pub(super) fn own(self, telemetry: &Telemetry, service: &Service, own: &Own<'_>) -> Response<Body> {
        let reason = own.answer.reason();
        telemetry.own_answer(Direction::Outbound, reason.as_str());
        tracing::debug!("{}", own.answer);
        let response = own.answer.to_app(self.grpc);
        let end = || End {
            parent: Some(service.parent().clone()),
            origin: own.answer.rule().cloned(),
            why: own.answer.to_string(),
            ..End::default()
        };
        self.count(own.counters, &response, reason.as_str(), end);
        response
    }

    /// Counts an answer that the rule itself is: a redirect, or to a CORS preflight.
    pub(super) fn ruled(self, service: &Service, rule: &Rule, response: &Response<Body>) {
        let end =
            || End { parent: Some(service.parent().clone()), origin: rule.origin.clone(), ..End::default() };
        self.count(&rule.counters, response, Reason::Rule.as_str(), end);
    }

    fn count(
        self,
        counters: &BackendCounters,
        response: &Response<Body>,
        own: &'static str,
        end: impl FnOnce() -> End,
    ) {
        let answered = Answered { own: Some(own), ..self.answered(response) };
        counters.answered(None, answered);
        if let Some(record) = self.record {
            record.end(&answered, end());
        }
    }

    /// Counts `response` to its end. `session`: what became of it.
    pub(super) fn counting(
        self,
        (service, rule, backend, target): (&Service, &Rule, &Backend, &Target),
        picked: Picked,
        session: Option<SessionOutcome>,
        response: &Response<Body>,
    ) -> Count {
        let (counters, answered) = (Arc::clone(&backend.counters), self.answered(response));
        let record = self.record.map(|begun| {
            let pod = picked.said.pod.as_ref();
            let end = End {
                parent: Some(service.parent().clone()),
                origin: rule.origin.clone(),
                backend: target.cluster.id().to_string(),
                endpoint: Some(picked.address()),
                pod: pod.map_or(String::new(), |pod| format!("{}/{}", pod.namespace, pod.name)),
                peer: match &picked.said.transport {
                    Transport::Mesh(id) => id.to_string(),
                    Transport::Plaintext => String::new(),
                },
                session,
                ..End::default()
            };
            Box::new((begun, end))
        });
        Count { picked, counters, answered, begin: self.begin, record }
    }

    fn answered(&self, response: &Response<Body>) -> Answered {
        Answered {
            method: self.method,
            protocol: if self.grpc { Protocol::Grpc } else { Protocol::Http },
            status: response.status().as_u16(),
            // A trailers-only answer has it in its head.
            grpc_status: grpc_status(response.headers()),
            elapsed: self.begin.elapsed(),
            own: None,
        }
    }
}

impl<'s> Own<'s> {
    /// Why there is no backend's answer.
    pub(super) fn reason(&self) -> Reason {
        self.answer.reason()
    }

    /// No rule matches.
    pub(super) fn no_route(service: &'s Service) -> Self {
        let why = format!("no rule for {} matches the request", service.parent());
        Self { answer: Answer::new(Reason::NoRoute, why), counters: service.unmatched() }
    }

    /// The request is none that may be passed on.
    pub(super) fn bad_request(service: &'s Service, error: BadRequest) -> Self {
        Self { answer: Answer::new(error.reason(), error), counters: service.unmatched() }
    }

    /// The request's path can't be understood in one way only.
    pub(super) fn bad_path(service: &'s Service, error: PathError) -> Self {
        Self { answer: Answer::new(Reason::BadRequest, error), counters: service.unmatched() }
    }

    /// Something about the rule, before a backend was chosen.
    pub(super) fn of_rule(rule: &'s Rule, reason: Reason, why: &str) -> Self {
        Self { answer: Answer::new(reason, why).under(rule.origin.as_ref()), counters: &rule.counters }
    }

    /// The rule's split leads nowhere.
    pub(super) fn no_choice(rule: &'s Rule, no_choice: NoChoice<'s>) -> Self {
        let (reason, why, counters) = match no_choice {
            NoChoice::NoWeight => {
                (Reason::NoBackend, "no backend has a weight above 0".to_owned(), &*rule.counters)
            }
            NoChoice::Invalid(backend, why) => (Reason::InvalidBackend, why.to_owned(), &*backend.counters),
            NoChoice::NoEndpoint(backend, target) => {
                let why = format!("{} has no endpoint that takes traffic", target.cluster.id());
                (Reason::NoEndpoint, why, &*backend.counters)
            }
            NoChoice::Overload(backend, target, overload) => {
                (Reason::Overload, format!("{}: {overload}", target.cluster.id()), &*backend.counters)
            }
        };
        Self { answer: Answer::new(reason, why).under(rule.origin.as_ref()), counters }
    }

    /// The last attempt failed.
    pub(super) fn failed(origin: Option<&'s RuleOrigin>, backend: &'s Backend, failure: Failure) -> Self {
        Self { answer: Answer::new(failure.reason, failure.why).under(origin), counters: &backend.counters }
    }
}

impl Guard for Count {
    fn data(&mut self, data: &Bytes) {
        if let Some(record) = &mut self.record {
            record.1.bytes += data.len() as u64;
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.answered.grpc_status = grpc_status(trailers).or(self.answered.grpc_status);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.answered.elapsed = self.begin.elapsed();
        self.counters.answered(Some(&self.picked.said), self.answered);
        if let Some((begun, end)) = self.record.take().map(|record| *record) {
            begun.end(&self.answered, end);
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
