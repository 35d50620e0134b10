//! The report as a page: a block for each route.

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
    let mut backends = report.routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.backends);
    if backends.any(|backend| backend.requests > 0) {
        page.gap();
        page.say(COUNTED, Tone::Faint);
    }
    page
}

/// What the counters of sidecars are.
const COUNTED: &str =
    "GOT, REQUESTS, FAILED: since the sidecars started, sessions and earlier weights included";

/// Whether any parent has taken the route. One that nobody has judged yet isn't called refused.
fn in_force(route: &Route) -> bool {
    let refused = |condition: &Condition| condition.kind == "Accepted" && condition.status == "False";
    route.parents.is_empty() || route.parents.iter().any(|parent| !parent.conditions.iter().any(refused))
}

fn block(route: &Route, wide: bool, page: &mut Page) {
    page.say(format!("{} {}/{}", route.kind, route.namespace, route.name), Tone::Strong);
    for parent in &route.parents {
        attachment(parent, route, page);
    }
    if route.parents.is_empty() {
        page.say("  attached to nothing of the mesh: no parentRef is a Service", Tone::Doubtful);
    }
    let heading = ["RULE", "MATCHES", "BACKEND", "WEIGHT", "SET", "GOT", "REQUESTS", "FAILED"];
    let rows: Vec<Vec<Cell>> = route.rules.iter().flat_map(|rule| rows(rule, route)).collect();
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
    for condition in conditions.iter().filter(|condition| tone(condition) != Tone::Good) {
        let Condition { kind, reason, message, .. } = condition;
        page.say(format!("    {kind}: {reason}: {message}"), tone(condition));
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

/// A row for each backend; matches, settings and sessions run down the second column beside them.
fn rows(rule: &Rule, route: &Route) -> Vec<Vec<Cell>> {
    let every = ["every request".to_owned()];
    let matches = if rule.matches.is_empty() { &every } else { rule.matches.as_slice() };
    let settings = rule.settings.iter().map(|text| Cell::new(text, Tone::Faint));
    let sessions = rule.sessions.iter().map(|session| Cell::new(session, Tone::Faint));
    let left: Vec<Cell> = matches.iter().map(Cell::from).chain(settings).chain(sessions).collect();
    let right: Vec<Vec<Cell>> = rule
        .backends
        .iter()
        .map(|backend| {
            vec![
                Cell::from(short(&backend.id, &route.namespace)),
                Cell::from(backend.weight),
                match in_force(route) {
                    true => Cell::from(percent(Some(backend.share))),
                    false => Cell::new("not in force", Tone::Bad),
                },
                Cell::from(percent(backend.got)),
                Cell::from(backend.requests),
                Cell::new(backend.failed, if backend.failed == 0 { Tone::Plain } else { Tone::Bad }),
            ]
        })
        .collect();
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
        routes::{Backend, Session},
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
        Backend { id: id.to_owned(), weight, share, requests, got, failed }
    }

    fn canary() -> Route {
        Route {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
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
                    matches: vec!["header x-canary: always".to_owned()],
                    settings: Vec::new(),
                    sessions: Vec::new(),
                    backends: vec![backend("service/shop/web-v2:80", 1, 100.0, 0, None, 0)],
                },
                Rule {
                    name: "split".to_owned(),
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
    fn no_routes_are_said() {
        let text = rendered(&report(Vec::new(), &[]), false);
        assert!(text.ends_with("\n\nno routes\n"), "{text}");
    }
}
