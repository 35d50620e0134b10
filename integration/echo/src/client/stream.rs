//! Protocols that are no requests and answers: WebSocket, and bytes over TCP. What comes back is the answer's body.

use std::io::Write;

use http::{HeaderMap, HeaderName};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{Answer, Call, Target};
use crate::{
    EchoError,
    websocket::{self, Frame, Opcode},
};

/// The handshake's key; a constant, because nobody here needs to tell two handshakes apart.
const KEY: &str = "Z2FtdXQtZWNoby1jbGllbnQ=";

/// Sends one text message, waits for its echo, and closes in order.
pub(super) async fn websocket(call: &Call) -> Result<Answer, EchoError> {
    let (mut stream, head) = upgrade(&call.target, &call.headers).await?;
    let message = Frame { opcode: Opcode::Text, payload: call.data.clone().into_bytes() };
    websocket::write(&mut stream, &message, Some([1, 2, 3, 4])).await?;
    let answer = websocket::read(&mut stream).await?;
    let close = Frame { opcode: Opcode::Close, payload: Vec::new() };
    websocket::write(&mut stream, &close, Some([1, 2, 3, 4])).await?;
    websocket::read(&mut stream).await?;
    Ok(Answer {
        status: Some(101),
        headers: headers(&head),
        body: String::from_utf8_lossy(&answer.payload).into_owned(),
    })
}

/// A WebSocket that is open, and the head of the answer that opened it.
pub(super) async fn upgrade(
    target: &Target,
    headers: &HeaderMap,
) -> Result<(BufReader<TcpStream>, String), EchoError> {
    let mut stream = BufReader::new(target.connect().await?);
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", target.path, target.authority).into_bytes();
    for (name, value) in headers {
        write!(request, "{name}: ")?;
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    write!(
        request,
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )?;
    stream.write_all(&request).await?;
    let head = read_head(&mut stream).await?;
    let proof = format!("sec-websocket-accept: {}", websocket::accept(KEY.as_bytes()).to_ascii_lowercase());
    if !head.starts_with("HTTP/1.1 101 ") || !head.to_ascii_lowercase().contains(&proof) {
        let status = head.lines().next().unwrap_or_default();
        return Err(EchoError::Protocol(format!("no upgrade to WebSocket: {status}")));
    }
    Ok((stream, head))
}
/// The headers of an answer's head; a line that is none is left out.
pub(super) fn headers(head: &str) -> HeaderMap {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value.trim().parse().ok()?))
        })
        .collect()
}

/// The answer's head, up to and with the empty line.
pub(super) async fn read_head(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<String, EchoError> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(EchoError::Protocol("the connection ended before an answer".to_owned()));
        }
    }
    Ok(head)
}

/// Sends the data, ends its own side when the answer begins (or not at all), and reads to the server's end.
///
/// Ending it earlier would be a race: a server that finds the end before it has answered may take it for the caller's
/// leaving, as HTTP servers do.
pub(super) async fn tcp(call: &Call) -> Result<Answer, EchoError> {
    let mut stream = BufReader::new(call.target.connect().await?);
    let mut body = String::new();
    if call.server_first && stream.read_line(&mut body).await? == 0 {
        return Err(EchoError::Protocol("the connection ended before the server's greeting".to_owned()));
    }
    stream.write_all(call.data.as_bytes()).await?;
    if !call.hold {
        if !call.data.is_empty() {
            stream.fill_buf().await?;
        }
        stream.shutdown().await?;
    }
    stream.read_to_string(&mut body).await?;
    Ok(Answer { status: None, body, ..Answer::default() })
}
