//! Unary gRPC calls, all on one HTTP/2 connection.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Answer, Call, Target};
use crate::{
    EchoError,
    grpc::{Frames, frame, text},
};

/// The method called when the URL names none: that of the suite's own client.
const METHOD: &str = "/proto.EchoTestService/Echo";

type Connection = SendRequest<Full<Bytes>>;

pub(super) async fn connect(target: &Target) -> Result<Connection, EchoError> {
    let stream = TokioIo::new(target.connect().await?);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) async fn call(mut connection: Connection, call: &Call) -> Result<Answer, EchoError> {
    let path = if call.target.path == "/" { METHOD } else { &call.target.path };
    let uri =
        Uri::builder().scheme("http").authority(call.target.authority.as_str()).path_and_query(path).build();
    let mut request = Request::new(Full::new(frame(&call.data)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.map_err(|error| EchoError::Protocol(error.to_string()))?;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().extend(call.headers.clone());

    let (response, body) = connection.send_request(request).await?.into_parts();
    if response.status != 200 {
        return Err(EchoError::Protocol(format!(
            "HTTP status {} in place of a gRPC answer",
            response.status
        )));
    }
    let body = body.collect().await?;
    let mut headers = response.headers;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    let field = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match field("grpc-status").as_deref() {
        Some("0") => {}
        Some(status) => {
            let message = field("grpc-message").unwrap_or_default();
            return Err(EchoError::Protocol(format!("gRPC status {status} {message}")));
        }
        None => return Err(EchoError::Protocol("an answer without grpc-status".to_owned())),
    }
    let mut frames = Frames::default();
    frames.push(&body.to_bytes());
    let message = frames.next().map_err(EchoError::Protocol)?.unwrap_or_default();
    Ok(Answer { status: None, headers, body: text(&message) })
}
