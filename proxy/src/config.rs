//! What a sidecar is told when it starts: flags and environment variables, as the injected pod carries them.
//!
//! [`ProxyArgs`] stays close to what was written. What depends on the machine (files, names, sockets) is
//! looked at when the sidecar starts ([`crate::run`]).

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use gamut_identity::MeshArgs;
use gamut_route::Uid;
use thiserror::Error;

use crate::{
    balance::{self, settings::EjectAfter},
    probes::Probes,
    record::{access_log::AccessLog, otlp::Collector},
};

/// The ports that a sidecar takes in its pod. An app can't use them.
pub mod ports {
    use std::ops::RangeInclusive;

    /// The whole range: inbound refuses to forward to any of these, so that nothing loops.
    pub const OWN: RangeInclusive<u16> = 15000..=15021;
    /// Admin, on loopback.
    pub const ADMIN: u16 = 15000;
    /// What the app dials is redirected here, on loopback.
    pub const OUTBOUND: u16 = 15001;
    /// What dials the pod is redirected here.
    pub const INBOUND: u16 = 15006;
    /// Prometheus metrics; never redirected.
    pub const METRICS: u16 = 15020;
    /// The sidecar's own readiness and the app's rewritten probes; never redirected.
    pub const PROBES: u16 = 15021;
}

/// How many connections the app may have open, and how many its callers, unless the pod says otherwise.
pub const MAX_CONNECTIONS: u32 = 16384;

/// The user that sidecars run as, whose connections aren't redirected.
pub const PROXY_UID: u32 = 15001;

/// `gamut proxy`: who the pod is, whom to ask, and what the app needs. The injector sets all of it.
#[derive(Clone, Debug, clap::Args)]
pub struct ProxyArgs {
    /// The pod's name
    #[arg(long, env = "GAMUT_POD_NAME")]
    pub pod_name: String,
    /// The pod's namespace
    #[arg(long, env = "GAMUT_POD_NAMESPACE")]
    pub pod_namespace: String,
    /// The pod's UID
    #[arg(long, env = "GAMUT_POD_UID")]
    pub pod_uid: Uid,
    /// The pod's addresses, separated by commas; the first is the one that probes use
    #[arg(long, env = "GAMUT_POD_IPS", value_delimiter = ',', required = true)]
    pub pod_ips: Vec<IpAddr>,
    /// The service account that the pod runs as
    #[arg(long, env = "GAMUT_SERVICE_ACCOUNT")]
    pub service_account: String,
    /// Which mesh it belongs to
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// The controller, as HOST:PORT
    #[arg(long, env = "GAMUT_CONTROLLER_ADDRESS")]
    pub controller_address: String,
    /// The app's probes before they were rewritten, as JSON: path on the probe port to probe
    #[arg(long, env = "GAMUT_PROBES", default_value = "{}", hide_default_value = true)]
    pub probes: Probes,
    /// Ports of other workloads whose bytes are never looked at, such as "3306,9000-9010"
    #[arg(long, env = "GAMUT_OPAQUE_PORTS", default_value = "", hide_default_value = true)]
    pub opaque_ports: Ports,
    /// How long requests in flight may take to end after SIGTERM, such as "30s"
    #[arg(long, env = "GAMUT_DRAIN_TIME", default_value = "30s", value_parser = duration)]
    pub drain_time: Duration,
    /// After how many failures in a row an endpoint gets nothing for a while; "never" turns this off
    #[arg(long, env = "GAMUT_EJECT_AFTER", default_value_t = EjectAfter(balance::Settings::default().eject_after), value_name = "FAILURES")]
    pub eject_after: EjectAfter,
    /// How long an endpoint that is new among others takes to get its full share, such as "10s"
    #[arg(long, env = "GAMUT_SLOW_START", default_value = "10s", value_parser = duration)]
    pub slow_start: Duration,
    /// How many requests and connections may be in flight to a backend
    #[arg(long, env = "GAMUT_MAX_REQUESTS", default_value_t = balance::Settings::default().max_requests, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_requests: u32,
    /// How many connections to a backend may be under way without being open yet
    #[arg(long, env = "GAMUT_MAX_CONNECTING", default_value_t = balance::Settings::default().max_connecting, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connecting: u32,
    /// How many connections the app may have open, and how many its callers
    #[arg(long, env = "GAMUT_MAX_CONNECTIONS", default_value_t = MAX_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Which requests get a line on standard output: off, all, errors, or a share such as 1/100
    #[arg(long, env = "GAMUT_ACCESS_LOG", default_value = "off")]
    pub access_log: AccessLog,
    /// The form of these lines; that of the log itself
    #[arg(long, env = "GAMUT_LOG_FORMAT", default_value = "text", hide = true)]
    pub log_format: String,
    /// Where spans go, as grpc://HOST:PORT or http://HOST:PORT/PATH (OTLP)
    #[arg(long, env = "GAMUT_TRACES_TO")]
    pub traces_to: Option<Collector>,
    /// The share of traces that begin here and are exported: 0 to 1
    #[arg(long, env = "GAMUT_TRACES_SHARE", default_value = "0.01", value_parser = share)]
    pub traces_share: f64,
}

/// A set of ports, written `80,443,8000-8010`. May be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

/// A text that isn't a setting's value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingError {
    /// Not a list of ports.
    #[error("{0:?} is neither a port from 1 to 65535 nor a range of them such as 8000-8010")]
    Port(String),
    /// Neither a number of failures nor `never`.
    #[error("{0:?} is neither a number from 1 nor never")]
    EjectAfter(String),
    /// Not a share.
    #[error("{0:?} is not a number from 0 to 1")]
    Share(String),
    /// Not a duration.
    #[error("{0:?} is not a duration such as 30s, 1m30s or 500ms")]
    Duration(String),
}

impl ProxyArgs {
    /// What they say about balancing.
    pub fn balance(&self) -> balance::Settings {
        balance::Settings {
            eject_after: self.eject_after.0,
            slow_start: self.slow_start,
            max_requests: self.max_requests,
            max_connecting: self.max_connecting,
        }
    }
}

impl Ports {
    /// Whether the port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// The ranges, in the order they were written; single ports are ranges of one.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

impl FromStr for Ports {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let port = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port != 0);
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let ranges = items.map(|item| {
            let range = match item.split_once('-') {
                Some((first, last)) => port(first).zip(port(last)),
                None => port(item).map(|port| (port, port)),
            };
            let range = range.filter(|(first, last)| first <= last).map(|(first, last)| first..=last);
            range.ok_or_else(|| SettingError::Port(item.to_owned()))
        });
        ranges.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The workload that a pod's name shows: what is in front of the suffixes that Deployments
/// (`-7d4b9c6f5-x2v9k`), DaemonSets (`-x2v9k`) and StatefulSets (`-0`) append. It labels metrics; a name that
/// only looks like one is shortened, and nothing depends on it.
pub(crate) fn workload(pod_name: &str) -> &str {
    // Kubernetes' generated suffixes have these letters only, so that they make no words.
    let generated = |part: &str| part.bytes().all(|c| b"bcdfghjklmnpqrstvwxz2456789".contains(&c));
    let Some((name, last)) = pod_name.rsplit_once('-') else { return pod_name };
    if last.bytes().all(|c| c.is_ascii_digit()) {
        return name;
    }
    if last.len() != 5 || !generated(last) {
        return pod_name;
    }
    match name.rsplit_once('-') {
        Some((name, hash)) if (8..=10).contains(&hash.len()) && generated(hash) => name,
        _ => name,
    }
}

/// A duration as the Gateway API writes it (GEP-2257): up to four numbers of up to five digits with the units
/// h, m, s, ms. A bare number is seconds, as Kubernetes' own fields have them.
pub fn duration(text: &str) -> Result<Duration, SettingError> {
    let error = || SettingError::Duration(text.to_owned());
    let number = |digits: &str| (digits.len() <= 5).then(|| digits.parse::<u64>().ok()).flatten();
    if let Some(seconds) = number(text) {
        return Ok(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let value = number(&rest[..digits]).ok_or_else(error)?;
        rest = &rest[digits..];
        // "ms" before "m", whose beginning it shares.
        let units =
            [("ms", Duration::from_millis(1)), ("h", HOUR), ("m", MINUTE), ("s", Duration::from_secs(1))];
        let (unit, one) = units.into_iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(error)?;
        total += one * u32::try_from(value).map_err(|_| error())?;
        rest = &rest[unit.len()..];
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(error())
}

fn share(text: &str) -> Result<f64, SettingError> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| SettingError::Share(text.to_owned()))
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    fn parse(more: &[&str]) -> Result<ProxyArgs, String> {
        let given = [
            "proxy",
            "--pod-name=web-0",
            "--pod-namespace=shop",
            "--service-account=web",
            "--ca-address=ca:15010",
        ];
        let and = ["--pod-uid=0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10", "--controller-address=controller:15012"];
        let command = Command::try_parse_from(given.iter().chain(&and).chain(more));
        command.map(|command| command.proxy).map_err(|error| error.to_string())
    }

    #[test]
    fn what_isnt_said_has_the_documented_default() {
        let args = parse(&["--pod-ips=10.0.0.7,fd00::7"]).unwrap();
        assert_eq!(args.pod_ips, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(args.mesh.trust_domain, "cluster.local");
        assert_eq!(args.drain_time, Duration::from_secs(30));
        assert_eq!(args.opaque_ports, Ports::default());
        assert_eq!(args.balance(), balance::Settings::default());
        assert_eq!((args.access_log, args.traces_to), (AccessLog::Off, None));
    }

    #[test]
    fn a_mistake_names_its_flag_and_value() {
        let error = parse(&["--pod-ips=10.0.0.7", "--opaque-ports=3306,http"]).unwrap_err();
        assert!(error.contains("--opaque-ports") && error.contains("\"http\""), "{error}");
        let error = parse(&["--pod-ips=10.0.0.7", "--eject-after=0"]).unwrap_err();
        assert!(error.contains("--eject-after") && error.contains("never"), "{error}");
        let error = parse(&["--pod-ips=10.0.0.7", "--traces-share=2"]).unwrap_err();
        assert!(error.contains("--traces-share") && error.contains("0 to 1"), "{error}");
        let error = parse(&[]).unwrap_err();
        assert!(error.contains("--pod-ips"), "{error}");
    }

    #[test]
    fn ports_are_single_or_ranges_and_print_back() {
        let ports: Ports = " 80, 8000-8010,".parse().unwrap();
        assert_eq!(ports.to_string(), "80,8000-8010");
        for (port, is_in) in
            [(79, false), (80, true), (81, false), (7999, false), (8000, true), (8010, true), (8011, false)]
        {
            assert_eq!(ports.contains(port), is_in, "{port}");
        }
        assert_eq!("".parse(), Ok(Ports::default()));
        for text in ["0", "65536", "http", "8010-8000", "80-", "-80", "1-2-3", "0x50"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_workload_is_what_its_pods_names_have_in_common() {
        for (pod, name) in [
            ("web-v1-7d4b9c6f5-x2v9k", "web-v1"),
            ("node-agent-x2v9k", "node-agent"),
            ("db-0", "db"),
            ("web", "web"),
            ("web-green", "web-green"),
            ("a-b-c", "a-b-c"),
        ] {
            assert_eq!(workload(pod), name);
        }
    }

    #[test]
    fn durations_are_the_gateway_apis_or_seconds() {
        for (text, milliseconds) in
            [("30", 30_000), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1h1m1s1ms", 3_661_001)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1d", "100000s", "1h1m1s1ms1s", "1s ", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
