//! A route table made ready: whatever can be looked up, parsed or registered once is, so that a request only
//! reads.
//!
//! A [`Service`] never changes. A new table makes a new one, which takes over clusters (endpoints, their
//! connections and latencies) and counters from [`Parts`]; requests under way finish with the one that they
//! began with.

use std::{fmt, sync::Arc};

use gamut_route::{
    RouteTable, ServicePort, Uid,
    filter::{Compiled, mirror::Sampler},
    matcher::{Matched, Matcher, RequestView},
    session::Affinity,
    split::WeightedSplit,
    table::{self, AppProtocol, BackendTarget, Outcome, Retry, RuleOrigin, Session, Timeouts},
};

use crate::{
    balance::Cluster,
    tables::{Parts, Refusal},
    telemetry::{BackendCounters, SessionCounters},
};

/// The rules for one Service and port, ready.
pub struct Service {
    table: Arc<RouteTable>,
    matcher: Matcher,
    rules: Box<[Rule]>,
    tls: Box<[Forward]>,
    tcp: Forward,
    unmatched: Arc<BackendCounters>,
}

/// A rule, ready.
pub struct Rule {
    /// Where it comes from; `None` for the rule that stands in where a Service has no routes.
    pub origin: Option<RuleOrigin>,
    /// Its filters.
    pub filters: Compiled,
    /// Who gets copies of its requests.
    pub mirrors: Box<[Mirror]>,
    /// Its backends, or why its requests are answered 500.
    pub forward: Result<Forward, String>,
    /// Its time limits.
    pub timeouts: Timeouts,
    /// Its `retry` stanza.
    pub retry: Option<Retry>,
    /// Its route-scope session.
    pub session: Option<Sticky>,
    /// Counts what it answers without a backend.
    pub counters: Arc<BackendCounters>,
}

/// A split, ready.
pub struct Forward {
    split: WeightedSplit,
    /// In the table's order.
    pub backends: Box<[Backend]>,
}

/// A backend, ready.
pub struct Backend {
    /// Where it leads, or why its share is answered 500.
    pub target: Result<Target, String>,
    /// Its filters, after the rule's.
    pub filters: Compiled,
    /// Who gets copies of its requests.
    pub mirrors: Box<[Mirror]>,
    /// Its backend-scope session.
    pub session: Option<Sticky>,
    /// Counts its requests.
    pub counters: Arc<BackendCounters>,
}

/// Where a backend leads.
pub struct Target {
    /// Its endpoints.
    pub cluster: Arc<Cluster>,
    /// The Service's or XBackend's UID, which tokens name.
    pub uid: Uid,
}

/// Who gets a copy, and of which share.
pub struct Mirror {
    /// Draws.
    pub sampler: Sampler,
    /// One of these endpoints gets it.
    pub cluster: Arc<Cluster>,
}

/// A session, ready.
pub struct Sticky {
    /// Reads and writes its tokens.
    pub affinity: Affinity,
    /// Counts what became of them.
    pub counters: Arc<SessionCounters>,
}

impl Service {
    /// Makes a table ready.
    ///
    /// What is wrong with one rule or backend (a filter that can't be carried out) makes that answer 500, as
    /// the specification has it. What is wrong with the table itself refuses it.
    ///
    /// # Errors
    /// The table can't be used, and the one before it stays in force.
    pub fn new(table: Arc<RouteTable>, parts: &Parts<'_>) -> Result<Self, Refusal> {
        let builder = Builder { parent: &table.parent, parts };
        let matcher = Matcher::new(&table.http)
            .map_err(|error| Refusal(format!("the rules for {} can't be matched: {error}", table.parent)))?;
        let rules = table.http.rules.iter().map(|rule| builder.rule(rule)).collect::<Result<_, _>>()?;
        let tls = table.tls.iter().map(|rule| builder.forward(Some(&rule.origin), &rule.split));
        let tls = tls.collect::<Result<_, _>>()?;
        let tcp = builder.forward(None, &table.tcp)?;
        let unmatched = parts.telemetry().route(None, &table.parent, None);
        Ok(Self { matcher, rules, tls, tcp, unmatched, table })
    }

    /// The Service and port that the app addresses.
    pub fn parent(&self) -> &ServicePort {
        &self.table.parent
    }

    /// The table that this was made of.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// What connections to the port speak, as far as is said.
    pub fn protocol(&self) -> AppProtocol {
        self.table.protocol
    }

    /// Whether a match is about headers of the connection, so that a request's are needed as they were received.
    pub fn reads_received(&self) -> bool {
        self.matcher.reads_received()
    }

    /// The rule of a request.
    pub fn find(&self, request: &RequestView<'_>) -> Option<(&Rule, Matched)> {
        let matched = self.matcher.find(request)?;
        Some((self.rules.get(matched.rule)?, matched))
    }

    /// Counts requests that no rule matches.
    pub fn unmatched(&self) -> &BackendCounters {
        &self.unmatched
    }

    /// Where a connection of the app's own TLS goes: by the first rule for its SNI, else as other bytes do.
    pub fn tls(&self, server_name: Option<&str>) -> &Forward {
        self.table.tls_rule(server_name).and_then(|index| self.tls.get(index)).unwrap_or(&self.tcp)
    }

    /// Where connections of other bytes go.
    pub fn tcp(&self) -> &Forward {
        &self.tcp
    }
}

impl Forward {
    /// The backend that 64 random bits choose. `None`: none has any weight.
    pub fn draw(&self, random: u64) -> Option<&Backend> {
        self.backends.get(self.split.draw(random)?)
    }
}

/// Why a backendRef with such filters is invalid.
const NOT_OF_A_BACKEND: &str = "RequestRedirect and CORS answer before a backend is chosen: \
     they can't be filters of a backendRef";

/// What all parts of a table are made with.
struct Builder<'a> {
    parent: &'a ServicePort,
    parts: &'a Parts<'a>,
}

impl Builder<'_> {
    fn rule(&self, rule: &table::Rule) -> Result<Rule, Refusal> {
        let origin = rule.origin.as_ref();
        let compiled = Compiled::new(&rule.filters);
        let forward = match (&compiled, &rule.outcome) {
            (Err(error), _) => Err(error.to_string()),
            (_, Outcome::Fail(reason)) => Err(reason.clone()),
            (_, Outcome::Forward(split)) => Ok(self.forward(origin, split)?),
        };
        // A rule with a filter that can't be carried out does nothing but fail: not even its other filters.
        let filters = compiled.unwrap_or_default();
        Ok(Rule {
            mirrors: self.mirrors(&filters)?,
            filters,
            forward,
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            session: self.sticky(origin, rule.session.as_ref())?,
            counters: self.parts.telemetry().route(origin, self.parent, None),
            origin: rule.origin.clone(),
        })
    }

    fn forward(&self, origin: Option<&RuleOrigin>, split: &table::Split) -> Result<Forward, Refusal> {
        let backends = split.backends.iter().map(|backend| self.backend(origin, backend));
        Ok(Forward { split: WeightedSplit::new(split), backends: backends.collect::<Result<_, _>>()? })
    }

    fn backend(&self, origin: Option<&RuleOrigin>, backend: &table::Backend) -> Result<Backend, Refusal> {
        let compiled = Compiled::new(&backend.filters);
        let (target, counters) = match &backend.target {
            BackendTarget::Invalid(reason) => {
                (Err(reason.clone()), self.parts.telemetry().route(origin, self.parent, None))
            }
            BackendTarget::Endpoints { id, uid } => {
                let target = Target { cluster: self.parts.cluster(id)?, uid: *uid };
                (Ok(target), self.parts.telemetry().backend(origin, self.parent, id))
            }
        };
        let target = match &compiled {
            Err(error) => Err(error.to_string()),
            Ok(filters) if filters.redirect.is_some() || filters.cors.is_some() => {
                Err(NOT_OF_A_BACKEND.to_owned())
            }
            Ok(_) => target,
        };
        let filters = compiled.unwrap_or_default();
        Ok(Backend {
            target,
            mirrors: self.mirrors(&filters)?,
            filters,
            session: self.sticky(origin, backend.session.as_ref())?,
            counters,
        })
    }

    fn mirrors(&self, filters: &Compiled) -> Result<Box<[Mirror]>, Refusal> {
        let mirror = |sampler: &Sampler| {
            Ok(Mirror { sampler: sampler.clone(), cluster: self.parts.cluster(sampler.backend())? })
        };
        filters.mirrors.iter().map(mirror).collect()
    }

    /// `None` without a session, and while there are no keys: the Secret can't be read, or the first is still to be made.
    /// Requests are routed as new until they come.
    fn sticky(
        &self,
        origin: Option<&RuleOrigin>,
        session: Option<&Session>,
    ) -> Result<Option<Sticky>, Refusal> {
        let Some(session) = session else { return Ok(None) };
        let keys = self.parts.session_keys(&session.scope)?;
        if keys.keys.is_empty() {
            return Ok(None);
        }
        let affinity = Affinity::new(session, &keys.keys)
            .map_err(|error| Refusal(format!("the session {} can't be had: {error}", session.scope)))?;
        let counters = self.parts.telemetry().session(origin, self.parent, &session.scope);
        Ok(Some(Sticky { affinity, counters }))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({}, {} rules)", self.table.parent, self.rules.len())
    }
}

#[cfg(test)]
mod tests;
