//! Session settings: checked, whatever shape they have, and those that a route's annotations make.

use std::{collections::BTreeMap, time::Duration};

use gamut_route::{
    session::{Affinity, cookie},
    table::{Carrier, Session},
};
use serde::Serialize;

use super::{SCOPE_ANNOTATION, SESSION_ANNOTATION};
use crate::{
    compile::report::{Problem, Reason},
    gateway::{Lenient, SessionPersistence, parse_duration},
};

/// Settings that are complete and valid, whatever shape they had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::compile) struct Settings {
    /// True: a header; false: a cookie.
    pub(super) header: bool,
    /// Unset: generated from the scope.
    pub(super) name: Option<String>,
    path: String,
    permanent: bool,
    absolute_timeout: Option<Duration>,
}

/// What a route's annotations say about sessions.
#[derive(Clone, Debug, Default)]
pub(in crate::compile) struct RouteSettings {
    /// For all rules that `by_rule` doesn't name.
    for_all: Option<SessionPersistence>,
    by_rule: BTreeMap<String, SessionPersistence>,
    pub(super) backend_scope: bool,
}

/// Headers that can't carry a session: they mean something to every hop, or to sidecars.
const RESERVED_HEADERS: [&str; 15] = [
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "gamut-answer",
    "gamut-proxy-answer",
    "gamut-proxy-upgrade",
    "host",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The longest that browsers keep a cookie (RFC 6265bis, section 4.1.2.1), and that a key opens what it has sealed
/// (docs/reference/sessions-token.md).
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

impl RouteSettings {
    /// Reads the annotations. `rules` are the names that there are.
    pub(in crate::compile) fn read(
        annotations: &BTreeMap<String, String>,
        rules: &[&str],
    ) -> Result<Self, Problem> {
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
                Err(error) => return refuse(SESSION_ANNOTATION, error.to_string()),
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

    /// The settings, whomever they are for.
    pub(super) fn all(&self) -> impl Iterator<Item = &SessionPersistence> {
        self.for_all.iter().chain(self.by_rule.values())
    }

    pub(super) fn of_rule(&self, name: Option<&str>) -> Option<&SessionPersistence> {
        name.and_then(|name| self.by_rule.get(name)).or(self.for_all.as_ref())
    }
}

/// Checks settings of any shape. Problems are given relative to the settings, with notes about what is ignored.
pub(in crate::compile) fn check(
    settings: &SessionPersistence,
) -> Result<(Settings, Vec<String>), Vec<String>> {
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
    let notes = valid.notes(settings.idle_timeout.is_some());
    Ok((valid, notes))
}

impl Settings {
    /// What an author will want to know of settings that are in force.
    fn notes(&self, idle_timeout: bool) -> Vec<String> {
        let idle = idle_timeout.then(|| {
            "idleTimeout is ignored: it left the specification in v1.6; use absoluteTimeout".to_owned()
        });
        let cookie = self.name.as_deref().filter(|_| !self.header);
        let prefix = cookie.and_then(cookie::promise).map(|prefix| {
            format!(
                "a cookie named {prefix}... is set with Secure, as browsers demand (RFC 6265bis): clients that call without TLS \
                 don't send it back; for those choose another cookie.name"
            )
        });
        let long = self.absolute_timeout.filter(|timeout| *timeout > LONGEST).map(|_| {
            "absoluteTimeout is longer than 400 days, and no session is: browsers keep no cookie for longer, nor does the mesh the \
             keys of tokens; use 9600h or less"
                .to_owned()
        });
        [idle, prefix, long].into_iter().flatten().collect()
    }

    /// The session of a scope. `suffix` tells apart the sessions of one rule's backends where the settings
    /// name one name for all.
    pub(in crate::compile) fn session(&self, scope: String, suffix: Option<&str>) -> Session {
        let name = match (&self.name, suffix) {
            (None, _) => cookie::generated_name(&scope),
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
