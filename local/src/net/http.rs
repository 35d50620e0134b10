//! Small HTTP requests: probes of pods, questions to admin addresses.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

/// More than any status is long.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Admin addresses are on this machine and answer at once; a sidecar's `/tap` waits up to 2 s for something to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// A GET over a connection of its own; the status, and the body if `read_body`. The error is a phrase.
pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
    read_body: bool,
) -> Result<(StatusCode, Bytes), String> {
    let stream = TcpStream::connect(address).await.map_err(text)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(connection);

    let mut request = Request::get(path.parse::<Uri>().map_err(text)?);
    let named = |name: &str| headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header(header::HOST, address.to_string());
    }
    if !named("user-agent") {
        request = request.header(header::USER_AGENT, concat!("kube-probe/gamut-", env!("CARGO_PKG_VERSION")));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(text)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let status = response.status();
        let body = match read_body {
            true => Limited::new(response.into_body(), MAX_BODY)
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes(),
            false => Bytes::new(),
        };
        Ok((status, body))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// What an admin address says, as JSON. The error is a sentence.
pub(crate) async fn get_json(address: SocketAddr, path: &str) -> Result<Value, String> {
    let failed = |problem: String| format!("http://{address}{path}: {problem}");
    let answer = timeout(PATIENCE, get(address, path, &[], true)).await;
    match answer.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?.map_err(failed)? {
        (StatusCode::OK, body) => serde_json::from_slice(&body).map_err(|error| failed(error.to_string())),
        (status, _) => Err(failed(format!("answered {status}"))),
    }
}

/// Whether an address answers with 200.
pub(crate) async fn is_ready(address: SocketAddr, path: &str) -> bool {
    let answer = timeout(PATIENCE, get(address, path, &[], false)).await;
    matches!(answer, Ok(Ok((StatusCode::OK, _))))
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}
