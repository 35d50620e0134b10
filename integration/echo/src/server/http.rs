//! One request: health, exit, an upgrade, a gRPC call, or the report, bent by the request's knobs.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRAILER, UPGRADE},
    request::Parts,
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use thiserror::Error;

use super::{
    App, Arrival,
    knobs::{Close, Early, Knobs},
    report,
};
use crate::{grpc, websocket};

type Body = UnsyncBoxBody<Bytes, Broken>;

/// Ends a connection (HTTP/1.1) or stream (HTTP/2) without a proper answer.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// The request's `close` knob wanted it so.
    #[error("closed as the request asked")]
    AsAsked,
    /// The request itself broke off.
    #[error(transparent)]
    Request(#[from] hyper::Error),
}

pub(super) async fn answer(
    app: Arc<App>,
    arrival: Arrival,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    if request.headers().contains_key(UPGRADE) {
        return Ok(upgrade(&mut request));
    }
    let (request, body) = request.into_parts();
    let knobs = match Knobs::of(&request) {
        Ok(knobs) => knobs,
        Err(reason) => return Ok(text(StatusCode::BAD_REQUEST, reason + "\n")),
    };
    if let Some(id) = &knobs.id {
        app.write_down(id);
    }
    match request.uri.path() {
        "/healthz" => return Ok(health(&app.health, &request.method, knobs.status)),
        "/grpc.health.v1.Health/Check" => return Ok(grpc_health(&app.health)),
        // What a crash looks like to whoever started the process.
        "/exit" => std::process::exit(knobs.status.unwrap_or(1).into()),
        _ => {}
    }
    if let Some(delay) = knobs.delay
        && knobs.slow.is_none_or(|slow| app.is_among_first(slow, &knobs.key))
    {
        tokio::time::sleep(delay).await;
    }
    if knobs.close == Some(Close::Head) {
        return Err(Broken::AsAsked);
    }
    if request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    {
        return Ok(grpc(app, arrival, request, body, &knobs));
    }
    http(&app, arrival, &request, body, knobs).await
}

/// `GET /healthz` answers with the status that the last `PUT /healthz?status=...` set.
fn health(status: &AtomicU16, method: &Method, new: Option<u16>) -> Response<Body> {
    if let (&Method::PUT, Some(new)) = (method, new) {
        status.store(new, Ordering::Relaxed);
        return text(StatusCode::OK, String::new());
    }
    let status = StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap_or(StatusCode::OK);
    text(status, format!("{status}\n"))
}

/// `grpc.health.v1.Health/Check`: SERVING (1) while `/healthz` answers 200, else NOT_SERVING (2); the answer's one field, behind
/// gRPC's prefix.
fn grpc_health(status: &AtomicU16) -> Response<Body> {
    let serving = if status.load(Ordering::Relaxed) == 200 { 1 } else { 2 };
    let ok = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let knobs = Knobs { trailers: vec![ok], ..Knobs::default() };
    let mut response = Response::new(stream(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, serving]), &knobs));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn http(
    app: &App,
    arrival: Arrival,
    request: &Parts,
    body: Incoming,
    knobs: Knobs,
) -> Result<Response<Body>, Broken> {
    let body = if knobs.echo_body {
        body.map_err(Broken::Request).boxed_unsync()
    } else {
        let length = match knobs.early {
            None => read_to_end(body).await?,
            Some(Early::Close) => 0,
            Some(Early::Read) => {
                drop(tokio::spawn(read_to_end(body)));
                0
            }
        };
        let content: Bytes = match knobs.size {
            Some(size) => vec![b'.'; size].into(),
            None => report::http(app, arrival, request, length).into(),
        };
        let streamed = knobs.chunks.is_some() || !knobs.trailers.is_empty() || knobs.close.is_some();
        if streamed { stream(content, &knobs) } else { full(content) }
    };
    let fails = knobs.fail.is_some_and(|fail| app.is_among_first(fail, &knobs.key));
    let status = if fails { 503 } else { knobs.status.unwrap_or(200) };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    // HTTP/1.1 sends only trailers that are announced (RFC 9110, section 6.6.2).
    for (name, _) in &knobs.trailers {
        response.headers_mut().append(TRAILER, HeaderValue::from_name(name.clone()));
    }
    response.headers_mut().extend(map(&knobs.headers));
    Ok(response)
}

impl App {
    /// Counts a request by its key: true for the first `number`, then once not, and so on.
    fn is_among_first(&self, number: u32, key: &str) -> bool {
        let Ok(mut counts) = self.counts.lock() else { return false };
        let count = counts.entry(key.to_owned()).or_default();
        if *count < number {
            *count += 1;
            return true;
        }
        counts.remove(key);
        false
    }
}

async fn read_to_end(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

/// The content in chunks with waits between them, and then trailers or the break that was asked for.
fn stream(content: Bytes, knobs: &Knobs) -> Body {
    let every = knobs.every;
    let chunks = (0..knobs.chunks.unwrap_or(1)).map(move |_| (every, Ok(Frame::data(content.clone()))));
    let end = match knobs.close {
        Some(_) => Some(Err(Broken::AsAsked)),
        None if knobs.trailers.is_empty() => None,
        None => Some(Ok(Frame::trailers(map(&knobs.trailers)))),
    };
    let frames = chunks.chain(end.map(|end| (None, end)));
    let frames = stream::unfold(frames.collect::<Vec<_>>().into_iter(), async |mut frames| {
        let (wait, frame): (Option<Duration>, Result<Frame<Bytes>, Broken>) = frames.next()?;
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        Some((frame, frames))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Answers each message of a gRPC call with a report: unary and streaming calls are the same to it.
fn grpc(app: Arc<App>, arrival: Arrival, request: Parts, body: Incoming, knobs: &Knobs) -> Response<Body> {
    let status = HeaderValue::from(knobs.status.unwrap_or(0));
    let mut response = if knobs.status.is_some_and(|status| status != 0) {
        let mut trailers_only = Response::new(full(Bytes::new()));
        trailers_only.headers_mut().insert("grpc-status", status);
        trailers_only
    } else {
        let calls = Calls { app, arrival, request, body, frames: grpc::Frames::default(), done: false };
        Response::new(BodyExt::boxed_unsync(StreamBody::new(stream::unfold(calls, Calls::next))))
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.headers_mut().extend(map(&knobs.headers));
    response
}

/// A gRPC call in progress.
struct Calls {
    app: Arc<App>,
    arrival: Arrival,
    request: Parts,
    body: Incoming,
    frames: grpc::Frames,
    done: bool,
}

impl Calls {
    /// The answer to the next message, or the trailers when there is none.
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Broken>, Self)> {
        if self.done {
            return None;
        }
        let status = loop {
            match self.frames.next() {
                Ok(Some(message)) => {
                    let lines = report::grpc(&self.app, self.arrival, &self.request, &grpc::text(&message));
                    return Some((Ok(Frame::data(grpc::frame(&lines))), self));
                }
                Ok(None) => {}
                // INTERNAL: what gRPC libraries answer to framing they can't read.
                Err(_) => break "13",
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.frames.push(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => {
                    self.done = true;
                    return Some((Err(error.into()), self));
                }
                None => break "0",
            }
        };
        self.done = true;
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static(status));
        Some((Ok(Frame::trailers(map(&[status]))), self))
    }
}

/// Accepts any upgrade: WebSocket frames come back as frames, any other protocol's bytes as bytes.
fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let protocol = request.headers().get(UPGRADE).cloned().unwrap_or(HeaderValue::from_static("echo"));
    let is_websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    let key = request.headers().get(SEC_WEBSOCKET_KEY).filter(|_| is_websocket);
    if let Some(proof) = key.and_then(|key| websocket::accept(key.as_bytes()).parse().ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
    }
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));

    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let stream = match upgraded.await {
            Ok(stream) => TokioIo::new(stream),
            Err(error) => return tracing::debug!(%error, "upgrade"),
        };
        let result = if is_websocket {
            websocket::echo(stream).await
        } else {
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.map(drop)
        };
        if let Err(error) = result {
            tracing::debug!(%error, "upgraded connection");
        }
    });
    response
}

fn text(status: StatusCode, content: String) -> Response<Body> {
    let mut response = Response::new(full(content.into()));
    *response.status_mut() = status;
    response
}

fn full(content: Bytes) -> Body {
    Full::new(content).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn map(entries: &[(HeaderName, HeaderValue)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in entries {
        map.append(name, value.clone());
    }
    map
}
