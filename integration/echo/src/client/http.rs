//! HTTP/1.1, a connection for each request.

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{CONNECTION, HOST},
};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, Call};
use crate::EchoError;

pub(super) async fn call(call: &Call) -> Result<Answer, EchoError> {
    let stream = call.target.connect().await?;
    match &call.tls {
        None => exchange(call, stream).await,
        Some(tls) => exchange(call, tls.connect(stream).await?).await,
    }
}

async fn exchange(
    call: &Call,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Answer, EchoError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);

    let mut request = Request::new(Full::new(Bytes::from(call.data.clone())));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.target.path.parse().map_err(|error| EchoError::Protocol(format!("{error}")))?;
    let host = call.target.authority.parse().map_err(|error| EchoError::Protocol(format!("{error}")))?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    request.headers_mut().extend(call.headers.clone());

    let (response, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?;
    let mut headers = response.headers;
    // Trailers print like headers: to a reader of lines they are the same.
    headers.extend(body.trailers().cloned().unwrap_or_default());
    connection.abort();
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Answer { status: Some(response.status.as_u16()), headers, body })
}
