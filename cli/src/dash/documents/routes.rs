//! The list of routes, and one of them with its splits over time: as they were set and as they turned out.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::figures;
use crate::{
    dash::{
        figures::{Count, Figures},
        history::{History, Step},
        live::Answers,
    },
    output::Tone,
    routes::{self, Condition, Extension, Route, Rule},
};

/// What a point of a measured split is the mean of: single rounds have too few requests to tell 10 % from 12 %.
const SMOOTH: Duration = Duration::from_secs(10);

/// The backend of what sidecars answered themselves.
const OWN: &str = "";

/// The Services of a route's parents: a reference reads `Service shop/web, port 80`.
pub(super) fn parents(route: &Route) -> impl Iterator<Item = &str> {
    route.parents.iter().map(|parent| service(&parent.reference))
}

fn service(reference: &str) -> &str {
    let reference = reference.split(',').next().unwrap_or_default();
    reference.strip_prefix("Service ").unwrap_or(reference)
}

/// The routes of a Service.
pub(super) fn attached<'a>(answers: &'a Answers, service: &str) -> impl Iterator<Item = &'a Route> {
    answers.routes.routes.iter().filter(move |route| parents(route).any(|parent| parent == service))
}

/// A row of the list.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    parents: Vec<Attachment<'a>>,
    /// parentRefs that name no Service though one was meant, with what to write.
    missed: &'a [String],
    figures: Figures,
}

/// A parent and what became of the route there.
#[derive(Debug, Serialize)]
struct Attachment<'a> {
    /// `Service shop/web, port 80`.
    reference: &'a str,
    /// `producer` or `consumer`.
    role: &'a str,
    /// `shop/web`.
    service: &'a str,
    conditions: Vec<Verdict<'a>>,
}

/// A condition, and how it is meant.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    #[serde(flatten)]
    condition: &'a Condition,
    tone: Tone,
}

pub(super) fn all<'a>(answers: &'a Answers, history: &History) -> Vec<Row<'a>> {
    let counted = history.recently(|key| Some(key.route.clone()));
    let row =
        |route: &'a Route| Row { figures: figures(counted.get(&route.id()), history), ..Row::idle(route) };
    answers.routes.routes.iter().map(row).collect()
}

impl<'a> Row<'a> {
    /// With its figures.
    pub(super) fn of(route: &'a Route, history: &History) -> Self {
        let key = route.id();
        let counted = history.recently(|counted| (counted.route == key).then_some(()));
        Self { figures: figures(counted.get(&()), history), ..Self::idle(route) }
    }

    fn idle(route: &'a Route) -> Self {
        let attachment = |parent: &'a routes::Parent| Attachment {
            reference: &parent.reference,
            role: parent.role,
            service: service(&parent.reference),
            conditions: verdicts(&parent.conditions),
        };
        Self {
            kind: &route.kind,
            namespace: &route.namespace,
            name: &route.name,
            parents: route.parents.iter().map(attachment).collect(),
            missed: &route.missed,
            figures: Figures::default(),
        }
    }
}

fn verdicts(conditions: &[Condition]) -> Vec<Verdict<'_>> {
    conditions.iter().map(|condition| Verdict { condition, tone: routes::tone(condition) }).collect()
}

/// A route.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    /// Requests for its Services that sidecars answered because no rule matched.
    unmatched: u64,
    rules: Vec<RulePart<'a>>,
    /// Policies and XBackends of its namespace, which may have a say.
    extensions: Vec<ExtensionPart<'a>>,
}

#[derive(Debug, Serialize)]
struct RulePart<'a> {
    /// As `gamut routes -o json` has it: matches, settings, sessions, backends, what sidecars answered themselves.
    #[serde(flatten)]
    rule: &'a Rule,
    /// The sessions in words.
    sessions_text: Vec<String>,
    /// What became of its sessions, as often as each since the sidecars started.
    outcomes: Option<&'a BTreeMap<String, u64>>,
    /// Of each backend, in the order of the rule's.
    figures: Vec<Figures>,
    /// Of what sidecars answered themselves.
    own_figures: Figures,
    points: Vec<Point>,
}

/// A round, in the plot of a split: the share of each backend in percent, in the order of the rule's.
#[derive(Debug, PartialEq, Serialize)]
struct Point {
    /// In milliseconds since 1970.
    time: i64,
    /// As it was set; a backend that the rule didn't have then had nothing.
    set: Vec<f64>,
    /// As it turned out in the last [`SMOOTH`], and behind the backends the share that sidecars answered with errors of their own;
    /// `None` without requests.
    got: Option<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct ExtensionPart<'a> {
    kind: &'a str,
    name: &'a str,
    settings: &'a [String],
    conditions: Vec<Verdict<'a>>,
}

/// None where there is no such route.
pub(super) fn one<'a>(
    answers: &'a Answers,
    history: &History,
    [kind, namespace, name]: [&str; 3],
) -> Option<Page<'a>> {
    let is = |route: &&Route| route.kind == kind && route.namespace == namespace && route.name == name;
    let route = answers.routes.routes.iter().find(is)?;
    let own = |extension: &&Extension| extension.namespace == namespace;
    let extension = |extension: &'a Extension| ExtensionPart {
        kind: extension.kind,
        name: &extension.name,
        settings: &extension.settings,
        conditions: extension.ancestors.iter().flat_map(|ancestor| verdicts(&ancestor.conditions)).collect(),
    };
    Some(Page {
        row: Row::of(route, history),
        unmatched: route.unmatched,
        rules: route.rules.iter().map(|rule| rule_part(answers, history, &route.id(), rule)).collect(),
        extensions: answers.routes.extensions.iter().filter(own).map(extension).collect(),
    })
}

fn rule_part<'a>(answers: &'a Answers, history: &History, route: &str, rule: &'a Rule) -> RulePart<'a> {
    let counted =
        history.recently(|key| (key.route == route && key.rule == rule.name).then(|| key.backend.clone()));
    let of = format!("{route}, rule {}", rule.name);
    let sessions = answers.status.sessions.iter().find(|sessions| sessions.of == of);
    RulePart {
        rule,
        sessions_text: rule.sessions.iter().map(ToString::to_string).collect(),
        outcomes: sessions.map(|sessions| &sessions.outcomes),
        figures: rule.backends.iter().map(|backend| figures(counted.get(&backend.id), history)).collect(),
        own_figures: figures(counted.get(OWN), history),
        points: points(history, route, rule),
    }
}

fn points(history: &History, route: &str, rule: &Rule) -> Vec<Point> {
    let key = (route.to_owned(), rule.name.clone());
    let sum = |step: &Step, backend: &str, of: fn(&Count) -> u64| -> u64 {
        let is = |counted: &super::Key| {
            counted.route == key.0 && counted.rule == key.1 && counted.backend == backend
        };
        step.counted.iter().filter(|(counted, _)| is(counted)).map(|(_, count)| of(count)).sum()
    };
    let round = |step| {
        let each = rule.backends.iter().map(|backend| sum(step, &backend.id, |count| count.requests));
        (step, each.chain([sum(step, OWN, |count| count.failed)]).collect())
    };
    let rounds: Vec<(&Step, Vec<u64>)> = history.steps().map(round).collect();
    let point = |(place, (step, _)): (usize, &(&Step, Vec<u64>))| {
        let set = step.set.get(&key);
        let share = |id: &str| set?.iter().find(|(backend, _)| backend == id).map(|(_, share)| *share);
        let set = rule.backends.iter().map(|backend| share(&backend.id).unwrap_or(0.0)).collect();
        Point { time: step.time.as_millisecond(), set, got: shares(&rounds, place) }
    };
    rounds.iter().enumerate().map(point).collect()
}

/// The shares in what was counted in the rounds that end at a place.
fn shares(rounds: &[(&Step, Vec<u64>)], place: usize) -> Option<Vec<f64>> {
    let (mut sums, mut seconds) = (vec![0; rounds.get(place)?.1.len()], 0.0);
    for (step, counts) in rounds.iter().take(place + 1).rev() {
        if seconds >= SMOOTH.as_secs_f64() {
            break;
        }
        seconds += step.seconds;
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let all: u64 = sums.iter().sum();
    let share = |sum: &u64| *sum as f64 * 100.0 / all as f64;
    (all > 0).then(|| sums.iter().map(share).collect())
}
