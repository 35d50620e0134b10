//! A budget against the arithmetic of its policy, and against lists of what happened when.

use std::{sync::Barrier, thread};

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn limits(percent: u8, interval: Duration, min_retries: u32, min_interval: Duration) -> RetryBudget {
    RetryBudget { percent, interval, min_retries, min_interval }
}

/// How many retries there are until one is refused.
fn granted(budget: &Budget, now: Instant) -> usize {
    (0..10_000).take_while(|_| budget.retry(now).is_ok()).count()
}

#[test]
fn two_hundred_of_a_thousand_requests_may_be_retries_as_the_specification_has_it() {
    let now = Instant::now();
    let budget = Budget::new(limits(20, Duration::from_secs(10), 1, Duration::from_secs(1)), now);
    (0..800).for_each(|_| budget.request(now));
    assert_eq!(granted(&budget, now), 200);
    assert_eq!(budget.retry(now), Err(Spent(budget.limits())));
}

#[test]
fn a_backend_that_is_hardly_called_may_be_retried_at_the_minimal_rate() {
    let begin = Instant::now();
    let budget = Budget::new(limits(20, Duration::from_secs(10), 3, Duration::from_secs(1)), begin);
    budget.request(begin);
    assert_eq!(granted(&budget, begin), 3);
    assert_eq!(granted(&budget, begin + Duration::from_millis(999)), 0, "the second isn't over");
    assert_eq!(granted(&budget, begin + Duration::from_millis(1100)), 3);
}

#[test]
fn requests_and_retries_of_long_ago_are_forgotten() {
    let begin = Instant::now();
    let budget = Budget::new(limits(50, Duration::from_secs(10), 1, HOUR), begin);
    (0..10).for_each(|_| budget.request(begin));
    assert_eq!(granted(&budget, begin + Duration::from_secs(9)), 10);
    let later = begin + Duration::from_secs(11);
    assert_eq!(granted(&budget, later), 0, "the requests are forgotten, their retries aren't");
    (0..12).for_each(|_| budget.request(later));
    assert_eq!(granted(&budget, later), 2);
    let much_later = later + 3 * Duration::from_secs(10);
    (0..12).for_each(|_| budget.request(much_later));
    assert_eq!(granted(&budget, much_later), 12);
}

/// Numbers of slots come round in that time, and half of it is where a signed difference would turn over.
#[test]
fn a_budget_that_rested_for_a_day_or_two_is_whole() {
    let begin = Instant::now();
    let budget = Budget::new(limits(0, Duration::from_secs(1), 3, Duration::from_millis(1)), begin);
    for hours in [0, 20, 38, 76] {
        assert_eq!(granted(&budget, begin + hours * HOUR), 3, "after {hours} h");
    }
}

#[test]
fn no_percentage_leaves_the_minimal_rate_and_all_of_it_leaves_no_limit() {
    let now = Instant::now();
    for (percent, expected) in [(0, 2), (100, 10_000)] {
        let budget = Budget::new(limits(percent, HOUR, 2, HOUR), now);
        (0..100).for_each(|_| budget.request(now));
        assert_eq!(granted(&budget, now), expected, "{percent} %");
    }
}

#[test]
fn whoever_reads_that_a_budget_is_spent_reads_which() {
    let spent = Spent(limits(20, Duration::from_secs(10), 3, Duration::from_millis(500)));
    let expected = "its retry budget is spent: 20 % of the requests within 10s, or 3 retries within 500ms (XBackendTrafficPolicy, retryConstraint)";
    assert_eq!(spent.to_string(), expected);
}

#[test]
fn threads_lose_no_count_also_where_slots_change_hands() {
    const EACH: u64 = 5_000;
    let window = Window::new(Duration::from_secs(32));
    let together = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // Slots of an earlier round are taken over by whoever comes first.
                for seconds in [0..20, 100..120] {
                    together.wait();
                    for second in seconds {
                        (0..EACH).for_each(|_| window.add(Duration::from_secs(second)));
                    }
                }
            });
        }
    });
    assert_eq!(window.sum(Duration::from_secs(120)), 4 * 20 * EACH);
}

#[test]
fn a_thread_that_comes_late_undoes_nothing() {
    let window = Window::new(Duration::from_secs(32));
    let second = Duration::from_secs;
    window.add(second(34));
    window.add(second(34) - ROUND * second(1));
    assert_eq!(window.sum(second(34)), 2);
}

/// What a budget should do, from lists of moments, as slow as it is simple.
struct Model {
    limits: RetryBudget,
    requests: Vec<u64>,
    retries: Vec<u64>,
}

impl Model {
    /// How many of `moments`, in nanoseconds, are within `length` before `now`, where both ends are rounded to slots.
    fn within(moments: &[u64], length: Duration, now: u64) -> u64 {
        let slot = (length.as_nanos() as u64).div_ceil(u64::from(SLOTS));
        moments.iter().filter(|moment| now / slot - *moment / slot <= u64::from(SLOTS)).count() as u64
    }

    fn retry(&mut self, now: u64) -> bool {
        let RetryBudget { percent, interval, min_retries, min_interval } = self.limits;
        let retries = Self::within(&self.retries, interval, now) + 1;
        let requests = Self::within(&self.requests, interval, now);
        let few = Self::within(&self.retries, min_interval, now) < u64::from(min_retries);
        let allowed = few || retries as f64 / (requests + retries) as f64 <= f64::from(percent) / 100.0;
        if allowed {
            self.retries.push(now);
        }
        allowed
    }
}

/// How long after the one before, and whether it is a retry.
fn events() -> impl Strategy<Value = Vec<(Duration, bool)>> {
    let pause = prop_oneof![
        4 => Just(Duration::ZERO),
        4 => (0_u64..200).prop_map(Duration::from_millis),
        1 => (0_u64..40_000).prop_map(Duration::from_millis),
    ];
    proptest::collection::vec((pause, any::<bool>()), 1..400)
}

fn budgets() -> impl Strategy<Value = RetryBudget> {
    (0_u8..=100, 1_000_u64..20_000, 1_u32..8, 1_u64..5_000).prop_map(|(percent, interval, count, least)| {
        limits(percent, Duration::from_millis(interval), count, Duration::from_millis(least))
    })
}

proptest! {
    #[test]
    fn a_budget_decides_as_lists_of_moments_do(limits in budgets(), events in events()) {
        let begin = Instant::now();
        let budget = Budget::new(limits, begin);
        let mut model = Model { limits, requests: Vec::new(), retries: Vec::new() };
        let mut at = Duration::ZERO;
        for (pause, is_retry) in events {
            at += pause;
            let nanos = at.as_nanos() as u64;
            if is_retry {
                prop_assert_eq!(budget.retry(begin + at).is_ok(), model.retry(nanos), "at {:?}", at);
            } else {
                budget.request(begin + at);
                model.requests.push(nanos);
            }
        }
    }

    /// Without any rounding: slots make a window longer, never shorter.
    #[test]
    fn no_interval_wherever_it_begins_has_more_than_its_minimal_rate(limits in budgets(), events in events()) {
        let begin = Instant::now();
        let budget = Budget::new(RetryBudget { percent: 0, ..limits }, begin);
        let (mut at, mut granted) = (Duration::ZERO, Vec::new());
        for (pause, _) in events {
            at += pause;
            if budget.retry(begin + at).is_ok() {
                granted.push(at);
            }
        }
        for first in &granted {
            let within = granted.iter().filter(|at| (*first..*first + limits.min_interval).contains(*at));
            prop_assert!(within.count() <= limits.min_retries as usize, "from {:?}: {:?}", first, granted);
        }
    }
}
