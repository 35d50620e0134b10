//! HTTP/1.1 requests at a fixed rate over kept connections.
//!
//! Every connection has a schedule of its own, set before the first request. A request whose turn comes while the
//! connection still waits for the answer before it is late, and its latency counts from its turn: a proxy that stalls
//! can't hide the requests that it kept from being sent (coordinated omission). A connection that is free at the turn
//! counts from when it really sent, so that the timer's millisecond is not the proxy's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{LoadError, authority, connect, header, measure::Measured};

#[derive(Clone, Debug, Args)]
pub(crate) struct RateArgs {
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

pub(crate) async fn run(args: &RateArgs) -> Result<Value, LoadError> {
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
    while let Some(outcome) = connections.join_next().await {
        all.add_outcome(outcome);
    }
    Ok(all.report(begin.elapsed()))
}

async fn connection(
    args: RateArgs,
    first: Instant,
    interval: Duration,
    end: Instant,
) -> Result<Measured, LoadError> {
    let (host, _) = authority(&args.url)?;
    let path = args.url.path_and_query().map_or("/", |path| path.as_str());
    let (mut sender, driver) = http1::handshake(TokioIo::new(connect(&args.url).await?)).await?;
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
        for (name, value) in args.headers.iter().filter_map(|text| header(text)) {
            request = request.header(name, value);
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::sleep,
    };

    use super::*;

    /// A server of one connection that answers at once, but for one request in the middle.
    async fn stalling(listener: TcpListener) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for number in 0.. {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap() == 0 {
                    return;
                }
            }
            if number == 100 {
                sleep(Duration::from_millis(500)).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_that_stalls_once_was_late_for_everybody_whose_turn_came_meanwhile() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(stalling(listener));
        let args = RateArgs { url, rate: 200, connections: 1, seconds: 2, headers: Vec::new() };
        let report = run(&args).await.unwrap();
        assert_eq!((&report["requests"], &report["errors"]), (&400.into(), &0.into()));
        // A hundred had their turn in that half second, the last of them at its end. One was sent.
        assert!(report["p99_us"].as_u64().unwrap() > 450_000, "{report}");
    }
}
