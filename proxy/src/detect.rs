//! What a connection speaks, by its first bytes, without taking them away.
//!
//! ```text
//! silence, 1 s                                    -> opaque (the server speaks first)
//! "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"              -> HTTP/2
//! 16 03 .., a whole ClientHello                   -> TLS, with SNI and ALPN
//! METHOD SP target SP "HTTP/1."                   -> HTTP/1
//! anything else, as soon as it is none of these   -> opaque
//! ```
//!
//! [`look`] decides on the bytes that are there; [`detect`] reads until it has decided, for [`SILENCE`] while
//! nothing comes and [`PATIENCE`] in all, and gives the bytes back in front of the rest ([`Prefixed`]). A
//! ClientHello with an ML-KEM key share is larger than a segment, so all of it is waited for.
//!
//! Two prices are paid knowingly. A server that speaks first, on a port that neither `appProtocol` nor
//! [`AppProtocol::assumed`](gamut_route::table::AppProtocol::assumed) tells about, is reached a second late. And a client that opens an HTTP connection
//! long before it uses it is taken for opaque, which `appProtocol: http` prevents.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use crate::tcp::BreakOff;

mod screen;

pub use screen::Screened;

/// How long a connection may say nothing before it is taken for one whose server speaks first.
pub const SILENCE: Duration = Duration::from_secs(1);
/// How long the bytes that decide may take altogether, once there are some.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How many bytes are looked at. ClientHellos have some 2 KiB with ML-KEM, and up to 16 KiB with large
/// tickets and ECH.
const MOST_BYTES: usize = 20 * 1024;
/// What a connection's first read usually brings.
const FIRST_READ: usize = 2 * 1024;

/// What a connection speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS.
    Tls(ClientHello),
    /// Something else.
    Opaque(Why),
}

/// Why nothing more is known about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// Its bytes are nobody's that we know.
    OtherBytes,
    /// It said nothing for [`SILENCE`], or ended without a word.
    Silent,
    /// It began as TLS and then was too slow, too long, or broken.
    BrokenTls,
    /// It began as HTTP and then was too slow.
    SlowHttp,
}

/// What a TLS client says in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Whom it calls (SNI).
    pub server_name: Option<String>,
    /// What it would speak (ALPN), the preferred first.
    pub alpn: Vec<Vec<u8>>,
}

/// Reads until it is clear what the connection speaks, for [`PATIENCE`] at most and `silence` while nothing
/// comes. What was read comes first when the returned stream is read.
///
/// # Errors
/// If reading fails: the client reset the connection.
pub async fn detect<IO: AsyncRead + Unpin>(
    mut io: IO,
    silence: Duration,
) -> io::Result<(Detected, Prefixed<IO>)> {
    let begin = Instant::now();
    let mut seen = BytesMut::with_capacity(FIRST_READ);
    let mut hello = Hello::default();
    let mut until = begin + silence;
    let detected = loop {
        let read = match timeout_at(until, io.read_buf(&mut seen)).await {
            Ok(read) => read?,
            // Late or over: what is there has to do.
            Err(_) => 0,
        };
        if read == 0 {
            break unfinished(&seen);
        }
        if let Some(detected) = look(&seen, &mut hello) {
            break detected;
        }
        if seen.len() >= MOST_BYTES {
            break overlong(&seen);
        }
        until = begin + PATIENCE.max(silence);
    };
    Ok((detected, Prefixed { prefix: seen.freeze(), io }))
}

/// A ClientHello as far as it has come.
#[derive(Default)]
struct Hello {
    acceptor: Acceptor,
    fed: usize,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HANDSHAKE_RECORD: u8 = 22;
const MAJOR_VERSION: u8 = 3;

/// What a connection that began with these bytes speaks; `None`: they could still become one thing or
/// another.
fn look(seen: &[u8], hello: &mut Hello) -> Option<Detected> {
    match seen {
        [] | [HANDSHAKE_RECORD] => None,
        [HANDSHAKE_RECORD, MAJOR_VERSION, ..] => hello.look(seen),
        _ if seen.starts_with(PREFACE) => Some(Detected::Http2),
        _ if PREFACE.starts_with(seen) => None,
        _ => look_for_http1(seen),
    }
}

impl Hello {
    /// rustls reads the ClientHello, so that both readers of it (this one and the handshake's) understand the
    /// same.
    fn look(&mut self, seen: &[u8]) -> Option<Detected> {
        let broken = Some(Detected::Opaque(Why::BrokenTls));
        while let Some(mut news) = seen.get(self.fed..).filter(|news| !news.is_empty()) {
            match self.acceptor.read_tls(&mut news) {
                Ok(taken) if taken > 0 => self.fed += taken,
                _ => return broken,
            }
        }
        match self.acceptor.accept() {
            Ok(None) => None,
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                Some(Detected::Tls(ClientHello { server_name: hello.server_name().map(str::to_owned), alpn }))
            }
            Err(_) => broken,
        }
    }
}

/// A request line is HTTP's by its last word alone: RTSP and SIP have the same form.
fn look_for_http1(mut seen: &[u8]) -> Option<Detected> {
    const LONGEST_METHOD: usize = 32;
    const VERSION: &[u8] = b"HTTP/1.";
    let other = Some(Detected::Opaque(Why::OtherBytes));
    // Servers skip empty lines in front of a request (RFC 9112 section 2.2), so they must not make it opaque.
    while let Some(rest) = seen.strip_prefix(b"\r\n").or(seen.strip_prefix(b"\n")) {
        seen = rest;
    }
    if matches!(seen, [] | [b'\r']) {
        return None;
    }
    let mut words = seen.splitn(3, |&byte| byte == b' ');
    let (method, target, version) = (words.next().unwrap_or_default(), words.next(), words.next());
    if method.len() > LONGEST_METHOD || !method.iter().all(|&byte| is_token(byte)) {
        return other;
    }
    let target = target?;
    // Whoever sends such bytes in a target gets the server's answer, if the rest is HTTP.
    if method.is_empty() || target.iter().any(|&byte| byte == b'\r' || byte == b'\n') {
        return other;
    }
    let version = version?;
    match version.len() {
        _ if version.starts_with(VERSION) => Some(Detected::Http1),
        _ if VERSION.starts_with(version) => None,
        _ => other,
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a connection is taken for that stopped, or was too slow, before it was clear.
fn unfinished(seen: &[u8]) -> Detected {
    match seen {
        [] => Detected::Opaque(Why::Silent),
        [HANDSHAKE_RECORD, ..] => Detected::Opaque(Why::BrokenTls),
        // At least a method and a space: other protocols' clients don't stop there to wait for their server.
        _ if PREFACE.starts_with(seen) || seen.contains(&b' ') => Detected::Opaque(Why::SlowHttp),
        _ => Detected::Opaque(Why::OtherBytes),
    }
}

/// What a connection is taken for that had more to say than is looked at.
fn overlong(seen: &[u8]) -> Detected {
    match seen {
        [HANDSHAKE_RECORD, ..] => Detected::Opaque(Why::BrokenTls),
        // A request with a huge target must not slip past routes and policy as opaque bytes: the server reads on,
        // or answers 414.
        _ => Detected::Http1,
    }
}

/// A stream with bytes in front that were read from it before.
#[derive(Debug)]
pub struct Prefixed<IO> {
    prefix: Bytes,
    io: IO,
}

impl<IO> Prefixed<IO> {
    /// A stream of which `prefix` was read.
    pub fn new(prefix: Bytes, io: IO) -> Self {
        Self { prefix, io }
    }

    /// A stream of which nothing was read.
    pub fn nothing(io: IO) -> Self {
        Self { prefix: Bytes::new(), io }
    }

    /// The stream below, for its socket's sake: reading from it loses the prefix.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The stream itself, if nothing was read from it that is still to come.
    pub fn into_unread(self) -> Option<IO> {
        self.prefix.is_empty().then_some(self.io)
    }
}

impl<IO: BreakOff> BreakOff for Prefixed<IO> {
    fn break_off(&self) {
        self.io.break_off();
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let count = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..count]);
        this.prefix.advance(count);
        if this.prefix.is_empty() {
            // Not only its length: the memory.
            this.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
