//! Sessions: from the shapes that settings have had (GEP-1619) to what a table holds, and where they come from.
//!
//! A rule takes the first of these that there is:
//! 1. its own `sessionPersistence`;
//! 2. the annotation `gamut.mesh/session-persistence` of its route, for it by name, else for all rules;
//! 3. an XBackendTrafficPolicy for a Service that it leads to.
//!
//! All three have route scope: the session wins over the weights. The annotation `gamut.mesh/session-scope:
//! backend` turns them round to v1.7.0's order, where the split comes first and each backend has a session of
//! its own. An XBackend's own settings always have backend scope; where both are there, the rule's session
//! decides first.

mod settings;

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use gamut_route::{
    Uid,
    table::{BackendTarget, Carrier, Match, Session},
};
use serde::Serialize;

pub(super) use self::settings::{RouteSettings, Settings, check};
use super::{
    backends::Resolved,
    policy,
    report::{Problem, Reason},
    rule::{RuleBackend, RuleScope},
};
use crate::gateway::{Route, Rules, SessionPersistence};

/// Session settings without an API: the v1.7.0 struct as YAML, or a list of such, each with `rule: NAME`.
pub const SESSION_ANNOTATION: &str = "gamut.mesh/session-persistence";

/// `route` (default) or `backend`.
pub const SCOPE_ANNOTATION: &str = "gamut.mesh/session-scope";

/// What can't be read of what a route's annotations say of sessions, as its conditions tell it.
pub fn annotation_problems(route: &Route) -> Vec<String> {
    if let Rules::Stream(_) = route.rules {
        return of_connections(route).into_iter().collect();
    }
    let rules: Vec<&str> = route.rules.names().into_iter().flatten().collect();
    match RouteSettings::read(&route.annotations, &rules) {
        Err(problem) => vec![problem.message],
        Ok(settings) => {
            settings.all().filter_map(|one| check(one).err()).flatten().map(of_annotation).collect()
        }
    }
}

/// That sessions are asked for where there are no requests.
pub(super) fn of_connections(route: &Route) -> Option<String> {
    let mut names = [SESSION_ANNOTATION, SCOPE_ANNOTATION].into_iter();
    let name = names.find(|name| route.annotations.contains_key(*name))?;
    Some(format!("annotation {name}: sessions need HTTP; remove it or use an HTTPRoute"))
}

fn of_annotation(what: String) -> String {
    format!("annotation {SESSION_ANNOTATION}: {what}")
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
        true => of_annotation(what),
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

/// A rule's name, or what stays when the rule is edited without changing what it is for: its matches and
/// session settings. Never an index, and nothing that a weight alters. `~` can't begin a rule's name.
fn rule_identity(scope: &RuleScope<'_, '_>, matches: &[Match], settings: &Settings) -> String {
    if let Some(name) = &scope.origin.name {
        return name.clone();
    }
    let mut parts: Vec<String> = matches.iter().map(json).collect();
    parts.sort();
    parts.push(json(settings));
    format!("~{}", short_hash(parts.join("\n").as_bytes()))
}

/// Two sessions can't share a cookie or header, unless they are the same session (GEP-1619, "Session Naming
/// Collision").
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

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use gamut_manifest::{Object, Origin};
    use gamut_route::RouteKind;
    use serde_json::{Value, json};

    use super::*;

    fn problems(kind: RouteKind, annotations: Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind.as_str(),
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": {"rules": [{"name": "all"}]},
        });
        let origin = Origin { file: Arc::new(PathBuf::from("web.yaml")), document: 0, line: 1 };
        annotation_problems(&Route::read(kind, &Object::from_value(object, &origin).unwrap()))
    }

    #[test]
    fn what_cannot_be_read_of_a_routes_annotations_is_told_without_compiling_it() {
        let sessions = |text: &str| problems(RouteKind::Http, json!({SESSION_ANNOTATION: text}));
        assert!(sessions("{rule: all, type: Cookie}").is_empty());
        for (text, said) in [
            ("{type: Cookie", "annotation gamut.mesh/session-persistence: not valid YAML: "),
            ("{rule: al}", "annotation gamut.mesh/session-persistence: the route has no rule named \"al\""),
            ("{type: Cokie}", "annotation gamut.mesh/session-persistence: type \"Cokie\" isn't known"),
        ] {
            let problems = sessions(text);
            assert!(problems.len() == 1 && problems[0].starts_with(said), "{problems:?}");
        }
        let scope = json!({SCOPE_ANNOTATION: "bakend"});
        assert!(problems(RouteKind::Grpc, scope.clone())[0].contains("use route or backend"));
        assert!(problems(RouteKind::Tcp, scope)[0].contains("sessions need HTTP"));
    }
}
