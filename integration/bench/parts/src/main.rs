//! `count` goes through each part of a request a fixed number of times between two marks, for callgrind; `time` takes the
//! time. Instructions don't depend on what else the machine does. `integration/bench/instructions` runs this and holds a
//! budget.

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use gamut_parts::Part;
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
    let mut report = Vec::new();
    for mut part in gamut_parts::all()? {
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
