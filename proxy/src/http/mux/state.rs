//! What the holders of a connection's streams and the task that moves its bytes share.
//!
//! Nobody holds the lock while anything else is polled, and all of a sidecar's data path is one thread: nobody waits for it.

mod holders;
mod stream;

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use bytes::Bytes;

use super::{
    MAX_GIVEN_UP, MAX_SHARING, MuxError,
    frame::{Code, Header, Kind},
    out::Out,
};

pub(super) use self::stream::Part;
use self::stream::{ByItself, Stream, WINDOW};

/// How many streams a client's connection may have that anybody here holds: those that are open, those that were given up
/// together, and those whose answer came first and whose body nobody takes.
const MAX_HELD: usize = MAX_SHARING + MAX_GIVEN_UP;

/// A connection, as its streams' holders have it.
pub(super) struct Shared(Mutex<State>);

pub(super) struct State {
    pub(super) end: End,
    streams: HashMap<u32, Stream, BuildHasherDefault<ByItself>>,
    /// How many of them aren't over for both ends.
    open: usize,
    /// The last that was opened. Each has a number of its own, the next one.
    newest: u32,
    /// Requests that were given up before anybody looked at them, less those that were answered since.
    given_up: usize,
    pub(super) out: Out,
    /// The task that moves bytes.
    mover: Option<Waker>,
    /// The streams that wait for room in `out`, each once.
    senders: Vec<u32>,
    /// How often `out` was taken to be written.
    turn: u64,
    /// How the connection ended.
    over: Option<MuxError>,
    /// The client: nobody is left who would send a request. The server: it has been told to leave.
    pub(super) is_leaving: bool,
    /// The peer has said [`Kind::Leave`], or [`Kind::Left`].
    pub(super) peer_leaves: bool,
    /// The peer is to be asked whether it is still there.
    pub(super) is_doubted: bool,
    /// It has answered a request.
    pub(super) has_answered: bool,
}

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Server,
}

/// Who reads a stream's message. Dropped before its end, it makes an end of it: a client resets the stream, a server
/// does when it has answered.
pub(super) struct Reader(Held);

/// Who sends a stream's message. Dropped before its end, it resets the stream.
pub(super) struct Writer(Held);

struct Held {
    shared: Arc<Shared>,
    number: u32,
}

/// A request that has come.
pub(super) struct Opened {
    pub(super) head: Bytes,
    /// `None`: it has no body.
    pub(super) reader: Option<Reader>,
    pub(super) writer: Writer,
}

impl Shared {
    /// A connection of which this is that end.
    pub(super) fn new(end: End) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            end,
            streams: HashMap::default(),
            open: 0,
            newest: 0,
            given_up: 0,
            out: Out::default(),
            mover: None,
            senders: Vec::new(),
            turn: 1,
            over: None,
            is_leaving: false,
            peer_leaves: false,
            is_doubted: false,
            has_answered: false,
        })))
    }

    /// Nothing under the lock panics.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream with what `write` writes as its head. Without a [`Writer`], nothing follows.
    pub(super) fn open<E>(
        self: &Arc<Self>,
        is_whole: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(Reader, Option<Writer>), E> {
        let mut state = self.lock();
        let number = state.newest + 1;
        state.out.message(Kind::Head, number, is_whole, write)?;
        state.newest = number;
        state.open += 1;
        let holders = if is_whole { 1 } else { 2 };
        state.streams.insert(number, Stream { is_sent: is_whole, holders, ..Stream::default() });
        state.wake_mover();
        let held = || Held { shared: Arc::clone(self), number };
        Ok((Reader(held()), (!is_whole).then(|| Writer(held()))))
    }

    /// Takes a frame of the peer's in, and returns the request that it opens.
    pub(super) fn take_in(
        self: &Arc<Self>,
        header: Header,
        content: Bytes,
    ) -> Result<Option<Opened>, MuxError> {
        let mut state = self.lock();
        let Header { kind, is_last, number, stream } = header;
        match (kind, state.end) {
            (Kind::Head, End::Server) => {
                state.accept(stream, is_last)?;
                let held = || Held { shared: Arc::clone(self), number: stream };
                let reader = (!is_last).then(|| Reader(held()));
                return Ok(Some(Opened { head: content, reader, writer: Writer(held()) }));
            }
            (Kind::Head, End::Client) => state.answered(stream, content, is_last)?,
            (Kind::Data, _) => state.receive(stream, Part::Data(content), is_last)?,
            (Kind::Trailers, _) => state.receive(stream, Part::Trailers(content), true)?,
            (Kind::Reset, _) => state.was_reset(stream, Code::of(number))?,
            (Kind::Window, _) => state.may_send(stream, number)?,
            (Kind::Ping, _) => state.out.answer_ping(),
            // Whatever it says, it is there.
            (Kind::Pong, _) => {}
            (Kind::Leave, End::Client) | (Kind::Left, End::Server) => state.peer_leaves = true,
            (Kind::Leave | Kind::Left, _) => {
                return Err(MuxError::Violation("only the other end may say that"));
            }
        }
        Ok(None)
    }

    /// Ends the connection for all who hold streams. The first reason stands.
    pub(super) fn end(&self, error: MuxError) {
        let mut state = self.lock();
        if state.over.is_some() {
            return;
        }
        state.over = Some(error);
        let mut wakers = Vec::new();
        for stream in state.streams.values_mut() {
            wakers.extend(stream.reader.take().into_iter().chain(stream.writer.take()));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// How many streams are held by anybody.
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether another stream may be opened at all.
    pub(super) fn is_open(&self) -> bool {
        // The numbers last for months.
        self.over.is_none() && !self.peer_leaves && !self.is_leaving && self.newest < u32::MAX
    }

    /// Who is to be woken when there is something to be written.
    pub(super) fn moved_by(&mut self, cx: &Context<'_>) {
        remember(&mut self.mover, cx);
    }

    /// There is something to be written, or a stream is gone.
    pub(super) fn wake_mover(&self) {
        self.mover.iter().for_each(Waker::wake_by_ref);
    }

    /// What is to be written; who waited for room in it may go on.
    pub(super) fn take_out(&mut self, empty: Out) -> Out {
        self.turn += 1;
        for number in self.senders.drain(..) {
            if let Some(stream) = self.streams.get_mut(&number) {
                stream.is_waiting = false;
                stream.wake_writer();
            }
        }
        mem::replace(&mut self.out, empty)
    }

    fn accept(&mut self, number: u32, is_whole: bool) -> Result<(), MuxError> {
        if self.newest.checked_add(1) != Some(number) {
            return Err(MuxError::Violation("a stream whose number isn't the next one"));
        }
        if self.streams.len() >= MAX_HELD {
            return Err(MuxError::Violation("more requests than come to an end"));
        }
        if self.open == MAX_SHARING {
            return Err(MuxError::Violation("more requests at once than a connection carries"));
        }
        self.newest = number;
        self.open += 1;
        let holders = if is_whole { 1 } else { 2 };
        let stream = Stream { is_received: is_whole, has_begun: true, holders, ..Stream::default() };
        self.streams.insert(number, stream);
        Ok(())
    }

    fn answered(&mut self, number: u32, head: Bytes, is_whole: bool) -> Result<(), MuxError> {
        self.has_answered = true;
        self.peers(number, |stream| {
            if mem::replace(&mut stream.has_begun, true) {
                return Err(MuxError::Violation("a second answer"));
            }
            stream.head = Some(head);
            stream.is_received = is_whole;
            stream.wake_reader();
            Ok(())
        })
    }

    fn receive(&mut self, number: u32, part: Part, is_last: bool) -> Result<(), MuxError> {
        self.peers(number, |stream| {
            if !stream.has_begun || stream.is_received {
                return Err(MuxError::Violation("a part of no message"));
            }
            if let Part::Data(data) = &part {
                if data.is_empty() && !is_last {
                    return Err(MuxError::Violation("a part of a body without a byte"));
                }
                let left = stream.allowed.checked_sub(data.len());
                stream.allowed = left.ok_or(MuxError::Violation("more of a body than was allowed"))?;
            }
            stream.is_received = is_last;
            let is_nothing = matches!(&part, Part::Data(data) if data.is_empty());
            if !is_nothing && !stream.is_unread {
                stream.keep(part);
            }
            stream.wake_reader();
            Ok(())
        })
    }

    fn was_reset(&mut self, number: u32, code: Code) -> Result<(), MuxError> {
        let end = self.end;
        let mut was_given_up = false;
        self.peers(number, |stream| {
            if code == Code::Enough && end == End::Client {
                stream.is_sent = true;
            } else {
                stream.reset = Some(code);
                was_given_up = end == End::Server && stream.writer.is_none();
            }
            stream.wake_reader();
            stream.wake_writer();
            Ok(())
        })?;
        self.given_up += usize::from(was_given_up);
        if self.given_up > MAX_GIVEN_UP {
            return Err(MuxError::Violation("requests that are given up as they come"));
        }
        Ok(())
    }

    fn may_send(&mut self, number: u32, more: usize) -> Result<(), MuxError> {
        self.peers(number, |stream| {
            if more == 0 || stream.window + more > WINDOW {
                return Err(MuxError::Violation("a window that there isn't"));
            }
            stream.window += more;
            stream.wake_writer();
            Ok(())
        })
    }

    /// What a frame of the peer's does to its stream. To one that is over here it may still have been on its way.
    fn peers(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut Stream) -> Result<(), MuxError>,
    ) -> Result<(), MuxError> {
        match self.streams.get(&number) {
            Some(stream) if stream.reset.is_some() => Ok(()),
            Some(_) => self.change(number, |stream, _| change(stream)).unwrap_or(Ok(())),
            None if number <= self.newest => Ok(()),
            None => Err(MuxError::Violation("a stream that nobody has opened")),
        }
    }

    /// Changes a stream, and counts it out if it is over by that.
    fn change<T>(&mut self, number: u32, change: impl FnOnce(&mut Stream, &mut Out) -> T) -> Option<T> {
        let stream = self.streams.get_mut(&number)?;
        let was_over = stream.is_over();
        let changed = change(stream, &mut self.out);
        if !was_over && stream.is_over() {
            self.open -= 1;
        }
        Some(changed)
    }

    /// Resets a stream that isn't over, and tells the peer. What has come stays for its reader, who would else find the
    /// end of a shorter message.
    fn reset(&mut self, number: u32, code: Code) {
        self.change(number, |stream, out| {
            if !stream.is_over() {
                stream.reset = Some(code);
                stream.wake_reader();
                stream.wake_writer();
                out.frame(Header::new(Kind::Reset, number, code.number()));
            }
        });
        self.wake_mover();
    }

    /// A request whose body nobody reads, and which is answered, needs no more of it.
    fn settle(&mut self, number: u32) {
        let stream = self.streams.get(&number);
        if stream.is_some_and(|stream| stream.is_unread && stream.is_sent && !stream.is_received) {
            self.reset(number, Code::Enough);
        }
    }

    fn let_go(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.holders -= 1;
        if stream.holders == 0 {
            self.streams.remove(&number);
            if self.streams.is_empty() && (self.is_leaving || self.peer_leaves) {
                self.wake_mover();
            }
        }
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}
