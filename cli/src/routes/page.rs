//! The report as a page: a block for each route.

use gamut_controller::compile;
use jiff::Timestamp;

use super::{Condition, Extension, Parent, Report, Route, Rule};
use crate::output::{Cell, Page, Tone};

/// `now` is what ages are counted from.
pub(super) fn page(report: &Report, now: Timestamp, wide: bool) -> Page {
    let mut page = Page::default();
    page.say(report.world.line(now), Tone::Faint);
    if report.routes.is_empty() {
        page.gap();
        page.say("no routes", Tone::Faint);
    }
    for route in &report.routes {
        page.gap();
        block(route, wide, &mut page);
    }
    for extension in &report.extensions {
        page.gap();
        self::extension(extension, wide, &mut page);
    }
    for (i, note) in report.notes.iter().enumerate() {
        if i == 0 {
            page.gap();
        }
        page.say(note, Tone::Doubtful);
    }
    legend(report, &mut page);
    page
}

/// What the figures are, where there are any.
fn legend(report: &Report, page: &mut Page) {
    let counted =
        |rule: &Rule| rule.own.requests > 0 || rule.backends.iter().any(|backend| backend.requests > 0);
    let rules = || report.routes.iter().flat_map(|route| &route.rules).filter(|rule| counted(rule));
    let unmatched = report.routes.iter().any(|route| route.unmatched > 0);
    if unmatched || rules().next().is_some() {
        page.gap();
        page.say(COUNTED, Tone::Faint);
    }
    if unmatched || rules().any(|rule| rule.own.requests > 0) {
        page.say(OWN, Tone::Faint);
    }
    if rules().any(|rule| !rule.named) {
        page.say(UNNAMED, Tone::Faint);
    }
}

/// What the counters of sidecars are.
const COUNTED: &str =
    "GOT, REQUESTS, FAILED: since the sidecars started, sessions and earlier weights included";
/// What the mesh answered.
const OWN: &str = "sidecar itself: answered without a backend; `gamut tap` shows why, request by request";
/// What an index stands for.
const UNNAMED: &str = "a rule without a name has the figures of whatever stood in its place before; `gamut routes --watch` shows those of now";

/// Whether any parent has taken the route. One that nobody has judged yet isn't called refused.
fn in_force(route: &Route) -> bool {
    let refused = |condition: &Condition| condition.kind == "Accepted" && condition.status == "False";
    if route.parents.is_empty() {
        return route.missed.is_empty();
    }
    route.parents.iter().any(|parent| !parent.conditions.iter().any(refused))
}

fn block(route: &Route, wide: bool, page: &mut Page) {
    page.say(format!("{} {}/{}", route.kind, route.namespace, route.name), Tone::Strong);
    for parent in &route.parents {
        attachment(parent, route, page);
    }
    if route.parents.is_empty() && route.missed.is_empty() {
        page.say("  attached to nothing of the mesh: no parentRef is a Service", Tone::Doubtful);
    }
    for missed in &route.missed {
        page.say(format!("  attached to nothing of the mesh: {missed}"), Tone::Bad);
    }
    for silent in &route.silent {
        page.say(format!("    {silent}"), Tone::Bad);
    }
    for bare in &route.bare {
        page.say(format!("    {bare}"), Tone::Doubtful);
    }
    let heading = ["RULE", "MATCHES", "BACKEND", "WEIGHT", "SET", "GOT", "REQUESTS", "FAILED"];
    let mut rows: Vec<Vec<Cell>> = route.rules.iter().flat_map(|rule| rows(rule, route)).collect();
    if route.unmatched > 0 {
        let [requests, failed] = [Tone::Plain, Tone::Bad].map(|tone| Cell::new(route.unmatched, tone));
        let itself = [Cell::from("-"), "no rule matches".into(), ITSELF.into()];
        let figures = [Cell::default(), Cell::default(), "-".into(), requests, failed];
        rows.push(itself.into_iter().chain(figures).collect());
    }
    if !rows.is_empty() {
        page.table(2, &heading, rows);
    }
    if wide {
        messages(route.parents.iter().flat_map(|parent| &parent.conditions), page);
    }
}

fn messages<'c>(conditions: impl Iterator<Item = &'c Condition>, page: &mut Page) {
    for condition in conditions {
        let Condition { kind, reason, message, observed_generation, .. } = condition;
        let generation =
            observed_generation.map(|generation| format!(" (generation {generation})")).unwrap_or_default();
        page.say(format!("  {kind}{generation}: {reason}: {message}"), Tone::Faint);
    }
}

fn attachment(parent: &Parent, route: &Route, page: &mut Page) {
    let clients = match parent.role {
        "consumer" => format!("for clients of namespace {}", route.namespace),
        _ => "for clients of every namespace".to_owned(),
    };
    conditions(format!("  on {}, {clients}:", parent.reference), &parent.conditions, page);
}

fn extension(extension: &Extension, wide: bool, page: &mut Page) {
    page.say(format!("{} {}/{}", extension.kind, extension.namespace, extension.name), Tone::Strong);
    for ancestor in &extension.ancestors {
        conditions(format!("  on {}:", ancestor.reference), &ancestor.conditions, page);
    }
    if extension.ancestors.is_empty() {
        page.say("  no conditions yet", Tone::Doubtful);
    }
    extension.settings.iter().for_each(|setting| page.say(format!("  {setting}"), Tone::Faint));
    if wide {
        messages(extension.ancestors.iter().flat_map(|ancestor| &ancestor.conditions), page);
    }
}

/// One line for what is well; whatever isn't gets one of its own, with the reason and the message.
fn conditions(about: String, conditions: &[Condition], page: &mut Page) {
    let mut line = vec![Cell::from(about)];
    if conditions.is_empty() {
        line.push(Cell::new(" no conditions yet", Tone::Doubtful));
    }
    for condition in conditions {
        line.push(" ".into());
        line.push(Cell::new(format!("{}={}", condition.kind, condition.status), tone(condition)));
    }
    page.line(line);
    for condition in conditions {
        let Condition { kind, reason, message, .. } = condition;
        match (tone(condition), compile::remarks(message)) {
            (Tone::Good, None) => {}
            (Tone::Good, Some(remarks)) => page.say(format!("    {kind}: {remarks}"), Tone::Doubtful),
            (tone, _) => page.say(format!("    {kind}: {reason}: {message}"), tone),
        }
    }
}

/// `PartiallyInvalid` is the one condition whose `True` isn't good.
pub(crate) fn tone(condition: &Condition) -> Tone {
    match (condition.kind.as_str(), condition.status.as_str()) {
        ("PartiallyInvalid", "True") => Tone::Doubtful,
        (_, "True") | ("PartiallyInvalid", _) => Tone::Good,
        (_, "False") => Tone::Bad,
        (_, _) => Tone::Doubtful,
    }
}

/// Who answered where no backend did.
pub(super) const ITSELF: &str = "sidecar itself";

/// What becomes of a rule's requests where it isn't in force.
fn instead(rule: &Rule, route: &Route) -> &'static str {
    rule.dropped.filter(|_| in_force(route)).unwrap_or("not in force")
}

/// A row for each backend, and one for what sidecars answered themselves; matches, settings and sessions run down the second column beside them.
fn rows(rule: &Rule, route: &Route) -> Vec<Vec<Cell>> {
    let every = ["every request".to_owned()];
    let matches = if rule.matches.is_empty() { &every } else { rule.matches.as_slice() };
    let settings = rule.settings.iter().map(|text| Cell::new(text, Tone::Faint));
    let sessions = rule.sessions.iter().map(|session| Cell::new(session, Tone::Faint));
    let left: Vec<Cell> = matches.iter().map(Cell::from).chain(settings).chain(sessions).collect();
    let is_in_force = in_force(route) && rule.dropped.is_none();
    let mut right: Vec<Vec<Cell>> = rule
        .backends
        .iter()
        .map(|backend| {
            vec![
                Cell::from(short(&backend.id, &route.namespace)),
                Cell::from(backend.weight),
                match (is_in_force, backend.answered) {
                    (true, Some(answer)) if backend.share > 0.0 => {
                        Cell::new(format!("{}: {answer}", percent(Some(backend.share))), Tone::Bad)
                    }
                    (true, _) => Cell::from(percent(Some(backend.share))),
                    (false, _) => Cell::new(instead(rule, route), Tone::Bad),
                },
                Cell::from(percent(backend.got.filter(|_| is_in_force))),
                Cell::from(backend.requests),
                Cell::new(backend.failed, if backend.failed == 0 { Tone::Plain } else { Tone::Bad }),
            ]
        })
        .collect();
    if rule.own.requests > 0 {
        let failed = Cell::new(rule.own.failed, if rule.own.failed == 0 { Tone::Plain } else { Tone::Bad });
        let got = percent(rule.own.got.filter(|_| is_in_force && rule.own.failed > 0));
        let figures = [Cell::from(got), Cell::from(rule.own.requests), failed];
        let itself = [Cell::from(ITSELF), Cell::default(), Cell::default()];
        right.push(itself.into_iter().chain(figures).collect());
    }
    (0..left.len().max(right.len()))
        .map(|i| {
            let name = if i == 0 { Cell::from(&rule.name) } else { Cell::default() };
            let mut row = vec![name, left.get(i).cloned().unwrap_or_default()];
            row.extend(right.get(i).cloned().unwrap_or_default());
            row
        })
        .collect()
}

/// `web-v1:80` for `service/shop/web-v1:80` in a route of `shop`; other namespaces and kinds stay visible.
pub(super) fn short<'a>(id: &'a str, namespace: &str) -> &'a str {
    let name = id.strip_prefix("service/").unwrap_or(id);
    name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
}

/// `-` where there is none.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share.fract() == 0.0 => format!("{share:.0}%"),
        Some(share) => format!("{share:.1}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        routes::{Backend, Own, Session},
        world::Place,
    };

    fn report(routes: Vec<Route>, notes: &[&str]) -> Report {
        let world = Place::Cluster {
            context: "kind".to_owned(),
            server: "https://10.0.0.10:6443".to_owned(),
            version: "v1.34.4".to_owned(),
        };
        Report {
            world,
            routes,
            extensions: Vec::new(),
            notes: notes.iter().map(ToString::to_string).collect(),
        }
    }

    fn rendered(report: &Report, wide: bool) -> String {
        page(report, Timestamp::UNIX_EPOCH, wide).render(false)
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(2),
            last_transition_time: None,
        }
    }

    fn backend(id: &str, weight: u64, share: f64, requests: u64, got: Option<f64>, failed: u64) -> Backend {
        Backend { id: id.to_owned(), weight, share, answered: None, requests, got, failed }
    }

    fn canary() -> Route {
        Route {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            missed: Vec::new(),
            silent: Vec::new(),
            bare: Vec::new(),
            unmatched: 0,
            parents: vec![Parent {
                reference: "Service shop/web".to_owned(),
                role: "producer",
                conditions: vec![
                    condition("Accepted", "True", "Accepted", "every rule is in force"),
                    condition("ResolvedRefs", "True", "ResolvedRefs", "every reference leads somewhere"),
                ],
            }],
            rules: vec![
                Rule {
                    name: "always".to_owned(),
                    named: true,
                    dropped: None,
                    own: Own::default(),
                    matches: vec!["header x-canary: always".to_owned()],
                    settings: Vec::new(),
                    sessions: Vec::new(),
                    backends: vec![backend("service/shop/web-v2:80", 1, 100.0, 0, None, 0)],
                },
                Rule {
                    name: "split".to_owned(),
                    named: true,
                    dropped: None,
                    own: Own::default(),
                    matches: Vec::new(),
                    settings: Vec::new(),
                    sessions: vec![Session {
                        scope: "route",
                        backend: None,
                        kind: "Cookie",
                        name: "shop-version".to_owned(),
                        lifetime: Some("Session"),
                        absolute_timeout: None,
                    }],
                    backends: vec![
                        backend("service/shop/web-v1:80", 90, 90.0, 897, Some(89.7), 0),
                        backend("service/shop/web-v2:80", 10, 10.0, 103, Some(10.3), 2),
                    ],
                },
            ],
        }
    }

    #[test]
    fn a_canary_shows_what_was_set_beside_what_was_got() {
        let report = report(vec![canary()], &[]);
        insta::assert_snapshot!(rendered(&report, false));
        insta::assert_snapshot!("wide", rendered(&report, true));
    }

    #[test]
    fn what_is_wrong_is_told_with_reason_and_message() {
        let mut consumer = canary();
        consumer.namespace = "rivals".to_owned();
        consumer.parents[0].role = "consumer";
        consumer.parents[0].conditions = vec![
            condition(
                "Accepted",
                "False",
                "UnsupportedValue",
                "rule split: filter RequestMirror isn't supported yet",
            ),
            condition(
                "ResolvedRefs",
                "False",
                "BackendNotFound",
                "rule always: there is no Service rivals/web-v2",
            ),
            condition("PartiallyInvalid", "True", "UnsupportedValue", "Dropped Rule(s) [split]"),
        ];
        let mut orphan = canary();
        orphan.parents.clear();
        orphan.rules.clear();
        let mut new = canary();
        new.parents[0].conditions.clear();
        new.rules.truncate(1);
        let notes =
            ["without the requests of pod shop/web-1: its sidecar can't be asked: no answer within 5 s"];
        insta::assert_snapshot!(rendered(&report(vec![consumer, orphan, new], &notes), false));
    }

    #[test]
    fn what_sidecars_answered_themselves_and_what_would_be_overlooked_is_told() {
        let mut broken = canary();
        broken.parents[0].conditions[0].message =
            "in force on port 80 for clients of all namespaces; spec.hostnames doesn't restrict anything"
                .to_owned();
        broken.silent = vec!["web-v1:80: no ready endpoint: selector app=v1 matches no pod".to_owned()];
        broken.bare = vec!["web-v2:80: no sidecar at 1 of 2 pods: they are sent plaintext".to_owned()];
        broken.rules[1].backends[1].answered = Some("500");
        broken.unmatched = 30;
        broken.rules[0].dropped = Some("500");
        broken.rules[1].named = false;
        broken.rules[1].own = Own { requests: 40, got: Some(3.7), failed: 38 };
        let mut missed = canary();
        missed.parents.clear();
        missed.missed = vec!["spec.parentRefs[0]: without a kind it names a Gateway".to_owned()];
        insta::assert_snapshot!(rendered(&report(vec![broken, missed], &[]), false));
    }

    #[test]
    fn no_routes_are_said() {
        let text = rendered(&report(Vec::new(), &[]), false);
        assert!(text.ends_with("\n\nno routes\n"), "{text}");
    }
}
