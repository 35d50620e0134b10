//! The client: sends a number of requests and prints each one's answer in the conformance suite's line format.

pub(crate) mod crowd;
mod grpc;
mod http;
pub(crate) mod load;
pub(crate) mod mix;
mod stream;
mod tls;

use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::{net::TcpStream, sync::Semaphore};

use self::tls::Tls;
use crate::{EchoError, canonical};

/// What to send, where to and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// http://, https://, ws://, grpc:// or tcp://, a host and, unless it is the scheme's own, a port
    url: String,
    /// The HTTP method
    #[arg(long, default_value = "GET")]
    method: Method,
    /// A header, as name:value; may be given several times
    #[arg(short = 'H', value_name = "NAME:VALUE", value_parser = crate::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// How many requests: a connection for each, save gRPC, where all share one
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// How many requests at a time
    #[arg(long, default_value_t = 20)]
    concurrency: usize,
    /// How long a request may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = crate::duration)]
    timeout: Duration,
    /// What to send: an HTTP body, a gRPC or WebSocket message, or bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    data: String,
    /// With https://: the certificate that is trusted, PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// With https://: the name that is called, in place of the URL's host
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// With tcp://: wait for a line from the server before anything is sent
    #[arg(long)]
    server_first: bool,
    /// With tcp://: leave it to the server to end the connection
    #[arg(long)]
    hold: bool,
}

/// One request, whatever the protocol.
#[derive(Debug)]
struct Call {
    target: Target,
    /// With https://.
    tls: Option<Tls>,
    method: Method,
    headers: HeaderMap,
    data: String,
    server_first: bool,
    hold: bool,
}

/// A URL in the parts that a request needs.
#[derive(Clone, Debug)]
struct Target {
    url: String,
    scheme: Scheme,
    /// Host and, where the URL has one, port: the Host header.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    WebSocket,
    Grpc,
    Tcp,
}

/// An answer, ready to be printed.
#[derive(Debug, Default)]
struct Answer {
    /// `StatusCode=`, where the protocol has one.
    status: Option<u16>,
    headers: HeaderMap,
    body: String,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, EchoError> {
    print(args, &mut std::io::stdout().lock()).await?;
    Ok(ExitCode::SUCCESS)
}

/// Sends the requests and writes their answers in order; errors go to standard error as they come.
pub(crate) async fn print(args: Args, out: &mut impl Write) -> Result<(), EchoError> {
    let target = Target::parse(&args.url)?;
    let tls = (target.scheme == Scheme::Https)
        .then(|| Tls::new(&target, args.ca.as_deref(), args.sni.as_deref()))
        .transpose()?;
    let call = Arc::new(Call {
        target,
        tls,
        method: args.method,
        headers: args.headers.into_iter().collect(),
        data: args.data,
        server_first: args.server_first,
        hold: args.hold,
    });
    let grpc = match call.target.scheme {
        Scheme::Grpc => Some(grpc::connect(&call.target).await?),
        _ => None,
    };
    let turns = Semaphore::new(args.concurrency.max(1));
    let answers = (0..args.count).map(async |_| {
        let _turn = turns.acquire().await;
        let start = Instant::now();
        let answer = async {
            match (call.target.scheme, &grpc) {
                (Scheme::Grpc, Some(connection)) => grpc::call(connection.clone(), &call).await,
                (Scheme::WebSocket, _) => stream::websocket(&call).await,
                (Scheme::Tcp, _) => stream::tcp(&call).await,
                _ => http::call(&call).await,
            }
        };
        let answer = tokio::time::timeout(args.timeout, answer).await;
        (start.elapsed(), answer.unwrap_or(Err(EchoError::Timeout(args.timeout))))
    });
    let mut answers = answers.collect::<FuturesOrdered<_>>().enumerate();

    let mut failed = 0;
    while let Some((n, (latency, answer))) = answers.next().await {
        match answer {
            Ok(answer) => out.write_all(answer.print(n, &call.target.url, latency).as_bytes())?,
            Err(error) => {
                failed += 1;
                eprintln!("[{n}] error: {error}");
            }
        }
    }
    if failed > 0 {
        return Err(EchoError::Requests { failed, count: args.count });
    }
    writeln!(out, "All {} requests succeeded", args.count)?;
    Ok(())
}

impl Target {
    fn parse(url: &str) -> Result<Self, EchoError> {
        let error = |reason: &str| EchoError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| error("not a URL"))?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, Some(80)),
            Some("https") => (Scheme::Https, Some(443)),
            Some("ws") => (Scheme::WebSocket, Some(80)),
            Some("grpc") => (Scheme::Grpc, Some(80)),
            Some("tcp") => (Scheme::Tcp, None),
            _ => return Err(error("not a scheme of ours")),
        };
        let authority = uri.authority().ok_or_else(|| error("no host"))?;
        let port = uri.port_u16().or(port).ok_or_else(|| error("no port"))?;
        Ok(Self {
            url: url.to_owned(),
            scheme,
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    async fn connect(&self) -> Result<TcpStream, EchoError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Answer {
    /// The block that the suite reads, with the empty line behind it.
    fn print(&self, n: usize, url: &str, latency: Duration) -> String {
        let mut lines = vec![format!("[{n}] Url={url}"), format!("[{n}] Latency={latency:?}")];
        lines.extend(self.status.map(|status| format!("[{n}] StatusCode={status}")));
        lines.extend(self.headers.iter().map(|(name, value)| {
            format!(
                "[{n}] ResponseHeader={}:{}",
                canonical(name.as_str()),
                String::from_utf8_lossy(value.as_bytes())
            )
        }));
        lines.extend(self.body.lines().map(|line| format!("[{n} body] {line}")));
        lines.join("\n") + "\n\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printed_as_the_suite_reads_it() {
        let answer = Answer {
            status: Some(200),
            headers: HeaderMap::from_iter([(::http::header::CONTENT_LENGTH, HeaderValue::from_static("24"))]),
            body: "Host=echo\nHostname=echo-v1\n".to_owned(),
        };
        assert_eq!(
            answer.print(3, "http://echo/", Duration::from_micros(1436)),
            "[3] Url=http://echo/\n[3] Latency=1.436ms\n[3] StatusCode=200\n[3] ResponseHeader=Content-Length:24\n\
             [3 body] Host=echo\n[3 body] Hostname=echo-v1\n\n"
        );
    }

    #[test]
    fn a_url_needs_a_scheme_of_ours_and_a_host_and_ipv6_loses_its_brackets() {
        assert!(Target::parse("ftp://web/").is_err());
        assert!(Target::parse("/path").is_err());
        assert!(Target::parse("tcp://web").is_err());
        let target = Target::parse("http://[fd00::7]:8080/a?b=c").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("fd00::7", 8080, "/a?b=c"));
    }
}
