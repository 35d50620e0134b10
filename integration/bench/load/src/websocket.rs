//! WebSocket messages (RFC 6455) to an app that sends each back: an upgrade, then small binary frames.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{LoadError, Loop, authority, connect, measure::Measured};

/// A message's bytes: below 126, so that a frame's length is one byte.
const MESSAGE: usize = 100;

/// Messages one after the other on one connection.
pub(crate) async fn messages(args: Loop, end: Instant) -> Result<Measured, LoadError> {
    let mut stream = connect(&args.url).await?;
    let (host, _) = authority(&args.url)?;
    let path = args.url.path();
    // Any 16 bytes in base64 are a key.
    let upgrade = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if !head.starts_with(b"HTTP/1.1 101") {
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        return Err(LoadError::Answer(line));
    }
    // Final, binary; masked, as a client's must be, by zeros; the answer isn't masked.
    let mut frame = vec![0x82, 0x80 | MESSAGE as u8, 0, 0, 0, 0];
    frame.resize(6 + MESSAGE, b'x');
    let mut answer = [0; 2 + MESSAGE];
    let mut measured = Measured::default();
    while Instant::now() < end {
        let begin = Instant::now();
        stream.write_all(&frame).await?;
        stream.read_exact(&mut answer).await?;
        match answer.starts_with(&[0x82, MESSAGE as u8]) {
            true => measured.latencies.push(begin.elapsed()),
            false => measured.errors += 1,
        }
    }
    Ok(measured)
}
