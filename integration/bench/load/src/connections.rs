//! Connections themselves: many that are kept and do nothing, and the first use of a destination.

use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::{LoadError, Loop, authority, connect, measure::percentile};

#[derive(Clone, Debug, Args)]
pub(crate) struct FirstArgs {
    /// http://HOST[:PORT]/PATH, never used before
    #[arg(required = true)]
    urls: Vec<Uri>,
}

/// Makes connections, sends one request over each, and keeps them for a while. The line `held` says that all are there.
pub(crate) async fn hold(args: Loop) -> Result<Value, LoadError> {
    let mut held = Vec::new();
    for _ in 0..args.connections {
        held.push(request(&args.url).await?);
    }
    println!("held {}", held.len());
    tokio::time::sleep(args.duration()).await;
    let closed = held.iter().filter(|sender| sender.is_closed()).count();
    Ok(json!({"requests": held.len(), "errors": closed}))
}

/// Times the first request to each destination, and a second one. Both on a new connection: the difference is what
/// the proxy has to find out first.
pub(crate) async fn first(args: FirstArgs) -> Result<Value, LoadError> {
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for url in &args.urls {
        // The resolver's cache is nobody's business here.
        let (host, port) = authority(url)?;
        let resolved = tokio::net::lookup_host((host, port)).await.map(|mut all| all.next());
        resolved.map_err(|error| LoadError::Connect(host.to_owned(), error))?;
        first.push(timed(url).await?);
        later.push(timed(url).await?);
    }
    first.sort_unstable();
    later.sort_unstable();
    let of =
        |sorted: &[Duration]| json!({"p50_us": percentile(sorted, 0.5), "max_us": percentile(sorted, 1.0)});
    Ok(json!({"requests": 2 * args.urls.len(), "errors": 0, "first": of(&first), "later": of(&later)}))
}

async fn timed(url: &Uri) -> Result<Duration, LoadError> {
    let begin = Instant::now();
    request(url).await?;
    Ok(begin.elapsed())
}

/// One request on a new connection, which stays open for as long as what is returned.
async fn request(url: &Uri) -> Result<SendRequest<Empty<Bytes>>, LoadError> {
    let (host, _) = authority(url)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(url).await?)).await?;
    tokio::spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder().uri(path).header(HOST, host).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(LoadError::Answer(response.status().to_string()));
    }
    response.into_body().collect().await?;
    Ok(sender)
}
