//! What people are told while the node comes up, changes and goes wrong: each thing once, when it has become true.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::control::{Event, Summary};

/// A pod that can't get on is told about after this long: much of what stands in its way at first passes by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// What has been told.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    phase: Phase,
    told: BTreeSet<String>,
    waiting: Vec<String>,
    /// Problems of pods and since when.
    stuck: BTreeMap<String, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    /// Everything was ready once; `Some`: a change of the manifests is on its way since then.
    Running(Option<Instant>),
}

impl Progress {
    pub(crate) fn new(started: Instant) -> Self {
        let (told, stuck) = (BTreeSet::new(), BTreeMap::new());
        Self { started, phase: Phase::Starting, told, waiting: Vec::new(), stuck }
    }

    /// Whether anything is on its way that somebody will want to hear the end of.
    pub(crate) fn is_under_way(&self) -> bool {
        self.phase != Phase::Running(None)
    }

    /// The manifests have changed.
    pub(crate) fn reloaded(&mut self, changes: Vec<String>, now: Instant) -> Option<Event> {
        if changes.is_empty() {
            return None;
        }
        if let Phase::Running(since) = &mut self.phase {
            since.get_or_insert(now);
        }
        Some(Event::Reloaded { changes })
    }

    /// What to tell about `missing`, which everything still waits for.
    pub(crate) fn missing(
        &mut self,
        missing: &[String],
        now: Instant,
        summary: impl FnOnce(u64) -> Summary,
    ) -> Option<Event> {
        let milliseconds = |since: Instant| u64::try_from((now - since).as_millis()).unwrap_or(u64::MAX);
        match (self.phase, missing.is_empty()) {
            (Phase::Starting, true) => {
                self.phase = Phase::Running(None);
                Some(Event::Ready(summary(milliseconds(self.started))))
            }
            (Phase::Running(Some(since)), true) => {
                self.phase = Phase::Running(None);
                Some(Event::Settled { milliseconds: milliseconds(since) })
            }
            (Phase::Starting | Phase::Running(Some(_)), false) if self.waiting != missing => {
                self.waiting = missing.to_vec();
                Some(Event::Waiting { what: missing.to_vec() })
            }
            _ => None,
        }
    }

    /// What to tell about problems: `lasting` at once, those of pods when they have lasted.
    pub(crate) fn problems(
        &mut self,
        lasting: BTreeSet<String>,
        of_pods: BTreeSet<String>,
        now: Instant,
    ) -> Vec<Event> {
        self.stuck.retain(|line, _| of_pods.contains(line));
        for line in of_pods {
            self.stuck.entry(line).or_insert(now);
        }
        let stuck = self.stuck.iter().filter(|(_, since)| now - **since >= PATIENCE);
        let mut current = lasting;
        current.extend(stuck.map(|(line, _)| line.clone()));

        let new = current.difference(&self.told).map(|line| Event::Problem { text: line.clone() });
        let gone = self.told.difference(&current).map(|line| Event::Mended { text: line.clone() });
        let events = gone.chain(new).collect();
        self.told = current;
        events
    }

    /// What is wrong now, as it was told.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_start_tells_what_it_waits_for_when_that_changes_and_ends_with_a_summary() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let summary = |milliseconds| Summary { milliseconds, pods: 2, ..Summary::default() };
        let mut tell = |missing: &[&str], seconds| {
            progress.missing(&lines(missing), start + Duration::from_secs(seconds), summary)
        };
        assert_eq!(tell(&["the CA"], 0), Some(Event::Waiting { what: lines(&["the CA"]) }));
        assert_eq!(tell(&["the CA"], 1), None);
        assert_eq!(tell(&["a pod"], 1), Some(Event::Waiting { what: lines(&["a pod"]) }));
        assert_eq!(tell(&[], 2), Some(Event::Ready(summary(2000))));
        assert_eq!(tell(&[], 3), None);
        assert_eq!(tell(&["a pod"], 4), None, "a pod that restarts later is no start");
    }

    #[test]
    fn a_change_is_told_and_so_is_when_it_is_in_effect() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let summary = |_| Summary::default();
        progress.missing(&[], start, summary);
        assert_eq!(progress.reloaded(Vec::new(), start), None, "a comment was edited");
        assert!(!progress.is_under_way());
        let event = progress.reloaded(lines(&["changed HTTPRoute demo/web"]), start);
        assert_eq!(event, Some(Event::Reloaded { changes: lines(&["changed HTTPRoute demo/web"]) }));
        assert!(progress.is_under_way());
        let settled = progress.missing(&[], start + Duration::from_millis(40), summary);
        assert_eq!(settled, Some(Event::Settled { milliseconds: 40 }));
    }

    #[test]
    fn problems_are_told_once_those_of_pods_only_if_they_last() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let set = |all: &[&str]| lines(all).into_iter().collect::<BTreeSet<String>>();
        let problem = |text: &str| Event::Problem { text: text.to_owned() };
        assert_eq!(progress.problems(set(&["bad file"]), set(&["stuck"]), start), [problem("bad file")]);
        assert_eq!(
            progress.problems(set(&["bad file"]), set(&["stuck"]), start + PATIENCE),
            [problem("stuck")]
        );
        assert_eq!(progress.told(), ["bad file", "stuck"]);
        let mended = Event::Mended { text: "bad file".into() };
        assert_eq!(progress.problems(set(&[]), set(&["stuck"]), start + PATIENCE), [mended]);
    }
}
