//! Carrying out an app's probe as the kubelet would.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ::http::{HeaderName, Request, Response, StatusCode, Uri, Version, header, header::HeaderValue};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Check, HttpGet, Scheme, insecure};

/// How often a redirect within the pod is followed, as in the kubelet.
const MOST_REDIRECTS: usize = 10;
/// What is said where the kubelet's own name isn't known.
static USER_AGENT: HeaderValue = HeaderValue::from_static("kube-probe/gamut");

/// Why an app's probe failed.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("the app didn't answer within {0:?}")]
    Late(Duration),
    #[error("the app took no connection at {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error("the app's TLS: {0}")]
    Tls(String),
    #[error("the app's answer broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("the app answered {0}")]
    Status(StatusCode),
    #[error("the app redirects in circles")]
    Redirects,
    #[error("the app's health service says {0}")]
    Health(String),
    #[error("the probe can't be sent as it is written: {0}")]
    Written(#[from] ::http::Error),
}

impl Failure {
    /// What the kubelet is answered: the app's status where it gave one.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Status(status) => *status,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Written(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Carries a probe out against the pod, within `limit`. `user_agent` is the prober's.
pub(super) async fn run(
    check: &Check,
    pod: IpAddr,
    limit: Duration,
    user_agent: Option<&HeaderValue>,
) -> Result<(), Failure> {
    let user_agent = user_agent.unwrap_or(&USER_AGENT);
    let checking = async {
        match check {
            Check::HttpGet(get) => http_get(get, pod, user_agent).await,
            Check::TcpSocket { port } => connect(SocketAddr::new(pod, *port)).await.map(drop),
            Check::Grpc { port, service } => {
                let service = service.as_deref().unwrap_or_default();
                grpc(SocketAddr::new(pod, *port), service, user_agent).await
            }
        }
    };
    timeout(limit, checking).await.map_err(|_| Failure::Late(limit))?
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address).await.map_err(|error| Failure::Connect(address, error))
}

async fn http_get(get: &HttpGet, pod: IpAddr, user_agent: &HeaderValue) -> Result<(), Failure> {
    let (mut scheme, mut port) = (get.scheme, get.port);
    let mut target = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    for _ in 0..=MOST_REDIRECTS {
        let address = SocketAddr::new(pod, port);
        let request = request(get, &target, address, user_agent)?;
        let response = exchange(scheme, address, request).await?;
        let status = response.status();
        match redirect(&response, pod) {
            Some(to) => (scheme, port, target) = to.resolve(scheme, port, &target),
            None if status.is_success() || status.is_redirection() => return Ok(()),
            None => return Err(Failure::Status(status)),
        }
    }
    Err(Failure::Redirects)
}

fn request(
    get: &HttpGet,
    target: &str,
    address: SocketAddr,
    user_agent: &HeaderValue,
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::get(target).body(Full::default())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::try_from(address.to_string()).map_err(::http::Error::from)?);
    headers.insert(header::USER_AGENT, user_agent.clone());
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    for field in &get.http_headers {
        let name = HeaderName::try_from(&field.name).map_err(::http::Error::from)?;
        headers.insert(name, HeaderValue::try_from(&field.value).map_err(::http::Error::from)?);
    }
    Ok(request)
}

async fn exchange(
    scheme: Scheme,
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    let stream = connect(address).await?;
    match scheme {
        Scheme::Http => send_h1(stream, request).await,
        Scheme::Https => {
            let config = insecure::config().map_err(|error| Failure::Tls(error.to_string()))?;
            let name = ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(config).connect(name, stream).await;
            send_h1(stream.map_err(|error| Failure::Tls(error.to_string()))?, request).await
        }
    }
}

async fn send_h1<IO>(io: IO, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Where an answer sends the prober, within the pod. Elsewhere isn't followed: the kubelet counts that as a
/// success.
struct Redirect {
    scheme: Option<Scheme>,
    /// The authority's port; `None` without an authority, `Some(None)` for the scheme's own.
    port: Option<Option<u16>>,
    target: String,
}

fn redirect(response: &Response<Incoming>, pod: IpAddr) -> Option<Redirect> {
    let follows = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION).filter(|_| follows)?.to_str().ok()?;
    if !location.contains("://") {
        return Some(Redirect { scheme: None, port: None, target: location.to_owned() });
    }
    let location: Uri = location.parse().ok()?;
    let host = location.host()?.trim_start_matches('[').trim_end_matches(']');
    if host.parse() != Ok(pod) {
        return None;
    }
    let scheme = match location.scheme_str()? {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let target = location.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    Some(Redirect { scheme: Some(scheme), port: Some(location.port_u16()), target })
}

impl Redirect {
    fn resolve(self, scheme: Scheme, port: u16, base: &str) -> (Scheme, u16, String) {
        let scheme = self.scheme.unwrap_or(scheme);
        let port = match self.port {
            None => port,
            Some(Some(port)) => port,
            Some(None) if scheme == Scheme::Https => 443,
            Some(None) => 80,
        };
        let target = if self.target.starts_with('/') {
            self.target
        } else {
            // Relative to the directory of what was asked for (RFC 3986 section 5.3, without dot segments).
            let path = base.split('?').next().unwrap_or_default();
            let directory = path.rfind('/').map_or("/", |end| &path[..=end]);
            format!("{directory}{}", self.target)
        };
        (scheme, port, target)
    }
}

/// `grpc.health.v1.Health/Check`: two messages of one field each, written out so that no generated code is
/// needed.
async fn grpc(address: SocketAddr, service: &str, user_agent: &HeaderValue) -> Result<(), Failure> {
    const LARGEST_ANSWER: usize = 4096;
    let stream = connect(address).await?;
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, user_agent)
        .body(Full::new(health_request(service)))?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(Failure::Status(response.status()));
    }
    let in_head = response.headers().get("grpc-status").cloned();
    let answer = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let answer = answer.map_err(|error| Failure::Health(format!("something that is no answer: {error}")))?;
    let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned().or(in_head);
    match status.as_ref().map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            return Err(Failure::Health(format!("gRPC status {}", String::from_utf8_lossy(status))));
        }
        None => return Err(Failure::Health("nothing: it gave no gRPC status".to_owned())),
    }
    match health_of(&answer.to_bytes()) {
        Some(1) => Ok(()),
        Some(0) => Err(Failure::Health("UNKNOWN".to_owned())),
        Some(2) => Err(Failure::Health("NOT_SERVING".to_owned())),
        Some(3) => Err(Failure::Health("SERVICE_UNKNOWN".to_owned())),
        other => Err(Failure::Health(format!("something unknown: {other:?}"))),
    }
}

/// `message HealthCheckRequest { string service = 1; }` behind gRPC's prefix: not compressed, four bytes of
/// length.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// The status of `message HealthCheckResponse { ServingStatus status = 1; }`; a message without it says 0.
fn health_of(framed: &[u8]) -> Option<u8> {
    match framed {
        [0, 0, 0, 0, 0] => Some(0),
        [0, 0, 0, 0, 2, 0x08, status] => Some(*status),
        _ => None,
    }
}
