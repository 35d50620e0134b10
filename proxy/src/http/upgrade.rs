//! WebSocket and other upgrades: after a 101 from upstream, and only then, both connections become one byte
//! stream.
//!
//! Whatever either side sent right behind its head is not lost: hyper hands it over with the connection.

use std::io;

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::{body::Body, h1::Upgraded};
use crate::tcp;

/// A client's half of a possible upgrade, kept while its request is on the way.
pub struct Offer(OnUpgrade);

impl Offer {
    /// Takes the client's half out of a request as hyper's server made it.
    pub fn of<B>(request: &mut Request<B>) -> Self {
        Self(hyper::upgrade::on(request))
    }

    /// Takes the upstream's half out of its 101, and joins both in a task of its own once the 101 has been
    /// sent to the client. Each side's end is passed on by itself. `guard` lasts as long as what they have to
    /// say to each other.
    pub fn accept(self, answer: &mut Response<Body>, guard: impl Send + 'static) {
        let Body::Upgraded(upstream) = std::mem::take(answer.body_mut()) else { return };
        tokio::spawn(async move {
            let _guard = guard;
            if let Err(error) = join(self.0, *upstream).await {
                tracing::debug!(%error, "an upgraded connection broke");
            }
        });
    }
}

async fn join(client: OnUpgrade, upstream: Upgraded) -> io::Result<()> {
    let halves = async { tokio::try_join!(client, upstream.into_stream()) };
    let (client, (first, upstream)) = halves.await.map_err(io::Error::other)?;
    let mut client = TokioIo::new(client);
    client.write_all(&first).await?;
    client.flush().await?;
    tcp::copy(client, upstream).await.end
}
