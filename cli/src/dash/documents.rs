//! What the page's scripts get: a JSON document for each page, made of the newest answers and the history.
//!
//! What the commands print with `-o json` is in here as it is; what is added are figures of the last half minute and plots of the
//! last ten.

mod pods;
mod routes;
mod services;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    figures::{Count, Figures},
    history::{History, Key, WINDOW},
    live::{Answers, State},
};
use crate::world::Component;

/// A page's document.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a, P> {
    /// Who is asked, in one line; `None` before the first answer.
    world: Option<String>,
    /// When the newest answers were complete, in milliseconds since 1970.
    asked: Option<i64>,
    /// When this is said.
    now: i64,
    /// From one round of questions to the next, in milliseconds.
    every: u64,
    /// The figures' window, in seconds.
    window: u64,
    /// Why the last round of questions brought no answers, if it didn't.
    problem: Option<&'a str>,
    /// The mesh's own processes.
    components: &'a [Component],
    /// What can't be done, a line each.
    problems: &'a [String],
    /// What isn't ready yet, a line each.
    waiting_for: &'a [String],
    /// What isn't in the figures, a line each.
    notes: &'a [String],
    /// What the page is about; `None` if there is no such thing.
    page: Option<P>,
}

/// Any page's document, as JSON.
///
/// # Errors
/// None that happen: nothing here has keys that aren't text.
pub(super) fn document(state: &State, path: &[&str]) -> serde_json::Result<Option<Vec<u8>>> {
    let history = &state.history;
    let json = match path {
        ["services"] => of(state, |answers| Some(services::all(answers, history))),
        ["services", namespace, name] => {
            of(state, |answers| services::one(answers, history, &format!("{namespace}/{name}")))
        }
        ["routes"] => of(state, |answers| Some(routes::all(answers, history))),
        ["routes", kind, namespace, name] => {
            of(state, |answers| routes::one(answers, history, [kind, namespace, name]))
        }
        ["pods"] => of(state, |answers| Some(&answers.status.pods)),
        ["pods", namespace, name] => of(state, |answers| pods::one(answers, history, namespace, name)),
        _ => return Ok(None),
    };
    json.map(Some)
}

fn of<'a, P: Serialize>(
    state: &'a State,
    page: impl FnOnce(&'a Answers) -> Option<P>,
) -> serde_json::Result<Vec<u8>> {
    let (now, answers) = (Timestamp::now(), state.newest.as_ref());
    let document = Document {
        world: answers.map(|answers| answers.status.world.line(now)),
        asked: answers.map(|answers| answers.time.as_millisecond()),
        now: now.as_millisecond(),
        every: u64::try_from(state.every.as_millis()).unwrap_or(u64::MAX),
        window: WINDOW.as_secs(),
        problem: state.problem.as_deref(),
        components: answers.map_or(&[], |answers| &answers.status.components),
        problems: answers.map_or(&[], |answers| &answers.status.problems),
        waiting_for: answers.map_or(&[], |answers| &answers.status.waiting_for),
        notes: answers.map_or(&[], |answers| &answers.routes.notes),
        page: answers.and_then(page),
    };
    serde_json::to_vec(&document)
}

/// What was counted in the window; nothing where nothing was.
fn figures(counted: Option<&Count>, history: &History) -> Figures {
    let seconds = history.recent_seconds();
    counted.map_or_else(|| Count::default().figures(seconds), |count| count.figures(seconds))
}

/// Requests of one rule to one backend.
#[derive(Debug, PartialEq, Serialize)]
struct Sent {
    /// `shop/web:80`.
    parent: String,
    /// `httproute/shop/web`; empty where the Service has no routes.
    route: String,
    /// The rule's name or index.
    rule: String,
    /// `service/shop/web-v1:80`; empty for what sidecars answered by themselves.
    backend: String,
    figures: Figures,
}

/// In a stable order.
fn sent(counted: HashMap<Key, Count>, history: &History) -> Vec<Sent> {
    let mut counted: Vec<(Key, Count)> = counted.into_iter().collect();
    counted.sort_by(|(a, _), (b, _)| (&a.parent, a).cmp(&(&b.parent, b)));
    let sent = |(key, count): (Key, Count)| {
        let Key { route, rule, parent, backend } = key;
        Sent { parent, route, rule, backend, figures: figures(Some(&count), history) }
    };
    counted.into_iter().map(sent).collect()
}

#[cfg(test)]
mod tests;
