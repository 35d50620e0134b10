//! A mesh whose every request is known, and what the history makes of its sidecars' counters.

use proptest::prelude::*;

use super::*;

fn key(rule: &str) -> Key {
    let (route, parent) = ("httproute/shop/web".to_owned(), "shop/web:80".to_owned());
    Key { route, rule: rule.to_owned(), parent, backend: "service/shop/web-v1:80".to_owned() }
}

fn count(requests: u64) -> Count {
    Count { requests, failed: requests / 2, durations: vec![requests] }
}

fn answer(pod: &str, counted: Option<&[(&str, u64)]>) -> Answer {
    let counters = |counted: &[(&str, u64)]| counted.iter().map(|(rule, n)| (key(rule), count(*n))).collect();
    Answer { uid: format!("uid of {pod}"), pod: pod.into(), counted: counted.map(counters) }
}

/// Rounds of answers two seconds apart.
struct Clock {
    history: History,
    start: Instant,
    rounds: u32,
}

impl Clock {
    fn new() -> Self {
        Self { history: History::default(), start: Instant::now(), rounds: 0 }
    }

    fn round(&mut self, answers: Vec<Answer>) {
        let at = self.start + Duration::from_secs(2) * self.rounds;
        let time = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(2 * i64::from(self.rounds));
        self.rounds += 1;
        self.history.observe(at, time, answers, Splits::new());
    }

    fn requests(&self, rule: &str) -> u64 {
        let counted = self.history.recently(|key| (key.rule == rule).then_some(()));
        counted.get(&()).map_or(0, |count| count.requests)
    }
}

#[test]
fn a_sidecars_first_answer_is_where_counting_begins() {
    let mut clock = Clock::new();
    clock.round(vec![answer("a", Some(&[("split", 1000)]))]);
    assert_eq!((clock.requests("split"), clock.history.recent_seconds()), (0, 0.0));
    clock.round(vec![answer("a", Some(&[("split", 1010)])), answer("b", Some(&[("split", 500)]))]);
    assert_eq!((clock.requests("split"), clock.history.recent_seconds()), (10, 2.0));
    clock
        .round(vec![answer("a", Some(&[("split", 1010), ("new", 3)])), answer("b", Some(&[("split", 501)]))]);
    assert_eq!((clock.requests("split"), clock.requests("new")), (11, 3));
}

#[test]
fn who_does_not_answer_is_waited_for_and_who_is_gone_is_forgotten() {
    let mut clock = Clock::new();
    clock.round(vec![answer("a", Some(&[("split", 10)]))]);
    clock.round(vec![answer("a", None)]);
    clock.round(vec![answer("a", Some(&[("split", 25)]))]);
    assert_eq!(clock.requests("split"), 15);
    clock.round(vec![]);
    clock.round(vec![answer("a", Some(&[("split", 5000)]))]);
    assert_eq!(clock.requests("split"), 15, "a pod that comes back is another");
}

#[test]
fn ten_minutes_are_kept_and_pods_apart_for_the_window_alone() {
    let mut clock = Clock::new();
    for round in 0..400 {
        clock.round(vec![answer("a", Some(&[("split", round)]))]);
    }
    let steps: Vec<&Step> = clock.history.steps().collect();
    assert_eq!(steps.len(), 301);
    assert_eq!(
        steps.iter().map(|step| step.counted.values().map(|c| c.requests).sum::<u64>()).sum::<u64>(),
        301
    );
    assert_eq!(steps.iter().filter(|step| !step.by_pod.is_empty()).count(), 15);
    assert_eq!((clock.requests("split"), clock.history.recent_seconds()), (15, 30.0));
}

/// What happens to a pod between two rounds.
#[derive(Clone, Debug)]
struct Happening {
    /// Its sidecar starts anew before the requests come.
    restarts: bool,
    requests: u64,
    /// It doesn't answer this time.
    silent: bool,
}

fn happenings() -> impl Strategy<Value = Vec<Vec<Happening>>> {
    let happening = (prop::bool::weighted(0.1), 0..50_u64, prop::bool::weighted(0.2))
        .prop_map(|(restarts, requests, silent)| Happening { restarts, requests, silent });
    prop::collection::vec(prop::collection::vec(happening, 3), 1..15)
}

proptest! {
    /// The model knows every request. A request can be missed (before a pod's first answer, in a sidecar that ended before it
    /// was asked), and none is ever counted that wasn't there.
    #[test]
    fn what_is_counted_is_what_was_there(rounds in happenings()) {
        let mut clock = Clock::new();
        let (mut shown, mut told, mut missed, mut pending) = ([0; 3], [None::<u64>; 3], 0, [0; 3]);
        let mut there = 0;
        let mut unseen_restarts = false;
        for round in &rounds {
            let mut answers = Vec::new();
            for (pod, happening) in round.iter().enumerate() {
                if happening.restarts {
                    missed += pending[pod];
                    pending[pod] = 0;
                    shown[pod] = 0;
                }
                shown[pod] += happening.requests;
                pending[pod] += happening.requests;
                let name = ["a", "b", "c"][pod];
                if happening.silent {
                    answers.push(answer(name, None));
                    continue;
                }
                match told[pod] {
                    // A sidecar that has counted as far as the one before it can't be told from it.
                    Some(told) => {
                        unseen_restarts |= shown[pod] >= told && shown[pod] - told != pending[pod];
                        there += pending[pod];
                    }
                    None => missed += pending[pod],
                }
                told[pod] = Some(shown[pod]);
                pending[pod] = 0;
                answers.push(answer(name, Some(&[("split", shown[pod])])));
            }
            clock.round(answers);
        }
        let all: u64 = rounds.iter().flatten().map(|happening| happening.requests).sum();
        prop_assert_eq!(there + missed + pending.iter().sum::<u64>(), all, "the model knows them all");
        match unseen_restarts {
            true => prop_assert!(clock.requests("split") <= there),
            false => prop_assert_eq!(clock.requests("split"), there),
        }
    }
}
