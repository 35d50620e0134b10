//! The socket to `gamut up`: events there, orders back. Its end is the node's end.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixStream as StdUnixStream},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
};

use crate::control::{Event, Order};

/// Lines of output that wait to be passed on before those who print them have to.
const OUTPUT_QUEUE: usize = 256;

/// The node's end.
pub(crate) struct Link {
    /// Events in order; never waits.
    pub(crate) events: mpsc::UnboundedSender<Event>,
    /// What containers print; waits for its turn.
    pub(crate) output: mpsc::Sender<Event>,
    /// `Some(order)`, and at last `None`: `gamut up` is gone.
    pub(crate) orders: mpsc::UnboundedReceiver<Option<Order>>,
    /// Ends when the last event is written: [`Event::Stopped`] or [`Event::Fatal`].
    pub(crate) writer: tokio::task::JoinHandle<()>,
}

impl Link {
    /// Over standard output, where `gamut up` has put its socket.
    pub(crate) fn over_stdout() -> io::Result<Self> {
        let stream = StdUnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
        stream.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(stream)?.into_split();
        let (events, event_queue) = mpsc::unbounded_channel();
        let (output, output_queue) = mpsc::channel(OUTPUT_QUEUE);
        let (order, orders) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(it) => drop(order.send(Some(it))),
                    Err(error) => tracing::warn!(%line, %error, "not an order"),
                }
            }
            // The node may have ended first.
            let _ = order.send(None);
        });
        let writer = tokio::spawn(write_all(write, event_queue, output_queue));
        Ok(Self { events, output, orders, writer })
    }
}

async fn write_all(
    mut stream: OwnedWriteHalf,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut output: mpsc::Receiver<Event>,
) {
    loop {
        let event = tokio::select! {
            biased;
            Some(event) = events.recv() => event,
            Some(event) = output.recv() => event,
            else => return,
        };
        let last = matches!(event, Event::Stopped | Event::Fatal { .. });
        let Ok(mut line) = serde_json::to_vec(&event) else { continue };
        line.push(b'\n');
        if stream.write_all(&line).await.is_err() || last {
            return;
        }
    }
}
