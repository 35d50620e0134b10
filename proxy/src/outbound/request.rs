//! A request's life, from its head to the end of its answer.
//!
//! ```text
//! normal form -> match -> CORS, redirect -> choose -> edits, mirrors -> deliver -> answer's edits -> body
//!   400, 405      404       200, 30x      500, 503                    502, 503, 504
//! ```
//!
//! Until the answer's head is here, everything that goes wrong becomes an answer that says so; after that,
//! only breaking off is left, which clients notice because the body's end is missing. Dropping a future or
//! body on this way (the app went away) cancels the rest.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::SystemTime,
};

use gamut_route::{
    filter::{
        self,
        cors::{AllowedOrigin, is_preflight},
        redirect::{RedirectedRequest, Redirector, Scheme},
    },
    matcher::{Matched, RequestView},
    path::{self, PathError},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{
    Outbound,
    choose::{Choice, Sessions, choose},
    mirror::{mirror, upstream_version},
    report::{Call, Own},
    retry::{Delivered, are_on, deliver},
    send::{Failure, Hop, Outgoing},
    service::{Backend, Rule, Service, Target},
};
use crate::{
    balance::Picked,
    http::{
        Body, HttpVersion, Reason,
        answer::{adopt, strip_signals},
        headers::{Wishes, normalize_request, normalize_response},
        upgrade,
    },
    tables::ServiceHandle,
};

/// What all requests of one of the app's connections share.
pub(super) struct Connection {
    outbound: Outbound,
    service: ServiceHandle,
    version: HttpVersion,
    client: IpAddr,
    /// The Service's port, which redirects may keep.
    port: u16,
    /// The host of a request that names none: what was dialled.
    authority: String,
}

/// What is to become of a request.
enum Plan<'s> {
    /// The rule is an answer by itself.
    Answer(&'s Rule, Response<Body>),
    /// A backend answers.
    Forward(Route<'s>),
}

/// The rule of a request and whom it goes to.
struct Route<'s> {
    rule: &'s Rule,
    matched: Matched,
    choice: Choice<'s>,
}

/// What is kept of a request for the edits of its answer.
struct Exchange<'s> {
    service: &'s Service,
    rule: &'s Rule,
    backend: &'s Backend,
    target: &'s Target,
    sessions: Sessions<'s>,
    origin: Option<AllowedOrigin>,
    wishes: Wishes,
    call: Call,
    deadline: Option<Instant>,
}

impl Connection {
    /// A connection of `client` to a Service that it dialled as `destination`.
    pub(super) fn new(
        outbound: Outbound,
        service: ServiceHandle,
        version: HttpVersion,
        client: IpAddr,
        destination: SocketAddr,
    ) -> Self {
        let authority = destination.to_string();
        Self { outbound, service, version, client, port: destination.port(), authority }
    }

    /// Who calls.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// Answers a request, by a backend or by itself.
    pub(super) async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let call = Call::begin(&self.outbound.0.telemetry, &mut request);
        let (mut head, body) = request.into_parts();
        // The newest table, for all of this request.
        let mut service = self.service.load_full();
        let received = service.reads_received().then(|| head.headers.clone());
        let normalized = normalize_request(&mut head).map_err(|error| Own::bad_request(&service, error));
        let normalized = normalized.and_then(|wishes| {
            canonicalize(&mut head).map(|()| wishes).map_err(|e| Own::bad_path(&service, e))
        });
        let wishes = match normalized {
            Ok(wishes) => wishes,
            Err(own) => return call.own(&self.outbound.0.telemetry, &service, &own),
        };
        let mut plan = self.plan(&service, &head, received.as_ref());
        // A table that was replaced since it was loaded may lead to a backend that has been emptied since: then
        // everything is decided anew. It ends with a table that is still the newest.
        while let Err(own) = &plan
            && own.reason() == Reason::NoEndpoint
            && let Some(newer) = newer(&self.service, &service)
            && (received.is_some() || !newer.reads_received())
        {
            drop(plan);
            service = newer;
            plan = self.plan(&service, &head, received.as_ref());
        }
        let answered = match plan {
            Ok(Plan::Answer(rule, response)) => {
                call.ruled(&service, rule, &response);
                return response;
            }
            Ok(Plan::Forward(route)) => {
                self.forward((&service, route), call.clone(), wishes, head, body).await
            }
            Err(own) => Err(own),
        };
        answered.unwrap_or_else(|own| call.own(&self.outbound.0.telemetry, &service, &own))
    }

    /// What a table makes of a request in normal form. Nothing of the request is changed or sent.
    fn plan<'s>(
        &self,
        service: &'s Service,
        head: &Parts,
        received: Option<&HeaderMap>,
    ) -> Result<Plan<'s>, Own<'s>> {
        let (rule, matched) = find(service, head, received).ok_or_else(|| Own::no_route(service))?;
        if let Some(response) = self.answer_of(rule, matched, head)? {
            return Ok(Plan::Answer(rule, response));
        }
        let forward = rule.forward.as_ref().map_err(|why| Own::of_rule(rule, Reason::InvalidRule, why))?;
        let choice = choose(rule, forward, &head.headers, self.client, SystemTime::now())
            .map_err(|no_choice| Own::no_choice(rule, no_choice))?;
        Ok(Plan::Forward(Route { rule, matched, choice }))
    }

    /// Carries out what was planned.
    async fn forward<'s>(
        &self,
        (service, Route { rule, matched, choice }): (&'s Service, Route<'s>),
        call: Call,
        wishes: Wishes,
        mut head: Parts,
        body: Body,
    ) -> Result<Response<Body>, Own<'s>> {
        let Choice { backend, target, picked, sessions } = choice;
        let origin = rule.filters.cors.as_ref().and_then(|cors| cors.allowed_origin(&head.headers));
        filter::edit(&mut head, [&rule.filters, &backend.filters], matched)
            .map_err(|error| Own::of_rule(rule, Reason::InvalidRule, &error.to_string()))?;
        let mirrors = rule.mirrors.iter().chain(&backend.mirrors);
        let body = mirror(&self.outbound, mirrors, (self.client, self.version), &self.authority, &head, body);

        let deadline = rule.timeouts.request.map(|limit| call.began() + limit);
        let exchange = Exchange { service, rule, backend, target, sessions, origin, wishes, call, deadline };
        let delivered = self.deliver(&exchange, picked, head, body).await;
        let delivered = delivered.map_err(|failure| Own::failed(rule.origin.as_ref(), backend, failure))?;
        exchange.finish(delivered)
    }

    /// The answer of a rule that answers itself.
    fn answer_of<'s>(
        &self,
        rule: &'s Rule,
        matched: Matched,
        head: &Parts,
    ) -> Result<Option<Response<Body>>, Own<'s>> {
        let mut response = Response::new(Body::Empty);
        if let Some(cors) = &rule.filters.cors
            && is_preflight(&head.method, &head.headers)
        {
            *response.headers_mut() = cors.preflight(&head.headers);
            return Ok(Some(response));
        }
        let Some(redirect) = &rule.filters.redirect else { return Ok(None) };
        let location = self.location(redirect, matched, head).ok_or_else(|| {
            Own::of_rule(rule, Reason::BadRequest, "the redirect needs a host, and the request has none")
        })?;
        *response.status_mut() = redirect.status();
        response.headers_mut().insert(header::LOCATION, location);
        rule.filters.finish_own(&head.headers, response.headers_mut());
        Ok(Some(response))
    }

    fn location(&self, redirect: &Redirector, matched: Matched, head: &Parts) -> Option<HeaderValue> {
        let host = head.headers.get(header::HOST).map(|host| host.to_str()).transpose().ok()?;
        redirect.location(&RedirectedRequest {
            scheme: Scheme::Http,
            authority: host.unwrap_or_default(),
            port: self.port,
            path: head.uri.path(),
            prefix: matched.prefix,
            query: head.uri.query(),
        })
    }

    async fn deliver(
        &self,
        exchange: &Exchange<'_>,
        picked: Picked,
        head: Parts,
        body: Body,
    ) -> Result<Delivered, Failure> {
        let Exchange { rule, backend, target, wishes, .. } = exchange;
        let hop = Hop {
            connector: &self.outbound.0.connector,
            version: upstream_version(target.cluster.protocol(), self.version),
            wishes,
            authority: &self.authority,
        };
        let outgoing = Outgoing::new(head, body, are_on(rule));
        // In one place, whichever way it is awaited: each further one would be KiBs for every connection.
        let mut delivering =
            pin!(deliver(self, rule, (backend, target), picked, &hop, outgoing, exchange.deadline));
        match exchange.deadline {
            Some(deadline) => timeout_at(deadline, delivering).await.unwrap_or_else(|_| {
                Err(Failure::request_timed_out(rule.timeouts.request.unwrap_or_default()))
            }),
            None => delivering.as_mut().await,
        }
    }
}

impl<'s> Exchange<'s> {
    /// Makes the client's answer of a backend's.
    fn finish(self, delivered: Delivered) -> Result<Response<Body>, Own<'s>> {
        let Delivered { response, picked, until } = delivered;
        let (mut head, body) = response.into_parts();
        normalize_response(&mut head).map_err(|error| {
            Own::failed(self.rule.origin.as_ref(), self.backend, Failure::bad_answer(error))
        })?;
        head.version = http::Version::HTTP_11;
        if picked.is_meshed() {
            adopt(&mut head.headers);
        } else {
            strip_signals(&mut head.headers);
        }
        self.backend.filters.response_headers.apply(&mut head.headers);
        self.rule.filters.response_headers.apply(&mut head.headers);
        if let Some(cors) = &self.rule.filters.cors {
            cors.finish(self.origin, &mut head.headers);
        }
        let session =
            self.sessions.settle(self.target, picked.pod_uid(), SystemTime::now(), &mut head.headers);

        let way = (self.service, self.rule, self.backend, self.target);
        let mut response = Response::from_parts(head, body);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if self.wishes.upgrade.is_none() {
                return Err(Own::failed(self.rule.origin.as_ref(), self.backend, Failure::unasked_upgrade()));
            }
            let busy = picked.again();
            drop(self.call.counting(way, picked, session, &response));
            upgrade::hold(&mut response, busy);
            return Ok(response);
        }
        let count = self.call.counting(way, picked, session, &response);
        let until = self.deadline.into_iter().chain(until).min();
        Ok(response.map(|body| match until {
            Some(until) => body.guarded_until(Box::pin(sleep_until(until)), count),
            None => body.guarded(count),
        }))
    }
}

/// The table in force, if it is another than `seen` by now.
pub(super) fn newer(handle: &ServiceHandle, seen: &Arc<Service>) -> Option<Arc<Service>> {
    let newest = handle.load();
    (!Arc::ptr_eq(&newest, seen)).then(|| Arc::clone(&newest))
}

/// One path to match, to edit and to forward.
fn canonicalize(head: &mut Parts) -> Result<(), PathError> {
    match path::of_request(&head.method, &head.uri)? {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(path) => filter::set_path(&mut head.uri, &path).map_err(|_| PathError::NoPath),
    }
}

fn find<'s>(service: &'s Service, head: &Parts, received: Option<&HeaderMap>) -> Option<(&'s Rule, Matched)> {
    service.find(&RequestView {
        method: head.method.as_str(),
        path: head.uri.path(),
        query: head.uri.query(),
        // In normal form it is in `Host`.
        authority: None,
        headers: &head.headers,
        received,
    })
}
