//! The name server's sockets: UDP and TCP at the cluster's DNS address, answered from whatever zone is current.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use super::dns::Zone;

/// A client over TCP that is silent for this long has had its answers.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// The name server can't take its address.
#[derive(Debug, Error)]
#[error("the name server can't listen on {address}: {source}")]
pub(crate) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens, then answers in the background for as long as the runtime lives.
pub(crate) async fn serve(address: SocketAddr, zone: watch::Receiver<Arc<Zone>>) -> Result<(), ListenError> {
    let failed = |source| ListenError { address, source };
    let datagrams = UdpSocket::bind(address).await.map_err(failed)?;
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let turn = Arc::new(AtomicUsize::new(0));
    tokio::spawn(serve_datagrams(datagrams, zone.clone(), turn.clone()));
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(serve_stream(stream, zone.clone(), turn.clone()))),
                Err(error) => tracing::debug!(%error, "a connection to the name server was lost"),
            }
        }
    });
    Ok(())
}

async fn serve_datagrams(socket: UdpSocket, zone: watch::Receiver<Arc<Zone>>, turn: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        // Errors here are about single clients (an ICMP answer to an earlier reply).
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        let current = zone.borrow().clone();
        let question = buffer.get(..length).unwrap_or_default();
        if let Some(answer) = current.answer(question, true, turn.fetch_add(1, Ordering::Relaxed))
            && let Err(error) = socket.send_to(&answer, client).await
        {
            tracing::debug!(%client, %error, "a name server's answer was lost");
        }
    }
}

async fn serve_stream(mut stream: TcpStream, zone: watch::Receiver<Arc<Zone>>, turn: Arc<AtomicUsize>) {
    let conversation = async {
        // RFC 1035, section 4.2.2: each message has its length before it.
        while let Ok(Ok(length)) = timeout(TCP_IDLE, stream.read_u16()).await {
            let mut question = vec![0; length.into()];
            timeout(TCP_IDLE, stream.read_exact(&mut question)).await??;
            let current = zone.borrow().clone();
            let Some(answer) = current.answer(&question, false, turn.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let mut reply = length.to_be_bytes().to_vec();
            reply.extend(answer);
            stream.write_all(&reply).await?;
        }
        io::Result::Ok(())
    };
    if let Err(error) = conversation.await {
        tracing::debug!(%error, "a name server's client broke off");
    }
}
