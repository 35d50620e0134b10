//! The echo app: a server that answers every request with what it saw of it, and a client that prints the answers.
//!
//! It plays the workload in the examples, the end-to-end tests and the official conformance suite, whose line format it
//! speaks (`ServiceVersion=`, `Hostname=`, `RequestHeader=...`). [`Args`] is the command line, [`run`] runs it; a
//! request flows `server` (sockets, SIGTERM) -> `server::http` (what to do with it) -> `server::report` (the lines).
//! `client` goes the other way round, `client::load` sends requests until it is told to stop, and `client::mix` does so as clients of
//! several kinds; `client::crowd` holds many connections. `sniff` shows what all
//! that looks like on the wire.

mod client;
mod grpc;
mod server;
mod sniff;
#[cfg(test)]
mod tests;
mod websocket;

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args as ClapArgs, Subcommand};
use thiserror::Error;

/// `gamut echo [server|client|load|mix|crowd|sniff]`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, disable_version_flag = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: server::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests with what was seen of them
    #[command(disable_version_flag = true)]
    Server(server::Args),
    /// Send requests and print the answers
    Client(client::Args),
    /// Send requests until standard input ends, and print a line for each answer
    Load(client::load::Args),
    /// Keep clients of several kinds calling until standard input ends, and print counts
    Mix(client::mix::Args),
    /// Hold many connections open until standard input ends, and print counts
    Crowd(client::crowd::Args),
    /// Print what goes over the wire of this network namespace
    Sniff(sniff::Args),
}

/// Why the echo app stopped or a request of its client failed.
#[derive(Debug, Error)]
pub enum EchoError {
    /// A port can't be opened.
    #[error("can't listen on {address}: {source}; choose another port, or stop what listens there")]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The certificate of the ports that speak TLS.
    #[error("{}: {reason}; --crt and --key take a certificate and its key, PEM", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of `--journal`.
    #[error("{}: {source}; --journal takes a file that can be appended to", file.display())]
    Journal {
        /// The file.
        file: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The URL can't be asked.
    #[error("{url:?}: {reason}; use http://, https://, ws://, grpc:// or tcp:// and a host")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer came within the limit.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer doesn't speak HTTP, or stopped in the middle of it.
    #[error("{}", with_causes(.0))]
    Http(#[from] hyper::Error),
    /// The peer's answer isn't what the protocol allows.
    #[error("{0}")]
    Protocol(String),
    /// Some requests got no answer; each was reported when it failed.
    #[error("{failed} of {count} requests failed")]
    Requests {
        /// Requests without an answer.
        failed: usize,
        /// Requests sent.
        count: usize,
    },
}

/// Runs the echo app until it has done its work (`client`) or is told to stop (`server`, `load`).
///
/// # Errors
/// A port that can't be opened, an unusable URL, or a request without an answer.
pub async fn run(args: Args) -> Result<ExitCode, EchoError> {
    match args.command.unwrap_or(Command::Server(args.server)) {
        Command::Server(args) => server::run(args).await,
        Command::Client(args) => client::run(args).await,
        Command::Load(args) => client::load::run(args).await,
        Command::Mix(args) => client::mix::run(args).await,
        Command::Crowd(args) => client::crowd::run(args).await,
        Command::Sniff(args) => sniff::run(&args),
    }
}

/// An error's own words and those of its causes: hyper's outermost error alone says only "client error".
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Reads `250ms`, `3s` or `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a duration such as 250ms or 3s"))?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("{text:?} is not a duration such as 250ms or 3s")),
    }
}

/// Reads `name:value`, as `-H` takes it.
fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form name:value"))?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is not a header name"))?;
    let value = value.trim().parse().map_err(|_| format!("{value:?} is not a header value"))?;
    Ok((name, value))
}

/// `x-request-id` as `X-Request-Id`: the suite's own server is written in Go, whose header names look like this.
fn canonical(name: &str) -> String {
    let mut start = true;
    name.chars()
        .map(|c| {
            let upper = std::mem::replace(&mut start, c == '-');
            if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
        })
        .collect()
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("3").is_err());
        assert!(duration("s").is_err());
    }

    #[test]
    fn header_names_are_spelled_as_go_spells_them() {
        assert_eq!(canonical("x-request-id"), "X-Request-Id");
        assert_eq!(canonical("ETAG"), "Etag");
    }
}
