//! Sessions: from the shapes that settings have had (GEP-1619) to what a table holds, and where they come from.
//!
//! A rule takes the first of these that there is:
//! 1. its own `sessionPersistence`;
//! 2. the annotation `gamut.mesh/session-persistence` of its route, for it by name, else for all rules;
//! 3. an XBackendTrafficPolicy for a Service that it leads to.
//!
//! All three have route scope: the session wins over the weights. The annotation `gamut.mesh/session-scope: backend` turns them
//! round to v1.7.0's order, where the split comes first and each backend has a session of its own. An XBackend's own settings always
//! have backend scope; where both are there, the rule's session decides first.

use std::{collections::BTreeMap, time::Duration};

use aws_lc_rs::digest;
use gamut_route::{
    Uid,
    session::{Affinity, cookie::generated_name},
    table::{BackendTarget, Carrier, Match, Session},
};
use serde::Serialize;

use super::{
    backends::Resolved,
    policy,
    report::{Problem, Reason},
    rule::{RuleBackend, RuleScope},
};
use crate::gateway::{Lenient, SessionPersistence, parse_duration};

/// Session settings without an API: the v1.7.0 struct as YAML, or a list of such, each with `rule: NAME`.
pub const SESSION_ANNOTATION: &str = "gamut.mesh/session-persistence";

/// `route` (default) or `backend`.
pub const SCOPE_ANNOTATION: &str = "gamut.mesh/session-scope";

/// Settings that are complete and valid, whatever shape they had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Settings {
    /// True: a header; false: a cookie.
    header: bool,
    /// Unset: generated from the scope.
    name: Option<String>,
    path: String,
    permanent: bool,
    absolute_timeout: Option<Duration>,
}

/// What a route's annotations say about sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteSettings {
    /// For all rules that `by_rule` doesn't name.
    for_all: Option<SessionPersistence>,
    by_rule: BTreeMap<String, SessionPersistence>,
    backend_scope: bool,
}

/// Headers that can't carry a session: they mean something to every hop.
const RESERVED_HEADERS: [&str; 12] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl RouteSettings {
    /// Reads the annotations. `rules` are the names that there are.
    pub(super) fn read(annotations: &BTreeMap<String, String>, rules: &[&str]) -> Result<Self, Problem> {
        let refuse = |annotation: &str, what: String| {
            let message = format!("annotation {annotation}: {what}");
            Err(Problem { reason: Reason::UnsupportedValue, message })
        };
        let mut settings = Self::default();
        match annotations.get(SCOPE_ANNOTATION).map(String::as_str) {
            None | Some("route") => {}
            Some("backend") => settings.backend_scope = true,
            Some(other) => {
                return refuse(SCOPE_ANNOTATION, format!("{other:?} isn't known; use route or backend"));
            }
        }
        let Some(text) = annotations.get(SESSION_ANNOTATION) else { return Ok(settings) };
        let value: serde_json::Value = match serde_saphyr::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let what = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
                return refuse(
                    SESSION_ANNOTATION,
                    format!("not valid YAML: {}", what.lines().next().unwrap_or_default()),
                );
            }
        };
        let entries = match value {
            serde_json::Value::Array(entries) => entries,
            one => vec![one],
        };
        for entry in entries {
            let entry: Lenient<SessionPersistence> = Lenient::read(entry);
            if let Some(unknown) = entry.unknown.first() {
                return refuse(SESSION_ANNOTATION, format!("{unknown} isn't known; remove it"));
            }
            let entry = match entry.value {
                Ok(entry) => entry,
                Err(error) => return refuse(SESSION_ANNOTATION, error),
            };
            let taken = match &entry.rule {
                None => settings.for_all.replace(entry).is_some(),
                Some(rule) if !rules.contains(&rule.as_str()) => {
                    return refuse(
                        SESSION_ANNOTATION,
                        format!("the route has no rule named {rule:?}; correct the name"),
                    );
                }
                Some(rule) => settings.by_rule.insert(rule.clone(), entry).is_some(),
            };
            if taken {
                return refuse(
                    SESSION_ANNOTATION,
                    "has two settings for the same rules; remove one".to_owned(),
                );
            }
        }
        Ok(settings)
    }

    fn of_rule(&self, name: Option<&str>) -> Option<&SessionPersistence> {
        name.and_then(|name| self.by_rule.get(name)).or(self.for_all.as_ref())
    }
}

/// Checks settings of any shape. Problems are given relative to the settings, with notes about what is ignored.
pub(super) fn check(settings: &SessionPersistence) -> Result<(Settings, Vec<String>), Vec<String>> {
    let mut problems = Vec::new();
    let mut problem = |text: String| problems.push(text);
    let header = match settings.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => false,
        "Header" => true,
        other => {
            problem(format!("type {other:?} isn't known; use Cookie or Header"));
            false
        }
    };
    let new_name = match header {
        true => settings.header.as_ref().map(|header| &header.name),
        false => settings.cookie.as_ref().and_then(|cookie| cookie.name.as_ref()),
    };
    if header && (settings.cookie.is_some() || settings.cookie_config.is_some()) {
        problem("cookie is set, but type is Header; remove one".to_owned());
    }
    if !header && settings.header.is_some() {
        problem("header is set, but type is Cookie; remove one".to_owned());
    }
    if header && new_name.or(settings.session_name.as_ref()).is_none_or(|name| name.is_empty()) {
        problem("header.name is missing; clients must know which header to send back".to_owned());
    }
    if new_name.zip(settings.session_name.as_ref()).is_some_and(|(new, old)| new != old) {
        problem(
            "sessionName and cookie.name or header.name differ; remove sessionName, which is the older one"
                .to_owned(),
        );
    }
    let config = settings.cookie.as_ref().or(settings.cookie_config.as_ref());
    let permanent = match config.and_then(|config| config.lifetime_type.as_deref()).unwrap_or("Session") {
        "Session" => false,
        "Permanent" => true,
        other => {
            problem(format!("cookie.lifetimeType {other:?} isn't known; use Session or Permanent"));
            false
        }
    };
    let absolute_timeout =
        settings.absolute_timeout.as_deref().map(parse_duration).transpose().unwrap_or_else(|error| {
            problem(format!("absoluteTimeout: {error}"));
            None
        });
    if permanent && settings.absolute_timeout.is_none() {
        problem("absoluteTimeout is missing; a permanent cookie needs one".to_owned());
    }
    if absolute_timeout.is_some_and(|timeout| timeout < Duration::from_secs(1)) {
        problem(
            "absoluteTimeout is less than a second, which would end every session at once; use 1s or more"
                .to_owned(),
        );
    }
    let name = new_name.or(settings.session_name.as_ref()).filter(|name| !name.is_empty()).cloned();
    if header
        && name.as_ref().is_some_and(|name| RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()))
    {
        problem("header.name is a header with a meaning of its own; choose another".to_owned());
    }
    let path = config.and_then(|config| config.path.clone()).filter(|path| !path.is_empty());
    let valid =
        Settings { header, name, path: path.unwrap_or_else(|| "/".to_owned()), permanent, absolute_timeout };
    // The code that will write the cookie or header has the last word on names and paths.
    if problems.is_empty()
        && let Err(error) = Affinity::new(&valid.session("check".to_owned(), None), &[(0, [0; 32])])
    {
        problems.push(error.to_string());
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let idle = settings
        .idle_timeout
        .as_ref()
        .map(|_| "idleTimeout is ignored: it left the specification in v1.6; use absoluteTimeout".to_owned());
    Ok((valid, idle.into_iter().collect()))
}

impl Settings {
    /// The session of a scope. `suffix` tells apart the sessions of one rule's backends where the settings name one name for all.
    pub(super) fn session(&self, scope: String, suffix: Option<&str>) -> Session {
        let name = match (&self.name, suffix) {
            (None, _) => generated_name(&scope),
            (Some(name), None) => name.clone(),
            (Some(name), Some(suffix)) => format!("{name}-{suffix}"),
        };
        let carrier = match self.header {
            true => Carrier::Header { name: name.to_ascii_lowercase() },
            false => Carrier::Cookie { name, path: self.path.clone(), permanent: self.permanent },
        };
        Session { scope, carrier, absolute_timeout: self.absolute_timeout }
    }
}

/// The session of an XBackend, if it has one.
pub(super) fn of_xbackend(
    uid: Uid,
    settings: Option<&SessionPersistence>,
) -> Result<Option<Session>, Vec<String>> {
    let settings = settings.map(check).transpose()?;
    Ok(settings.map(|(settings, _)| settings.session(backend_scope(uid), None)))
}

/// What tokens of a backend's own session are bound to.
pub(super) fn backend_scope(uid: Uid) -> String {
    format!("backend/{uid}")
}

/// Gives a rule and its backends their sessions: the rule's is returned, those of backends are put into them.
pub(super) fn of_rule(
    scope: &mut RuleScope<'_, '_>,
    own: Option<&SessionPersistence>,
    route: &RouteSettings,
    matches: &[Match],
    backends: &mut [RuleBackend<'_>],
) -> Option<Session> {
    xbackend_sessions(scope, backends);
    let settings = settings_of_rule(scope, own, route, backends);
    let session = match settings {
        None => None,
        Some(settings) => {
            let rule = format!("route/{}/{}", scope.route.uid, rule_identity(scope, matches, &settings));
            match route.backend_scope {
                false => Some(settings.session(rule, None)),
                true => {
                    split_sessions(scope, &settings, &rule, backends);
                    None
                }
            }
        }
    };
    refuse_name_clashes(scope, session.as_ref(), backends);
    session
}

fn xbackend_sessions(scope: &mut RuleScope<'_, '_>, backends: &mut [RuleBackend<'_>]) {
    for (index, backend) in backends.iter_mut().enumerate() {
        let Some(Resolved::XBackend(xbackend)) = backend.resolved else { continue };
        let settings = xbackend.spec.ok().and_then(|spec| spec.session_persistence.as_ref());
        match of_xbackend(xbackend.uid, settings) {
            Ok(session) => backend.backend.session = session,
            Err(problems) => {
                let message =
                    format!("XBackend {}: spec.sessionPersistence: {}", xbackend.name, problems.join("; "));
                backend.backend.target = BackendTarget::Invalid(message.clone());
                scope.unresolved(
                    &format!("backendRefs[{index}]"),
                    Problem { reason: Reason::InvalidKind, message },
                );
            }
        }
    }
}

fn settings_of_rule(
    scope: &mut RuleScope<'_, '_>,
    own: Option<&SessionPersistence>,
    route: &RouteSettings,
    backends: &[RuleBackend<'_>],
) -> Option<Settings> {
    let annotated = route.of_rule(scope.origin.name.as_deref());
    let (settings, from_annotation) = match (own, annotated) {
        (Some(own), _) => (own, false),
        (None, Some(annotated)) => (annotated, true),
        (None, None) => return settings_of_policies(scope, backends),
    };
    if !from_annotation && settings.rule.is_some() {
        scope.unsupported("sessionPersistence.rule", "isn't known; remove it");
        return None;
    }
    let place = |scope: &RuleScope<'_, '_>, what: String| match from_annotation {
        true => format!("annotation {SESSION_ANNOTATION}: {what}"),
        false => format!("{}: {what}", scope.field("sessionPersistence")),
    };
    match check(settings) {
        Ok((settings, notes)) => {
            let notes: Vec<String> = notes.into_iter().map(|note| place(scope, note)).collect();
            scope.notes.extend(notes);
            Some(settings)
        }
        Err(problems) => {
            for problem in problems {
                let message = place(scope, problem);
                scope.problems.push(Problem { reason: Reason::UnsupportedValue, message });
            }
            None
        }
    }
}

/// The settings of the policies for the Services that a rule leads to. They hold for the rule, so they must agree.
fn settings_of_policies(scope: &mut RuleScope<'_, '_>, backends: &[RuleBackend<'_>]) -> Option<Settings> {
    let mut found: Option<Settings> = None;
    for backend in backends {
        let Some(Resolved::Service { service, .. }) = &backend.resolved else { continue };
        let Some(settings) = policy::session_settings(scope.lookup, &service.name) else { continue };
        if found.as_ref().is_some_and(|found| *found != settings) {
            let what = "the XBackendTrafficPolicies of its Services set different sessions; set sessionPersistence on the rule";
            scope.unsupported("backendRefs", what);
            return None;
        }
        found = Some(settings);
    }
    found
}

/// Backend scope: each backend that has no session of its own gets one. Its tokens are bound to rule and backend.
fn split_sessions(
    scope: &mut RuleScope<'_, '_>,
    settings: &Settings,
    rule: &str,
    backends: &mut [RuleBackend<'_>],
) {
    let several = backends.len() > 1;
    if several && settings.header && settings.name.is_some() {
        let what = "one header can't carry the sessions of several backends, each of which has its own \
                    with gamut.mesh/session-scope: backend; use cookies, or an XBackend with its own header for each";
        scope.unsupported("backendRefs", what);
        return;
    }
    for backend in backends.iter_mut().filter(|backend| backend.backend.session.is_none()) {
        let BackendTarget::Endpoints { uid, .. } = backend.backend.target else { continue };
        let text = uid.to_string();
        let suffix = several.then(|| short_hash(text.as_bytes()));
        backend.backend.session = Some(settings.session(format!("{rule}/{uid}"), suffix.as_deref()));
    }
}

/// A rule's name, or what stays when the rule is edited without changing what it is for: its matches and session settings.
/// Never an index, and nothing that a weight alters. `~` can't begin a rule's name.
fn rule_identity(scope: &RuleScope<'_, '_>, matches: &[Match], settings: &Settings) -> String {
    if let Some(name) = &scope.origin.name {
        return name.clone();
    }
    let mut parts: Vec<String> = matches.iter().map(json).collect();
    parts.sort();
    parts.push(json(settings));
    format!("~{}", short_hash(parts.join("\n").as_bytes()))
}

/// Two sessions can't share a cookie or header, unless they are the same session (GEP-1619, "Session Naming Collision").
fn refuse_name_clashes(
    scope: &mut RuleScope<'_, '_>,
    session: Option<&Session>,
    backends: &[RuleBackend<'_>],
) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for session in
        session.into_iter().chain(backends.iter().filter_map(|backend| backend.backend.session.as_ref()))
    {
        let name = carrier_name(session);
        if seen.insert(name.clone(), &session.scope).is_some_and(|scope| scope != session.scope) {
            scope.unsupported(
                "backendRefs",
                format!("two of its sessions use the {name}; give each its own name"),
            );
        }
    }
}

/// The cookie or header of a session, as messages name it and as it is unique among both.
pub(super) fn carrier_name(session: &Session) -> String {
    match &session.carrier {
        Carrier::Cookie { name, .. } => format!("cookie {name:?}"),
        Carrier::Header { name } => format!("header {name:?}"),
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn short_hash(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
