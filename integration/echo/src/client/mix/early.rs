//! A POST that is answered before its body is whole, as by a server that has seen enough of it.
//!
//! One in two is refused (413) by an app that closes behind its answer, the other is granted by one that reads on. One in two waits for
//! its answer in the middle of the body, the other is still writing when it comes.

use tokio::{
    io::{AsyncBufRead, AsyncReadExt, AsyncWriteExt, BufReader},
    pin,
};

use super::session::Outcome;
use crate::{
    EchoError,
    client::{Target, stream},
};

/// How long the body is: longer than any window on its way.
const BYTES: usize = 1024 * 1024;

/// One such request, on a connection of its own: whether another may follow is up to whoever has answered.
pub(super) async fn exchange(target: &Target, number: u64, id: &str) -> Result<Outcome, EchoError> {
    let (status, then) = if number.is_multiple_of(2) { (413, "close") } else { (200, "read") };
    let waits = (number / 2).is_multiple_of(2);
    let mut connection = target.connect().await?;
    let head = format!(
        "POST /?early={then}&status={status} HTTP/1.1\r\nhost: {}\r\nx-echo-id: {id}\r\ncontent-length: {BYTES}\r\n\r\n",
        target.authority
    );
    connection.write_all(head.as_bytes()).await?;
    let (reader, mut writer) = connection.split();
    let body = vec![b'.'; BYTES];
    // Who has answered may take no more of it: that is no failure, and the answer is here all the same.
    let (got, content) = if waits {
        let (half, rest) = body.split_at(BYTES / 2);
        let _ = writer.write_all(half).await;
        let answer = answer(BufReader::new(reader)).await?;
        let _ = writer.write_all(rest).await;
        answer
    } else {
        let answer = answer(BufReader::new(reader));
        pin!(answer);
        tokio::select! {
            answer = &mut answer => answer?,
            _ = writer.write_all(&body) => answer.await?,
        }
    };
    Ok(if got != status {
        Outcome::Refused(format!("{got} {content}"))
    } else if !content.contains(id) {
        Outcome::Corrupt("another request's answer came back".to_owned())
    } else if !content.contains("Hostname=") {
        Outcome::Corrupt("an answer without its last line".to_owned())
    } else {
        Outcome::Good
    })
}

/// An answer's status and content.
async fn answer(mut reader: impl AsyncBufRead + Unpin) -> Result<(u16, String), EchoError> {
    let head = stream::read_head(&mut reader).await?;
    let no_answer = || EchoError::Protocol(format!("not an answer of known length: {head}"));
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(no_answer)?;
    let length = stream::headers(&head).get(http::header::CONTENT_LENGTH).cloned();
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok()).ok_or_else(no_answer)?;
    let mut content = vec![0; length];
    reader.read_exact(&mut content).await?;
    Ok((status, String::from_utf8_lossy(&content).into_owned()))
}
