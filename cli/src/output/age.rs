//! Spans of time as kubectl prints them: one or two units, no more precise than anybody wants to read.

use std::fmt;

use jiff::Timestamp;

/// How long something took or takes, printed `4s`, `12m`, `3h5m`, `2d4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age(i64);

impl Age {
    /// From one moment to a later one; 0 if the clock says that it is earlier.
    pub(crate) fn between(from: Timestamp, to: Timestamp) -> Self {
        Self(to.as_second().saturating_sub(from.as_second()).max(0))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        let seconds = self.0;
        let (large, small, large_unit, small_unit) = if seconds < MINUTE {
            (seconds, 0, "s", "")
        } else if seconds < 10 * MINUTE {
            (seconds / MINUTE, seconds % MINUTE, "m", "s")
        } else if seconds < HOUR {
            (seconds / MINUTE, 0, "m", "")
        } else if seconds < DAY {
            (seconds / HOUR, seconds % HOUR / MINUTE, "h", "m")
        } else {
            (seconds / DAY, seconds % DAY / HOUR, "d", "h")
        };
        write!(f, "{large}{large_unit}")?;
        if small > 0 {
            write!(f, "{small}{small_unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        let ages = [0, 59, 60, 61, 600, 601, 3600, 3660, 86_399, 90_000, 864_000];
        let printed: Vec<String> = ages.iter().map(|seconds| Age(*seconds).to_string()).collect();
        assert_eq!(printed, ["0s", "59s", "1m", "1m1s", "10m", "10m", "1h", "1h1m", "23h59m", "1d1h", "10d"]);
    }

    #[test]
    fn a_moment_in_the_future_is_no_age() {
        let now = Timestamp::UNIX_EPOCH;
        let later = Timestamp::from_second(5).unwrap_or(now);
        assert_eq!(Age::between(later, now), Age(0));
    }
}
