//! What people are told while the node comes up, changes and goes wrong: each thing once, when it has become true.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::control::{Event, Summary};

/// A pod that can't get on is told about after this long: much of what stands in its way at first passes by itself.
const PATIENCE: Duration = Duration::from_secs(3);
/// A container that goes on crashing in the same way is told about no more often.
const CRASH_INTERVAL: Duration = Duration::from_secs(30);

/// What has been told.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    phase: Phase,
    told: BTreeSet<String>,
    waiting: Vec<String>,
    /// Problems of processes and since when.
    stuck: BTreeMap<String, Instant>,
    /// Containers that have crashed.
    crashes: BTreeMap<String, Crashes>,
}

/// How often a container has crashed, and what was said of it.
#[derive(Debug)]
struct Crashes {
    count: u32,
    first: Instant,
    told: Instant,
    line: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    /// Everything was ready once; `Some`: a change of the manifests is on its way since then.
    Running(Option<Instant>),
}

impl Progress {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            phase: Phase::Starting,
            told: BTreeSet::new(),
            waiting: Vec::new(),
            stuck: BTreeMap::new(),
            crashes: BTreeMap::new(),
        }
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

    /// What to tell about problems: `lasting` at once, those of processes (pods and components) when they have lasted.
    pub(crate) fn problems(
        &mut self,
        lasting: BTreeSet<String>,
        of_processes: BTreeSet<String>,
        now: Instant,
    ) -> Vec<Event> {
        self.stuck.retain(|line, _| of_processes.contains(line));
        for line in of_processes {
            self.stuck.entry(line).or_insert(now);
        }
        let stuck = self.stuck.iter().filter(|(_, since)| now - **since >= PATIENCE);
        let mut current = lasting;
        current.extend(stuck.map(|(line, _)| line.clone()));

        let new = in_order(current.difference(&self.told)).into_iter().map(|text| Event::Problem { text });
        let gone = in_order(self.told.difference(&current)).into_iter().map(|text| Event::Mended { text });
        let events = gone.chain(new).collect();
        self.told = current;
        events
    }

    /// What to tell about a container that has crashed: what is new at once, the same again as a count, now and then.
    pub(crate) fn crashed(&mut self, container: String, line: String, now: Instant) -> Option<Event> {
        let fresh = Crashes { count: 0, first: now, told: now, line: line.clone() };
        let crashes = self.crashes.entry(container).or_insert(fresh);
        let other = crashes.line != line;
        if other {
            *crashes = Crashes { count: 0, first: now, told: now, line };
        }
        crashes.count += 1;
        let text = match crashes.count {
            1 => crashes.line.clone(),
            count if now - crashes.told >= CRASH_INTERVAL => {
                let seconds = (now - crashes.first).as_secs();
                format!("{} ({count} times within {seconds} s)", crashes.line)
            }
            _ => return None,
        };
        crashes.told = now;
        Some(Event::Problem { text })
    }

    /// What is wrong now, as it was told.
    pub(crate) fn told(&self) -> Vec<String> {
        in_order(self.told.iter())
    }
}

/// Lines as people count: `a.yaml:9` before `a.yaml:10`.
pub(crate) fn in_order<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.cloned().collect();
    lines.sort_by_cached_key(|line| parts(line));
    lines
}

/// A text cut into what is and what isn't a number; the number, and the text itself.
fn parts(text: &str) -> Vec<(u64, String)> {
    let mut parts: Vec<(u64, String)> = Vec::new();
    let mut digits = false;
    for letter in text.chars() {
        match parts.last_mut() {
            Some((_, part)) if letter.is_ascii_digit() == digits => part.push(letter),
            _ => parts.push((0, letter.to_string())),
        }
        digits = letter.is_ascii_digit();
    }
    for (number, part) in &mut parts {
        *number = part.parse().unwrap_or_default();
    }
    parts
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

    #[test]
    fn problems_come_in_the_order_of_their_lines() {
        let told =
            ["a.yaml:10: x", "a.yaml:9: x", "a.yaml:9:12: x", "a.yaml:9:3: x", "Pod b: x", "b.yaml:1: x"];
        let told: Vec<String> = lines(&told);
        let expected =
            ["Pod b: x", "a.yaml:9:3: x", "a.yaml:9:12: x", "a.yaml:9: x", "a.yaml:10: x", "b.yaml:1: x"];
        assert_eq!(in_order(told.iter()), expected);
    }

    #[test]
    fn a_container_that_crashes_in_a_loop_is_told_once_and_then_counted() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let mut crashed = |line: &str, seconds| {
            let event = progress.crashed("uid/app".into(), line.into(), start + Duration::from_secs(seconds));
            event.map(|event| match event {
                Event::Problem { text } => text,
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(crashed("exited with 1", 0).as_deref(), Some("exited with 1"));
        assert_eq!(
            [crashed("exited with 1", 1), crashed("exited with 1", 3), crashed("exited with 1", 7)],
            [None, None, None]
        );
        assert_eq!(crashed("exited with 1", 31).as_deref(), Some("exited with 1 (5 times within 31 s)"));
        assert_eq!(crashed("exited with 2", 32).as_deref(), Some("exited with 2"), "another end is news");
    }
}
