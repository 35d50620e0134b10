//! What those do who hold a stream: read its message, send theirs, let go of it.

use std::{
    mem,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;

use super::{
    End, Held, Reader, State, Writer, remember,
    stream::{Part, Stream, WINDOW},
};
use crate::http::{
    mux::{
        MuxError,
        frame::{Code, Header, Kind, MAX_DATA_BYTES},
        head,
        out::Out,
    },
    sending::{Cut, Outlet},
};

/// How much of each body goes along with what is to be written, though that is enough. Else those who were fast enough
/// last time would be the first again, and a short answer would wait for the end of long ones.
const SHARE_BYTES: usize = 4 * 1024;

impl Reader {
    /// The answer's head.
    pub(in crate::http::mux) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Bytes, MuxError>> {
        self.0.poll(|stream| stream.head.take().map(Ok), cx, |stream| &mut stream.reader)
    }

    /// The next part; `None` at the message's end.
    pub(in crate::http::mux) fn poll_part(&self, cx: &Context<'_>) -> Poll<Option<Result<Part, MuxError>>> {
        let polled = self.0.poll(
            |stream| match stream.parts.pop_front() {
                Some(part) => Some(Ok(Some(part))),
                None => stream.is_received.then_some(Ok(None)),
            },
            cx,
            |stream| &mut stream.reader,
        );
        if let Poll::Ready(Ok(Some(Part::Data(data)))) = &polled {
            self.0.allow(data.len());
        }
        polled.map(Result::transpose)
    }

    /// Whether nothing more comes.
    pub(in crate::http::mux) fn is_at_end(&self) -> bool {
        let state = self.0.shared.lock();
        let stream = state.streams.get(&self.0.number);
        stream.is_some_and(|stream| stream.is_received && stream.parts.is_empty() && stream.head.is_none())
    }

    /// Resets the stream for what came.
    pub(in crate::http::mux) fn wrong(&self, error: MuxError) -> MuxError {
        self.0.shared.lock().reset(self.0.number, Code::Malformed);
        error
    }
}

impl Writer {
    /// Sends an answer's head with what `write` writes.
    pub(in crate::http::mux) fn head<E>(
        &mut self,
        is_whole: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0
            .send(is_whole, |_, out, number| out.message(Kind::Head, number, is_whole, write))
            .unwrap_or(Ok(()))
    }

    /// Tells the peer why the rest won't come.
    pub(in crate::http::mux) fn reset(&self, code: Code) {
        self.0.shared.lock().reset(self.0.number, code);
    }
}

impl Outlet for Writer {
    fn poll_room(&mut self, _wanted: usize, cx: &mut Context<'_>) -> Poll<Result<usize, Cut>> {
        let mut state = self.0.shared.lock();
        let State { streams, out, senders, turn, over, .. } = &mut *state;
        let number = self.0.number;
        let Some(stream) = streams.get_mut(&number).filter(|_| over.is_none()) else {
            return Poll::Ready(Err(Cut::Peer));
        };
        if stream.is_sent || stream.reset.is_some() {
            return Poll::Ready(Err(Cut::Peer));
        }
        remember(&mut stream.writer, cx);
        if stream.window == 0 {
            return Poll::Pending;
        }
        let had_room = mem::replace(&mut stream.turn, *turn) == *turn;
        if !out.is_full() {
            return Poll::Ready(Ok(stream.window.min(MAX_DATA_BYTES)));
        }
        if !had_room {
            return Poll::Ready(Ok(stream.window.min(SHARE_BYTES)));
        }
        if !mem::replace(&mut stream.is_waiting, true) {
            senders.push(number);
        }
        Poll::Pending
    }

    fn send(&mut self, part: Bytes, is_last: bool) -> Result<(), Cut> {
        let sent = self.0.send(is_last, |stream, out, number| {
            stream.window = stream.window.saturating_sub(part.len());
            out.data(number, part, is_last);
            Ok::<_, Cut>(())
        });
        sent.unwrap_or(Err(Cut::Peer))
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Cut> {
        let sent = self.0.send(true, |_, out, number| {
            out.message(Kind::Trailers, number, true, |bytes| head::write_trailers(&trailers, bytes))
        });
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(Cut::Peer),
        }
    }

    fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.shared.lock();
        let is_over = state.over.is_some();
        match state.streams.get_mut(&self.0.number) {
            Some(stream) if !is_over && stream.reset.is_none() && !stream.is_sent => {
                remember(&mut stream.writer, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    fn break_off(&mut self) {
        self.reset(Code::Broken);
    }
}

impl Held {
    fn poll<T>(
        &self,
        take: impl FnOnce(&mut Stream) -> Option<Result<T, MuxError>>,
        cx: &Context<'_>,
        waits_at: impl FnOnce(&mut Stream) -> &mut Option<Waker>,
    ) -> Poll<Result<T, MuxError>> {
        let mut state = self.shared.lock();
        let State { streams, over, .. } = &mut *state;
        let Some(stream) = streams.get_mut(&self.number) else { return Poll::Ready(Err(MuxError::Ended)) };
        if let Some(taken) = take(stream) {
            return Poll::Ready(taken);
        }
        if let Some(code) = stream.reset {
            return Poll::Ready(Err(MuxError::Reset(code)));
        }
        if let Some(error) = over {
            return Poll::Ready(Err(*error));
        }
        remember(waits_at(stream), cx);
        Poll::Pending
    }

    /// Hands something to the connection, after which our message may be over; `None` if nobody wants it any more.
    fn send<E>(
        &self,
        is_last: bool,
        write: impl FnOnce(&mut Stream, &mut Out, u32) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let mut state = self.shared.lock();
        if state.over.is_some() {
            return None;
        }
        let written = state.change(self.number, |stream, out| {
            if stream.is_sent || stream.reset.is_some() {
                return None;
            }
            let written = write(stream, out, self.number);
            stream.is_sent = is_last && written.is_ok();
            Some(written)
        });
        if is_last {
            // What is handed over for a stream that was reset is no answer.
            if matches!(written, Some(Some(Ok(())))) {
                state.given_up = state.given_up.saturating_sub(1);
            }
            state.settle(self.number);
        }
        state.wake_mover();
        written.flatten()
    }

    /// So much was read. The peer is allowed it anew when it comes to half a window: short messages cost no frame.
    fn allow(&self, read: usize) {
        let mut state = self.shared.lock();
        let number = self.number;
        let allowed = state.change(number, |stream, out| {
            stream.taken += read;
            let is_due = stream.taken >= WINDOW / 2 && !stream.is_received;
            if is_due {
                out.frame(Header::new(Kind::Window, number, stream.taken));
                stream.allowed += mem::take(&mut stream.taken);
            }
            is_due
        });
        if allowed == Some(true) {
            state.wake_mover();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let number = self.0.number;
        let mut state = self.0.shared.lock();
        let is_server = state.end == End::Server;
        if let Some(stream) = state.streams.get_mut(&number) {
            stream.is_unread = true;
            stream.parts.clear();
            if is_server {
                state.settle(number);
            } else if !stream.is_received {
                state.reset(number, Code::Cancelled);
            }
        }
        state.let_go(number);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let number = self.0.number;
        let mut state = self.0.shared.lock();
        if state.streams.get(&number).is_some_and(|stream| !stream.is_sent) {
            state.reset(number, Code::Cancelled);
        }
        state.let_go(number);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Shared, *};

    /// Polled by whatever woke its task: a window, say, as often as the peer likes.
    #[test]
    fn who_waits_for_room_waits_once_however_often_it_asks() {
        let shared = Shared::new(End::Client);
        let mut cx = Context::from_waker(Waker::noop());
        let mut streams = Vec::new();
        for _ in 0..3 {
            let (reader, writer) = shared.open(false, |_| Ok::<_, ()>(())).unwrap();
            let mut writer = writer.unwrap();
            for _ in 0..1000 {
                if let Poll::Ready(Ok(room)) = writer.poll_room(WINDOW, &mut cx) {
                    writer.send(Bytes::from(vec![0; room]), false).unwrap();
                }
            }
            streams.push((reader, writer));
        }
        assert_eq!(shared.lock().senders, [2, 3]);
        shared.lock().take_out(Out::default());
        assert!(shared.lock().senders.is_empty());
        assert!(streams[1].1.poll_room(1, &mut cx).is_ready());
    }
}
