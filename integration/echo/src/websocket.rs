//! As much of WebSocket (RFC 6455) as an echo needs: the handshake's proof, and frames of up to a mebibyte, unfragmented.

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAX_FRAME: u64 = 1 << 20;

/// A frame's meaning (RFC 6455, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// One unfragmented frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
pub(crate) fn accept(key: &[u8]) -> String {
    let proof = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    BASE64_STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &proof))
}

/// Sends back every frame as it came, answers pings, and ends with the peer's close frame.
pub(crate) async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut frame = read(&mut stream).await?;
        let last = frame.opcode == Opcode::Close;
        if frame.opcode == Opcode::Ping {
            frame.opcode = Opcode::Pong;
        }
        write(&mut stream, &frame, None).await?;
        if last {
            return stream.shutdown().await;
        }
    }
}

/// Reads one frame, unmasked.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let head = stream.read_u8().await?;
    let opcode = match head {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8a => Opcode::Pong,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("WebSocket frame with head {head:#x}"),
            ));
        }
    };
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => stream.read_u16().await?.into(),
        127 => stream.read_u64().await?,
        length => length.into(),
    };
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket frame of {length} bytes")));
    }
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    apply(mask, &mut payload);
    Ok(Frame { opcode, payload })
}

/// Writes one frame; clients must mask (section 5.3), servers must not.
pub(crate) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    frame: &Frame,
    mask: Option<[u8; 4]>,
) -> io::Result<()> {
    let mut bytes = vec![match frame.opcode {
        Opcode::Text => 0x81,
        Opcode::Binary => 0x82,
        Opcode::Close => 0x88,
        Opcode::Ping => 0x89,
        Opcode::Pong => 0x8a,
    }];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match frame.payload.len() {
        length @ ..126 => bytes.push(masked | length as u8),
        length @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let start = bytes.len() + mask.map_or(0, |mask| mask.len());
    bytes.extend(mask.iter().flatten());
    bytes.extend(&frame.payload);
    if let Some(payload) = bytes.get_mut(start..) {
        apply(mask.unwrap_or_default(), payload);
    }
    stream.write_all(&bytes).await?;
    stream.flush().await
}

fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshakes_proof_is_that_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_of_every_length_come_back_and_close_ends_the_echo() {
        let (mut client, server) = tokio::io::duplex(1 << 12);
        let server = tokio::spawn(echo(server));
        for length in [0, 125, 126, 0xffff, 0x1_0000] {
            let frame = Frame { opcode: Opcode::Binary, payload: vec![7; length] };
            let (mut read_half, mut write_half) = tokio::io::split(&mut client);
            let (sent, received) =
                tokio::join!(write(&mut write_half, &frame, Some([1, 2, 3, 4])), read(&mut read_half));
            sent.unwrap();
            assert_eq!(received.unwrap(), frame);
        }
        let close = Frame { opcode: Opcode::Close, payload: Vec::new() };
        write(&mut client, &close, Some([9; 4])).await.unwrap();
        assert_eq!(read(&mut client).await.unwrap(), close);
        server.await.unwrap().unwrap();
    }
}
