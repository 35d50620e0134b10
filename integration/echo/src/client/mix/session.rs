//! One client's connection and what it says on it, again and again.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use futures_util::stream::unfold;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri,
    header::{CONTENT_TYPE, HOST, TE},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
};

use super::{Kind, early};
use crate::{
    EchoError,
    client::{Target, stream},
    grpc::{Frames, frame, text},
    websocket::{self, Opcode},
};

/// How many bytes go over TCP at a time.
const BLOCK: usize = 4096;
/// The parts of a [`Kind::Slow`] answer, their size, and what asks for them.
const SLOW_BYTES: usize = 20 * 1000;
const SLOW_PATH: &str = "/?size=1000&chunks=20&every=25ms";
/// How long the app takes for a [`Kind::Post`].
const POST_DELAY: &str = "20ms";

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// What came of one request or message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    /// An answer other than 200, which says why.
    Refused(String),
    /// An answer that looks good and isn't.
    Corrupt(String),
}

/// A client's connection, made when it is needed first.
pub(super) struct Session<'a> {
    kind: Kind,
    target: &'a Target,
    /// How many exchanges there were: each has another content.
    number: u64,
    /// The [name](name_of) of the newest POST.
    name: String,
    /// Whether something that would be missed has come of the stream or body that is open now.
    begun: bool,
    open: Option<Open>,
}

enum Open {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
    Grpc { messages: mpsc::UnboundedSender<Bytes>, answers: Incoming, frames: Frames },
    WebSocket(BufReader<TcpStream>),
    Tcp(TcpStream),
}

impl<'a> Session<'a> {
    pub(super) fn new(kind: Kind, target: &'a Target) -> Self {
        Self { kind, target, number: 0, name: String::new(), begun: false, open: None }
    }

    /// Whether a failure breaks something off that had begun.
    pub(super) fn had_begun(&self) -> bool {
        self.begun
    }

    /// A request and its answer, or a message and its echo.
    pub(super) async fn exchange(&mut self) -> Result<Outcome, EchoError> {
        self.number += 1;
        if self.kind == Kind::Early {
            return early::exchange(self.target, self.number, &name_of(self.kind)).await;
        }
        let open = match self.kept().await {
            Some(open) => open,
            None => self.connect().await?,
        };
        let (outcome, open) = match open {
            Open::H1(mut sender) => {
                let response = sender.send_request(self.request()?).await?;
                (self.read(response).await?, Open::H1(sender))
            }
            Open::H2(mut sender) => {
                let response = sender.send_request(self.request()?).await?;
                (self.read(response).await?, Open::H2(sender))
            }
            Open::Grpc { messages, mut answers, mut frames } => {
                let message = self.number.to_string();
                let gone = |_| EchoError::Protocol("the call has ended".to_owned());
                messages.send(frame(&message)).map_err(gone)?;
                let echo = next_message(&mut answers, &mut frames).await?;
                self.begun = true;
                let outcome = compare(echo.contains(&format!("Echo={message}\n")), "another message");
                (outcome, Open::Grpc { messages, answers, frames })
            }
            Open::WebSocket(mut stream) => {
                let message =
                    websocket::Frame { opcode: Opcode::Text, payload: self.number.to_string().into_bytes() };
                websocket::write(&mut stream, &message, Some([1, 2, 3, 4])).await?;
                let echo = websocket::read(&mut stream).await?;
                self.begun = true;
                (compare(echo == message, "another message"), Open::WebSocket(stream))
            }
            Open::Tcp(mut stream) => {
                let block = block(self.number);
                let mut echo = [0; BLOCK];
                stream.write_all(&block).await?;
                stream.read_exact(&mut echo).await?;
                self.begun = true;
                (compare(echo == block, "other bytes"), Open::Tcp(stream))
            }
        };
        if self.kind == Kind::Connect {
            self.begun = false;
        } else {
            self.open = Some(open);
        }
        Ok(outcome)
    }

    /// What is open, unless the other side has closed it since, as HTTP servers may.
    async fn kept(&mut self) -> Option<Open> {
        let mut open = self.open.take()?;
        match &mut open {
            Open::H1(sender) => sender.ready().await.is_ok().then_some(open),
            Open::H2(sender) => sender.ready().await.is_ok().then_some(open),
            Open::Grpc { .. } | Open::WebSocket(_) | Open::Tcp(_) => Some(open),
        }
    }

    async fn connect(&mut self) -> Result<Open, EchoError> {
        Ok(match self.kind {
            Kind::H1 | Kind::Post | Kind::Early | Kind::Slow => {
                let io = TokioIo::new(self.target.connect().await?);
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Open::H1(sender)
            }
            Kind::H2 => Open::H2(self.connect_h2().await?),
            Kind::Grpc => {
                let (messages, queue) = mpsc::unbounded_channel();
                let queue = unfold(queue, async |mut queue: mpsc::UnboundedReceiver<Bytes>| {
                    let message = queue.recv().await?;
                    Some((Ok(Frame::data(message)), queue))
                });
                let mut request = self.absolute("/proto.EchoTestService/EchoStream")?;
                *request.method_mut() = Method::POST;
                *request.body_mut() = StreamBody::new(queue).boxed_unsync();
                request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
                request.headers_mut().insert("x-echo-id", name_of(self.kind).parse().map_err(protocol)?);
                let response = self.connect_h2().await?.send_request(request).await?;
                refuse_trailers_only(response.headers())?;
                Open::Grpc { messages, answers: response.into_body(), frames: Frames::default() }
            }
            Kind::WebSocket => {
                let (stream, _) = stream::upgrade(self.target, &HeaderMap::new()).await?;
                Open::WebSocket(stream)
            }
            Kind::Tcp | Kind::Connect => Open::Tcp(self.target.connect().await?),
        })
    }

    async fn connect_h2(&self) -> Result<http2::SendRequest<Body>, EchoError> {
        let io = TokioIo::new(self.target.connect().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&mut self) -> Result<Request<Body>, EchoError> {
        let path = if self.kind == Kind::Slow { SLOW_PATH } else { &self.target.path };
        if self.kind == Kind::H2 {
            return self.absolute(path);
        }
        let mut request = Request::new(empty());
        *request.uri_mut() = path.parse().map_err(protocol)?;
        let host = HeaderValue::try_from(&self.target.authority).map_err(protocol)?;
        request.headers_mut().insert(HOST, host);
        if self.kind == Kind::Post {
            *request.method_mut() = Method::POST;
            *request.body_mut() = Full::new(Bytes::from(self.number.to_string())).boxed_unsync();
            self.name = name_of(self.kind);
            request.headers_mut().insert("x-echo-id", HeaderValue::try_from(&self.name).map_err(protocol)?);
            request.headers_mut().insert("x-echo-delay", HeaderValue::from_static(POST_DELAY));
        }
        Ok(request)
    }

    /// A GET as HTTP/2 has it.
    fn absolute(&self, path: &str) -> Result<Request<Body>, EchoError> {
        let uri = Uri::builder().scheme("http").authority(self.target.authority.as_str());
        let mut request = Request::new(empty());
        *request.uri_mut() = uri.path_and_query(path).build().map_err(protocol)?;
        Ok(request)
    }

    /// Reads an answer to its end and judges it.
    async fn read(&mut self, response: Response<Incoming>) -> Result<Outcome, EchoError> {
        let (head, body) = response.into_parts();
        self.begun = self.kind == Kind::Slow;
        let body = body.collect().await?.to_bytes();
        self.begun = false;
        if head.status != 200 {
            return Ok(Outcome::Refused(format!("{} {}", head.status, String::from_utf8_lossy(&body))));
        }
        let contains = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        Ok(match self.kind {
            Kind::Slow => compare(body.len() == SLOW_BYTES, "a shorter body that says it is whole"),
            Kind::Post if !contains(&self.name) => compare(false, "another request's answer"),
            _ => compare(contains("Hostname="), "an answer without its last line"),
        })
    }
}

/// A name that no other request of any client has. An app that writes it down (`gamut echo server --journal`) shows whether the request came
/// to one twice.
fn name_of(kind: Kind) -> String {
    static BEGAN: LazyLock<u128> =
        LazyLock::new(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{:x}-{}", kind.name(), *BEGAN, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The next message of a gRPC call.
async fn next_message(answers: &mut Incoming, frames: &mut Frames) -> Result<String, EchoError> {
    loop {
        if let Some(message) = frames.next().map_err(EchoError::Protocol)? {
            return Ok(text(&message));
        }
        let Some(part) = answers.frame().await else {
            return Err(EchoError::Protocol("the call ended without trailers".to_owned()));
        };
        let part = part?;
        match part.trailers_ref() {
            Some(trailers) => return Err(EchoError::Protocol(format!("the call ended: {trailers:?}"))),
            None => frames.push(part.data_ref().map_or(&[], |data| data)),
        }
    }
}

/// A call that is over when it begins.
fn refuse_trailers_only(headers: &HeaderMap) -> Result<(), EchoError> {
    match headers.get("grpc-status") {
        Some(status) => {
            let why = headers.get("grpc-message").unwrap_or(status);
            Err(EchoError::Protocol(String::from_utf8_lossy(why.as_bytes()).into_owned()))
        }
        None => Ok(()),
    }
}

fn compare(is_good: bool, what: &str) -> Outcome {
    if is_good { Outcome::Good } else { Outcome::Corrupt(format!("{what} came back")) }
}

/// Bytes that are different for each number and at each place (Knuth's multiplicative hashing).
fn block(number: u64) -> [u8; BLOCK] {
    std::array::from_fn(|place| {
        let mixed = (number ^ (place as u64) << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    })
}

fn empty() -> Body {
    Full::default().boxed_unsync()
}

fn protocol(error: impl std::fmt::Display) -> EchoError {
    EchoError::Protocol(error.to_string())
}
