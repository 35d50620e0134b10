//! What wrk and h2load don't do: fixed rates, gRPC, WebSocket, bytes, connections. One line of JSON with counts and
//! percentiles.
//!
//! | module | what it sends |
//! |---|---|
//! | [`rate`] | HTTP/1.1 requests at a fixed rate, corrected for coordinated omission |
//! | [`grpc`] | calls, and messages of streaming calls |
//! | [`websocket`] | messages after an upgrade |
//! | [`tcp`] | bytes as fast as they come back; connections one after the other |
//! | [`connections`] | connections that are kept and do nothing; the first use of a destination |
//!
//! All but the first are closed loops: a new request goes out when the answer to the one before is complete.

mod connections;
mod grpc;
mod measure;
mod rate;
mod tcp;
mod websocket;

use std::{io, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use http::Uri;
use thiserror::Error;
use tokio::net::TcpStream;

/// Sends load and prints what it measured as JSON.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// HTTP/1.1 requests at a fixed rate over kept connections
    Rate(rate::RateArgs),
    /// gRPC calls, one message each way
    Grpc(Loop),
    /// Messages of one long gRPC call for each of the connections' streams
    GrpcStream(Loop),
    /// WebSocket messages
    Websocket(Loop),
    /// Bytes to a port that sends them back
    Tcp(Loop),
    /// A new connection for each byte that is sent back
    TcpConnect(Loop),
    /// Connections with one request each, kept for --seconds; a line says when all are there
    Hold(Loop),
    /// The first request to each of these destinations, and a later one, each on a connection of its own
    First(connections::FirstArgs),
}

/// A closed loop on some connections.
#[derive(Clone, Debug, Args)]
struct Loop {
    /// http://HOST[:PORT]/PATH
    url: Uri,
    /// Connections
    #[arg(long, default_value_t = 16)]
    connections: u32,
    /// Streams on each connection, for gRPC
    #[arg(long, default_value_t = 1)]
    streams: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// A header to send with HTTP requests, as name:value
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
    Connect(String, io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("HTTP/2: {0}")]
    H2(#[from] h2::Error),
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    #[error("answered with {0}")]
    Answer(String),
}

fn main() -> ExitCode {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(command.work)),
        Err(error) => Err(LoadError::Io(error)),
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

async fn run(work: Work) -> Result<serde_json::Value, LoadError> {
    match work {
        Work::Rate(args) => rate::run(&args).await,
        Work::Grpc(args) => measure::on_connections(args, grpc::calls).await,
        Work::GrpcStream(args) => measure::on_connections(args, grpc::messages).await,
        Work::Websocket(args) => measure::on_connections(args, websocket::messages).await,
        Work::Tcp(args) => measure::on_connections(args, tcp::bytes).await,
        Work::TcpConnect(args) => measure::on_connections(args, tcp::connections).await,
        Work::Hold(args) => connections::hold(args).await,
        Work::First(args) => connections::first(args).await,
    }
}

/// Host and port of a URL.
fn authority(url: &Uri) -> Result<(&str, u16), LoadError> {
    Ok((url.host().ok_or(LoadError::Url)?, url.port_u16().unwrap_or(80)))
}

async fn connect(url: &Uri) -> Result<TcpStream, LoadError> {
    let (host, port) = authority(url)?;
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|error| LoadError::Connect(format!("{host}:{port}"), error))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// `NAME:VALUE`, taken apart.
fn header(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
}

impl Loop {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}
