//! Load: requests without a pause until standard input ends, one line for each, printed as soon as it is known:
//! `<status> <version> <hostname> <answer header>`, or `error <why>`.
//!
//! A reader can wait for what it wants to see ("the next answer from v2", "two hundred more") and act in between. Each
//! user has a connection that is kept, and keeps the cookies and session headers that it gets, as a browser does.

use std::{
    collections::BTreeMap,
    io::Write,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response,
    header::{COOKIE, HOST, SET_COOKIE},
};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::{Scheme, Target};
use crate::EchoError;

/// Where to, as how many users, and until when.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// http://, a host and, unless it is 80, a port
    url: String,
    /// A header, as name:value; may be given several times
    #[arg(short = 'H', value_name = "NAME:VALUE", value_parser = crate::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How many users at a time
    #[arg(long, default_value_t = 1)]
    users: usize,
    /// Stop after so many requests in all, without waiting for standard input to end
    #[arg(long)]
    count: Option<usize>,
    /// How long a request may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::duration)]
    timeout: Duration,
    /// Keep cookies, and send them back
    #[arg(long)]
    cookies: bool,
    /// A header to take from answers and send back
    #[arg(long, value_name = "NAME")]
    keep_header: Option<HeaderName>,
    /// A connection for each request
    #[arg(long)]
    reconnect: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, EchoError> {
    let target = Target::parse(&args.url)?;
    if target.scheme != Scheme::Http {
        return Err(EchoError::Url {
            url: args.url,
            reason: "load is HTTP only; for others there is `client`".to_owned(),
        });
    }
    let started = AtomicUsize::new(0);
    let users = join_all((0..args.users).map(|_| User::new(&args, &target).work(&started)));
    tokio::select! {
        results = users => results.into_iter().collect::<Result<(), EchoError>>()?,
        () = end_of_input(), if args.count.is_none() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Standard input is read by a thread of its own: a read that blocks for ever must not keep a runtime from ending.
pub(super) async fn end_of_input() {
    let (end, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        end.send(())
    });
    let _ = ended.await;
}

/// One user: a connection, and what it was told to send back.
struct User<'a> {
    args: &'a Args,
    target: &'a Target,
    connection: Option<SendRequest<Empty<Bytes>>>,
    cookies: BTreeMap<String, String>,
    kept_header: Option<HeaderValue>,
}

impl<'a> User<'a> {
    fn new(args: &'a Args, target: &'a Target) -> Self {
        Self { args, target, connection: None, cookies: BTreeMap::new(), kept_header: None }
    }

    async fn work(mut self, started: &AtomicUsize) -> Result<(), EchoError> {
        while self.args.count.is_none_or(|count| started.fetch_add(1, Ordering::Relaxed) < count) {
            let line = match tokio::time::timeout(self.args.timeout, self.ask()).await {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => format!("error {error}"),
                Err(_) => format!("error {}", EchoError::Timeout(self.args.timeout)),
            };
            if line.starts_with("error") || self.args.reconnect {
                self.connection = None;
            }
            writeln!(std::io::stdout(), "{line}")?;
            // On a loopback everything may always be ready; standard input must be read all the same.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<String, EchoError> {
        let request = self.request()?;
        let response = self.connection().await?.send_request(request).await?;
        self.remember(&response);
        let status = response.status().as_u16();
        let reason = response
            .headers()
            .get("gamut-answer")
            .map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
        let body = response.into_body().collect().await?.to_bytes();
        let body = String::from_utf8_lossy(&body);
        let field = |name: &str| {
            body.lines().find_map(|line| line.strip_prefix(name)).filter(|value| !value.is_empty())
        };
        Ok(format!(
            "{status} {} {} {}",
            field("ServiceVersion=").unwrap_or("-"),
            field("Hostname=").unwrap_or("-"),
            reason.as_deref().unwrap_or("-")
        ))
    }

    /// The kept connection, or a new one where the server has closed it in between.
    async fn connection(&mut self) -> Result<&mut SendRequest<Empty<Bytes>>, EchoError> {
        let kept = match self.connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let connection = match kept {
            Some(kept) => kept,
            None => {
                let stream = TokioIo::new(self.target.connect().await?);
                let (sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(self.connection.insert(connection))
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, EchoError> {
        let mut request = Request::builder()
            .uri(&self.target.path)
            .header(HOST, &self.target.authority)
            .body(Empty::new())
            .map_err(|error| EchoError::Protocol(error.to_string()))?;
        let headers: &mut HeaderMap = request.headers_mut();
        headers.extend(self.args.headers.iter().map(|(name, value)| (Some(name.clone()), value.clone())));
        if let (Some(name), Some(value)) = (&self.args.keep_header, &self.kept_header) {
            headers.insert(name, value.clone());
        }
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if let (false, Ok(cookies)) = (cookies.is_empty(), cookies.join("; ").parse()) {
            headers.insert(COOKIE, cookies);
        }
        Ok(request)
    }

    fn remember<B>(&mut self, response: &Response<B>) {
        if let Some(name) = &self.args.keep_header {
            self.kept_header = response.headers().get(name).cloned().or(self.kept_header.take());
        }
        if self.args.cookies {
            for cookie in
                response.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok())
            {
                let pair = cookie.split(';').next().unwrap_or_default();
                if let Some((name, value)) = pair.split_once('=') {
                    self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
                }
            }
        }
    }
}
