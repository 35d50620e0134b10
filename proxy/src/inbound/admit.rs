//! Whether a connection comes in, and as what: decisions without sockets.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use gamut_controller_api::{InboundPolicy, MtlsMode};
use gamut_identity::uid_of_server_name;
use thiserror::Error;
use tokio::time::Instant;

use super::{MeshProtocol, Settings};
use crate::{
    config::ports,
    detect::{ClientHello, Detected, Why},
};

/// What becomes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// A sidecar that means us: its handshake decides the rest.
    Handshake,
    /// A caller outside the mesh, whose bytes go to the app as they are.
    Plaintext,
    /// Nothing; `readable` if the caller can be told why in its own protocol.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The caller speaks plaintext HTTP.
        readable: Option<crate::http::HttpVersion>,
    },
}

/// Why a connection isn't served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The port takes mesh peers only.
    #[error(
        "port {port} takes calls over the mesh's mTLS only (gamut.mesh/mtls: strict), and the caller speaks {speaks}; put the caller into the mesh, or name the port in the pod's annotation gamut.mesh/plaintext-ports"
    )]
    MtlsRequired {
        /// The port that was called.
        port: u16,
        /// What the caller speaks.
        speaks: &'static str,
    },
    /// The controller hasn't said yet how this pod takes traffic in.
    #[error("the controller hasn't sent this pod's policy yet, and until then nobody is let in")]
    NoPolicy,
    /// A sidecar that means another pod: its endpoint is stale, the address has a new holder.
    #[error("the caller means pod {0}, not this one: its address was used again")]
    WrongPod(String),
    /// A sidecar, but the handshake failed.
    #[error("the mesh handshake failed: {0}")]
    Handshake(String),
    /// There are as many connections as there may be.
    #[error("{0} connections to the pod are open, which is the most (gamut.mesh/max-connections)")]
    TooMany(u32),
    /// It would come back to this sidecar.
    #[error(
        "port {0} is one of the sidecar's own ({first}-{last}), which an app can't use",
        first = ports::OWN.start(),
        last = ports::OWN.end()
    )]
    OwnPort(u16),
    /// It would leave the pod again.
    #[error("{0} is none of this pod's addresses")]
    NotHere(SocketAddr),
}

impl Refusal {
    /// The reason as metrics name it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MtlsRequired { .. } => "mtls-required",
            Self::NoPolicy => "no-policy",
            Self::WrongPod(_) => "wrong-pod",
            Self::Handshake(_) => "handshake",
            Self::TooMany(_) => "overload",
            Self::OwnPort(_) => "own-port",
            Self::NotHere(_) => "not-here",
        }
    }
}

impl Settings {
    /// That the address is the app's, and not the sidecar's or somebody else's.
    pub(super) fn check_destination(&self, destination: SocketAddr) -> Result<(), Refusal> {
        if ports::OWN.contains(&destination.port()) {
            return Err(Refusal::OwnPort(destination.port()));
        }
        if !self.ips.contains(&destination.ip()) {
            return Err(Refusal::NotHere(destination));
        }
        Ok(())
    }

    /// How a port takes traffic in; `None` before the first policy.
    pub(super) fn mode(policy: Option<&InboundPolicy>, port: u16) -> Option<MtlsMode> {
        policy.map(|policy| policy.ports.get(&port).map_or(policy.mode, |port| port.mode))
    }

    /// What becomes of a connection to `port` that began like this.
    pub(super) fn admit(&self, detected: &Detected, policy: Option<&InboundPolicy>, port: u16) -> Admission {
        let readable = match detected {
            Detected::Http1 => Some(crate::http::HttpVersion::H1),
            Detected::Http2 => Some(crate::http::HttpVersion::H2),
            Detected::Tls(_) | Detected::Opaque(_) => None,
        };
        let refused = |refusal| Admission::Refused { refusal, readable };
        let Some(mode) = Self::mode(policy, port) else { return refused(Refusal::NoPolicy) };
        if let Detected::Tls(hello) = detected
            && is_mesh(hello)
        {
            let name = hello.server_name.as_deref().unwrap_or_default();
            return match uid_of_server_name(name) {
                Some(pod) if pod == self.pod => Admission::Handshake,
                _ => refused(Refusal::WrongPod(name.to_owned())),
            };
        }
        match (mode, detected) {
            // It may have been a sidecar that was cut short: its bytes are nothing for an app.
            (_, Detected::Opaque(Why::BrokenTls)) => {
                refused(Refusal::Handshake("its first message is broken, too long or too slow".to_owned()))
            }
            (MtlsMode::Permissive, _) => Admission::Plaintext,
            (MtlsMode::Strict, _) => refused(Refusal::MtlsRequired { port, speaks: speaks(detected) }),
        }
    }
}

/// Whether it is a sidecar that calls.
pub(super) fn is_mesh(hello: &ClientHello) -> bool {
    hello.alpn.iter().any(|alpn| alpn.starts_with(MeshProtocol::PREFIX))
}

fn speaks(detected: &Detected) -> &'static str {
    match detected {
        Detected::Http1 => "plaintext HTTP/1",
        Detected::Http2 => "plaintext HTTP/2",
        Detected::Tls(_) => "TLS of its own",
        Detected::Opaque(Why::Silent) => "nothing",
        Detected::Opaque(_) => "plaintext",
    }
}

/// Says in the log what was refused: each reason at once, and then what came meanwhile no more than once in
/// [`Log::PAUSE`], so that a flood of connections isn't one of lines.
#[derive(Default)]
pub(super) struct Log(Mutex<Vec<Line>>);

struct Line {
    reason: &'static str,
    said: Instant,
    unsaid: u64,
}

impl Log {
    const PAUSE: Duration = Duration::from_secs(10);

    pub(super) fn refused(&self, refusal: &Refusal, destination: SocketAddr) {
        if let Some(unsaid) = self.is_due(refusal.reason()) {
            tracing::warn!(%destination, reason = refusal.reason(), unsaid, "connection refused: {refusal}");
        }
    }

    /// How many of this reason went unsaid since the last that was said; `None` if this one isn't to be said
    /// either.
    fn is_due(&self, reason: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.iter_mut().find(|line| line.reason == reason) {
            None => {
                lines.push(Line { reason, said: now, unsaid: 0 });
                Some(0)
            }
            Some(line) if now - line.said < Self::PAUSE => {
                line.unsaid += 1;
                None
            }
            Some(line) => {
                line.said = now;
                Some(std::mem::take(&mut line.unsaid))
            }
        }
    }
}

/// The pod's UID, for tests of this folder.
#[cfg(test)]
pub(super) fn test_pod() -> gamut_route::Uid {
    gamut_route::Uid::of("0b8f6f3e-2d5c-4a57-9d0c-5b7d2f1e9a10")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use gamut_controller_api::InboundPort;
    use gamut_identity::pod_name;
    use gamut_route::{Uid, table::AppProtocol};

    use super::*;
    use crate::http::HttpVersion;

    fn settings() -> Settings {
        Settings {
            pod: test_pod(),
            ips: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            max_connections: 1,
        }
    }

    /// Strict, but for port 9090.
    fn strict() -> InboundPolicy {
        let open = InboundPort { mode: MtlsMode::Permissive, protocol: AppProtocol::Detect };
        InboundPolicy { mode: MtlsMode::Strict, ports: BTreeMap::from([(9090, open)]) }
    }

    fn tls(server_name: &str, alpn: &str) -> Detected {
        Detected::Tls(ClientHello {
            server_name: Some(server_name.to_owned()),
            alpn: vec![alpn.as_bytes().to_vec()],
        })
    }

    fn refusal(admission: Admission) -> &'static str {
        match admission {
            Admission::Refused { refusal, .. } => refusal.reason(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_sidecar_that_means_this_pod_comes_to_the_handshake() {
        for alpn in ["gamut/1-h1", "gamut/1-mux-h2", "gamut/2-tcp", "gamut/2-later"] {
            let hello = tls(&pod_name(test_pod()), alpn);
            assert_eq!(settings().admit(&hello, Some(&strict()), 80), Admission::Handshake, "{alpn}");
        }
    }

    #[test]
    fn a_sidecar_that_means_another_pod_is_refused_whatever_the_mode() {
        for name in [&pod_name(Uid::of("another")), "web.shop.svc.cluster.local", ""] {
            for port in [80, 9090] {
                assert_eq!(
                    refusal(settings().admit(&tls(name, "gamut/1-mux-h2"), Some(&strict()), port)),
                    "wrong-pod"
                );
            }
        }
    }

    #[test]
    fn strangers_come_in_where_the_port_is_permissive_and_nowhere_else() {
        let own_tls = tls("web.example", "h2");
        for stranger in [
            Detected::Http1,
            Detected::Http2,
            own_tls,
            Detected::Opaque(Why::Silent),
            Detected::Opaque(Why::OtherBytes),
        ] {
            assert_eq!(
                settings().admit(&stranger, Some(&strict()), 9090),
                Admission::Plaintext,
                "{stranger:?}"
            );
            assert_eq!(
                refusal(settings().admit(&stranger, Some(&strict()), 80)),
                "mtls-required",
                "{stranger:?}"
            );
        }
    }

    #[test]
    fn the_cut_off_beginning_of_a_handshake_never_reaches_an_app() {
        let broken = Detected::Opaque(Why::BrokenTls);
        assert_eq!(refusal(settings().admit(&broken, Some(&strict()), 9090)), "handshake");
    }

    #[test]
    fn without_a_policy_nobody_comes_in() {
        for caller in [tls(&pod_name(test_pod()), "gamut/1-mux-h2"), Detected::Http1] {
            assert_eq!(refusal(settings().admit(&caller, None, 9090)), "no-policy");
        }
    }

    #[test]
    fn only_http_callers_can_be_told_why() {
        let told = |detected| match settings().admit(&detected, Some(&strict()), 80) {
            Admission::Refused { readable, .. } => readable,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(Detected::Http1), Some(HttpVersion::H1));
        assert_eq!(told(Detected::Http2), Some(HttpVersion::H2));
        assert_eq!(told(tls("web.example", "h2")), None);
    }

    #[test]
    fn the_sidecars_own_ports_and_strange_addresses_are_no_destinations() {
        let check = |address: &str| {
            settings().check_destination(address.parse().unwrap()).map_err(|refusal| refusal.reason())
        };
        assert_eq!(check("10.0.0.7:80"), Ok(()));
        assert_eq!(check("[fd00::7]:14999"), Ok(()));
        for port in [15000, 15001, 15006, 15021] {
            assert_eq!(check(&format!("10.0.0.7:{port}")), Err("own-port"));
        }
        assert_eq!(check("10.0.0.8:80"), Err("not-here"));
        assert_eq!(check("127.0.0.1:80"), Err("not-here"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_refusals_is_a_trickle_of_lines() {
        let log = Log::default();
        assert_eq!(log.is_due("mtls-required"), Some(0));
        for _ in 0..1000 {
            assert_eq!(log.is_due("mtls-required"), None);
        }
        assert_eq!(log.is_due("wrong-pod"), Some(0), "another reason is news");
        tokio::time::advance(Log::PAUSE).await;
        assert_eq!(log.is_due("mtls-required"), Some(1000));
        assert_eq!(log.is_due("mtls-required"), None);
    }
}
