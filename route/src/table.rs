//! The table: everything that a sidecar needs to know about traffic addressed to one Service and port by clients of one
//! namespace. Compiled by the controller, carried by `controller/api`, obeyed by the proxy.
//!
//! Plain data: what can be wrong in a manifest has become a condition, or an [`Outcome::Fail`], before it gets here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    authority,
    filter::Filter,
    name::{BackendId, RouteRef, ServicePort, Uid},
};

/// The rules for one client namespace, Service and port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteTable {
    /// The Service and port that clients address.
    pub parent: ServicePort,
    /// What the bytes are, as far as the Service's `appProtocol` and the kinds of the attached routes say.
    pub protocol: AppProtocol,
    /// What happens to HTTP requests. Without routes: one rule that matches everything and goes to the parent itself.
    pub http: HttpRules,
    /// What happens to TLS that the application speaks itself, by SNI (TLSRoute). The first match wins.
    pub tls: Vec<TlsRule>,
    /// What happens to all other bytes (TCPRoute, or the parent itself).
    pub tcp: Split,
}

/// What the bytes of a connection are. `appProtocol` values: GEP-1911 and the field's habit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppProtocol {
    /// Nothing says so: look at the first bytes.
    #[default]
    Detect,
    /// HTTP, version 1 or 2 by its first bytes; never opaque. (`http`, `kubernetes.io/ws`.)
    Http,
    /// HTTP/2 with prior knowledge. (`kubernetes.io/h2c`, `grpc`, or a GRPCRoute on the port.)
    Http2,
    /// The application's own TLS. (`https`, `tls`, `kubernetes.io/wss`.)
    Tls,
    /// Bytes. (`tcp`, well-known server-speaks-first ports, opaque-ports annotation.)
    Opaque,
}

/// Ports of protocols in which the server speaks first: waiting for the client's first bytes there would only
/// cost time. FTP, SSH, Telnet, SMTP, POP3, NNTP, IMAP, SMTP submission, MySQL, NATS, Galera's three, VNC.
///
/// Where the client speaks first, as with PostgreSQL, Redis, MongoDB or Kafka, the first bytes are seen to be
/// no HTTP at once, so those ports aren't listed.
const SERVER_SPEAKS_FIRST: [u16; 14] =
    [21, 22, 23, 25, 110, 119, 143, 587, 3306, 4222, 4444, 4567, 4568, 5900];

impl AppProtocol {
    /// What a port is taken for whose owner says nothing. The controller attaches routes by it, and sidecars
    /// look at bytes by it.
    pub fn assumed(port: u16) -> Self {
        if SERVER_SPEAKS_FIRST.contains(&port) { Self::Opaque } else { Self::Detect }
    }
}

/// HTTP rules and, in order of precedence, what selects them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HttpRules {
    /// Every rule once, in no particular order.
    pub rules: Vec<Rule>,
    /// Every match of every rule, the one that wins first (see [`crate::precedence`]).
    pub matches: Vec<RankedMatch>,
}

/// A match and the rule it selects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankedMatch {
    /// What a request must be like.
    pub when: Match,
    /// Index into [`HttpRules::rules`].
    pub rule: usize,
}

/// All of these must hold. The default matches every request (path prefix `/`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// The canonical path (see [`crate::path`]).
    pub path: PathMatch,
    /// The method, exactly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header tests; names in lower case. Only the first entry of each name counts (the specification's rule).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<NamedMatch>,
    /// Query parameter tests; names exactly. Only the first entry of each name counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<NamedMatch>,
}

/// A test of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PathMatch {
    /// Equal, letter for letter.
    Exact(String),
    /// Equal or below, element by element: `/a` matches `/a` and `/a/b`, not `/ab`. Trailing slashes don't count.
    Prefix(String),
    /// The whole path matches this regular expression (GEP-4359; syntax of the `regex` crate, linear time).
    Regex(String),
}

/// A test of a header's or query parameter's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamedMatch {
    /// The header's name in lower case, or the parameter's name.
    pub name: String,
    /// The test.
    pub value: ValueMatch,
}

/// A test of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ValueMatch {
    /// Equal, letter for letter.
    Exact(String),
    /// The whole value matches this regular expression.
    Regex(String),
}

/// One rule of one route: what is done with a request that it won.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Where the rule comes from; `None` for the rule that stands in where a Service has no routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RuleOrigin>,
    /// Filters in the order of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What becomes of the request after the filters. Ignored where a filter answers (a redirect).
    pub outcome: Outcome,
    /// Time limits.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What is tried again; `None` means only what was provably not processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Route-scope session: it wins over the weights of `outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

impl Rule {
    /// A rule of no route that forwards, and does nothing else.
    pub fn forward(split: Split) -> Self {
        Self {
            origin: None,
            filters: Vec::new(),
            outcome: Outcome::Forward(split),
            timeouts: Timeouts::default(),
            retry: None,
            session: None,
        }
    }
}

/// Names a rule in metrics, logs and `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuleOrigin {
    /// The route object.
    pub route: RouteRef,
    /// The rule's `name`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its index in the route, from 0.
    pub index: usize,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// It goes to one of these.
    Forward(Split),
    /// The proxy answers 500 and says why: no backends and nothing that answers, or a filter that can't be carried out.
    Fail(String),
}

/// Backends and weights. An empty split, or one whose weights are all zero, answers 500.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The backends in the order of the manifest, those of weight 0 included (a session may still lead there).
    pub backends: Vec<Backend>,
}

/// One backend of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Where it leads.
    pub target: BackendTarget,
    /// Its share: `weight / sum of weights`. 0 to 1,000,000.
    pub weight: u32,
    /// Filters of the backendRef, after those of the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Backend-scope session: the split first, then this pins the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

impl Backend {
    /// Whose endpoints it leads to; `None` where it leads nowhere.
    pub fn endpoints(&self) -> Option<&BackendId> {
        match &self.target {
            BackendTarget::Endpoints { id, .. } => Some(id),
            BackendTarget::Invalid(_) => None,
        }
    }
}

/// Where a backend leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendTarget {
    /// To these endpoints.
    Endpoints {
        /// Whose endpoints.
        id: BackendId,
        /// The UID of the Service or XBackend: what a session token names.
        uid: Uid,
    },
    /// Nowhere: the backendRef is invalid. Its share of requests is answered 500 with this reason.
    Invalid(String),
}

/// Time limits; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// From the request's head to the end of the answer, all attempts included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// The same for one attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// A `retry` stanza.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Status codes that are tried again. Connection errors are too, where that is safe.
    pub codes: Vec<u16>,
    /// How often beyond the first try. 0 turns retries off.
    pub attempts: u32,
    /// The base interval of an exponential backoff with jitter.
    pub backoff: Duration,
}

/// How a client is kept where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What tokens are bound to: survives edits that don't change the rule's meaning. `route/<uid>/<rule>` or `backend/<uid>`.
    pub scope: String,
    /// How the token travels.
    pub carrier: Carrier,
    /// How long after it was issued a token is good; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
}

/// How a session token travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Carrier {
    /// In a cookie.
    Cookie {
        /// The cookie's name.
        name: String,
        /// Its `Path` attribute.
        path: String,
        /// True: `Max-Age` and `Expires` equal the absolute timeout. False: the cookie ends with the client.
        permanent: bool,
    },
    /// In a header of request and response (gRPC: metadata).
    Header {
        /// The header's name in lower case.
        name: String,
    },
}

/// A TLSRoute's rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsRule {
    /// Where the rule comes from.
    pub origin: RuleOrigin,
    /// Exact names, or `*.` and a suffix; empty matches every name.
    pub hostnames: Vec<String>,
    /// Where the connection goes.
    pub split: Split,
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

impl RouteTable {
    /// The endpoint sets that this table names, those of weight 0 and of mirrors included: it may be used only when all
    /// of them have arrived (make before break).
    pub fn backends(&self) -> Vec<&BackendId> {
        let mut ids: Vec<&BackendId> = self
            .splits()
            .flat_map(|split| &split.backends)
            .filter_map(Backend::endpoints)
            .chain(self.filters().filter_map(|filter| match filter {
                Filter::Mirror(mirror) => Some(&mirror.backend),
                _ => None,
            }))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The backends that new requests and connections may be sent to: those of splits that have a weight.
    pub fn destinations(&self) -> Vec<&BackendId> {
        let weighted = self.splits().flat_map(|split| &split.backends).filter(|backend| backend.weight > 0);
        let mut ids: Vec<&BackendId> = weighted.filter_map(Backend::endpoints).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The session scopes that this table names: the proxy needs their keys before it uses the table.
    pub fn scopes(&self) -> Vec<&str> {
        let of_rules = self.http.rules.iter().filter_map(|rule| rule.session.as_ref());
        let of_backends = self.splits().flat_map(|split| &split.backends).filter_map(|b| b.session.as_ref());
        let mut scopes: Vec<&str> =
            of_rules.chain(of_backends).map(|session| session.scope.as_str()).collect();
        scopes.sort_unstable();
        scopes.dedup();
        scopes
    }

    /// The rule of a connection of the application's own TLS, by the name that the client calls (SNI): the first that is
    /// for it, as an index into `tls`.
    pub fn tls_rule(&self, server_name: Option<&str>) -> Option<usize> {
        let is_for = |rule: &TlsRule| {
            rule.hostnames.is_empty()
                || server_name
                    .is_some_and(|name| rule.hostnames.iter().any(|hostname| covers(hostname, name)))
        };
        self.tls.iter().position(is_for)
    }

    fn splits(&self) -> impl Iterator<Item = &Split> {
        let of_http = self.http.rules.iter().filter_map(|rule| match &rule.outcome {
            Outcome::Forward(split) => Some(split),
            Outcome::Fail(_) => None,
        });
        of_http.chain(self.tls.iter().map(|rule| &rule.split)).chain([&self.tcp])
    }

    fn filters(&self) -> impl Iterator<Item = &Filter> {
        let of_rules = self.http.rules.iter().flat_map(|rule| &rule.filters);
        of_rules.chain(self.splits().flat_map(|split| &split.backends).flat_map(|backend| &backend.filters))
    }
}

/// Whether a TLSRoute's hostname covers a name: exactly, or `*.` any number of labels (`Hostname`).
fn covers(hostname: &str, name: &str) -> bool {
    let (name, _) = authority::split(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    match hostname.strip_prefix('*') {
        Some(suffix) => {
            let at = name.len().saturating_sub(suffix.len());
            at > 0 && name.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        None => hostname.eq_ignore_ascii_case(name),
    }
}
