//! The sessions that requests of a rule meet, as tables have them: whatever way they were set.

use std::{fmt, time::Duration};

use gamut_controller::compile::{CompiledRoute, CompiledRule, CompiledRules};
use gamut_route::table::{self, BackendTarget, Carrier, Outcome};
use jiff::SignedDuration;
use serde::Serialize;

/// A session in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Session {
    /// What comes first. `route`: the session wins over the weights; `backend`: the split, and then the session pins the pod.
    pub(crate) scope: &'static str,
    /// With scope `backend`, whose it is: `service/shop/web-v1:80`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    /// `Cookie` or `Header`.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// The cookie's or header's, generated ones included.
    pub(crate) name: String,
    /// A cookie's: `Permanent`, or `Session`, which ends with the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lifetime: Option<&'static str>,
    /// How long it lasts at most, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) absolute_timeout: Option<u64>,
}

/// Those of a route's rule, by the rule's place in the manifest. None where the rule isn't in force.
pub(super) fn of_rule(route: &CompiledRoute, index: usize) -> Vec<Session> {
    let CompiledRules::Requests(rules) = &route.rules else { return Vec::new() };
    let is = |rule: &&CompiledRule| rule.rule.origin.as_ref().is_some_and(|origin| origin.index == index);
    let Some(CompiledRule { rule, .. }) = rules.iter().find(is) else { return Vec::new() };
    let backends = match &rule.outcome {
        Outcome::Forward(split) => split.backends.as_slice(),
        Outcome::Fail(_) => &[],
    };
    let own = rule.session.iter().map(|session| Session::new(session, None));
    let of_backends = backends.iter().filter_map(|backend| match &backend.target {
        BackendTarget::Endpoints { id, .. } => {
            Some(Session::new(backend.session.as_ref()?, Some(id.to_string())))
        }
        BackendTarget::Invalid(_) => None,
    });
    own.chain(of_backends).collect()
}

impl Session {
    fn new(session: &table::Session, backend: Option<String>) -> Self {
        let (kind, name, lifetime) = match &session.carrier {
            Carrier::Cookie { name, permanent: true, .. } => ("Cookie", name, Some("Permanent")),
            Carrier::Cookie { name, .. } => ("Cookie", name, Some("Session")),
            Carrier::Header { name } => ("Header", name, None),
        };
        Self {
            scope: if backend.is_some() { "backend" } else { "route" },
            backend,
            kind,
            name: name.clone(),
            lifetime,
            absolute_timeout: session.absolute_timeout.as_ref().map(Duration::as_secs),
        }
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permanent = if self.lifetime == Some("Permanent") { "permanent " } else { "" };
        write!(f, "session in {permanent}{} {}", self.kind.to_ascii_lowercase(), self.name)?;
        if let Some(seconds) = self.absolute_timeout.and_then(|seconds| i64::try_from(seconds).ok()) {
            write!(f, " for {:#}", SignedDuration::from_secs(seconds))?;
        }
        match &self.backend {
            None => write!(f, ", route scope"),
            Some(backend) => write!(f, ", scope of backend {backend}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_said_with_its_carrier_its_time_and_its_scope() {
        let cookie = |permanent| Carrier::Cookie { name: "who".to_owned(), path: "/".to_owned(), permanent };
        let said = |carrier, absolute_timeout, backend: Option<&str>| {
            let session = table::Session { scope: "s".to_owned(), carrier, absolute_timeout };
            Session::new(&session, backend.map(str::to_owned)).to_string()
        };
        let day = Some(Duration::from_secs(24 * 60 * 60));
        assert_eq!(said(cookie(true), day, None), "session in permanent cookie who for 24h, route scope");
        assert_eq!(said(cookie(false), None, None), "session in cookie who, route scope");
        assert_eq!(
            said(Carrier::Header { name: "x-who".to_owned() }, None, Some("xbackend/shop/desk")),
            "session in header x-who, scope of backend xbackend/shop/desk"
        );
    }
}
