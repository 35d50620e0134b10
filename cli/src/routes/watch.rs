//! `gamut routes --watch`: the split as set beside the split as it has been for the last seconds, again and again.
//!
//! ```text
//! reports, one every two seconds ─ Window, the last ten seconds of them ─► flows: what each rule sent where ─► a page or a line each
//! ```

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{Backend, Report, Route, Rule, gather, page};
use crate::{
    output::{self, Cell, Colour, Format, Page, Tone},
    world::{Selection, World},
};

/// How often a world is asked.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);
/// What shares are measured over: shorter, and chance would show more than the split does.
const WINDOW: Duration = Duration::from_secs(10);
/// How wide a share of everything is drawn, in characters.
const BAR: usize = 25;

/// What a rule did lately.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Flow {
    /// `httproute/shop/web`.
    pub(crate) route: String,
    /// The rule's name or, without one, its index.
    pub(crate) rule: String,
    /// Its requests and connections in a second.
    pub(crate) per_second: f64,
    /// Where they went.
    pub(crate) backends: Vec<Got>,
    /// Those that sidecars answered with an error of their own, because their share leads nowhere.
    pub(crate) failed_itself: u64,
}

/// What a backend got of a rule lately.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Got {
    /// The backend: `service/shop/web-v1:80`.
    pub(crate) id: String,
    /// Its share as set, in percent.
    pub(crate) set: f64,
    /// Its share as it was; `None` without any requests.
    pub(crate) got: Option<f64>,
    /// How many requests and connections that was.
    pub(crate) requests: u64,
    /// How many of them were answered 5xx.
    pub(crate) failed: u64,
}

/// The reports of the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Window {
    reports: VecDeque<(Instant, Counts)>,
}

/// What was counted by route, rule and backend.
type Counts = HashMap<(String, String, String), (u64, u64)>;

/// A look at the split, as `-o json` prints it.
#[derive(Clone, Debug, Serialize)]
struct Look<'a> {
    time: Timestamp,
    rules: &'a [Flow],
}

/// Until whoever watches has seen enough.
pub(super) async fn watch(
    world: &World,
    selection: &Selection,
    format: Option<Format>,
    colour: Colour,
) -> anyhow::Result<()> {
    let (mut window, mut before) = (Window::default(), Vec::new());
    let (on_terminal, colour) = (io::stdout().is_terminal(), colour.wanted(&io::stdout()));
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = output::gone() => return Ok(()),
        }
        let report = gather::report(world, selection).await?;
        let (flows, now) = (window.take(&report, Instant::now()), Timestamp::now());
        let text = match format {
            Some(Format::Json) => output::json_line(&Look { time: now, rules: &flows })?,
            Some(Format::Yaml) => {
                format!("---\n{}", serde_saphyr::to_string(&Look { time: now, rules: &flows })?)
            }
            None | Some(Format::Wide) if on_terminal => {
                // To the top left, and from there all that was (ECMA-48, CUP and ED).
                format!("\x1b[H\x1b[J{}", view(&report, &flows, now).render(colour))
            }
            None | Some(Format::Wide) => lines(&flows, &before, now, colour),
        };
        if !output::stream(text.as_bytes())? {
            return Ok(());
        }
        before = flows;
    }
}

/// A line for each rule that did something, or was changed.
fn lines(flows: &[Flow], before: &[Flow], now: Timestamp, colour: bool) -> String {
    let mut page = Page::default();
    let weights = |flow: &Flow| flow.backends.iter().map(|got| (got.id.clone(), got.set)).collect::<Vec<_>>();
    for flow in flows {
        let known = before.iter().find(|old| (&old.route, &old.rule) == (&flow.route, &flow.rule));
        if flow.per_second > 0.0 || known.is_none_or(|old| weights(old) != weights(flow)) {
            let time = Cell::new(format!("{} ", now.strftime("%H:%M:%S")), Tone::Faint);
            page.line([time, Cell::from(flow)]);
        }
    }
    page.render(colour)
}

/// The split as a page.
fn view(report: &Report, flows: &[Flow], now: Timestamp) -> Page {
    let mut page = Page::default();
    page.say(report.world.line(now), Tone::Faint);
    page.say(
        format!("the last {} s at {}; Ctrl-C ends", WINDOW.as_secs(), now.strftime("%H:%M:%S")),
        Tone::Faint,
    );
    for flow in flows {
        page.gap();
        page.line([
            Cell::new(format!("{}, rule {}", flow.route, flow.rule), Tone::Strong),
            Cell::from(format!("  {:.1} requests/s", flow.per_second)),
        ]);
        let rows = flow.backends.iter().map(|got| {
            vec![
                Cell::from(page::short(&got.id, flow.namespace())),
                Cell::from(page::percent(Some(got.set))),
                Cell::from(page::percent(got.got)),
                Cell::from(bar(got.got)),
                Cell::new(got.failed, if got.failed == 0 { Tone::Plain } else { Tone::Bad }),
            ]
        });
        let failed = Cell::new(flow.failed_itself, Tone::Bad);
        let itself = vec![page::ITSELF.into(), "".into(), "".into(), "".into(), failed];
        let rows = rows.chain((flow.failed_itself > 0).then_some(itself));
        page.table(2, &["BACKEND", "SET", "GOT", "", "FAILED"], rows);
    }
    if flows.is_empty() {
        page.gap();
        page.say("no routes", Tone::Faint);
    }
    for note in &report.notes {
        page.say(note, Tone::Doubtful);
    }
    page
}

fn bar(share: Option<f64>) -> String {
    let filled = share.map_or(0, |share| (share / 100.0 * BAR as f64).round() as usize).min(BAR);
    format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled))
}

impl Window {
    /// Takes in a report, and tells what each rule has done since the oldest of the window.
    pub(crate) fn take(&mut self, report: &Report, now: Instant) -> Vec<Flow> {
        while self.reports.len() > 1 && self.reports.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            self.reports.pop_front();
        }
        self.reports.push_back((now, counts(report)));
        let Some((since, before)) = self.reports.front() else { return Vec::new() };
        let seconds = (now - *since).as_secs_f64();
        let rules = report.routes.iter().flat_map(|route| route.rules.iter().map(move |rule| (route, rule)));
        let rules = rules.filter(|(_, rule)| !rule.backends.is_empty() || rule.own.failed > 0);
        rules.map(|(route, rule)| flow(route, rule, before, seconds)).collect()
    }
}

fn counts(report: &Report) -> Counts {
    let mut counts = Counts::new();
    for route in &report.routes {
        for rule in &route.rules {
            for backend in &rule.backends {
                let key = (route.id(), rule.name.clone(), backend.id.clone());
                counts.insert(key, (backend.requests, backend.failed));
            }
            counts.insert(itself(route, rule), (rule.own.requests, rule.own.failed));
        }
    }
    counts
}

/// The key of what sidecars answered themselves.
fn itself(route: &Route, rule: &Rule) -> (String, String, String) {
    (route.id(), rule.name.clone(), String::new())
}

fn flow(route: &Route, rule: &Rule, before: &Counts, seconds: f64) -> Flow {
    // What a sidecar that has gone had counted is missing now: nothing is less than none. A rule that is new begins now.
    let since = |backend: &Backend| {
        let key = (route.id(), rule.name.clone(), backend.id.clone());
        let (requests, failed) = before.get(&key).copied().unwrap_or((backend.requests, backend.failed));
        (backend.requests.saturating_sub(requests), backend.failed.saturating_sub(failed))
    };
    let counted: Vec<(u64, u64)> = rule.backends.iter().map(since).collect();
    let (_, failed) = before.get(&itself(route, rule)).copied().unwrap_or((0, rule.own.failed));
    let failed_itself = rule.own.failed.saturating_sub(failed);
    let all = counted.iter().map(|(requests, _)| requests).sum::<u64>() + failed_itself;
    let backends = rule.backends.iter().zip(counted).map(|(backend, (requests, failed))| Got {
        id: backend.id.clone(),
        set: backend.share,
        got: gather::percent(requests, all),
        requests,
        failed,
    });
    let per_second = if seconds > 0.0 { all as f64 / seconds } else { 0.0 };
    let per_second = (per_second * 10.0).round() / 10.0;
    let backends = backends.collect();
    Flow { route: route.id(), rule: rule.name.clone(), per_second, backends, failed_itself }
}

impl Route {
    /// `httproute/shop/web`, as in metrics and messages.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}/{}", self.kind.to_ascii_lowercase(), self.namespace, self.name)
    }
}

impl Flow {
    fn namespace(&self) -> &str {
        self.route.split('/').nth(1).unwrap_or_default()
    }

    /// The shares as they were, and as they were set.
    fn shares(&self) -> String {
        let share = |got: &Got| {
            let id = page::short(&got.id, self.namespace());
            format!("{id} {} (set {})", page::percent(got.got), page::percent(Some(got.set)))
        };
        match self.backends.is_empty() {
            true => page::ITSELF.to_owned(),
            false => self.backends.iter().map(share).collect::<Vec<_>>().join(", "),
        }
    }

    /// As much of it as fits into a line of a terminal.
    pub(crate) fn brief(&self) -> String {
        let route = self.route.split_once('/').map_or(self.route.as_str(), |(_, name)| name);
        format!("{route} {}: {}; {:.0}/s", self.rule, self.shares(), self.per_second)
    }
}

/// One line.
impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.backends.iter().map(|got| got.failed).sum::<u64>() + self.failed_itself;
        write!(f, "{}, rule {}: {}; ", self.route, self.rule, self.shares())?;
        write!(f, "{:.1} requests/s, {failed} failed", self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{routes::Own, world::Place};

    /// A rule of two backends: what each got, and how many of that failed; the second's weight.
    fn report(v1: (u64, u64), v2: (u64, u64), weight: u64) -> Report {
        let backend = |id: &str, weight: u64, (requests, failed): (u64, u64)| Backend {
            id: format!("service/shop/{id}:80"),
            weight,
            share: weight as f64,
            answered: None,
            requests,
            got: None,
            failed,
        };
        let rule = Rule {
            name: "split".to_owned(),
            matches: Vec::new(),
            settings: Vec::new(),
            sessions: Vec::new(),
            backends: vec![backend("web-v1", 100 - weight, v1), backend("web-v2", weight, v2)],
            named: true,
            dropped: None,
            own: Own::default(),
        };
        let route = Route {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
            parents: Vec::new(),
            missed: Vec::new(),
            silent: Vec::new(),
            bare: Vec::new(),
            unmatched: 0,
            rules: vec![rule],
        };
        Report { world: Place::Machine, routes: vec![route], extensions: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn shares_are_those_of_the_last_seconds_and_not_of_all_time() {
        let (mut window, start) = (Window::default(), Instant::now());
        let first = window.take(&report((1000, 0), (0, 0), 10), start);
        assert_eq!((first[0].per_second, first[0].backends[0].got), (0.0, None), "nothing is known yet");
        let after = |seconds| start + Duration::from_secs(seconds);
        let flow = window.take(&report((1050, 0), (50, 5), 50), after(2)).remove(0);
        assert_eq!(
            flow.to_string(),
            "httproute/shop/web, rule split: web-v1:80 50% (set 50%), web-v2:80 50% (set 50%); 50.0 requests/s, 5 failed"
        );
        assert_eq!(flow.brief(), "shop/web split: web-v1:80 50% (set 50%), web-v2:80 50% (set 50%); 50/s");
        // What is older than the window is forgotten.
        let flow = window.take(&report((1050, 0), (60, 5), 50), after(12)).remove(0);
        assert_eq!((flow.per_second, flow.backends[1].got, flow.backends[1].failed), (1.0, Some(100.0), 0));
    }

    #[test]
    fn a_share_that_leads_nowhere_is_part_of_the_rules_requests_and_of_its_failures() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.take(&report((0, 0), (0, 0), 10), start);
        let mut now = report((90, 0), (0, 0), 10);
        now.routes[0].rules[0].own = Own { requests: 10, got: Some(10.0), failed: 10 };
        let flow = window.take(&now, start + INTERVAL).remove(0);
        assert_eq!(
            flow.to_string(),
            "httproute/shop/web, rule split: web-v1:80 90% (set 90%), web-v2:80 0% (set 10%); 50.0 requests/s, 10 failed"
        );
    }

    #[test]
    fn a_sidecar_that_has_gone_takes_its_counts_along_and_nothing_is_less_than_none() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.take(&report((1000, 0), (100, 0), 10), start);
        let flow = window.take(&report((10, 0), (110, 0), 10), start + INTERVAL).remove(0);
        assert_eq!((flow.per_second, flow.backends[0].requests), (5.0, 0));
    }

    #[test]
    fn without_a_terminal_there_is_a_line_for_what_happened_and_for_what_was_changed() {
        let (mut window, start) = (Window::default(), Instant::now());
        let first = window.take(&report((0, 0), (0, 0), 10), start);
        assert_eq!(lines(&first, &[], Timestamp::UNIX_EPOCH, false).lines().count(), 1, "how it begins");
        let quiet = window.take(&report((0, 0), (0, 0), 10), start + INTERVAL);
        assert_eq!(lines(&quiet, &first, Timestamp::UNIX_EPOCH, false), "");
        let changed = window.take(&report((0, 0), (0, 0), 20), start + 2 * INTERVAL);
        assert_eq!(
            lines(&changed, &quiet, Timestamp::UNIX_EPOCH, false),
            "00:00:00 httproute/shop/web, rule split: web-v1:80 - (set 80%), web-v2:80 - (set 20%); 0.0 requests/s, 0 failed\n"
        );
    }

    #[test]
    fn on_a_terminal_the_split_is_drawn() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.take(&report((0, 0), (0, 0), 10), start);
        let now = report((90, 0), (10, 2), 10);
        let flows = window.take(&now, start + INTERVAL);
        insta::assert_snapshot!(view(&now, &flows, Timestamp::UNIX_EPOCH).render(false), @r"
        this machine
        the last 10 s at 00:00:00; Ctrl-C ends

        httproute/shop/web, rule split  50.0 requests/s
          BACKEND    SET  GOT                             FAILED
          web-v1:80  90%  90%  #######################..  0
          web-v2:80  10%  10%  ###......................  2
        ");
    }
}
