//! A mix of clients, each at a steady pace, until standard input ends: what a mesh carries in one go, counted by kind.
//!
//! Ten times a second, and at the end, a line of JSON with everything so far goes to standard output:
//!
//! ```text
//! {"h1":{"sent":812,"answered":811,"failed":0,"broken":0,"corrupt":0,"longest_gap_ms":14},"tcp":{...}}
//! ```
//!
//! Each failure goes there too, as `kind failed: why`. What the counts mean is said by [`Tally`]; what each
//! kind does, by [`Kind`].

mod early;
mod session;
mod tally;

use std::{io::Write, process::ExitCode, str::FromStr, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, interval, sleep, timeout};

use self::{
    session::{Outcome, Session},
    tally::{Tallies, Tally},
};
use super::{Target, load::end_of_input};
use crate::EchoError;

/// How often the counts are printed.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Who calls what, how many of each, and how fast.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A host and, unless it is 80, a port
    host: String,
    /// A kind of client and how many of it, such as h1=4; may be given several times
    #[arg(long = "clients", value_name = "KIND=NUMBER", required = true)]
    clients: Vec<Clients>,
    /// The port of the same host that sends every byte back
    #[arg(long, default_value_t = 9000)]
    tcp_port: u16,
    /// How long each client rests between two requests
    #[arg(long, value_name = "DURATION", default_value = "2ms", value_parser = crate::duration)]
    pause: Duration,
    /// How long a request may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::duration)]
    timeout: Duration,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// GET on a kept HTTP/1.1 connection.
    H1,
    /// POST on a kept HTTP/1.1 connection: not idempotent. It is at the app for nearly all of its time, so that whoever dies does so while
    /// one is on its way.
    Post,
    /// POST whose answer comes before its body is whole.
    Early,
    /// GET on an HTTP/2 connection.
    H2,
    /// GET of an answer that comes in parts over half a second.
    Slow,
    /// Messages on one gRPC call that goes on and on, each echoed.
    Grpc,
    /// Messages on one WebSocket, each echoed.
    WebSocket,
    /// Blocks on one TCP connection, each echoed and compared.
    Tcp,
    /// A TCP connection for each block.
    Connect,
}

#[derive(Clone, Copy, Debug)]
struct Clients {
    kind: Kind,
    number: usize,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::H1,
        Self::Post,
        Self::Early,
        Self::H2,
        Self::Slow,
        Self::Grpc,
        Self::WebSocket,
        Self::Tcp,
        Self::Connect,
    ];

    /// As arguments and reports spell it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::Post => "post",
            Self::Early => "early",
            Self::H2 => "h2",
            Self::Slow => "slow",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Connect => "connect",
        }
    }
}

impl FromStr for Clients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let kinds = Kind::ALL.map(Kind::name).join(", ");
            format!("{text:?} is not of the form KIND=NUMBER with one of {kinds}")
        };
        let (name, number) = text.split_once('=').ok_or_else(wrong)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(wrong)?;
        Ok(Self { kind, number: number.parse().map_err(|_| wrong())? })
    }
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, EchoError> {
    let http = Target::parse(&format!("http://{}/", args.host))?;
    let tcp = Target { port: args.tcp_port, ..http.clone() };
    let tallies = Tallies::new(args.clients.iter().map(|clients| clients.kind));
    let clients = args.clients.iter().flat_map(|clients| std::iter::repeat_n(clients.kind, clients.number));
    let clients = join_all(clients.filter_map(|kind| {
        let target = if matches!(kind, Kind::Tcp | Kind::Connect) { &tcp } else { &http };
        Some(client(kind, target, &args, tallies.of(kind)?))
    }));
    tokio::select! {
        _ = clients => {}
        printed = report(&tallies) => printed?,
        () = end_of_input() => {}
    }
    tallies.print(&mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

async fn report(tallies: &Tallies) -> Result<(), EchoError> {
    let mut ticks = interval(REPORT_EVERY);
    loop {
        ticks.tick().await;
        tallies.print(&mut std::io::stdout().lock())?;
    }
}

/// One client, for ever: a session as long as that lasts, then the next one.
async fn client(kind: Kind, target: &Target, args: &Args, tally: &Tally) {
    loop {
        let mut session = Session::new(kind, target);
        loop {
            let begin = Instant::now();
            tally.sent();
            let outcome = timeout(args.timeout, session.exchange()).await;
            let outcome = outcome.unwrap_or_else(|_| Err(EchoError::Timeout(args.timeout)));
            sleep(args.pause).await;
            match outcome {
                Ok(Outcome::Good) => tally.answered(),
                Ok(Outcome::Refused(why)) => {
                    tally.failed();
                    tell(kind, "failed", &why);
                }
                Ok(Outcome::Corrupt(why)) => {
                    tally.corrupt();
                    tell(kind, "corrupt", &why);
                }
                Err(error) => {
                    let why = format!("{error}, after {:?}", begin.elapsed());
                    if session.had_begun() {
                        tally.broken();
                        tell(kind, "broken", &why);
                    } else {
                        tally.failed();
                        tell(kind, "failed", &why);
                    }
                    break;
                }
            }
        }
    }
}

/// Says why: each time, for whoever judges by reasons has to see them all.
fn tell(kind: Kind, how: &str, why: &str) {
    // Whoever reads has gone; then standard input has ended too.
    let _ = writeln!(std::io::stdout(), "{} {how}: {}", kind.name(), why.trim());
}
