//! Bytes to a port that sends them back: as many as there is room for, or one for each connection.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{LoadError, Loop, connect, measure::Measured};

/// How much is written at once.
const BLOCK: usize = 64 * 1024;
/// How many blocks are under way.
const WINDOW: usize = 4;

/// Blocks over one connection; a request is a block that came back.
pub(crate) async fn bytes(args: Loop, end: Instant) -> Result<Measured, LoadError> {
    let stream = connect(&args.url).await?;
    let (mut read, mut write) = stream.into_split();
    let (permits, mut allowed) = tokio::sync::mpsc::channel(WINDOW);
    let writer = tokio::spawn(async move {
        let block = vec![b'x'; BLOCK];
        while Instant::now() < end {
            // Taken out again when a block has come back; the reader leaves when we do.
            if permits.send(Instant::now()).await.is_err() || write.write_all(&block).await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
    });
    let mut measured = Measured::default();
    let mut block = vec![0; BLOCK];
    while let Some(sent) = allowed.recv().await {
        read.read_exact(&mut block).await?;
        measured.bytes += BLOCK as u64;
        measured.latencies.push(sent.elapsed());
    }
    let _ = writer.await;
    Ok(measured)
}

/// Connections one after the other, with a byte there and back.
pub(crate) async fn connections(args: Loop, end: Instant) -> Result<Measured, LoadError> {
    let mut measured = Measured::default();
    while Instant::now() < end {
        let begin = Instant::now();
        let mut stream = connect(&args.url).await?;
        stream.write_all(b"x").await?;
        stream.read_u8().await?;
        measured.latencies.push(begin.elapsed());
        // Ended by us, and orderly: whoever forwards sees an end, not a reset.
        stream.shutdown().await?;
        if stream.read(&mut [0; 1]).await? != 0 {
            measured.errors += 1;
        }
    }
    Ok(measured)
}
