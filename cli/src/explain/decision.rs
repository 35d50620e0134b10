//! The decision: what a table does with a request, step by step, and why every other match lost.

use gamut_proxy::http::{Reason, answer::is_grpc};
use gamut_route::{
    RouteKind, RouteTable,
    decide::{Asked, Decider, Does, Fate, Forwarded, Owner},
    filter::Filter,
    matcher::{Unmet, Verdict},
    table::{AppProtocol, Backend, BackendTarget, Match, Rule, Split},
};
use http::Method;
use serde::Serialize;

use super::words::{behind, changes, filter_in_words, in_words, limits, rule_name};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Decision {
    /// In one line.
    pub(super) outcome: String,
    /// The status that the sidecar itself answers with; none where an app answers, or where the answer is a gRPC status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// The gRPC status that the sidecar itself answers with, to those who call so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grpc_status: Option<u16>,
    /// The headers of an answer that the rule itself gives: a redirect's, a preflight's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) answer: Vec<String>,
    /// Where it may go.
    pub(super) backends: Vec<Candidate>,
    /// Time limits and retries, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) limits: Vec<String>,
    /// Every match of the table in order of precedence.
    pub(super) matches: Vec<Considered>,
}

/// A backend, and what filters make of the request on the way there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Candidate {
    /// `service/NAMESPACE/NAME:PORT`, or what its share is answered.
    pub(super) backend: String,
    /// Its share, in percent.
    pub(super) share: f64,
    /// Why nobody is there who answers, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nobody: Option<String>,
    /// The filters that edit the request or its answer, in the order in which they do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) filters: Vec<Applied>,
    /// What of the request arrives changed, and who gets copies, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changes: Vec<String>,
}

/// A filter that applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Applied {
    /// `request` or `answer`.
    pub(super) to: &'static str,
    /// `rule` or `backend`.
    pub(super) of: &'static str,
    /// What it does, in words.
    pub(super) does: String,
}

/// A match, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Considered {
    /// The rule that it belongs to.
    pub(super) rule: String,
    /// The match in words.
    pub(super) when: String,
    /// `won`, `outranked`, or what isn't met.
    pub(super) verdict: String,
}

/// Asks the table. The rule is the one that forwards the request, if one does; `itself` is what the Service is called
/// where no route's rule does.
pub(super) fn decide<'t>(
    table: &'t RouteTable,
    asked: &Asked<'_>,
    itself: &str,
) -> anyhow::Result<(Decision, Option<&'t Rule>)> {
    let decider = Decider::new(table)?;
    let fate = decider.decide(asked)?;
    let mut answer = Decision {
        outcome: String::new(),
        status: None,
        grpc_status: None,
        answer: Vec::new(),
        backends: Vec::new(),
        limits: Vec::new(),
        matches: considered(table, &decider, &fate, asked, itself),
    };
    if let Some(outcome) = as_bytes(table) {
        answer.outcome = outcome;
        answer.matches = Vec::new();
        answer.backends = shares(&table.tcp, asked);
        return Ok((answer, None));
    }
    if asked.method == Method::CONNECT {
        own(
            &mut answer,
            asked,
            Reason::Connect,
            ", because CONNECT asks for a tunnel past routes and policy",
        );
        answer.matches = Vec::new();
        return Ok((answer, None));
    }
    match &fate {
        Fate::Refused(error) => own(&mut answer, asked, Reason::BadRequest, &format!(", because {error}")),
        Fate::NoRule => own(&mut answer, asked, Reason::NoRoute, ", because no rule matches"),
        Fate::Ruled { rule, does, .. } => rules(&mut answer, rule, does, asked, itself),
    }
    let rule = match fate {
        Fate::Ruled { rule, does: Does::Forwards(_), .. } => Some(rule),
        _ => None,
    };
    Ok((answer, rule))
}

/// An answer of the sidecar's own, in the form that the caller wants it in.
fn own(answer: &mut Decision, asked: &Asked<'_>, reason: Reason, why: &str) {
    match is_grpc(asked.headers) {
        true => answer.grpc_status = Some(reason.grpc_status()),
        false => answer.status = Some(reason.status().as_u16()),
    }
    answer.outcome = format!("{}{why}", status_of(reason, asked));
}

/// The status as callers see it.
fn status_of(reason: Reason, asked: &Asked<'_>) -> String {
    match is_grpc(asked.headers) {
        true => format!("gRPC status {}", reason.grpc_status()),
        false => reason.status().as_u16().to_string(),
    }
}

/// Says what a rule does with the request.
fn rules(answer: &mut Decision, rule: &Rule, does: &Does<'_>, asked: &Asked<'_>, itself: &str) {
    let name = rule_name(rule, itself);
    match does {
        Does::Answers(status, headers) => {
            let what = if asked.method == Method::OPTIONS { "a CORS preflight" } else { "a redirect" };
            answer.status = Some(status.as_u16());
            answer.outcome = format!("{} by {name}: {what}", status.as_u16());
            let line = |(name, value): (_, &http::HeaderValue)| {
                format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
            };
            answer.answer = headers.iter().map(line).collect();
        }
        Does::NoHost => {
            let why = format!(" by {name}: the redirect has no host to lead to");
            own(answer, asked, Reason::BadRequest, &why);
        }
        Does::Fails(why) => own(answer, asked, Reason::InvalidRule, &format!(" by {name}: {why}")),
        Does::Forwards(to) if to.iter().all(|to| to.share.0 == 0) && rule.session.is_none() => {
            own(answer, asked, Reason::NoBackend, &format!(" by {name}: no backend has a weight"));
        }
        Does::Forwards(to) => {
            let session = if rule.session.is_some() { ", unless a session leads elsewhere" } else { "" };
            answer.outcome = format!("forwarded by {name}{session}");
            answer.backends = to.iter().map(|to| candidate(to, asked)).collect();
            answer.limits = limits(rule);
        }
    }
}

fn candidate(to: &Forwarded<'_>, asked: &Asked<'_>) -> Candidate {
    let (weight, total) = to.share;
    Candidate {
        backend: target(&to.backend.target, asked),
        share: percent(weight, total),
        nobody: None,
        filters: applied(to),
        changes: changes(asked, to),
    }
}

fn applied(to: &Forwarded<'_>) -> Vec<Applied> {
    let named = |what: &'static str| {
        move |(owner, filter): (Owner, &Filter)| {
            let of = match owner {
                Owner::Rule => "rule",
                Owner::Backend => "backend",
            };
            Applied { to: what, of, does: filter_in_words(filter) }
        }
    };
    to.on_request().map(named("request")).chain(to.on_answer().map(named("answer"))).collect()
}

/// What becomes of a port that doesn't carry requests.
fn as_bytes(table: &RouteTable) -> Option<String> {
    match table.protocol {
        AppProtocol::Opaque => {
            Some("the port carries bytes: no request is looked at, connections are led on".to_owned())
        }
        AppProtocol::Tls => Some(
            "the port carries the application's own TLS: connections are led on by the name they call"
                .to_owned(),
        ),
        AppProtocol::Detect | AppProtocol::Http | AppProtocol::Http2 => None,
    }
}

fn shares(split: &Split, asked: &Asked<'_>) -> Vec<Candidate> {
    let total = split.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let candidate = |backend: &Backend| Candidate {
        backend: target(&backend.target, asked),
        share: percent(backend.weight, total),
        nobody: None,
        filters: Vec::new(),
        changes: Vec::new(),
    };
    split.backends.iter().map(candidate).collect()
}

fn target(target: &BackendTarget, asked: &Asked<'_>) -> String {
    match target {
        BackendTarget::Endpoints { id, .. } => id.to_string(),
        BackendTarget::Invalid(reason) => {
            format!("{}, because {reason}", status_of(Reason::InvalidBackend, asked))
        }
    }
}

/// With one decimal.
fn percent(weight: u32, total: u64) -> f64 {
    if total == 0 { 0.0 } else { (f64::from(weight) * 1000.0 / total as f64).round() / 10.0 }
}

/// Every match, and why it lost.
fn considered(
    table: &RouteTable,
    decider: &Decider<'_>,
    fate: &Fate<'_>,
    asked: &Asked<'_>,
    itself: &str,
) -> Vec<Considered> {
    let (winner, route) = match fate {
        Fate::Ruled { matched, rule, .. } => {
            let when = table.http.matches.get(matched.rank).map(|ranked| &ranked.when);
            (when, rule.origin.as_ref().map(|origin| &origin.route))
        }
        Fate::Refused(_) | Fate::NoRule => (None, None),
    };
    let considered = table.http.matches.iter().zip(decider.verdicts(asked)).map(|(ranked, verdict)| {
        let rule = table.http.rules.get(ranked.rule);
        let origin = rule.and_then(|rule| rule.origin.as_ref());
        let rank = Rank {
            when: winner,
            is_grpc: origin.is_some_and(|origin| origin.route.kind == RouteKind::Grpc),
            is_of_winner: origin.is_some_and(|origin| Some(&origin.route) == route),
            is_itself: origin.is_none(),
        };
        Considered {
            rule: rule.map_or_else(String::new, |rule| rule_name(rule, itself)),
            when: in_words(&ranked.when),
            verdict: in_verdict(&verdict, &rank, &ranked.when, asked),
        }
    });
    considered.collect()
}

/// What a match is compared with.
struct Rank<'t> {
    /// The match that won.
    when: Option<&'t Match>,
    /// Whether the match is a GRPCRoute's, whose criteria aren't those of the table's paths.
    is_grpc: bool,
    /// Whether it is of the route that won.
    is_of_winner: bool,
    /// Whether it is of no route, but what the Service does without one.
    is_itself: bool,
}

fn in_verdict(verdict: &Verdict<'_>, rank: &Rank<'_>, when: &Match, asked: &Asked<'_>) -> String {
    match verdict {
        Verdict::Won => "won".to_owned(),
        Verdict::Outranked if rank.is_itself => {
            "outranked: the Service itself takes what no rule of a route does".to_owned()
        }
        Verdict::Outranked => match rank.when.filter(|_| !rank.is_grpc) {
            Some(winner) => format!("outranked: {}", behind(winner, when)),
            None if rank.is_of_winner => {
                "outranked: less specific, or a rule behind it in the route".to_owned()
            }
            None => "outranked: less specific, or a younger route".to_owned(),
        },
        Verdict::Unmet(Unmet::Path) => "another path".to_owned(),
        Verdict::Unmet(Unmet::Method) => format!("another method than {}", asked.method),
        Verdict::Unmet(Unmet::Header(name)) => match asked.headers.get(*name) {
            Some(value) => format!("header {name} is {}", String::from_utf8_lossy(value.as_bytes())),
            None if *name == "host" => format!("header host is {}", asked.host),
            None => format!("no header {name}"),
        },
        Verdict::Unmet(Unmet::Query(name)) => format!("query parameter {name} isn't so"),
    }
}
