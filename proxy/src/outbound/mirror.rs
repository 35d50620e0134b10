//! Copies of requests for `RequestMirror`: sent to one endpoint each, in tasks of their own, and their
//! answers read and dropped.
//!
//! A copy never delays or fails the request that it was taken of: it is left out where too many are on the
//! way, and given up where its backend is slower than the request's own (see [`crate::http::tap`]).

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::poll_fn;
use gamut_route::table::AppProtocol;
use http::request::Parts;
use tokio::time::timeout;

use super::{
    Outbound,
    send::{Hop, Outgoing},
    service::Mirror,
};
use crate::{
    balance::Picked,
    http::{Body, HttpVersion, headers::Wishes, tap::tap},
};

/// How many copies may be on the way in one sidecar.
pub(super) const MAX_IN_FLIGHT: usize = 256;
/// How long a copy may take, its answer included.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends the copies that the samplers choose, and returns the body for the request itself.
pub(super) fn mirror<'m>(
    outbound: &Outbound,
    mirrors: impl Iterator<Item = &'m Mirror>,
    client: (IpAddr, HttpVersion),
    authority: &str,
    head: &Parts,
    mut body: Body,
) -> Body {
    for mirror in mirrors.filter(|mirror| mirror.sampler.takes(rand::random())) {
        let Some(picked) = mirror.cluster.pick(client.0, &[]) else { continue };
        let Ok(permit) = Arc::clone(&outbound.0.mirrors).try_acquire_owned() else { continue };
        let (original, copy) = tap(body);
        body = original;
        let version = upstream_version(mirror.cluster.protocol(), client.1);
        let outgoing = Outgoing::new(head.clone(), copy, false);
        let (outbound, authority) = (outbound.clone(), authority.to_owned());
        tokio::spawn(async move {
            let _permit = permit;
            let sending = send(&outbound, &picked, version, &authority, outgoing);
            if timeout(PATIENCE, sending).await.is_err() {
                tracing::debug!(endpoint = %picked.address(), "a mirror took too long");
            }
        });
    }
    body
}

async fn send(
    outbound: &Outbound,
    picked: &Picked,
    version: HttpVersion,
    authority: &str,
    mut outgoing: Outgoing,
) {
    let hop = Hop { connector: &outbound.0.connector, version, wishes: &Wishes::default(), authority };
    match hop.send(&mut outgoing, picked, false).await {
        Ok(mut response) => {
            // Read to its end, so that the connection can be used again.
            let body = response.body_mut();
            while let Some(Ok(_)) =
                poll_fn(|cx| http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), cx)).await
            {
            }
        }
        Err(failure) => tracing::debug!(endpoint = %picked.address(), "a mirror failed: {}", failure.why),
    }
}

/// What is spoken to a backend: HTTP/2 where its port is said to speak nothing else, else what the client
/// speaks.
pub(super) fn upstream_version(backend: AppProtocol, client: HttpVersion) -> HttpVersion {
    if backend == AppProtocol::Http2 { HttpVersion::H2 } else { client }
}
