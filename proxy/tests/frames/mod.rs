//! HTTP/2 byte by byte, for what no library would send.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// Types of frames (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames. That of an acknowledgement is the same bit as that of a stream's end.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
}

/// `GET http://web/`, and a POST, by HPACK's static table.
pub(crate) const GET: [u8; 8] = [0x82, 0x84, 0x86, 0x01, 3, b'w', b'e', b'b'];
pub(crate) const POST: [u8; 8] = [0x83, 0x84, 0x86, 0x01, 3, b'w', b'e', b'b'];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a ping says behind which nothing is sent any more.
const GOODBYE: [u8; 8] = *b"goodbye!";
/// How long anything may take before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);

/// Frames, one behind the other.
#[derive(Clone)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// A server's beginning.
    pub(crate) fn settings() -> Self {
        Self::empty().frame(kind::SETTINGS, 0, 0, &[])
    }

    /// A client's beginning.
    pub(crate) fn preface() -> Self {
        Self::preface_with(&[])
    }

    pub(crate) fn preface_with(settings: &[u8]) -> Self {
        Self(PREFACE.to_vec()).frame(kind::SETTINGS, 0, 0, settings)
    }

    pub(crate) fn frame(mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        self.0.extend([length[1], length[2], length[3], kind, flags]);
        self.0.extend(stream.to_be_bytes());
        self.0.extend(payload);
        self
    }

    /// A whole request.
    pub(crate) fn get(self, stream: u32) -> Self {
        self.frame(kind::HEADERS, flag::END_STREAM | flag::END_HEADERS, stream, &GET)
    }

    pub(crate) fn repeated(self, times: usize, more: impl Fn(Self) -> Self) -> Self {
        (0..times).fold(self, |frames, _| more(frames))
    }

    /// A last ping: when it is answered, and what is open has been, [`exchange`] ends.
    pub(crate) fn goodbye(self) -> Self {
        self.frame(kind::PING, 0, 0, &GOODBYE)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the other side said.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The code of its GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// Of its answers.
    pub(crate) statuses: Vec<u16>,
    /// Streams that it reset.
    pub(crate) resets: usize,
    /// Without the goodbye's.
    pub(crate) pongs: usize,
    pub(crate) settings_acks: usize,
    said_goodbye: bool,
}

/// Sends all of it and reads, until the other side closes, or has answered the goodbye and a request.
pub(crate) async fn exchange(io: impl AsyncRead + AsyncWrite, frames: &Frames) -> Reply {
    let (mut reader, mut writer) = tokio::io::split(io);
    let bytes = frames.0.clone();
    let writing = async {
        // Whoever has heard enough closes.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.flush().await;
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut reply = Reply::default();
        while !(reply.said_goodbye && reply.statuses.len() + reply.resets > 0) {
            let Ok(frame) = read_frame(&mut reader).await else { break };
            reply.hear(&frame);
        }
        reply
    };
    tokio::select! {
        reply = timeout(PATIENCE, reading) => reply.expect("an end"),
        () = writing => unreachable!("it never ends"),
    }
}

/// Whether there is a HEADERS frame among these bytes of a client.
pub(crate) fn has_headers(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(PREFACE.len()..).unwrap_or_default();
    while let [a, b, c, kind, ..] = *rest {
        if kind == kind::HEADERS {
            return true;
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await?;
    Ok(Frame { kind: head[3], flags: head[4], payload })
}

impl Reply {
    fn hear(&mut self, frame: &Frame) {
        let is_ack = frame.flags & flag::ACK != 0;
        match frame.kind {
            kind::GOAWAY => self.goaway = Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap())),
            kind::HEADERS => self.statuses.extend(status(&frame.payload)),
            kind::RST_STREAM => self.resets += 1,
            kind::PING if is_ack && frame.payload == GOODBYE => self.said_goodbye = true,
            kind::PING if is_ack => self.pongs += 1,
            kind::SETTINGS if is_ack => self.settings_acks += 1,
            _ => {}
        }
    }
}

/// The status at the beginning of a block: of the static table, or as three digits behind a name of it.
fn status(block: &[u8]) -> Option<u16> {
    match *block {
        [0x88, ..] => Some(200),
        [0x8c, ..] => Some(400),
        [0x8e, ..] => Some(500),
        // Huffman-coded digits: 403, 431 and 502.
        [0x48, 0x83, 0x68, 0x0c, 0xff, ..] => Some(403),
        [0x48, 0x83, 0x69, 0x90, 0xff, ..] => Some(431),
        [0x48, 0x82, 0x6c, 0x02, ..] => Some(502),
        [0x48, 3, a, b, c, ..] => std::str::from_utf8(&[a, b, c]).ok().and_then(|digits| digits.parse().ok()),
        _ => None,
    }
}
