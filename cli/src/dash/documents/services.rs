//! The list of Services, and one of them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    Sent, figures,
    routes::{Row as RouteRow, attached},
    sent,
};
use crate::dash::{
    figures::{Count, Figures},
    history::{History, Key, Step},
    live::Answers,
};

/// How many points the small plots of the list have.
const TREND: usize = 60;

/// A row of the list.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    /// `shop/web`.
    name: &'a str,
    /// How many routes are attached to it.
    routes: usize,
    /// Of what it was asked for.
    figures: Figures,
    /// Of what it got, as a backend of whatever was asked for.
    received: Figures,
    /// Requests in a second, of the last rounds.
    trend: Vec<f64>,
}

pub(super) fn all<'a>(answers: &'a Answers, history: &History) -> Vec<Row<'a>> {
    let counted = history.recently(|key| Some(key.service().to_owned()));
    let received = history.recently(|key| key.receiver().map(str::to_owned));
    let trends = trends(history);
    let mut routes: HashMap<&str, usize> = HashMap::new();
    for parent in answers.routes.routes.iter().flat_map(super::routes::parents) {
        *routes.entry(parent).or_default() += 1;
    }
    let row = |name: &'a String| Row {
        name,
        routes: routes.get(name.as_str()).copied().unwrap_or_default(),
        figures: figures(counted.get(name), history),
        received: figures(received.get(name), history),
        trend: trends.get(name.as_str()).cloned().unwrap_or_default(),
    };
    answers.services.iter().map(row).collect()
}

/// The rates of the last rounds, by Service, the oldest first.
fn trends(history: &History) -> HashMap<&str, Vec<f64>> {
    let newest: Vec<&Step> = history.steps().rev().take(TREND).collect();
    let mut trends: HashMap<&str, Vec<f64>> = HashMap::new();
    for (place, step) in newest.iter().rev().enumerate().filter(|(_, step)| step.seconds > 0.0) {
        for (key, count) in &step.counted {
            let trend = trends.entry(key.service()).or_insert_with(|| vec![0.0; newest.len()]);
            if let Some(rate) = trend.get_mut(place) {
                *rate += count.requests as f64 / step.seconds;
            }
        }
    }
    trends
}

/// A Service.
#[derive(Debug, Serialize)]
pub(super) struct Service<'a> {
    name: &'a str,
    /// As those of [`Row`].
    figures: Figures,
    received: Figures,
    points: Vec<Point>,
    routes: Vec<RouteRow<'a>>,
    /// Where requests went.
    sent: Vec<Sent>,
    /// Which pods they came from.
    callers: Vec<Caller<'a>>,
}

/// A round, in plots.
#[derive(Debug, Serialize)]
struct Point {
    /// In milliseconds since 1970.
    time: i64,
    figures: Figures,
}

#[derive(Debug, Serialize)]
struct Caller<'a> {
    /// `shop/client-1`.
    pod: &'a str,
    figures: Figures,
}

/// None where there is no such Service.
pub(super) fn one<'a>(answers: &'a Answers, history: &'a History, name: &str) -> Option<Service<'a>> {
    let name = answers.services.iter().find(|service| *service == name)?;
    let own = |key: &Key| key.service() == name;
    let point = |step: &Step| {
        let mut sum = Count::default();
        step.counted.iter().filter(|(key, _)| own(key)).for_each(|(_, count)| sum.add(count));
        Point { time: step.time.as_millisecond(), figures: sum.figures(step.seconds) }
    };
    let counted = history.recently(|key| own(key).then_some(()));
    let received = history.recently(|key| (key.receiver() == Some(name)).then_some(()));
    Some(Service {
        name,
        figures: figures(counted.get(&()), history),
        received: figures(received.get(&()), history),
        points: history.steps().map(point).collect(),
        routes: attached(answers, name).map(|route| RouteRow::of(route, history)).collect(),
        sent: sent(history.recently(|key| own(key).then(|| key.clone())), history),
        callers: callers(history, own),
    })
}

fn callers(history: &History, own: impl Fn(&Key) -> bool) -> Vec<Caller<'_>> {
    let mut sums: BTreeMap<&str, Count> = BTreeMap::new();
    for (pod, counted) in history.recent().flat_map(|step| &step.by_pod) {
        for (_, count) in counted.iter().filter(|(key, _)| own(key)) {
            sums.entry(pod).or_default().add(count);
        }
    }
    sums.into_iter().map(|(pod, count)| Caller { pod, figures: figures(Some(&count), history) }).collect()
}
