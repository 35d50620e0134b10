//! Bytes: the connection that was redirected, where it was going, and copying between two connections.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};

/// How many bytes are read at once.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    /// What is read lies here until it is written: a connection without traffic, or whose other side keeps
    /// up, holds no memory.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// What was copied, and how it ended.
#[derive(Debug)]
pub struct Copied {
    /// Bytes from the first stream to the second.
    pub forth: u64,
    /// Bytes from the second stream to the first.
    pub back: u64,
    /// `Ok` if both sides said that they had no more to send.
    pub end: io::Result<()>,
}

/// A byte stream that can be broken off, so that its other side doesn't take the end for an orderly one. Dropping
/// it afterwards does it.
pub trait BreakOff {
    /// Makes the close a reset, which discards what the other side hasn't taken yet.
    fn break_off(&self);
}

impl BreakOff for TcpStream {
    fn break_off(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::trace!(%error, "a connection that is closed anyway");
        }
    }
}

/// TLS that ends without its `close_notify` is understood as broken off.
impl<IO: BreakOff> BreakOff for tokio_rustls::server::TlsStream<IO> {
    fn break_off(&self) {
        self.get_ref().0.break_off();
    }
}

/// In memory there is one kind of end only.
impl BreakOff for DuplexStream {
    fn break_off(&self) {}
}

/// Copies both ways until both sides have ended, or one has failed.
///
/// The end of one direction is passed on at once, and the other goes on (a half-closed connection: `curl` to
/// a server that reads until the end of input). If one side fails, both are broken off: who is left must not take
/// half of what was to come for all of it. Dropping the future closes both streams.
pub async fn copy<A, B>(first: A, second: B) -> Copied
where
    A: AsyncRead + AsyncWrite + BreakOff + Unpin,
    B: AsyncRead + AsyncWrite + BreakOff + Unpin,
{
    let (mut first, mut second) = (first, second);
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let end = poll_fn(|cx| {
        // Both are polled each time: each registers its own interest.
        let there = forth.poll(cx, &mut first, &mut second)?;
        let here = back.poll(cx, &mut second, &mut first)?;
        match (there, here) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    let end = end.await;
    if end.is_err() {
        first.break_off();
        second.break_off();
    }
    Copied { forth: forth.bytes, back: back.bytes, end }
}

/// One direction of [`copy`].
#[derive(Default)]
struct Direction {
    /// Read and not yet written, because the writer didn't take it.
    left: Vec<u8>,
    written: usize,
    bytes: u64,
    unflushed: bool,
    phase: Phase,
}

#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    #[default]
    Copying,
    /// The reader has ended; what is left is written, then the writer is told.
    Ending,
    Ended,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_write_left(cx, writer))?;
            match self.phase {
                Phase::Copying => {
                    if self.poll_pass(cx, reader, writer)?.is_pending() {
                        // Nothing more to read for now: what TLS gathered must not wait for it.
                        if self.unflushed && self.left.is_empty() {
                            ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
                Phase::Ending => {
                    match ready!(Pin::new(&mut *writer).poll_shutdown(cx)) {
                        // The other end is gone altogether: as ended as can be.
                        Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                            return Poll::Ready(Err(error));
                        }
                        _ => self.phase = Phase::Ended,
                    }
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once into the thread's scratch, writes what the writer takes at once, and keeps the rest.
    fn poll_pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = Pin::new(reader).poll_read(cx, &mut buffer);
        let outcome = match polled {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                self.phase = Phase::Ending;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => self.write_or_keep(cx, buffer.filled(), writer),
            other => other,
        };
        SCRATCH.set(Some(scratch));
        outcome
    }

    fn write_or_keep<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        read: &[u8],
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        self.unflushed = true;
        let taken = match Pin::new(writer).poll_write(cx, read) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(taken) => taken?,
            Poll::Pending => 0,
        };
        self.bytes += taken as u64;
        self.left.extend_from_slice(&read[taken..]);
        Poll::Ready(Ok(()))
    }

    fn poll_write_left<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.left.get(self.written..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += taken;
            self.bytes += taken as u64;
        }
        self.left = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

/// Whether this network namespace has IPv6 at all; many clusters switch it off.
pub fn has_ipv6() -> bool {
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    Socket::new(Domain::IPV6, Type::STREAM, None).and_then(|socket| socket.bind(&loopback.into())).is_ok()
}

/// Where a redirected connection of `peer` was going.
///
/// # Errors
/// If the connection wasn't redirected, or connection tracking has forgotten it.
pub fn original_destination(stream: &TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    // A dual-stack listener sees IPv4 peers at mapped addresses; the kernel keeps their original destination
    // under IPv4.
    let original = if peer.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()?
    } else {
        socket.original_dst_v6()?
    };
    let original =
        original.as_socket().ok_or_else(|| io::Error::other("the original destination is no IP address"))?;
    Ok(SocketAddr::new(original.ip().to_canonical(), original.port()))
}

/// Connects to `address` within `limit`.
///
/// # Errors
/// What the kernel says, or [`io::ErrorKind::TimedOut`].
pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(limit, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))??;
    settle(&stream);
    Ok(stream)
}

/// How long another pod may leave what it was sent unacknowledged, or take nothing although there is something to
/// take, before it counts as vanished. The kernel alone would try for a quarter of an hour. Not much less, for who
/// reads slowly because its app does is no different, seen from here (RFC 5482).
pub const USER_TIMEOUT: Duration = Duration::from_secs(120);
/// The same for who is only sent what its kernel takes at once, whatever its app does: short requests, one at a time.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What connections between pods have besides: [`USER_TIMEOUT`]. Inside of a pod nobody vanishes without the
/// kernel's telling.
pub fn expect_progress(stream: &TcpStream) {
    traced(SockRef::from(stream).set_tcp_user_timeout(Some(USER_TIMEOUT)));
}

/// The same where short requests are answered one at a time: the other kernel is asked after five seconds of silence, every second, and
/// has [`ANSWER_TIMEOUT`] in all. How long its app takes is its own affair.
pub fn expect_answers(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));
    let socket = SockRef::from(stream);
    traced(
        socket.set_tcp_keepalive(&keepalive).and_then(|()| socket.set_tcp_user_timeout(Some(ANSWER_TIMEOUT))),
    );
}

/// From here on more is sent than the other kernel may take at once, so that the app behind it may pause: what connections between pods
/// have otherwise, in place of [`expect_answers`].
pub fn allow_pauses(stream: &TcpStream) {
    if SockRef::from(stream).tcp_user_timeout().is_ok_and(|limit| limit == Some(ANSWER_TIMEOUT)) {
        settle(stream);
        expect_progress(stream);
    }
}

/// The peer is gone already if that fails; whoever reads or writes next finds out.
fn traced(set: io::Result<()>) {
    if let Err(error) = set {
        tracing::trace!(%error, "socket options");
    }
}

/// The options that every connection of the data path has: small writes leave at once, and a peer that
/// vanished without a word while nothing was to be sent is noticed after some two minutes. A listener's connections have
/// them from the listener.
pub fn settle(socket: &impl AsFd) {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(20))
        .with_retries(3);
    let socket = SockRef::from(socket);
    traced(socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive)));
}

/// An address without the mapping of IPv4 into IPv6 that dual-stack sockets show.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&address.ip()), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        let copying = tokio::spawn(copy(near, far));
        let question = vec![7; 1000];
        let (sent, heard) = tokio::join!(client.write_all(&question), async {
            let mut heard = vec![0; 1000];
            server.read_exact(&mut heard).await.unwrap();
            heard
        });
        sent.unwrap();
        assert_eq!(heard, question);
        server.write_all(b"answer").await.unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).await.unwrap();
        drop((client, server));
        let copied = copying.await.unwrap();
        assert_eq!((copied.forth, copied.back), (1000, 6));
        copied.end.unwrap();
    }

    #[tokio::test]
    async fn one_direction_ends_and_the_other_goes_on() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        tokio::spawn(copy(near, far));
        client.write_all(b"all I have").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"all I have");
        server.write_all(b"then here is the answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"then here is the answer");
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_the_writer_back() {
        let ((mut client, near), (far, mut server)) = (duplex(64), duplex(64));
        tokio::spawn(copy(near, far));
        let flood = vec![0; 4 * SCRATCH_BYTES];
        let mut flooding = tokio_test_poll(client.write_all(&flood));
        assert!(flooding.poll_once().await.is_pending(), "nobody reads, so not everything is taken");
        let drain = async {
            let mut all = vec![0; flood.len()];
            server.read_exact(&mut all).await.unwrap();
        };
        let (sent, ()) = tokio::join!(flooding.finish(), drain);
        sent.unwrap();
    }

    /// A future that can be polled until nothing moves any more, and later be awaited.
    fn tokio_test_poll<F: Future>(future: F) -> Stalled<F> {
        Stalled(Box::pin(future))
    }

    struct Stalled<F>(Pin<Box<F>>);

    impl<F: Future> Stalled<F> {
        async fn poll_once(&mut self) -> Poll<F::Output> {
            // Other tasks run in between, as often as they might need.
            for _ in 0..10_000 {
                if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(self.0.as_mut().poll(cx))).await {
                    return Poll::Ready(output);
                }
                tokio::task::yield_now().await;
            }
            Poll::Pending
        }

        async fn finish(self) -> F::Output {
            self.0.await
        }
    }

    /// A TCP connection: the client's end and the server's.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn who_is_left_when_one_side_breaks_off_does_not_take_it_for_an_end() {
        let ((client, near), (far, mut server)) = (pair().await, pair().await);
        let copying = tokio::spawn(copy(near, far));
        client.break_off();
        drop(client);
        let error = server.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(copying.await.unwrap().end.is_err());
    }

    #[tokio::test]
    async fn what_a_listener_accepts_has_its_options() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        settle(&listener);
        let address = listener.local_addr().unwrap();
        let (_caller, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let accepted = accepted.unwrap().0;
        let socket = SockRef::from(&accepted);
        assert!(accepted.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(20));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
    }

    #[tokio::test]
    async fn a_reset_on_one_side_ends_the_other() {
        let ((client, near), (far, mut server)) = (pair().await, duplex(64));
        let copying = tokio::spawn(copy(near, far));
        client.break_off();
        drop(client);
        assert_eq!(copying.await.unwrap().end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    }
}
