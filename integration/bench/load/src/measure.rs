//! What was measured, and closed loops on several connections at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{LoadError, Loop};

/// What one connection measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) errors: u64,
    /// Of payload, one way; where that is what counts.
    pub(crate) bytes: u64,
}

impl Measured {
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.bytes += other.bytes;
    }

    /// What a connection's task came back with: its own failure is one error.
    pub(crate) fn add_outcome(&mut self, outcome: Result<Result<Self, LoadError>, tokio::task::JoinError>) {
        match outcome {
            Ok(Ok(measured)) => self.add(measured),
            Ok(Err(error)) => {
                eprintln!("gamut-load: {error}");
                self.errors += 1;
            }
            Err(_) => self.errors += 1,
        }
    }

    pub(crate) fn report(mut self, elapsed: Duration) -> Value {
        self.latencies.sort_unstable();
        json!({
            "requests": self.latencies.len(),
            "errors": self.errors,
            "bytes": self.bytes,
            "rate": self.latencies.len() as f64 / elapsed.as_secs_f64(),
            "p50_us": percentile(&self.latencies, 0.50),
            "p99_us": percentile(&self.latencies, 0.99),
            "p999_us": percentile(&self.latencies, 0.999),
        })
    }
}

/// Runs a closed loop on each connection until the time is over.
pub(crate) async fn on_connections<F>(
    args: Loop,
    work: impl Fn(Loop, Instant) -> F,
) -> Result<Value, LoadError>
where
    F: Future<Output = Result<Measured, LoadError>> + Send + 'static,
{
    if args.connections == 0 || args.seconds == 0 || args.streams == 0 {
        return Err(LoadError::Zero);
    }
    let begin = Instant::now();
    let end = begin + args.duration();
    let mut connections = JoinSet::new();
    for _ in 0..args.connections {
        connections.spawn(work(args.clone(), end));
    }
    let mut all = Measured::default();
    while let Some(outcome) = connections.join_next().await {
        all.add_outcome(outcome);
    }
    Ok(all.report(begin.elapsed()))
}

/// Nearest rank, in microseconds; 0 where nothing was measured.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> u64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let latency = sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let sorted: Vec<Duration> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(&sorted, 0.50), 50);
        assert_eq!(percentile(&sorted, 0.99), 99);
        assert_eq!(percentile(&sorted, 0.999), 100);
        assert_eq!(percentile(&[], 0.5), 0);
    }
}
