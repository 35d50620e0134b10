//! The control socket's server: reads a request, has the node's loop answer it, writes the reply.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixListener as StdUnixListener,
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Interest},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::components::CONTROLLER_ADMIN;
use crate::{
    control::{Reply, Request, Status},
    linux::{descriptors, namespaces},
    net::http,
};

/// Where every sidecar's admin address is, inside of its pod.
const SIDECAR_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
/// Longer than any request.
const MAX_REQUEST: u64 = 64 * 1024;
/// Who connects asks at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request, and where its answer goes.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// The loop's answer.
pub(crate) enum Answer {
    /// As it is, with descriptors to send along.
    Reply(Reply, Vec<OwnedFd>),
    /// To be completed by asking these pods' sidecars: index in the status, process in the pod's network.
    Status(Box<Status>, Vec<(usize, i32)>),
    /// To be had from the sidecar in the network of this process, at this path.
    Sidecar(i32, String),
}

impl Answer {
    pub(crate) fn ok(value: impl serde::Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::Reply(Reply::Ok(value), Vec::new()),
            Err(error) => Self::error(error.to_string()),
        }
    }

    pub(crate) fn error(text: impl Into<String>) -> Self {
        Self::Reply(Reply::Error(text.into()), Vec::new())
    }
}

/// Over standard input, where `gamut up` has put the listening socket. Answers in the background.
pub(crate) fn serve_on_stdin(questions: mpsc::Sender<Question>) -> io::Result<()> {
    let listener = StdUnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let questions = questions.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, questions).await {
                            tracing::debug!(%error, "a client of the control socket broke off");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "the control socket can't accept"),
            }
        }
    });
    Ok(())
}

async fn serve(mut stream: UnixStream, questions: mpsc::Sender<Question>) -> io::Result<()> {
    if stream.peer_cred()?.uid() != 0 {
        let refusal = Reply::Error("only root may talk to the machine; run it with sudo".to_owned());
        return send(&stream, &refusal, &[]).await;
    }
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(MAX_REQUEST));
    timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let refusal = Reply::Error(format!("this request isn't understood: {error}"));
            return send(&stream, &refusal, &[]).await;
        }
    };
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("the node has ended");
    questions.send(Question { request, reply }).await.map_err(|_| gone())?;
    let answer = tokio::select! {
        answer = answer => answer.map_err(|_| gone())?,
        // A client that goes away while it waits drops its question.
        _ = closed(&mut stream) => return Ok(()),
    };
    let (reply, held) = match answer {
        Answer::Reply(reply, held) => (reply, held),
        Answer::Status(status, pods) => {
            let status = ask_others(*status, pods).await;
            (Reply::Ok(serde_json::to_value(status).map_err(io::Error::from)?), Vec::new())
        }
        Answer::Sidecar(process, path) => {
            let asked = tokio::task::spawn_blocking(move || ask_in(process, path)).await;
            (asked.map_err(io::Error::other)?.map_or_else(Reply::Error, Reply::Ok), Vec::new())
        }
    };
    let borrowed: Vec<BorrowedFd<'_>> = held.iter().map(OwnedFd::as_fd).collect();
    send(&stream, &reply, &borrowed).await
}

/// Waits until the other end closes. Whatever comes after the request line isn't asked for.
async fn closed(stream: &mut UnixStream) -> io::Result<()> {
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// The reply's line; the descriptors travel with its first part.
async fn send(stream: &UnixStream, reply: &Reply, held: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    let mut held = held;
    while !rest.is_empty() {
        let sent = stream.async_io(Interest::WRITABLE, || descriptors::send(stream, rest, held)).await?;
        rest = rest.get(sent..).unwrap_or_default();
        held = &[];
    }
    Ok(())
}

/// Asks the controller, and each sidecar's admin address from a thread in its pod's network.
async fn ask_others(mut status: Status, pods: Vec<(usize, i32)>) -> Status {
    status.controller = http::get_json(CONTROLLER_ADMIN, "/status").await.ok();
    let mut questions = JoinSet::new();
    for (index, process) in pods {
        questions.spawn_blocking(move || (index, ask_in(process, "/status".to_owned())));
    }
    while let Some(answered) = questions.join_next().await {
        let Ok((index, outcome)) = answered else { continue };
        let Some(pod) = status.pods.get_mut(index) else { continue };
        match outcome {
            Ok(answer) => pod.proxy = Some(answer),
            Err(problem) => pod.proxy_error = Some(problem),
        }
    }
    status
}

fn ask_in(process: i32, path: String) -> Result<Value, String> {
    let asked = namespaces::in_network_of(process, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(http::get_json(SIDECAR_ADMIN, &path))
    });
    asked.map_err(|error| error.to_string())?
}
