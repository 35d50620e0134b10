//! Bytes that come back as they are, on ports that don't speak HTTP.

use tokio::{
    io::{self, AsyncWriteExt},
    net::TcpStream,
};

/// Sends back what comes until the caller has sent its last byte.
pub(super) async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    if let Err(error) = io::copy(&mut read, &mut write).await {
        tracing::debug!(%error, "tcp");
    }
    let _ = write.shutdown().await;
}

/// Speaks first, and then echoes: a protocol that a proxy can't find out by waiting for the caller.
pub(super) async fn greet_and_echo(mut stream: TcpStream, hostname: String) {
    if stream.write_all(format!("220 {hostname} ready\r\n").as_bytes()).await.is_ok() {
        echo(stream).await;
    }
}
