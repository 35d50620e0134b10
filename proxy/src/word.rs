//! What the sidecar that is called says on a connection for bytes (`gamut/2-tcp`) before anything else: whether the app
//! behind it took the connection.
//!
//! ```text
//! caller's sidecar                                    the pod's sidecar             app
//!        | ------------ TLS handshake -------------------> | ------ connection -----> |
//!        | <----------- one byte: '+' or '-' ------------- | <----- taken, or not --- |
//!        | <----------- bytes, both ways ----------------> | <----------------------> |
//! ```
//!
//! Bytes have no answer by which one could tell later that nobody took them. So the caller's sidecar reads nothing of its own
//! app before it has heard the word, and may call another endpoint until then: nothing is lost, and nothing is sent twice.
//! It costs a round trip between the two sidecars once for each connection; who waits for a server to speak first waits no
//! longer for it. A connection that ends before the word, or says anything else, hasn't come about.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Word {
    /// The app took the connection. Bytes follow.
    Taken = b'+',
    /// It took none. The end follows.
    NotTaken = b'-',
}

/// Says it to the caller's sidecar.
///
/// # Errors
/// The caller has gone.
pub async fn say(to: &mut (impl AsyncWrite + Unpin), word: Word) -> io::Result<()> {
    to.write_all(&[word as u8]).await?;
    to.flush().await
}

/// Waits until the other sidecar has said that its app took the connection. What it says behind that isn't touched.
///
/// # Errors
/// The app didn't take it, or the other sidecar hasn't said so: nothing that was sent would have been heard.
pub async fn hear(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let said = from.read_u8().await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it ended before a word about its app"),
        _ => error,
    })?;
    if said == Word::Taken as u8 {
        Ok(())
    } else if said == Word::NotTaken as u8 {
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, "its app took no connection"))
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it doesn't keep to the protocol: {said:#04x}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn what_is_said_is_heard_and_no_byte_of_what_follows() {
        let (mut near, mut far) = duplex(64);
        say(&mut far, Word::Taken).await.unwrap();
        far.write_all(b"220 ready").await.unwrap();
        drop(far);
        hear(&mut near).await.unwrap();
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "220 ready");
    }

    #[tokio::test]
    async fn everything_else_is_no_connection() {
        let (mut near, mut far) = duplex(64);
        say(&mut far, Word::NotTaken).await.unwrap();
        assert_eq!(hear(&mut near).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        for said in (0..=u8::MAX).filter(|said| ![b'+', b'-'].contains(said)) {
            far.write_all(&[said]).await.unwrap();
            assert_eq!(hear(&mut near).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{said}");
        }
        drop(far);
        assert_eq!(hear(&mut near).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
