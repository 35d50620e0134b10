//! As many sidecars as a cluster has, on a real CA and a real controller: what a change costs, and when the last of
//! them has heard of it.
//!
//! ```text
//! cluster (objects) ─► api (list and watch) ─► gamut controller ─► subscribers: a gRPC stream over mTLS each
//!    ▲                                              ▲                   │    (certificates: gamut ca)
//!    └── scenario: changes, rollouts, restarts ─────┴── plane (processes)└──► tracker: who knows what since when
//! ```
//!
//! Everything is on the loopback of a network namespace of its own. Subscribers are streams and nothing else: what a
//! sidecar does with a delivery is measured on one real sidecar by `integration/bench/scale`. All that isn't the
//! controller or the CA shares one thread, so times are upper bounds. Prints one JSON document.

mod api;
mod cluster;
mod plane;
mod scenario;
mod sidecar;
mod subscriber;
mod tracker;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkUnspec;

/// Sidecars' subscriptions by the thousand, and how soon each hears of a change. Needs root, for a network namespace.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// The gamut executable (release build)
    #[arg(long)]
    gamut: PathBuf,
    /// Services
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of each Service
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Subscribed sidecars
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Endpoint changes per second, one measurement each
    #[arg(long, value_delimiter = ',', default_value = "100")]
    rates: Vec<u32>,
    /// How long each rate is kept up, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Also a rolling restart of every pod, all subscribers at once, and a controller that is killed
    #[arg(long)]
    upheavals: bool,
    /// How often the start of a real sidecar is measured
    #[arg(long, default_value_t = 0)]
    starts: u32,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gamut-swarm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<serde_json::Value> {
    // While there is one thread only: all that start later are in there too.
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own takes root")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        netlink.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await?;
        scenario::run(args).await
    })
}
