//! Counts, and the figures that people read off them: a rate, a share of successes, latencies.

use gamut_proxy::telemetry::BOUNDS_MS;
use serde::Serialize;

/// What was counted of some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Requests and connections.
    pub(super) requests: u64,
    /// Those of them that failed: answered 5xx, or with an error of the sidecar's own.
    pub(super) failed: u64,
    /// Requests by how long they took: one count for each of [`BOUNDS_MS`] and one for what is above; zeros at the end are left out.
    pub(super) durations: Vec<u64>,
}

/// A count over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Requests and connections in a second; `None` before there are two answers to compare.
    rate: Option<f64>,
    /// Those of them that failed, in a second.
    failed: Option<f64>,
    /// The share of those that didn't fail, in percent; `None` of nothing.
    success: Option<f64>,
    /// How many milliseconds half of the requests took at most.
    p50: Option<f64>,
    /// How many milliseconds 99 of 100 requests took at most.
    p99: Option<f64>,
}

impl Count {
    /// Adds another's.
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        if self.durations.len() < other.durations.len() {
            self.durations.resize(other.durations.len(), 0);
        }
        for (count, more) in self.durations.iter_mut().zip(&other.durations) {
            *count += more;
        }
    }

    /// What has come since `before`. A counter that is smaller than it was has begun again, together with its sidecar.
    pub(super) fn since(&self, before: &Self) -> Self {
        let difference = |now: &[u64], then: &[u64]| -> Option<Vec<u64>> {
            let fewer = then.len() > now.len();
            let then = then.iter().copied().chain(std::iter::repeat(0));
            let each = now.iter().zip(then).map(|(now, then)| now.checked_sub(then));
            if fewer { None } else { each.collect() }
        };
        let increase = || {
            Some(Self {
                requests: self.requests.checked_sub(before.requests)?,
                failed: self.failed.checked_sub(before.failed)?,
                durations: difference(&self.durations, &before.durations)?,
            })
        };
        increase().unwrap_or_else(|| self.clone())
    }

    /// Nothing was counted.
    pub(super) fn is_zero(&self) -> bool {
        self.requests == 0
    }

    /// The figures of what was counted in so many seconds.
    pub(super) fn figures(&self, seconds: f64) -> Figures {
        if seconds <= 0.0 {
            return Figures::default();
        }
        let per_second = |count: u64| Some(count as f64 / seconds);
        let good = self.requests.saturating_sub(self.failed);
        Figures {
            rate: per_second(self.requests),
            failed: per_second(self.failed),
            success: (self.requests > 0).then(|| good as f64 * 100.0 / self.requests as f64),
            p50: quantile(&self.durations, 0.5),
            p99: quantile(&self.durations, 0.99),
        }
    }
}

/// The value in milliseconds that a share of all durations is at or below, as Prometheus' `histogram_quantile` has it: evenly
/// spread within a bucket. What is above the last bound is said to be at it.
fn quantile(durations: &[u64], share: f64) -> Option<f64> {
    let all: u64 = durations.iter().sum();
    if all == 0 {
        return None;
    }
    let rank = share * all as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (count, upper) in durations.iter().map(|count| *count as f64).zip(BOUNDS_MS) {
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * (rank - below) / count);
        }
        (below, lower) = (below + count, upper);
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(requests: u64, failed: u64, durations: &[u64]) -> Count {
        Count { requests, failed, durations: durations.to_vec() }
    }

    #[test]
    fn what_has_come_since_is_the_difference_and_after_a_restart_all_there_is() {
        let before = count(100, 5, &[90, 10]);
        assert_eq!(count(130, 6, &[110, 15, 5]).since(&before), count(30, 1, &[20, 5, 5]));
        assert_eq!(count(100, 5, &[90, 10]).since(&before), count(0, 0, &[0, 0]));
        assert_eq!(count(7, 0, &[7]).since(&before), count(7, 0, &[7]), "smaller: begun again");
        let restarted = count(200, 0, &[200]);
        assert_eq!(restarted.since(&before), restarted, "one that is smaller is enough");
    }

    #[test]
    fn figures_are_per_second_and_of_nothing_there_is_no_share() {
        let figures = count(20, 5, &[0, 20]).figures(10.0);
        assert_eq!((figures.rate, figures.failed, figures.success), (Some(2.0), Some(0.5), Some(75.0)));
        let idle = count(0, 0, &[]).figures(10.0);
        assert_eq!((idle.rate, idle.success, idle.p99), (Some(0.0), None, None));
        assert_eq!(count(20, 5, &[20]).figures(0.0), Figures::default());
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        assert_eq!(quantile(&[0, 0, 100], 0.5), Some(3.0), "half way between 1 and 5");
        assert_eq!(quantile(&[50, 0, 50], 0.5), Some(0.5));
        assert_eq!(quantile(&[50, 0, 50], 0.51), Some(1.0 + 4.0 / 50.0));
        let mut beyond = vec![0; BOUNDS_MS.len()];
        beyond.push(3);
        assert_eq!(quantile(&beyond, 0.5), Some(3.6e6));
        assert_eq!(quantile(&[0, 0], 0.5), None);
    }
}
