//! Probes: one attempt, and what a row of attempts amounts to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    process::Stdio,
    time::Duration,
};

use ::http::{Request, header};
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{
    actions::{Action, Probe},
    container::{ContainerSpec, Namespaces, Starting},
    plan::UserPlan,
};
use crate::net::http;

/// While a container comes up it is asked this often, whatever its period: nobody likes to wait for a round number of
/// seconds. Failures count once a period all the same.
const EAGER_INTERVAL: Duration = Duration::from_millis(50);
/// How long a container counts as coming up.
const EAGER: Duration = Duration::from_secs(10);

/// The container that is asked.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The pod's first address.
    pub(crate) address: IpAddr,
    /// The container's process.
    pub(crate) process: i32,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) user: UserPlan,
    pub(crate) working_directory: Option<String>,
}

/// Does it once. The error is a sentence.
pub(crate) async fn attempt(action: &Action, subject: &Subject) -> Result<(), String> {
    match action {
        Action::Http { host, port, path, headers } => {
            let address = address_of(host.as_deref(), subject, *port)?;
            let answer = http::get(address, path, headers, false).await;
            match answer.map(|(status, _)| status) {
                Ok(status) if (200..400).contains(&status.as_u16()) => Ok(()),
                Ok(status) => Err(format!("GET http://{address}{path} answered {status}")),
                Err(problem) => Err(format!("GET http://{address}{path}: {problem}")),
            }
        }
        Action::Tcp { host, port } => {
            let address = address_of(host.as_deref(), subject, *port)?;
            let connected = TcpStream::connect(address).await;
            connected.map(drop).map_err(|error| format!("connecting to {address}: {error}"))
        }
        Action::Exec { command } => run(command, subject).await,
        Action::Grpc { port, service } => {
            let address = SocketAddr::new(subject.address, *port);
            check_grpc(address, service)
                .await
                .map_err(|problem| format!("gRPC health check of {address}: {problem}"))
        }
        Action::Sleep(duration) => {
            sleep(*duration).await;
            Ok(())
        }
    }
}

/// A host that isn't an address would be resolved by the host's rules, which don't reach into the cluster.
fn address_of(host: Option<&str>, subject: &Subject, port: u16) -> Result<SocketAddr, String> {
    let address = match host {
        None => subject.address,
        Some(host) => host.parse().map_err(|_| format!("host {host:?} is not an IP address"))?,
    };
    Ok(SocketAddr::new(address, port))
}

/// `grpc.health.v1.Health/Check`, whose two messages are one field each.
async fn check_grpc(address: SocketAddr, service: &str) -> Result<(), String> {
    const SERVING: &[u8] = &[0x08, 1];

    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let length = u8::try_from(service.len())
        .ok()
        .filter(|length| *length < 128)
        .ok_or("the service's name is too long")?;
    let message = match length {
        0 => Vec::new(),
        _ => [&[0x0a, length], service.as_bytes()].concat(),
    };
    let size = u8::try_from(message.len()).unwrap_or(u8::MAX);
    let frame = [&[0, 0, 0, 0, size], message.as_slice()].concat();
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|error| text(&error))?;
    let response = sender.send_request(request).await.map_err(|error| text(&error))?;
    let body = response.into_body().collect().await.map_err(|error| text(&error))?;
    connection.abort();
    let mut bytes = body.to_bytes();
    bytes.advance(bytes.len().min(5));
    match bytes.as_ref() == SERVING {
        true => Ok(()),
        false => Err("not SERVING".to_owned()),
    }
}

async fn run(command: &[String], subject: &Subject) -> Result<(), String> {
    let spec = ContainerSpec {
        namespaces: Namespaces::Of { process: subject.process },
        arguments: command.to_vec(),
        environment: subject.environment.clone(),
        working_directory: subject.working_directory.clone(),
        user: subject.user.clone(),
    };
    let run = async {
        let mut starting = Starting::spawn(&spec, Stdio::null).await?;
        let refusal = starting.refusal().await;
        Ok((starting.child.wait().await?, refusal))
    };
    match run.await.map_err(|error: io::Error| error.to_string())? {
        (status, None) if status.success() => Ok(()),
        (status, None) => Err(format!("{}: {status}", command.join(" "))),
        (_, Some(refusal)) => Err(refusal),
    }
}

/// Asks again and again, and reports each change of verdict for as long as `report` answers that it wants more. `failed`
/// hears of every failure, counted or not.
pub(crate) async fn repeat(
    probe: &Probe,
    subject: &Subject,
    mut report: impl FnMut(Verdict) -> bool,
    mut failed: impl FnMut(&str),
) {
    sleep(probe.initial_delay).await;
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut counted = None;
    loop {
        let now = Instant::now();
        let outcome = match timeout(probe.timeout, attempt(&probe.action, subject)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {} s", probe.timeout.as_secs())),
        };
        let eager = tally.verdict != Some(true) && began.elapsed() < EAGER;
        if let Err(problem) = &outcome {
            failed(problem);
        }
        let due = counted.is_none_or(|counted| now.duration_since(counted) >= probe.period);
        if outcome.is_ok() || due {
            counted = Some(now);
            let problem = outcome.as_ref().err().cloned().unwrap_or_default();
            if let Some(success) = tally.record(outcome.is_ok(), probe)
                && !report(Verdict { success, problem })
            {
                return;
            }
        } else {
            tally.interrupt();
        }
        sleep(if eager { EAGER_INTERVAL.min(probe.period) } else { probe.period }).await;
    }
}

/// What a row of attempts amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) success: bool,
    /// The last failure.
    pub(crate) problem: String,
}

/// A row of successes or failures.
#[derive(Debug, Default)]
struct Tally {
    verdict: Option<bool>,
    last: bool,
    row: u32,
}

impl Tally {
    /// The verdict, if this attempt has changed it.
    fn record(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        self.row = if self.last == success { self.row.saturating_add(1) } else { 1 };
        self.last = success;
        let threshold = if success { probe.success_threshold } else { probe.failure_threshold };
        if self.row < threshold || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }

    /// A failure that doesn't count still ends a row of successes.
    fn interrupt(&mut self) {
        if self.last {
            self.row = 0;
        }
    }
}

#[cfg(test)]
impl Subject {
    /// On loopback, without a process.
    pub(crate) fn nobody() -> Self {
        let user = UserPlan {
            user: 0,
            group: 0,
            more_groups: Vec::new(),
            capabilities: 0,
            no_new_privileges: false,
        };
        let address = IpAddr::from([127, 0, 0, 1]);
        Self { address, process: 0, environment: Vec::new(), user, working_directory: None }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn probe(port: u16) -> Probe {
        Probe {
            action: Action::Tcp { host: None, port },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 2,
            failure_threshold: 3,
        }
    }

    #[test]
    fn a_verdict_takes_a_row_of_the_same_and_is_told_once() {
        let (probe, mut tally) = (probe(1), Tally::default());
        let mut record = |successes: &[bool]| {
            let verdicts = successes.iter().map(|success| tally.record(*success, &probe));
            verdicts.collect::<Vec<_>>()
        };
        assert_eq!(record(&[true, false, true, true, true]), [None, None, None, Some(true), None]);
        assert_eq!(
            record(&[false, false, true, false, false, false, false]),
            [None, None, None, None, None, Some(false), None]
        );
        assert_eq!(record(&[true, true]), [None, Some(true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_comes_up_is_seen_soon_and_its_early_failures_do_not_count_against_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let began = Instant::now();
        let (send, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
        let prober = tokio::spawn(async move {
            repeat(&probe(port), &Subject::nobody(), |verdict| send.send(verdict).is_ok(), |_| {}).await;
        });
        sleep(Duration::from_secs(5)).await;
        let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let verdict = verdicts.recv().await.unwrap();
        assert!(verdict.success, "{}", verdict.problem);
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        prober.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_stays_away_is_given_its_full_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let began = Instant::now();
        let (mut verdict, mut failures) = (None, Vec::new());
        let report = |told| {
            verdict = Some(told);
            false
        };
        repeat(&probe(port), &Subject::nobody(), report, |problem| failures.push(problem.to_owned())).await;
        assert!(!verdict.unwrap().success);
        assert!(failures.len() > 3, "the early ones are told as well");
        assert!(failures.iter().all(|problem| problem.contains("refused")), "{failures:?}");
        assert!(began.elapsed() >= Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
