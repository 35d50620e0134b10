//! What a request is made of, part by part: `count` goes through each part a fixed number of times between two marks,
//! for callgrind; `time` takes the time.
//!
//! | module | parts |
//! |---|---|
//! | [`routing`] | match, split, session, headers: calls into `route` |
//! | [`sidecar`] | the look-up of a destination, metrics |
//! | [`pair`] | a whole request: app, outbound, mTLS, inbound, app, all in this thread |
//!
//! Instructions don't depend on what else the machine does. `integration/bench/instructions` runs this and holds a budget.

mod pair;
mod routing;
mod sidecar;

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Repeats the parts of a request.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Goes through each part; prints their names and how often, in order
    Count,
    /// Prints nanoseconds for each part
    Time {
        /// How long for each part, in milliseconds
        #[arg(long, default_value_t = 300)]
        milliseconds: u64,
    },
}

/// A part, made ready.
struct Part {
    name: &'static str,
    /// How often it is gone through for counting.
    times: u32,
    once: Box<dyn FnMut() -> anyhow::Result<()>>,
}

impl Part {
    /// A part that can't fail. What it returns is looked at, so that it isn't optimized away.
    fn new<T>(name: &'static str, times: u32, mut once: impl FnMut() -> T + 'static) -> Self {
        let once = move || {
            black_box(once());
            Ok(())
        };
        Self { name, times, once: Box::new(once) }
    }
}

fn main() -> ExitCode {
    match run(Command::parse().what) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gamut-parts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> anyhow::Result<Value> {
    let mut parts = routing::parts()?;
    parts.extend(sidecar::parts()?);
    parts.extend(pair::parts()?);
    let mut report = Vec::new();
    for mut part in parts {
        // What is made at the first use is made now.
        for _ in 0..part.times.div_ceil(4) {
            (part.once)().context(part.name)?;
        }
        report.push(match what {
            What::Count => {
                mark_begin();
                for _ in 0..part.times {
                    (part.once)().context(part.name)?;
                }
                mark_end();
                json!({"name": part.name, "times": part.times})
            }
            What::Time { milliseconds } => {
                let nanoseconds = time(&mut part, Duration::from_millis(milliseconds))?;
                json!({"name": part.name, "ns": (nanoseconds * 10.0).round() / 10.0})
            }
        });
    }
    Ok(report.into())
}

/// The best of several rounds: whatever else the machine did made the others slower.
fn time(part: &mut Part, during: Duration) -> anyhow::Result<f64> {
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < during {
        let round = Instant::now();
        for _ in 0..part.times {
            (part.once)()?;
        }
        best = best.min(round.elapsed().as_secs_f64() * 1e9 / f64::from(part.times));
    }
    Ok(best)
}

/// Callgrind is told to begin anew when this is called.
#[inline(never)]
fn mark_begin() {
    black_box(());
}

/// Callgrind is told to write down what it has counted when this is called.
#[inline(never)]
fn mark_end() {
    black_box(());
}
