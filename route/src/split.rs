//! Splits: which backend a request goes to, by weight.
//!
//! A draw keeps no state: 64 random bits in, an index out. So the shares are exact over time, however few
//! requests each client sends and however often tables are replaced.

use crate::table::Split;

/// A split prepared for drawing, once per table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedSplit {
    /// At each backend's index, the sum of the weights up to and including its own.
    cumulative: Box<[u64]>,
}

impl WeightedSplit {
    /// Prepares a split.
    pub fn new(split: &Split) -> Self {
        let cumulative = split.backends.iter().scan(0_u64, |sum, backend| {
            *sum = sum.saturating_add(u64::from(backend.weight));
            Some(*sum)
        });
        Self { cumulative: cumulative.collect() }
    }

    /// The sum of all weights.
    pub fn total(&self) -> u64 {
        self.cumulative.last().copied().unwrap_or(0)
    }

    /// The index into [`Split::backends`] that 64 random bits choose. `None` where no backend has any weight:
    /// 500.
    pub fn draw(&self, random: u64) -> Option<usize> {
        let ticket = scale(random, self.total());
        let index = self.cumulative.partition_point(|&sum| sum <= ticket);
        (index < self.cumulative.len()).then_some(index)
    }
}

/// Brings 64 random bits into `0..total`. Multiplying is unbiased up to `total / 2^64`, which is nothing, and
/// needs no second draw.
pub(crate) fn scale(random: u64, total: u64) -> u64 {
    let product = u128::from(random) * u128::from(total);
    // The upper half of a product of two 64-bit numbers fits 64 bits.
    (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::table::{Backend, BackendTarget};

    fn split(weights: &[u32]) -> WeightedSplit {
        let backend = |&weight| Backend {
            target: BackendTarget::Invalid("not looked at here".to_owned()),
            weight,
            filters: Vec::new(),
            session: None,
        };
        WeightedSplit::new(&Split { backends: weights.iter().map(backend).collect() })
    }

    /// Pearson's statistic of `draws` draws against the weights.
    fn chi_square(weights: &[u32], draws: u32, mut random: impl FnMut() -> u64) -> f64 {
        let split = split(weights);
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..draws {
            counts[split.draw(random()).unwrap()] += 1;
        }
        let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let cells = counts.iter().zip(weights).map(|(&count, &weight)| {
            let expected = f64::from(draws) * f64::from(weight) / total;
            if weight == 0 {
                assert_eq!(count, 0, "weight 0 got traffic");
                return 0.0;
            }
            (f64::from(count) - expected).powi(2) / expected
        });
        cells.sum()
    }

    #[test]
    fn a_hundred_thousand_draws_fit_the_weights() {
        let mut rng = StdRng::seed_from_u64(1);
        // Critical values of the chi-square distribution at p = 0.001.
        for (weights, critical) in [
            (&[90, 10][..], 10.83),
            (&[70, 30], 10.83),
            (&[1, 1, 1, 1], 16.27),
            (&[0, 5, 0, 95, 0], 10.83),
            (&[1_000_000; 16], 37.70),
            (&[999_999, 1_000], 10.83),
        ] {
            let statistic = chi_square(weights, 100_000, || rng.random());
            assert!(statistic < critical, "{weights:?}: {statistic}");
        }
    }

    #[test]
    fn the_shares_are_right_where_each_client_sends_three_requests() {
        let mut clients = StdRng::seed_from_u64(2);
        let mut client = StdRng::seed_from_u64(0);
        let mut sent = 0;
        let statistic = chi_square(&[95, 5], 99_999, || {
            if sent % 3 == 0 {
                client = StdRng::seed_from_u64(clients.random());
            }
            sent += 1;
            client.random()
        });
        assert!(statistic < 10.83, "{statistic}");
    }

    #[test]
    fn nothing_to_draw_from_draws_nothing() {
        for random in [0, 1, u64::MAX] {
            assert_eq!(split(&[]).draw(random), None);
            assert_eq!(split(&[0, 0]).draw(random), None);
        }
    }

    #[test]
    fn the_ends_of_the_range_belong_to_backends_with_weight() {
        assert_eq!(split(&[0, 1, 0]).draw(0), Some(1));
        assert_eq!(split(&[0, 1, 0]).draw(u64::MAX), Some(1));
        assert_eq!(split(&[1, 1]).draw(u64::MAX / 2), Some(0));
        assert_eq!(split(&[1, 1]).draw(u64::MAX / 2 + 1), Some(1));
        let widest = split(&[u32::MAX; 16]);
        assert_eq!(widest.total(), 16 * u64::from(u32::MAX));
        assert_eq!((widest.draw(0), widest.draw(u64::MAX)), (Some(0), Some(15)));
    }
}
