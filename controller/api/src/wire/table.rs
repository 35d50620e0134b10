//! Route tables on the wire: the table and its rules, matches first, then what a matched request gets.

use gamut_route::{
    RouteTable,
    table::{HttpRules, Match, NamedMatch, PathMatch, RankedMatch, Rule, RuleOrigin, TlsRule, ValueMatch},
};

use super::error::{WireError, each, enumerated, list, narrow, optional, parsed, required, wide};
use crate::proto;

impl From<&RouteTable> for proto::RouteTable {
    fn from(table: &RouteTable) -> Self {
        Self {
            parent: table.parent.to_string(),
            protocol: proto::AppProtocol::from(table.protocol).into(),
            http: Some((&table.http).into()),
            tls: list(&table.tls),
            tcp: Some((&table.tcp).into()),
        }
    }
}

impl TryFrom<proto::RouteTable> for RouteTable {
    type Error = WireError;

    fn try_from(table: proto::RouteTable) -> Result<Self, WireError> {
        Ok(Self {
            parent: parsed("parent", &table.parent)?,
            protocol: enumerated::<proto::AppProtocol, _>("protocol", table.protocol)?,
            http: required("http", table.http)?,
            tls: each("tls", table.tls)?,
            tcp: required("tcp", table.tcp)?,
        })
    }
}

impl From<&HttpRules> for proto::HttpRules {
    fn from(http: &HttpRules) -> Self {
        Self { rules: list(&http.rules), matches: list(&http.matches) }
    }
}

impl TryFrom<proto::HttpRules> for HttpRules {
    type Error = WireError;

    fn try_from(http: proto::HttpRules) -> Result<Self, WireError> {
        let rules: Vec<Rule> = each("rules", http.rules)?;
        let matches: Vec<RankedMatch> = each("matches", http.matches)?;
        if let Some(stray) = matches.iter().position(|ranked| ranked.rule >= rules.len()) {
            let reason = format_args!("leads to a rule beyond the {} that there are", rules.len());
            return Err(WireError::invalid(format!("matches[{stray}].rule"), reason));
        }
        Ok(Self { rules, matches })
    }
}

impl From<&RankedMatch> for proto::RankedMatch {
    fn from(ranked: &RankedMatch) -> Self {
        Self { when: Some((&ranked.when).into()), rule: wide(ranked.rule) }
    }
}

impl TryFrom<proto::RankedMatch> for RankedMatch {
    type Error = WireError;

    fn try_from(ranked: proto::RankedMatch) -> Result<Self, WireError> {
        Ok(Self { when: required("when", ranked.when)?, rule: narrow("rule", ranked.rule)? })
    }
}

impl From<&Match> for proto::Match {
    fn from(when: &Match) -> Self {
        use proto::condition::Condition as Wire;
        let method = when.method.iter().map(|method| Wire::Method(method.clone()));
        let headers = when.headers.iter().map(|header| Wire::Header(header.into()));
        let query = when.query.iter().map(|parameter| Wire::Query(parameter.into()));
        let conditions = method.chain(headers).chain(query);
        Self {
            path: Some((&when.path).into()),
            conditions: conditions.map(|condition| proto::Condition { condition: Some(condition) }).collect(),
        }
    }
}

impl TryFrom<proto::Match> for Match {
    type Error = WireError;

    fn try_from(when: proto::Match) -> Result<Self, WireError> {
        let mut opened = Self { path: required("path", when.path)?, ..Self::default() };
        for condition in each("conditions", when.conditions)? {
            match condition {
                Condition::Method(_) if opened.method.is_some() => {
                    return Err(WireError::invalid("conditions", "name the method twice"));
                }
                Condition::Method(method) => opened.method = Some(method),
                Condition::Header(header) => opened.headers.push(header),
                Condition::Query(parameter) => opened.query.push(parameter),
            }
        }
        Ok(opened)
    }
}

/// One entry of the repeated field.
enum Condition {
    Method(String),
    Header(NamedMatch),
    Query(NamedMatch),
}

impl TryFrom<proto::Condition> for Condition {
    type Error = WireError;

    fn try_from(condition: proto::Condition) -> Result<Self, WireError> {
        use proto::condition::Condition as Wire;
        Ok(match condition.condition.ok_or_else(|| WireError::missing("condition"))? {
            Wire::Method(method) => Self::Method(method),
            Wire::Header(header) => Self::Header(required("header", Some(header))?),
            Wire::Query(parameter) => Self::Query(required("query", Some(parameter))?),
        })
    }
}

impl From<&PathMatch> for proto::PathMatch {
    fn from(path: &PathMatch) -> Self {
        use proto::path_match::Path as Wire;
        let path = match path {
            PathMatch::Exact(path) => Wire::Exact(path.clone()),
            PathMatch::Prefix(prefix) => Wire::Prefix(prefix.clone()),
            PathMatch::Regex(pattern) => Wire::Regex(pattern.clone()),
        };
        Self { path: Some(path) }
    }
}

impl TryFrom<proto::PathMatch> for PathMatch {
    type Error = WireError;

    fn try_from(path: proto::PathMatch) -> Result<Self, WireError> {
        use proto::path_match::Path as Wire;
        Ok(match path.path.ok_or_else(|| WireError::missing("path"))? {
            Wire::Exact(path) => Self::Exact(path),
            Wire::Prefix(prefix) => Self::Prefix(prefix),
            Wire::Regex(pattern) => Self::Regex(pattern),
        })
    }
}

impl From<&NamedMatch> for proto::NamedMatch {
    fn from(named: &NamedMatch) -> Self {
        use proto::named_match::Value as Wire;
        let value = match &named.value {
            ValueMatch::Exact(value) => Wire::Exact(value.clone()),
            ValueMatch::Regex(pattern) => Wire::Regex(pattern.clone()),
        };
        Self { name: named.name.clone(), value: Some(value) }
    }
}

impl TryFrom<proto::NamedMatch> for NamedMatch {
    type Error = WireError;

    fn try_from(named: proto::NamedMatch) -> Result<Self, WireError> {
        use proto::named_match::Value as Wire;
        let value = match named.value.ok_or_else(|| WireError::missing("value"))? {
            Wire::Exact(value) => ValueMatch::Exact(value),
            Wire::Regex(pattern) => ValueMatch::Regex(pattern),
        };
        Ok(Self { name: named.name, value })
    }
}

impl From<&Rule> for proto::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            origin: rule.origin.as_ref().map(Into::into),
            filters: list(&rule.filters),
            outcome: Some((&rule.outcome).into()),
            timeouts: Some((&rule.timeouts).into()),
            retry: rule.retry.as_ref().map(Into::into),
            session: rule.session.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<proto::Rule> for Rule {
    type Error = WireError;

    fn try_from(rule: proto::Rule) -> Result<Self, WireError> {
        Ok(Self {
            origin: optional("origin", rule.origin)?,
            filters: each("filters", rule.filters)?,
            outcome: required("outcome", rule.outcome)?,
            timeouts: required("timeouts", rule.timeouts)?,
            retry: optional("retry", rule.retry)?,
            session: optional("session", rule.session)?,
        })
    }
}

impl From<&RuleOrigin> for proto::RuleOrigin {
    fn from(origin: &RuleOrigin) -> Self {
        Self { route: origin.route.to_string(), name: origin.name.clone(), index: wide(origin.index) }
    }
}

impl TryFrom<proto::RuleOrigin> for RuleOrigin {
    type Error = WireError;

    fn try_from(origin: proto::RuleOrigin) -> Result<Self, WireError> {
        Ok(Self {
            route: parsed("route", &origin.route)?,
            name: origin.name,
            index: narrow("index", origin.index)?,
        })
    }
}

impl From<&TlsRule> for proto::TlsRule {
    fn from(rule: &TlsRule) -> Self {
        Self {
            origin: Some((&rule.origin).into()),
            hostnames: rule.hostnames.clone(),
            split: Some((&rule.split).into()),
        }
    }
}

impl TryFrom<proto::TlsRule> for TlsRule {
    type Error = WireError;

    fn try_from(rule: proto::TlsRule) -> Result<Self, WireError> {
        Ok(Self {
            origin: required("origin", rule.origin)?,
            hostnames: rule.hostnames,
            split: required("split", rule.split)?,
        })
    }
}
