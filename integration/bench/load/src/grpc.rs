//! gRPC to the echo app, on h2 itself: calls of one message each way, and messages of one long call.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::task::JoinSet;

use crate::{LoadError, Loop, connect, header, measure::Measured};

/// `message Echo { string message = 1; }` with a hundred letters, in its frame: not compressed, 102 bytes.
fn message() -> Bytes {
    let mut frame = vec![0, 0, 0, 0, 102, 0x0a, 100];
    frame.resize(5 + 102, b'x');
    frame.into()
}

/// Calls, one after the other on each stream.
pub(crate) async fn calls(args: Loop, end: Instant) -> Result<Measured, LoadError> {
    on_streams(args, end, |args, mut client, end| async move {
        let mut measured = Measured::default();
        while Instant::now() < end {
            let begin = Instant::now();
            client = client.ready().await?;
            let (response, mut body) = client.send_request(request(&args)?, false)?;
            body.send_data(message(), true)?;
            let (mut answer, ok) = accepted(response.await?);
            while let Some(data) = answer.data().await {
                let _ = answer.flow_control().release_capacity(data?.len());
            }
            let status = answer.trailers().await?;
            match ok && is_zero(status.as_ref()) {
                true => measured.latencies.push(begin.elapsed()),
                false => measured.errors += 1,
            }
        }
        Ok(measured)
    })
    .await
}

/// One call on each stream: the next message goes out when the answer to the one before is here.
pub(crate) async fn messages(args: Loop, end: Instant) -> Result<Measured, LoadError> {
    on_streams(args, end, |args, client, end| async move {
        let mut measured = Measured::default();
        let mut client = client.ready().await?;
        let (response, mut body) = client.send_request(request(&args)?, false)?;
        // The echo app answers with its head before there is a message; a proxy may not pass it on before.
        body.send_data(message(), false)?;
        let (mut answer, ok) = accepted(response.await?);
        if !ok {
            return Err(LoadError::Answer("a status that isn't 200".to_owned()));
        }
        let mut buffer = BytesMut::new();
        read_message(&mut answer, &mut buffer).await?;
        while Instant::now() < end {
            let begin = Instant::now();
            body.send_data(message(), false)?;
            read_message(&mut answer, &mut buffer).await?;
            measured.latencies.push(begin.elapsed());
        }
        body.send_data(Bytes::new(), true)?;
        while let Some(data) = answer.data().await {
            let _ = answer.flow_control().release_capacity(data?.len());
        }
        if !is_zero(answer.trailers().await?.as_ref()) {
            measured.errors += 1;
        }
        Ok(measured)
    })
    .await
}

/// Runs a loop on each stream of one connection.
async fn on_streams<F>(
    args: Loop,
    end: Instant,
    work: impl Fn(Loop, SendRequest<Bytes>, Instant) -> F,
) -> Result<Measured, LoadError>
where
    F: Future<Output = Result<Measured, LoadError>> + Send + 'static,
{
    let (client, connection) = h2::client::handshake(connect(&args.url).await?).await?;
    let driver = tokio::spawn(connection);
    let mut streams = JoinSet::new();
    for _ in 0..args.streams {
        streams.spawn(work(args.clone(), client.clone(), end));
    }
    let mut all = Measured::default();
    while let Some(outcome) = streams.join_next().await {
        all.add_outcome(outcome);
    }
    driver.abort();
    Ok(all)
}

fn request(args: &Loop) -> Result<Request<()>, LoadError> {
    let mut request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(&args.url)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in args.headers.iter().filter_map(|text| header(text)) {
        request = request.header(name, value);
    }
    Ok(request.body(())?)
}

fn accepted(response: Response<RecvStream>) -> (RecvStream, bool) {
    let ok = response.status() == StatusCode::OK;
    (response.into_body(), ok)
}

/// `grpc-status: 0`, which is the only success there is.
fn is_zero(trailers: Option<&HeaderMap>) -> bool {
    trailers.and_then(|trailers| trailers.get("grpc-status")).is_some_and(|status| status == "0")
}

async fn read_message(answer: &mut RecvStream, buffer: &mut BytesMut) -> Result<(), LoadError> {
    loop {
        if let Some([_, length @ ..]) = buffer.first_chunk::<5>() {
            let whole = 5 + u32::from_be_bytes(*length) as usize;
            if buffer.len() >= whole {
                let _ = buffer.split_to(whole);
                return Ok(());
            }
        }
        let Some(data) = answer.data().await else {
            return Err(LoadError::Answer("the end of a call that goes on".to_owned()));
        };
        let data = data?;
        let _ = answer.flow_control().release_capacity(data.len());
        buffer.extend_from_slice(&data);
    }
}
