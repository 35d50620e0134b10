//! The time that an app may take over the head of an HTTP/2 request, counted while its bytes are read.
//!
//! The h2 crate says nothing of a head before all of it is there. So frames are followed here, by their own heads alone
//! (RFC 9113 section 4.1): a request's begins with HEADERS and ends with the frame that says END_HEADERS. Nothing may come
//! in between (section 6.10), so whoever takes too long holds up nobody but himself; his connection ends.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::http::server::HEAD_TIME;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, which comes before the first frame.
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A connection that fails with [`io::ErrorKind::TimedOut`] where a head takes longer than [`HEAD_TIME`].
pub(super) struct HeadTimed<IO> {
    io: IO,
    heads: Heads,
    /// Runs while a head is waited for. What comes in one piece, as nearly all do, isn't timed.
    time: Option<Pin<Box<Sleep>>>,
}

/// How far the peer's frames have been read.
struct Heads {
    frame_head: [u8; FRAME_HEAD_BYTES],
    /// How much of `frame_head` is there.
    known: usize,
    /// What is left of the frame that is being read.
    left: usize,
    /// A head has begun and has not ended.
    is_under_way: bool,
    /// It ends with this frame.
    ends: bool,
}

impl<IO> HeadTimed<IO> {
    /// A connection whose first byte is still to be read.
    pub(super) fn new(io: IO) -> Self {
        Self { io, heads: Heads::new(), time: None }
    }
}

impl Heads {
    fn new() -> Self {
        Self {
            frame_head: [0; FRAME_HEAD_BYTES],
            known: 0,
            left: PREFACE_BYTES,
            is_under_way: false,
            ends: false,
        }
    }

    /// Follows what was read. Says whether a head ended in it.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        loop {
            let (skipped, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= skipped.len();
            bytes = rest;
            if self.left == 0 && self.ends {
                (self.is_under_way, self.ends, ended) = (false, false, true);
            }
            let Some((byte, rest)) = bytes.split_first() else { return ended };
            if let Some(place) = self.frame_head.get_mut(self.known) {
                *place = *byte;
            }
            self.known += 1;
            bytes = rest;
            if self.known == FRAME_HEAD_BYTES {
                self.begin_frame();
            }
        }
    }

    fn begin_frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.frame_head;
        self.known = 0;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.is_under_way = true;
            self.ends = flags & END_HEADERS != 0;
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for HeadTimed<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buf);
        if polled.is_pending() && this.heads.is_under_way {
            let time = this.time.get_or_insert_with(|| Box::pin(sleep(HEAD_TIME)));
            ready!(time.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        if this.heads.read(read) {
            this.time = None;
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for HeadTimed<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use http::{Request, Response};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::*;
    use crate::http::{Body, h2::server::serve};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// GET http://web/ by indices of the static table and one literal (RFC 7541).
    const FIELDS: &[u8] = b"\x82\x86\x84\x41\x03web";

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// An app's connection to its sidecar, and how it ends.
    async fn served() -> (DuplexStream, JoinHandle<Result<(), h2::Error>>) {
        let (near, mut app) = duplex(64 * 1024);
        let answer = |_: Request<Body>| async { Response::new(Body::Empty) };
        let ended = tokio::spawn(serve(near, answer, pending()));
        app.write_all(PREFACE).await.unwrap();
        (app, ended)
    }

    /// Takes what is answered, so that nobody waits for room.
    async fn drained(mut app: DuplexStream) {
        let mut all = Vec::new();
        app.read_to_end(&mut all).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_costs_its_connection_when_its_time_is_over() {
        let begun = frame(HEADERS, 1, 1, FIELDS);
        let half = &frame(HEADERS, 1 | END_HEADERS, 1, FIELDS)[..FRAME_HEAD_BYTES + 2];
        let continued = [&begun[..], &frame(CONTINUATION, 0, 1, b"")].concat();
        for unfinished in [&begun, half, &continued] {
            let (mut app, ended) = served().await;
            let begin = Instant::now();
            app.write_all(unfinished).await.unwrap();
            let (_, ended) = tokio::join!(drained(app), ended);
            let error = ended.unwrap().unwrap_err();
            assert_eq!(error.get_io().map(io::Error::kind), Some(io::ErrorKind::TimedOut), "{error}");
            assert!((HEAD_TIME..HEAD_TIME * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dribbling_gains_no_time() {
        let (app, ended) = served().await;
        let (read, mut write) = tokio::io::split(app);
        let begin = Instant::now();
        let dribble = async {
            write.write_all(&frame(HEADERS, 1, 1, b"")).await.unwrap();
            // As few as don't count as a flood.
            for _ in 0..4 {
                sleep(HEAD_TIME / 3).await;
                let _ = write.write_all(&frame(CONTINUATION, 0, 1, b"")).await;
            }
        };
        let (_, ended) = tokio::join!(dribble, ended);
        assert!(ended.unwrap().is_err());
        drop(read);
        assert!(begin.elapsed() < HEAD_TIME * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_be_idle_and_each_head_has_its_own_time() {
        let (mut app, ended) = served().await;
        for stream in [1, 3, 5] {
            sleep(2 * HEAD_TIME).await;
            app.write_all(&frame(HEADERS, 1, stream, FIELDS)).await.unwrap();
            sleep(HEAD_TIME - Duration::from_secs(1)).await;
            app.write_all(&frame(CONTINUATION, END_HEADERS, stream, b"")).await.unwrap();
        }
        sleep(2 * HEAD_TIME).await;
        assert!(!ended.is_finished());
        drop(app);
        assert!(ended.await.unwrap().is_ok());
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let all = [
            PREFACE,
            &frame(HEADERS, 1 | END_HEADERS, 1, FIELDS),
            &frame(HEADERS, 0, 3, FIELDS),
            &frame(CONTINUATION, END_HEADERS, 3, b"more"),
            &frame(0, 1, 3, &[b'x'; 200]),
            &frame(HEADERS, 1, 5, FIELDS),
        ]
        .concat();
        for piece in 1..all.len() {
            let mut heads = Heads::new();
            all.chunks(piece).for_each(|bytes| _ = heads.read(bytes));
            assert!(heads.is_under_way && !heads.ends && heads.left == 0, "in pieces of {piece}");
            assert!(heads.read(&frame(CONTINUATION, END_HEADERS, 5, b"")));
            assert!(!heads.is_under_way);
        }
    }
}
