//! gRPC without generated code: messages in their five-byte frames, and the one message both sides use,
//! `message Echo { string message = 1; }`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The tag of field 1, wire type 2 (length-delimited).
const FIELD_MESSAGE: u8 = 0x0a;

/// A frame longer than this is refused; nobody echoes more.
const MAX_MESSAGE: usize = 4 << 20;

/// Takes messages out of bytes as they arrive.
#[derive(Default)]
pub(crate) struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Adds what arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `Ok(None)` means that more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, String> {
        let Some((head, _)) = self.buffer.split_at_checked(5) else { return Ok(None) };
        let [compressed, length @ ..] = head else { return Ok(None) };
        if *compressed != 0 {
            return Err("a compressed message, which was never offered".to_owned());
        }
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > MAX_MESSAGE {
            return Err(format!("a message of {length} bytes"));
        }
        if self.buffer.len() < 5 + length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// `Echo { message: text }` in its frame.
pub(crate) fn frame(text: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(text.len() + 6);
    message.put_u8(FIELD_MESSAGE);
    let mut length = text.len();
    while length > 0x7f {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(text.as_bytes());

    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// The text of an `Echo` message; other fields and other messages have none.
pub(crate) fn text(message: &[u8]) -> String {
    let Some((&FIELD_MESSAGE, rest)) = message.split_first() else { return String::new() };
    let mut length = 0;
    for (i, byte) in rest.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let text = rest.get(i + 1..i + 1 + length).unwrap_or_default();
            return String::from_utf8_lossy(text).into_owned();
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_out_of_its_frame_however_the_bytes_arrive() {
        let long = "x".repeat(300);
        let bytes = [frame("hello"), frame(&long)].concat();
        let mut frames = Frames::default();
        let mut texts = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            while let Some(message) = frames.next().unwrap() {
                texts.push(text(&message));
            }
        }
        assert_eq!(texts, ["hello".to_owned(), long]);
    }

    #[test]
    fn hostile_frames_are_refused_or_read_as_nothing() {
        let mut frames = Frames::default();
        frames.push(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.push(&[1, 0, 0, 0, 0]);
        assert!(frames.next().is_err());
        assert_eq!(text(&[FIELD_MESSAGE, 200, 200, 200, 200, 200]), "");
        assert_eq!(text(&[FIELD_MESSAGE, 9, b'x']), "");
    }
}
