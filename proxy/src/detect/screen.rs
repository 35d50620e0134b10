//! A second look at a caller that was taken for plaintext because it said nothing for a while.
//!
//! Its server may have spoken first since, so bytes go both ways already. Should the caller's first ones begin a TLS
//! handshake after all, they are held back until the ClientHello is whole, and one that must not get through breaks
//! the connection off.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    ClientHello, Detected, FIRST_READ, HANDSHAKE_RECORD, Hello, MAJOR_VERSION, MOST_BYTES, Prefixed,
};
use crate::tcp::BreakOff;

/// A stream whose reader gets nothing of a TLS handshake that mustn't get through.
pub struct Screened<IO> {
    stream: Prefixed<IO>,
    /// Until it is clear what comes first.
    screen: Option<Box<Screen>>,
}

struct Screen {
    seen: BytesMut,
    hello: Hello,
    holds_back: fn(&ClientHello) -> bool,
}

/// What the first bytes come to.
enum Verdict {
    Undecided,
    Pass,
    HoldBack(&'static str),
}

impl<IO> Screened<IO> {
    /// A stream of which nothing was read, and which handshakes don't get through.
    pub fn new(io: IO, holds_back: fn(&ClientHello) -> bool) -> Self {
        let screen =
            Screen { seen: BytesMut::with_capacity(FIRST_READ), hello: Hello::default(), holds_back };
        Self { stream: Prefixed::nothing(io), screen: Some(Box::new(screen)) }
    }
}

impl Screen {
    fn judge(&mut self) -> Verdict {
        match self.seen[..] {
            [] => Verdict::Pass,
            [HANDSHAKE_RECORD] => Verdict::Undecided,
            [HANDSHAKE_RECORD, MAJOR_VERSION, ..] => match self.hello.look(&self.seen) {
                Some(Detected::Tls(hello)) if (self.holds_back)(&hello) => {
                    Verdict::HoldBack("a mesh handshake that came too late")
                }
                Some(Detected::Tls(_)) => Verdict::Pass,
                None if self.seen.len() < MOST_BYTES => Verdict::Undecided,
                _ => Verdict::HoldBack("the broken beginning of a handshake"),
            },
            _ => Verdict::Pass,
        }
    }
}

impl<IO: AsyncRead + Unpin> Screened<IO> {
    fn poll_screen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(screen) = &mut self.screen {
            let mut part = [0; FIRST_READ];
            let mut part = ReadBuf::new(&mut part);
            ready!(Pin::new(&mut self.stream.io).poll_read(cx, &mut part))?;
            let is_end = part.filled().is_empty();
            screen.seen.extend_from_slice(part.filled());
            match screen.judge() {
                Verdict::Undecided if !is_end => {}
                Verdict::Pass => {
                    self.stream.prefix = std::mem::take(&mut screen.seen).freeze();
                    self.screen = None;
                }
                Verdict::Undecided => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Verdict::HoldBack(why) => return Poll::Ready(Err(io::Error::other(why))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Screened<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_screen(cx))?;
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Screened<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<IO: BreakOff> BreakOff for Screened<IO> {
    fn break_off(&self) {
        self.stream.break_off();
    }
}
