//! HTTP/1.1 requests at a fixed rate over kept connections; one line of JSON with counts and latency percentiles.
//!
//! Every connection has a schedule of its own, set before the first request. A request whose turn comes while the
//! connection still waits for the answer before it is late, and its latency counts from its turn: a proxy that stalls
//! can't hide the requests that it kept from being sent (coordinated omission). A connection that is free at the turn
//! counts from when it really sent, so that the timer's millisecond is not the proxy's.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Parser;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use thiserror::Error;
use tokio::{net::TcpStream, task::JoinSet};

/// Sends requests at a fixed rate and prints what it measured as JSON.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// http://HOST[:PORT]/PATH
    url: Uri,
    /// Requests per second, over all connections
    #[arg(long)]
    rate: u32,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// A header to send, as name:value; may be given several times
    #[arg(short = 'H', value_name = "NAME:VALUE")]
    headers: Vec<String>,
}

#[derive(Debug, Error)]
enum LoadError {
    #[error("the URL must be http://HOST[:PORT]/PATH")]
    Url,
    #[error("--rate, --connections and --seconds must be above 0")]
    Zero,
    #[error("no connection to {0}: {1}")]
    Connect(String, std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

/// What one connection measured.
#[derive(Debug, Default)]
struct Measured {
    latencies: Vec<Duration>,
    errors: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&args)),
        Err(error) => Err(LoadError::Connect("the runtime".to_owned(), error)),
    };
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gamut-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<serde_json::Value, LoadError> {
    if args.rate == 0 || args.connections == 0 || args.seconds == 0 {
        return Err(LoadError::Zero);
    }
    let interval = Duration::from_secs(1) * args.connections / args.rate;
    let begin = Instant::now() + Duration::from_millis(50);
    let end = begin + Duration::from_secs(args.seconds.into());
    let mut connections = JoinSet::new();
    for index in 0..args.connections {
        // Spread over the interval, so that the connections don't beat in step.
        let first = begin + interval * index / args.connections;
        connections.spawn(connection(args.clone(), first, interval, end));
    }
    let mut all = Measured::default();
    while let Some(joined) = connections.join_next().await {
        match joined {
            Ok(Ok(measured)) => {
                all.latencies.extend(measured.latencies);
                all.errors += measured.errors;
            }
            Ok(Err(error)) => {
                eprintln!("gamut-load: {error}");
                all.errors += 1;
            }
            Err(_) => all.errors += 1,
        }
    }
    let elapsed = begin.elapsed();
    all.latencies.sort_unstable();
    Ok(json!({
        "requests": all.latencies.len(),
        "errors": all.errors,
        "rate": all.latencies.len() as f64 / elapsed.as_secs_f64(),
        "p50_us": percentile(&all.latencies, 0.50),
        "p99_us": percentile(&all.latencies, 0.99),
        "p999_us": percentile(&all.latencies, 0.999),
    }))
}

async fn connection(
    args: Args,
    first: Instant,
    interval: Duration,
    end: Instant,
) -> Result<Measured, LoadError> {
    let host = args.url.host().ok_or(LoadError::Url)?;
    let port = args.url.port_u16().unwrap_or(80);
    let path = args.url.path_and_query().map_or("/", |path| path.as_str());
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| LoadError::Connect(format!("{host}:{port}"), error))?;
    stream.set_nodelay(true).map_err(|error| LoadError::Connect(host.to_owned(), error))?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);

    let mut measured = Measured::default();
    let mut turn = first;
    while turn < end {
        let now = Instant::now();
        let late = now > turn;
        if !late {
            tokio::time::sleep_until(turn.into()).await;
        }
        let since = if late { turn } else { Instant::now() };
        let mut request = Request::builder().uri(path).header(HOST, host);
        for header in &args.headers {
            if let Some((name, value)) = header.split_once(':') {
                request = request.header(name.trim(), value.trim());
            }
        }
        sender.ready().await?;
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        if status == StatusCode::OK {
            measured.latencies.push(since.elapsed())
        } else {
            measured.errors += 1
        }
        turn += interval;
    }
    drop(sender);
    let _ = driver.await;
    Ok(measured)
}

/// Nearest rank, in microseconds; 0 where nothing was measured.
fn percentile(sorted: &[Duration], share: f64) -> u64 {
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
