//! What an attempt says about the health of its endpoint.
//!
//! | attempt | says |
//! |---|---|
//! | no connection; the other sidecar's app took none; `backendRequest` ran out | it failed |
//! | the connection broke under the request, here or behind the other sidecar | it failed, once for all requests on it |
//! | any answer of the app's, whatever its status | it is well |
//! | a kept connection that was closed, GOAWAY, REFUSED_STREAM; a client that broke off; out of file descriptors here | nothing |
//!
//! An app's 500, or 503, is never held against its endpoint: one URL that fails would eject half of a backend. Whether an
//! app can serve is for its readiness probe to say.

use http::Response;

use super::send::{Failure, Kind};
use crate::{
    balance::{Cluster, Failed, Picked},
    http::{
        Body, Reason,
        answer::{self, PROXY_ANSWER, Seen},
    },
};

/// Tells a cluster what became of an attempt at one of its endpoints.
pub(super) fn judge(cluster: &Cluster, picked: &Picked, attempted: &Result<Response<Body>, Failure>) {
    let failed = match attempted {
        Ok(response) => match app_that_cant(response, picked) {
            None => return cluster.answered(picked),
            Some(Seen::NoAnswer) => return,
            Some(Seen::Nothing) => Failed::Alone,
            Some(Seen::Broken | Seen::Perhaps) => Failed::Together,
        },
        Err(failure) => match failure.kind {
            Kind::Unconnected | Kind::Late => Failed::Alone,
            Kind::Unknown | Kind::Garbled => Failed::Together,
            Kind::NotDialled | Kind::Unprocessed | Kind::Stale | Kind::Anywhere => return,
        },
    };
    cluster.failed(picked, failed);
}

/// What an app has seen in whose place its sidecar answers because the app can't. What a sidecar answers for other
/// reasons, that the caller may not for example, is as good as the app's own.
fn app_that_cant(response: &Response<Body>, picked: &Picked) -> Option<Seen> {
    let reason = response.headers().get(PROXY_ANSWER).filter(|_| picked.is_meshed())?.as_bytes();
    let is = |wanted: Reason| reason.split(|&byte| byte == b';').next() == Some(wanted.as_str().as_bytes());
    let cant = is(Reason::AppConnect) || is(Reason::AppReset);
    answer::signal(response.headers()).filter(|_| cant).map(|signal| signal.seen)
}
