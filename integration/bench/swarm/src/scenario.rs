//! What is done to the cluster, and what is measured meanwhile.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use crate::{
    Args,
    api::Api,
    cluster::Cluster,
    plane::{Plane, Usage},
    sidecar,
    subscriber::Subscriber,
    tracker::{Received, Tracker},
};

/// How many certificates are asked for at the same time.
const AT_ONCE: usize = 16;
/// How many changes a second a rolling restart of everything makes.
const ROLLING: u32 = 250;
/// How long the last change may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether all is over. Latencies don't depend on it.
const LOOK: Duration = Duration::from_millis(5);

struct Swarm {
    plane: Plane,
    cluster: Cluster,
    tracker: Arc<Mutex<Tracker>>,
    subscribers: usize,
    /// Each new value ends the streams that there are.
    stop: watch::Sender<u64>,
    running: JoinSet<(Subscriber, anyhow::Result<()>)>,
    changes: u64,
}

/// Goes through all that is asked for; the report.
pub(crate) async fn run(args: &Args) -> anyhow::Result<Value> {
    let api = Api::default();
    let cluster = Cluster::fill(api.clone(), args.services, args.endpoints, args.proxies);
    let begin = Instant::now();
    let plane = Plane::start(&args.gamut, api).await?;
    let (read_in, idle) = (begin.elapsed(), plane.controller()?);

    let tracker = Arc::default();
    let begin = Instant::now();
    let subscribers: Vec<Subscriber> = stream::iter(0..args.proxies)
        .map(|number| {
            Subscriber::new(&plane, number, cluster.namespace_of_subscriber(number), Arc::clone(&tracker))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let certified_in = begin.elapsed();

    let (stop, _) = watch::channel(0);
    let running = JoinSet::new();
    let mut swarm = Swarm { plane, cluster, tracker, subscribers: args.proxies, stop, running, changes: 0 };
    let (connected, received) = swarm.connect(subscribers).await?;
    let mut report = json!({
        "services": args.services,
        "endpoints": args.services * args.endpoints,
        "proxies": args.proxies,
        "start": {
            "controller_ready_ms": milliseconds(read_in),
            "controller_cpu_s": rounded(idle.cpu),
            "controller_rss_mb": rounded(idle.rss),
            "certificates_ms": milliseconds(certified_in),
        },
        "subscribe": connected,
    });
    report["subscribe"]["bytes_per_proxy"] = (received.bytes / args.proxies.max(1) as u64).into();
    let mut rates = Vec::new();
    for rate in &args.rates {
        eprintln!("gamut-swarm: {rate} changes a second");
        rates.push(swarm.changes(*rate, u64::from(rate * args.seconds)).await?);
    }
    report["changes"] = rates.into();
    if args.upheavals {
        eprintln!("gamut-swarm: a rolling restart of everything");
        let all = args.services * args.endpoints;
        report["rolling_restart"] = swarm.changes(ROLLING, all as u64).await?;
        eprintln!("gamut-swarm: everybody reconnects");
        report["reconnect"] = swarm.reconnect(false).await?;
        eprintln!("gamut-swarm: the controller is killed, and another takes over");
        report["controller_killed"] = swarm.reconnect(true).await?;
    }
    if args.starts > 0 {
        report["sidecar"] = swarm.starts(args.starts).await?;
    }
    Ok(report)
}

impl Swarm {
    /// All subscribe at once; waits until each has all that it wants.
    async fn connect(&mut self, subscribers: Vec<Subscriber>) -> anyhow::Result<(Value, Received)> {
        let (begin, before) = (Instant::now(), self.plane.controller()?);
        for mut subscriber in subscribers {
            let stop = self.stop.subscribe();
            self.running.spawn(async move {
                let ended = subscriber.connect(stop).await;
                (subscriber, ended)
            });
        }
        let wanted = self.subscribers;
        self.until("all are subscribed", move |tracker| tracker.all_loaded() >= wanted).await?;
        let took = begin.elapsed();
        let received = self.tracker().take();
        let used = usage(before, self.plane.controller()?);
        Ok((json!({"all_ms": milliseconds(took), "controller": used}), received))
    }

    /// Changes endpoints of one Service after the other at a rate, until `count` have been made and all have arrived.
    async fn changes(&mut self, rate: u32, count: u64) -> anyhow::Result<Value> {
        self.tracker().take();
        let (begin, before) = (Instant::now(), self.plane.controller()?);
        let mut ticks = interval(Duration::from_secs(1) / rate);
        for _ in 0..count {
            ticks.tick().await;
            self.changes += 1;
            // Step by step through all Services, in an order without neighbours.
            let service = (self.changes as usize).wrapping_mul(7919) % self.cluster.services();
            self.tracker().change(service, self.changes);
            self.cluster.replace_endpoint(service, self.changes);
        }
        self.until("all have every change", |tracker| tracker.missing() == 0).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let received = self.tracker().take();
        let after = self.plane.controller()?;
        let at = |share: f64| {
            let rank = (received.latencies.len() as f64 * share).ceil() as usize;
            received.latencies.get(rank.saturating_sub(1)).copied().map_or(0.0, milliseconds)
        };
        Ok(json!({
            "per_second": rate,
            "changes": count,
            "achieved_per_second": rounded(count as f64 / seconds),
            "last_proxy_ms": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0)},
            "messages_per_change": rounded(received.messages as f64 / count as f64),
            "bytes_per_change": (received.bytes as f64 / count as f64).round(),
            "bytes_per_message": (received.bytes as f64 / (received.messages as f64).max(1.0)).round(),
            "controller": usage(before, after),
            "controller_cpu_percent": rounded((after.cpu - before.cpu) / seconds * 100.0),
            "controller_cpu_us_per_change": ((after.cpu - before.cpu) / count as f64 * 1e6).round(),
        }))
    }

    /// Everybody comes back at once, to the same controller or to one that has just been started in its place.
    async fn reconnect(&mut self, killed: bool) -> anyhow::Result<Value> {
        let begin = Instant::now();
        if killed {
            self.plane.restart_controller().await?;
        } else {
            self.stop.send_modify(|generation| *generation += 1);
        }
        let ready = begin.elapsed();
        let mut subscribers = Vec::new();
        while let Some(ended) = self.running.join_next().await {
            subscribers.push(ended?.0);
        }
        self.tracker().take();
        let (mut report, received) = self.connect(subscribers).await?;
        report["controller_ready_ms"] = milliseconds(ready).into();
        report["bytes_per_proxy"] = (received.bytes / self.subscribers.max(1) as u64).into();
        Ok(report)
    }

    /// Starts a real sidecar so many times.
    async fn starts(&mut self, times: u32) -> anyhow::Result<Value> {
        let (mut took, mut rss) = (Vec::new(), 0.0);
        // Another pod each time: the CA takes one that asks again and again for broken.
        for number in 0..(times as usize).min(self.subscribers) {
            let namespace = self.cluster.namespace_of_subscriber(number);
            let (ready, memory) = sidecar::start(&self.plane, number, &namespace).await?;
            took.push(milliseconds(ready));
            rss = memory;
        }
        took.sort_unstable_by(f64::total_cmp);
        let middle = took.get(took.len() / 2).copied();
        Ok(
            json!({"start_to_ready_ms": {"median": middle, "min": took.first(), "max": took.last()}, "rss_mb": rounded(rss)}),
        )
    }

    async fn until(&mut self, what: &str, is_over: impl Fn(&Tracker) -> bool) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !is_over(&self.tracker()) {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "not {what} within {} s", PATIENCE.as_secs());
            if let Some(ended) = self.ended() {
                ended?;
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// A stream that has ended though nobody wanted it to.
    fn ended(&mut self) -> Option<anyhow::Result<()>> {
        let ended = self.running.try_join_next()?;
        Some(ended.map_err(Into::into).and_then(|(_, ended)| ended))
    }

    fn tracker(&self) -> std::sync::MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn usage(before: Usage, after: Usage) -> Value {
    json!({"cpu_s": rounded(after.cpu - before.cpu), "rss_mb": rounded(after.rss)})
}

fn milliseconds(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
